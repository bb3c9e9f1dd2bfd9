//! What goes wrong with tokenizers.

use std::path::PathBuf;

/// Why there is no tokenizer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// A file that cannot be read.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A file that is not what it should be.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A way to join tokens that is not understood.
    #[error("{}: decoder {decoder} is not understood", path.display())]
    UnknownDecoder {
        /// The file.
        path: PathBuf,
        /// The type of the decoder, and the field that matters.
        decoder: String,
    },
    /// The tokenizer has tokens that the model does not.
    #[error(
        "{}: has tokens up to {token}, and the model has a vocabulary of {vocab_size}; \
         they are not of the same model",
        path.display()
    )]
    LargerThanModel {
        /// The tokenizer's file.
        path: PathBuf,
        /// The largest token.
        token: u32,
        /// Tokens the model has.
        vocab_size: usize,
    },
}

/// Why a text has no tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text cannot be tokenized: {0}")]
pub struct EncodeError(pub String);
