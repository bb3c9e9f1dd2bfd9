//! Which GPUs there are, and which accounts may use them.

use std::fmt;

/// What an account has subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// For a person.
    Developer,
    /// For a company.
    Business,
    /// By contract.
    Enterprise,
}

impl Tier {
    const ALL: [Tier; 3] = [Tier::Developer, Tier::Business, Tier::Enterprise];

    /// Whether an account of this tier may deploy on such a GPU (S36). The
    /// specification gates two kinds and is silent on the others: they are for
    /// everyone, as a gate on them would be made up.
    #[must_use]
    pub fn may_use(self, gpu: GpuKind) -> bool {
        match gpu {
            GpuKind::A100Gb80 => matches!(self, Tier::Developer | Tier::Business),
            GpuKind::H100Gb80 => self == Tier::Enterprise,
            _ => true,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Developer => "developer",
            Tier::Business => "business",
            Tier::Enterprise => "enterprise",
        })
    }
}

/// A kind of GPU that can be asked for: the accelerator types of B09, and the B300.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuKind {
    /// NVIDIA A100 40 GB.
    A100Gb40,
    /// NVIDIA A100 80 GB.
    A100Gb80,
    /// NVIDIA H100 80 GB.
    H100Gb80,
    /// NVIDIA H200 141 GB.
    H200Gb141,
    /// NVIDIA B200 180 GB.
    B200Gb180,
    /// NVIDIA B300 288 GB.
    B300Gb288,
    /// NVIDIA A10G 24 GB.
    A10gGb24,
    /// NVIDIA L4 24 GB.
    L4Gb24,
    /// AMD MI300X 192 GB.
    Mi300xGb192,
    /// AMD MI325X 256 GB.
    Mi325xGb256,
    /// AMD MI350X 288 GB.
    Mi350xGb288,
    /// No GPU: the processor of a machine of one's own.
    Cpu,
}

impl fmt::Display for GpuKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GpuKind::A100Gb40 => "A100 40 GB",
            GpuKind::A100Gb80 => "A100 80 GB",
            GpuKind::H100Gb80 => "H100 80 GB",
            GpuKind::H200Gb141 => "H200 141 GB",
            GpuKind::B200Gb180 => "B200 180 GB",
            GpuKind::B300Gb288 => "B300 288 GB",
            GpuKind::A10gGb24 => "A10G 24 GB",
            GpuKind::L4Gb24 => "L4 24 GB",
            GpuKind::Mi300xGb192 => "MI300X 192 GB",
            GpuKind::Mi325xGb256 => "MI325X 256 GB",
            GpuKind::Mi350xGb288 => "MI350X 288 GB",
            GpuKind::Cpu => "processor",
        })
    }
}

/// The tiers that may use a GPU, as a sentence has them: `developer and business`.
pub(super) struct TiersOf(pub(super) GpuKind);

impl fmt::Display for TiersOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiers = Tier::ALL.into_iter().filter(|tier| tier.may_use(self.0));
        for (index, tier) in tiers.enumerate() {
            let and = if index == 0 { "" } else { " and " };
            write!(f, "{and}{tier}")?;
        }
        Ok(())
    }
}
