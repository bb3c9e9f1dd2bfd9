//! The engine that a command measures: what its arguments mean, for every command that starts one.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use clap::ValueEnum;
use foresail_core::step_time::AllReduce;
use foresail_engine::bench::cost::Formats;
use foresail_engine::config::{self, ModelConfig};
use foresail_engine::startup::{self, Device, DtypeChoice, ModelSource};
use foresail_scenarios::catalogue::gpus;

use crate::failure::Failure;

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

/// What computes so many ranks, and why it is not a GPU if nobody said so.
pub(crate) fn device(
    backend: Backend,
    threads: Option<NonZeroUsize>,
    ranks: usize,
) -> Result<(Device, Option<String>), Failure> {
    let cpu = Device::Cpu {
        threads: Some(threads.unwrap_or_else(|| threads_of(ranks))),
    };
    let device = match backend {
        Backend::Cpu => return Ok((cpu, None)),
        Backend::Cuda => Device::Cuda,
        Backend::SoftwareGpu => Device::SoftwareGpu,
        // Who names threads means the CPU.
        Backend::Auto if threads.is_some() => return Ok((cpu, None)),
        Backend::Auto => match startup::gpus() {
            Ok(_) => Device::Cuda,
            Err(error) => return Ok((cpu, Some(format!("the CPU computes: {error}")))),
        },
    };
    if threads.is_some() {
        let message = "--threads is for the CPU; leave it away with a GPU";
        return Err(Failure::Input(message.to_owned()));
    }
    Ok((device, None))
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

/// Where the model is from.
pub(crate) fn source(model: Option<&Path>, dummy: Option<&str>) -> Result<ModelSource, Failure> {
    match (model, dummy) {
        (Some(folder), None) => Ok(ModelSource::Folder(folder.to_owned())),
        (None, Some(shape)) => Ok(ModelSource::Dummy(shape.to_owned())),
        _ => Err(Failure::Input("name one of --model and --dummy".to_owned())),
    }
}

/// What the model is called in figures and in the profile.
pub(crate) fn model_name(model: Option<&Path>, dummy: Option<&str>) -> String {
    let folder = model.map(|folder: &Path| {
        // `.` and `..` have no name of their own.
        let whole: PathBuf = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let name = whole.file_name().unwrap_or(whole.as_os_str());
        name.to_string_lossy().into_owned()
    });
    folder
        .or_else(|| dummy.map(str::to_owned))
        .unwrap_or_default()
}

/// The number formats that the engine has with these arguments.
pub(crate) fn formats(
    dtype: Dtype,
    kv_dtype: Dtype,
    model: &ModelConfig,
    device: Device,
) -> Formats {
    use config::Dtype as Format;
    if device.is_gpu() {
        // What is otherwise is refused when it is started.
        return Formats {
            weights: Format::Bf16,
            kv: Format::Bf16,
        };
    }
    let weights = match dtype {
        Dtype::F32 => Format::F32,
        Dtype::Bf16 => Format::Bf16,
        Dtype::Auto if model.dtype == Format::Bf16 => Format::Bf16,
        Dtype::Auto => Format::F32,
    };
    let kv = match kv_dtype {
        Dtype::F32 => Format::F32,
        Dtype::Bf16 => Format::Bf16,
        Dtype::Auto => weights,
    };
    Formats { weights, kv }
}
