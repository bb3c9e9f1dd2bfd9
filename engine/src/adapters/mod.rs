//! LoRA adapters as Hugging Face's PEFT saves them: a folder with
//! `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter adds `scale * B (A x)` to projections of the model it was trained
//! on (Hu et al. 2021, arXiv:2106.09685). What would make it something else (DoRA,
//! biases, whole modules, ...) is refused with the name of the field that says
//! so: an adapter either does what PEFT would do with it, or is not loaded.
//!
//! ```text
//! adapter_config.json ── r, lora_alpha, target_modules ──┐
//! adapter_model.safetensors ── A and B of each target ───┴─> weights::Adapter
//! ```

mod error;
mod settings;
mod targets;
mod tensors;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use crate::config::ModelConfig;
use crate::weights::Adapter;

pub use self::error::AdapterError;
pub use self::settings::Settings;
use self::tensors::Reader;

/// What an adapter has to fit.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// What the model is called in messages: its folder, or its name.
    pub name: &'a str,
    /// Its dimensions.
    pub config: &'a ModelConfig,
    /// The largest rank that there is room for.
    pub rank_max: usize,
}

/// Reads the adapter in a folder, for use with a model.
///
/// # Errors
/// If it cannot be read, is not understood, or was made for another model. The
/// message names the file, and the field or the tensor.
pub fn load(name: &str, folder: &Path, base: &Base<'_>) -> Result<Adapter, AdapterError> {
    let settings = read_settings(folder)?;
    if settings.rank > base.rank_max {
        return Err(AdapterError::Rank {
            path: folder.join(CONFIG_FILE),
            rank: settings.rank,
            rank_max: base.rank_max,
        });
    }
    let path = folder.join(WEIGHTS_FILE);
    let bytes = read(&path)?;
    let reader = Reader::new(&path, &bytes, &settings, base)?;
    Ok(Adapter {
        name: name.to_owned(),
        rank: settings.rank,
        scale: settings.scale(),
        layers: reader.layers()?,
    })
}

/// Reads `adapter_config.json` in a folder, which is all that can be said of an
/// adapter without its model.
///
/// # Errors
/// If it cannot be read, or has what is not understood.
pub fn read_settings(folder: &Path) -> Result<Settings, AdapterError> {
    let path = folder.join(CONFIG_FILE);
    let text = read(&path)?;
    Settings::parse(&path, &text)
}

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The older form, a pickle, which can run code when it is read.
const PICKLE_FILE: &str = "adapter_model.bin";

fn read(path: &Path) -> Result<Vec<u8>, AdapterError> {
    fs::read(path).map_err(|source| {
        let pickle = path.with_file_name(PICKLE_FILE);
        if path.ends_with(WEIGHTS_FILE) && pickle.exists() {
            return AdapterError::Pickle { path: pickle };
        }
        AdapterError::Read {
            path: path.to_owned(),
            source,
        }
    })
}
