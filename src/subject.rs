//! The engine that a command measures: the arguments that name it and what they mean, for every such command.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use clap::{Args, ValueEnum};
use foresail_core::step_time::AllReduce;
use foresail_engine::bench::cost::Formats;
use foresail_engine::checkpoint::Checkpoint;
use foresail_engine::config::{self, ModelConfig};
use foresail_engine::startup::{self, Device, DtypeChoice, EngineSettings, ModelSource};
use foresail_scenarios::catalogue::gpus;

use crate::failure::Failure;

/// The engine that is measured.
#[derive(Debug, Args)]
pub(crate) struct Subject {
    #[command(flatten)]
    source: Source,

    /// What computes; `auto` is a GPU if there is one, else the CPU
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,

    /// Threads that compute on the CPU, of all ranks together [default: as many as there are cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Number format of the weights; `auto` is that of the checkpoint
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    dtype: Dtype,

    /// Number format of the KV cache; `auto` is that of the weights
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    kv_dtype: Dtype,

    /// Tokens a KV block holds [default: 16; cuda 64]
    #[arg(long, value_name = "TOKENS")]
    block_size: Option<NonZeroUsize>,
}

/// Where the model is from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// A model in a Hugging Face folder
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// Random weights in a shape of the catalogue, or `tiny`
    #[arg(long, value_name = "SHAPE")]
    dummy: Option<String>,
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Auto,
    Cpu,
    Cuda,
    /// The kernels of a GPU on a CPU, thousands of times slower: for rehearsals.
    #[value(hide = true)]
    SoftwareGpu,
}

/// A number format, or a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    Auto,
    F32,
    Bf16,
}

impl From<Dtype> for DtypeChoice {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Auto => Self::Auto,
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

impl Subject {
    /// Where the model is from.
    pub(crate) fn source(&self) -> Result<ModelSource, Failure> {
        match (&self.source.model, &self.source.dummy) {
            (Some(folder), None) => Ok(ModelSource::Folder(folder.clone())),
            (None, Some(shape)) => Ok(ModelSource::Dummy(shape.clone())),
            _ => Err(Failure::Input("name one of --model and --dummy".to_owned())),
        }
    }

    /// The model, without its weights.
    pub(crate) fn model(&self) -> Result<ModelConfig, Failure> {
        let checkpoint = match &self.source()? {
            ModelSource::Folder(folder) => Checkpoint::open(folder),
            ModelSource::Dummy(shape) => Checkpoint::dummy(shape, 0),
        };
        let checkpoint = checkpoint.map_err(|error| Failure::Input(error.to_string()))?;
        Ok(checkpoint.config().clone())
    }

    /// What the model is called in figures and in the profile.
    pub(crate) fn model_name(&self) -> String {
        let folder = self.source.model.as_ref().map(|folder| {
            // `.` and `..` have no name of their own.
            let whole = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            let name = whole.file_name().unwrap_or(whole.as_os_str());
            name.to_string_lossy().into_owned()
        });
        folder
            .or_else(|| self.source.dummy.clone())
            .unwrap_or_default()
    }

    /// What computes so many ranks, and why it is not a GPU if nobody said so.
    pub(crate) fn device(&self, ranks: usize) -> Result<(Device, Option<String>), Failure> {
        let cpu = Device::Cpu {
            threads: Some(self.threads.unwrap_or_else(|| threads_of(ranks))),
        };
        let device = match self.backend {
            Backend::Cpu => return Ok((cpu, None)),
            Backend::Cuda => Device::Cuda,
            Backend::SoftwareGpu => Device::SoftwareGpu,
            // Who names threads means the CPU.
            Backend::Auto if self.threads.is_some() => return Ok((cpu, None)),
            Backend::Auto => match startup::gpus() {
                Ok(_) => Device::Cuda,
                Err(error) => return Ok((cpu, Some(format!("the CPU computes: {error}")))),
            },
        };
        if self.threads.is_some() {
            let message = "--threads is for the CPU; leave it away with a GPU";
            return Err(Failure::Input(message.to_owned()));
        }
        Ok((device, None))
    }

    /// What the engine is started with as far as this says; the rest is what engines have on such a device.
    pub(crate) fn settings(&self, device: Device) -> Result<EngineSettings, Failure> {
        let defaults = EngineSettings::new(self.source()?).on(device);
        let block_size = self.block_size.map(NonZeroUsize::get);
        Ok(EngineSettings {
            dtype: self.dtype.into(),
            kv_dtype: self.kv_dtype.into(),
            block_size: block_size.unwrap_or(defaults.block_size),
            with_tokenizer: false,
            ..defaults
        })
    }

    /// The number formats that the engine has of this model.
    pub(crate) fn formats(&self, model: &ModelConfig, device: Device) -> Formats {
        use config::Dtype as Format;
        if device.is_gpu() {
            // What is otherwise is refused when it is started.
            return Formats {
                weights: Format::Bf16,
                kv: Format::Bf16,
            };
        }
        let weights = match self.dtype {
            Dtype::F32 => Format::F32,
            Dtype::Bf16 => Format::Bf16,
            Dtype::Auto if model.dtype == Format::Bf16 => Format::Bf16,
            Dtype::Auto => Format::F32,
        };
        let kv = match self.kv_dtype {
            Dtype::F32 => Format::F32,
            Dtype::Bf16 => Format::Bf16,
            Dtype::Auto => weights,
        };
        Formats { weights, kv }
    }
}

/// How long exchanges take between GPUs of this kind.
pub(crate) fn all_reduce(gpu: &str) -> Result<AllReduce, Failure> {
    let found = gpus::find(gpu).ok_or_else(|| {
        let known: Vec<_> = gpus::GPUS.iter().map(|gpu| gpu.name).collect();
        Failure::Input(format!(
            "--shard-alone: unknown GPU {gpu}; there are {}",
            known.join(", ")
        ))
    })?;
    Ok(found.spec().all_reduce)
}

/// As many threads as there are cores, or as many of them as ranks can share equally; one a rank at least.
fn threads_of(ranks: usize) -> NonZeroUsize {
    let cores = cores().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new((cores / ranks).max(1) * ranks).unwrap_or(NonZeroUsize::MIN)
}

fn cores() -> Option<NonZeroUsize> {
    thread::available_parallelism().ok()
}
