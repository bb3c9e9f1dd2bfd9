//! `foresail devices`: what could compute here, and what is missing for the rest.

use std::num::NonZeroUsize;
use std::thread;

use clap::ValueEnum;
use foresail_engine::bench::{self, GpuCeilings};
use foresail_engine::cpu::Isa;
use foresail_engine::cuda::gpu::{Gpu as _, Properties};
use foresail_engine::cuda::hardware::Hardware;
use foresail_engine::cuda::libraries::{Report, libraries};
use foresail_engine::startup::Device;
use serde::Serialize;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::terminal::{OutputFormat, Terminal};

/// Say what can compute here: the CPU, GPUs, and what is missing to use them
///
/// Libraries of CUDA are found at run time: in $FORESAIL_CUDA_PATH, where the system's loader looks,
/// in /usr/local/cuda*, and beside the PyTorch of an active Python environment.
///
/// For example:
///   foresail devices
///   foresail devices --measure cuda
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Measure what the first GPU's memory and matrix units can do
    #[arg(long, value_enum, value_name = "BACKEND")]
    measure: Option<Measured>,

    /// Text for people, or JSON for machines
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measured {
    Cuda,
    /// The kernels of a GPU on a CPU: for rehearsals.
    #[value(hide = true)]
    SoftwareGpu,
}

/// What there is.
#[derive(Debug, Serialize)]
struct Devices {
    cpu: Cpu,
    cuda: Cuda,
    measured: Option<Ceilings>,
}

#[derive(Debug, Serialize)]
struct Cpu {
    cores: usize,
    instructions: &'static str,
}

#[derive(Debug, Serialize)]
struct Cuda {
    gpus: Vec<Gpu>,
    /// Why there are none, or none that can be used.
    missing: Option<String>,
    libraries: Vec<Library>,
    libraries_missing: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Gpu {
    name: String,
    architecture: String,
    multiprocessors: u32,
    memory_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Library {
    name: &'static str,
    version: String,
    path: String,
}

#[derive(Debug, Serialize)]
struct Ceilings {
    name: String,
    read_bytes_per_s: f64,
    copy_bytes_per_s: f64,
    bf16_flops_per_s: f64,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let measured = arguments.measure.map(measure).transpose()?;
    let devices = Devices {
        cpu: cpu(),
        cuda: cuda(),
        measured,
    };
    let text = match arguments.format {
        OutputFormat::Text => text(&devices),
        OutputFormat::Json => {
            let json = serde_json::to_string_pretty(&devices);
            json.map_err(|error| Failure::Defect(format!("no JSON: {error}")))? + "\n"
        }
    };
    terminal.print(&text)?;
    Ok(ExitCode::Success)
}

fn measure(measured: Measured) -> Result<Ceilings, Failure> {
    let device = match measured {
        Measured::Cuda => Device::Cuda,
        Measured::SoftwareGpu => Device::SoftwareGpu,
    };
    let ceilings = bench::measure_gpu(device);
    let GpuCeilings {
        name,
        read_bytes_per_s,
        copy_bytes_per_s,
        bf16_flops_per_s,
    } = ceilings.map_err(|error| Failure::Input(error.to_string()))?;
    Ok(Ceilings {
        name,
        read_bytes_per_s,
        copy_bytes_per_s,
        bf16_flops_per_s,
    })
}

fn cpu() -> Cpu {
    Cpu {
        cores: thread::available_parallelism().map_or(1, NonZeroUsize::get),
        instructions: match Isa::detect() {
            Isa::Avx512 => "AVX-512",
            Isa::Avx2 => "AVX2",
            Isa::Portable => "portable vectors",
        },
    }
}

fn cuda() -> Cuda {
    let opened = Hardware::count().and_then(|count| {
        let gpus = (0..count).map(|ordinal| Ok(gpu(Hardware::open(ordinal)?.properties())));
        gpus.collect::<Result<Vec<_>, _>>()
    });
    // What was looked for until here is known now.
    let Report { found, missing } = libraries().report();
    let library = |found: &foresail_engine::cuda::libraries::Found| Library {
        name: found.kind.name(),
        version: found.version.clone(),
        path: found.path.display().to_string(),
    };
    let (gpus, reason) = match opened {
        Ok(gpus) => (gpus, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    Cuda {
        gpus,
        missing: reason,
        libraries: found.iter().map(library).collect(),
        libraries_missing: missing.iter().map(ToString::to_string).collect(),
    }
}

fn gpu(properties: &Properties) -> Gpu {
    let (major, minor) = properties.architecture;
    Gpu {
        name: properties.name.clone(),
        architecture: format!("sm_{major}{minor}"),
        multiprocessors: properties.multiprocessors,
        memory_bytes: properties.memory_bytes,
    }
}

fn text(devices: &Devices) -> String {
    let Devices {
        cpu,
        cuda,
        measured,
    } = devices;
    let mut lines = vec![format!("cpu   {} cores, {}", cpu.cores, cpu.instructions)];
    for gpu in &cuda.gpus {
        lines.push(format!(
            "cuda  {}, {}, {} multiprocessors, {:.0} GiB",
            gpu.name,
            gpu.architecture,
            gpu.multiprocessors,
            gpu.memory_bytes as f64 / f64::from(1 << 30)
        ));
    }
    if let Some(missing) = &cuda.missing {
        lines.push(format!("cuda  not usable: {missing}"));
    }
    for library in &cuda.libraries {
        let Library {
            name,
            version,
            path,
        } = library;
        lines.push(format!("      {name} {version}: {path}"));
    }
    let said = cuda.missing.as_ref();
    let others = cuda.libraries_missing.iter();
    for missing in others.filter(|missing| Some(*missing) != said) {
        lines.push(format!("      {missing}"));
    }
    if let Some(measured) = measured {
        lines.push(format!(
            "{}: read {:.2} TB/s, copy {:.2} TB/s, bf16 products {:.0} TFLOP/s",
            measured.name,
            measured.read_bytes_per_s / 1e12,
            measured.copy_bytes_per_s / 1e12,
            measured.bf16_flops_per_s / 1e12
        ));
    }
    lines.join("\n") + "\n"
}
