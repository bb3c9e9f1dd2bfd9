//! Why an adapter is not loaded.

use std::io;
use std::path::PathBuf;

/// Why an adapter is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file is not there, or cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Weights only in the form that can run code when it is read.
    #[error(
        "{}: pickled weights are not read, as reading them can run code; \
         save the adapter again with safe_serialization=True",
        path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A file is not what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A field of the configuration has a value that is not understood.
    #[error("{}: {field} is {value}; {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What it says, as JSON.
        value: String,
        /// What it may say.
        expected: String,
    },
    /// More rank than there is room for.
    #[error(
        "{}: r is {rank}; adapters up to rank {rank_max} are taken, which --max-lora-rank sets",
        path.display()
    )]
    Rank {
        /// The file.
        path: PathBuf,
        /// The adapter's rank.
        rank: usize,
        /// The largest that is taken.
        rank_max: usize,
    },
    /// A tensor that cannot be used as it is.
    #[error("{}: tensor {tensor}: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The adapter is one of another model.
    #[error(
        "{}: the adapter was made for {adapter_base} and does not fit {model}: {reason}",
        path.display()
    )]
    Base {
        /// The file.
        path: PathBuf,
        /// The model that the adapter's configuration names.
        adapter_base: String,
        /// The model that is served.
        model: String,
        /// Where they differ.
        reason: String,
    },
}
