//! Where weights come from: a Hugging Face folder, or nothing (dummy weights).
//!
//! ```text
//!  config.json ───────> config_json ──> ModelConfig ──> layout: names, shapes, splits
//!                                                          │
//!  *.safetensors ─────> SafetensorsFiles ──┐               v
//!                                          ├─ pieces ──> load ─ HostMatrix ─> pack ──> Weights
//!  seed, name, index ─> DummyWeights ──────┘                    (of one rank)
//! ```
//!
//! A rank reads only its own part of each tensor. Whatever is not understood is
//! refused with the file and the field or tensor that it is about.

mod decode;
mod error;
mod family;
mod fields;
mod files;
mod header;
mod load;
mod rotary;

pub mod config_json;
pub mod dummy;
pub mod layout;
pub mod safetensors_files;
pub mod shapes;
#[doc(hidden)]
pub mod test_support;
#[cfg(test)]
mod tests;

pub use dummy::DummyWeights;
pub use error::{CheckpointError, ConfigError, ConfigProblem};
pub use load::{TensorSource, WeightFormat, load, weight_bytes};
pub use safetensors_files::SafetensorsFiles;

use std::path::Path;

use crate::config::{Dtype, ModelConfig, Partition};
use crate::ops::Role;
use crate::weights::{HostMatrix, Weights};

/// A model that can be loaded: what it is, and where its weights come from.
#[derive(Debug)]
pub struct Checkpoint {
    config: ModelConfig,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Files(SafetensorsFiles),
    Dummy(DummyWeights),
}

impl Checkpoint {
    /// Opens a Hugging Face folder: understands its configuration, and checks
    /// that its files have the tensors that belong to it. Values are not read yet.
    ///
    /// # Errors
    /// If something is missing or not understood.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let files = SafetensorsFiles::open_folder(folder)?;
        // A file that does not say means the format that its weights have, as `dtype="auto"` of transformers.
        let usual = SafetensorsFiles::dtype(&files, layout::EMBEDDING_NAME);
        let config = config_json::read(folder, usual.unwrap_or(Dtype::F32))?;
        files.check(&config)?;
        files.check_tied(&config)?;
        let source = Source::Files(files);
        Ok(Self { config, source })
    }

    /// A model with dummy weights: `tiny`, or a dense shape of the catalogue.
    ///
    /// # Errors
    /// If there is no such shape.
    pub fn dummy(shape: &str, seed: u64) -> Result<Self, CheckpointError> {
        let config = shapes::find(shape)?;
        let dtype = config.dtype;
        let source = Source::Dummy(DummyWeights { seed, dtype });
        Ok(Self { config, source })
    }

    /// What the model is.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Loads the weights of one rank. `pack` brings each matrix into the device's form.
    /// Ranks may load at the same time.
    ///
    /// # Errors
    /// If the model cannot be split so, or a file cannot be read.
    pub fn load<M>(
        &self,
        partition: Partition,
        format: WeightFormat,
        pack: impl FnMut(HostMatrix, Role) -> M,
    ) -> Result<Weights<M>, CheckpointError> {
        match &self.source {
            Source::Files(files) => load(files, &self.config, partition, format, pack),
            Source::Dummy(dummy) => load(dummy, &self.config, partition, format, pack),
        }
    }
}
