//! What can be wrong with a checkpoint. Every message names the file, and the field or the tensor in it.

use std::io;
use std::path::PathBuf;

use crate::config::PartitionError;

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file or folder that is not there, or cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder without weights that can be read.
    #[error("{}: {reason}", folder.display())]
    NoWeights {
        /// Which.
        folder: PathBuf,
        /// What is there, and what should be.
        reason: String,
    },
    /// A configuration that is not understood.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of weights that is not one, or not all of it.
    #[error("{}: {reason}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that its file describes wrongly, or that cannot be read.
    #[error("{}: tensor {tensor}: {reason}", file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor of another size than the configuration says.
    #[error("{}: tensor {tensor} is {found:?}, and by config.json it is {expected:?}", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<usize>,
        /// Its shape in the file.
        found: Vec<usize>,
    },
    /// A number format that is not computed with.
    #[error("{}: tensor {tensor} is {dtype}; supported: F32, BF16, F16", file.display())]
    Dtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its format.
        dtype: String,
    },
    /// Tensors that the model needs, and that no file has.
    #[error("{}: {} missing: {}", folder.display(), count(tensors.len()), first(tensors))]
    Missing {
        /// Where they should be.
        folder: PathBuf,
        /// All of them.
        tensors: Vec<String>,
    },
    /// Tensors that the model does not have by its configuration, so that computing without them would be wrong.
    #[error("{}: {} that config.json does not account for: {}", folder.display(), count(tensors.len()), first(tensors))]
    Unexpected {
        /// Where they are.
        folder: PathBuf,
        /// All of them.
        tensors: Vec<String>,
    },
    /// The same tensor twice.
    #[error("tensor {tensor} is in {} and in {}; one of them is not of this model", first.display(), second.display())]
    Twice {
        /// The tensor.
        tensor: String,
        /// A file that has it.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// No such shape.
    #[error("there is no model shape {name}; there are tiny, and: {}", known.join(", "))]
    UnknownShape {
        /// What was asked for.
        name: String,
        /// The shapes of the catalogue that can be computed with.
        known: Vec<&'static str>,
    },
    /// A shape of the catalogue that is not of a supported family.
    #[error("{name}: {reason}")]
    UnsupportedShape {
        /// Which.
        name: &'static str,
        /// What is not supported.
        reason: &'static str,
    },
    /// More ranks than the model can be split over.
    #[error(transparent)]
    Partition(#[from] PartitionError),
}

/// How many names a message lists.
const LISTED_MAX: usize = 10;

fn count(tensors: usize) -> String {
    match tensors {
        1 => "1 tensor".to_owned(),
        more => format!("{more} tensors"),
    }
}

fn first(tensors: &[String]) -> String {
    let listed = &tensors[..tensors.len().min(LISTED_MAX)];
    let rest = tensors.len() - listed.len();
    let names = listed.join(", ");
    if rest == 0 {
        names
    } else {
        format!("{names}, and {rest} more")
    }
}

/// A field of a configuration file that is not understood.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong in it.
    pub problem: ConfigProblem,
}

/// What can be wrong in a configuration file. `field` has dots where objects are nested.
#[derive(Debug, thiserror::Error)]
pub enum ConfigProblem {
    /// Not JSON, or not an object.
    #[error("{0}")]
    Json(String),
    /// A field that has to be there.
    #[error("{field} is missing; expected {expected}")]
    Missing {
        /// The field.
        field: String,
        /// What it should be.
        expected: String,
    },
    /// A value that means something that is not supported, or nothing.
    #[error("{field} is {value}; expected {expected}")]
    Value {
        /// The field.
        field: String,
        /// Its value, as JSON, shortened.
        value: String,
        /// What it should be.
        expected: String,
    },
}
