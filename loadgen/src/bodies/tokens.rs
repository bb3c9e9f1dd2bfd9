//! How texts become tokens: what a load generator has to know of a model's tokenizer.

use std::fmt;
use std::sync::Arc;

/// A model's tokenizer, as far as prompts of a given length need it.
///
/// `encode` is of the text alone, without the tokens that a model expects
/// around every text; those are [`TokenCounter::frame`].
pub trait TokenCounter: Send + Sync {
    /// The tokens of a text, or `None` if the tokenizer has none for it.
    fn encode(&self, text: &str) -> Option<Vec<u32>>;

    /// The text of tokens. Those that are marks rather than text, such as the
    /// end of a sequence, have none.
    fn decode(&self, tokens: &[u32]) -> String;

    /// How many tokens there are: `0..vocabulary_size` are looked at to find
    /// some that words can be made of. 0 if it is not known.
    fn vocabulary_size(&self) -> u32 {
        0
    }

    /// What the endpoint adds around the text of a request in this form, such as
    /// the beginning of a sequence or a chat template.
    fn frame(&self, form: Form) -> Frame {
        let _ = form;
        Frame::default()
    }
}

/// In which form a prompt is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As text, to `/v1/completions`.
    #[default]
    Completions,
    /// As the message of a user, to `/v1/chat/completions`.
    Chat,
}

/// Tokens that an endpoint adds around a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Tokens before it.
    pub before: u32,
    /// Tokens behind it.
    pub after: u32,
}

/// How tokens are counted.
#[derive(Clone)]
pub enum Counting {
    /// By the model's tokenizer, exactly.
    Exact(Arc<dyn TokenCounter>),
    /// By bytes, about.
    Bytes {
        /// Bytes of a token, from 2 to 64; see [`BYTES_PER_TOKEN`].
        bytes_per_token: f64,
    },
}

/// Bytes of a token of a made-up prompt where nothing is known of the model.
///
/// Such a prompt is made of four-letter words with a space before each, and each of
/// those is one token of every vocabulary that it was looked up in; see `words.rs`.
/// Texts of people have fewer bytes a token, about 4 in English (OpenAI, "What are
/// tokens and how to count them?"), which is the better number for a dataset.
pub const BYTES_PER_TOKEN: f64 = 5.0;

impl Default for Counting {
    fn default() -> Self {
        Self::Bytes {
            bytes_per_token: BYTES_PER_TOKEN,
        }
    }
}

impl Counting {
    /// Whether counts are those of the model.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }

    /// Tokens of a text, at least 1; `None` if the tokenizer cannot tell.
    #[must_use]
    pub fn count(&self, text: &str) -> Option<u32> {
        let count = match self {
            Self::Exact(counter) => u32::try_from(counter.encode(text)?.len()).ok()?,
            // Saturates, far above any text.
            Self::Bytes { bytes_per_token } => (text.len() as f64 / bytes_per_token).round() as u32,
        };
        Some(count.max(1))
    }

    /// What the endpoint adds around a text, as far as that is known.
    pub(crate) fn frame(&self, form: Form) -> Frame {
        match self {
            Self::Exact(counter) => counter.frame(form),
            Self::Bytes { .. } => Frame::default(),
        }
    }
}

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(_) => f.write_str("Exact"),
            Self::Bytes { bytes_per_token } => write!(f, "Bytes({bytes_per_token})"),
        }
    }
}
