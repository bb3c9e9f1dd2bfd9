//! GPUs by name. Their figures are in `foresail_core::step_time`.

use foresail_core::control::lifecycle::GpuKind;
use foresail_core::step_time::Gpu;

use super::normalise;

/// A GPU that a deployment can have.
#[derive(Clone, Copy, Debug)]
pub struct GpuEntry {
    /// The name that a scenario uses.
    pub name: &'static str,
    /// Other names, such as Fireworks' accelerator types.
    pub aliases: &'static [&'static str],
    /// The name that people know.
    pub title: &'static str,
    /// The accelerator type of a deployment.
    pub kind: GpuKind,
    /// Memory as CUDA reports it (bytes): the "80 GB" of a name is nominal.
    pub memory_bytes: u64,
    /// Peaks, efficiencies and interconnect.
    figures: fn() -> Gpu,
}

impl GpuEntry {
    /// The figures that step times and memory depend on.
    #[must_use]
    pub fn spec(&self) -> Gpu {
        Gpu {
            memory_bytes: self.memory_bytes,
            ..(self.figures)()
        }
    }
}

/// The GPU of this name, if there is one.
#[must_use]
pub fn find(name: &str) -> Option<&'static GpuEntry> {
    let wanted = normalise(name);
    GPUS.iter()
        .find(|gpu| gpu.name == wanted || gpu.aliases.contains(&wanted.as_str()))
}

/// A processor in a GPU's place, for our own engine on one: `gpu = "cpu"`. Nothing is known of it but what
/// is measured; its memory is as much as the KV blocks that the scenario gives it.
pub const CPU: GpuEntry = GpuEntry {
    name: "cpu",
    aliases: &[],
    title: "processor",
    kind: GpuKind::Cpu,
    memory_bytes: 1 << 50,
    // Nobody asks for them: without measured step times, scenarios of processors are refused.
    figures: Gpu::h100,
};

/// [`CPU`], if that is what is asked for.
#[must_use]
pub fn find_cpu(name: &str) -> Option<&'static GpuEntry> {
    (normalise(name) == CPU.name).then_some(&CPU)
}

/// A binary gibibyte hundredth, so that the figures below read as CUDA prints them.
const fn gib_hundredths(hundredths: u64) -> u64 {
    hundredths * (1 << 30) / 100
}

/// Every GPU, from small to large.
///
/// Memory is what PyTorch prints in "GPU 0 has a total capacity of 79.10 GiB",
/// as seen in public issue reports of vLLM for each of these GPUs.
pub const GPUS: &[GpuEntry] = &[
    GpuEntry {
        name: "a100",
        aliases: &["a100-80", "a100-80gb", "nvidia-a100-80gb"],
        title: "NVIDIA A100 80 GB SXM4",
        kind: GpuKind::A100Gb80,
        memory_bytes: gib_hundredths(7_915),
        figures: Gpu::a100_80gb,
    },
    GpuEntry {
        name: "h100",
        aliases: &["h100-80", "h100-80gb", "nvidia-h100-80gb"],
        title: "NVIDIA H100 80 GB SXM5",
        kind: GpuKind::H100Gb80,
        memory_bytes: gib_hundredths(7_910),
        figures: Gpu::h100,
    },
    GpuEntry {
        name: "h200",
        aliases: &["h200-141", "h200-141gb", "nvidia-h200-141gb"],
        title: "NVIDIA H200 141 GB SXM5",
        kind: GpuKind::H200Gb141,
        memory_bytes: gib_hundredths(13_981),
        figures: Gpu::h200,
    },
    GpuEntry {
        name: "b200",
        aliases: &["b200-180", "b200-180gb", "nvidia-b200-180gb"],
        title: "NVIDIA B200 180 GB SXM6",
        kind: GpuKind::B200Gb180,
        memory_bytes: gib_hundredths(17_835),
        figures: Gpu::b200,
    },
    GpuEntry {
        name: "b300",
        aliases: &["b300-288", "b300-288gb", "nvidia-b300-288gb"],
        title: "NVIDIA B300 288 GB SXM6",
        kind: GpuKind::B300Gb288,
        memory_bytes: gib_hundredths(26_768),
        figures: Gpu::b300,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_every_name() {
        for gpu in GPUS {
            for name in gpu.aliases.iter().chain([&gpu.name]) {
                assert_eq!(find(name).unwrap().name, gpu.name);
            }
        }
        assert_eq!(find("H100_80GB").unwrap().name, "h100");
        assert_eq!(find("NVIDIA_A100_80GB").unwrap().name, "a100");
        assert!(find("h1000").is_none());
    }

    #[test]
    fn larger_names_have_more_memory() {
        assert!(
            GPUS[1..]
                .windows(2)
                .all(|pair| pair[0].memory_bytes < pair[1].memory_bytes)
        );
    }
}
