//! The devices that are tested.

use std::sync::Arc;

use foresail_engine::backend::Limits;
use foresail_engine::comm::Comm;
use foresail_engine::config::ModelConfig;
use foresail_engine::cpu::{CpuOps, Isa};
use foresail_engine::ops::{KvFormat, Ops};
use foresail_engine::reference::ReferenceOps;

/// What a rank's operations are made from.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) config: Arc<ModelConfig>,
    pub(crate) limits: Limits,
    pub(crate) kv_format: KvFormat,
}

/// A kind of operations.
pub(crate) trait Device: Copy + Send + 'static {
    type Ops: Ops;

    /// The operations of one rank.
    fn open(self, setting: &Setting, comm: Box<dyn Comm>) -> Self::Ops;
}

/// The slow clear operations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference;

impl Device for Reference {
    type Ops = ReferenceOps;

    fn open(self, setting: &Setting, comm: Box<dyn Comm>) -> ReferenceOps {
        let config = Arc::clone(&setting.config);
        ReferenceOps::new(config, setting.limits, setting.kv_format, comm)
    }
}

/// The fast operations of a processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    pub(crate) isa: Isa,
    pub(crate) threads: usize,
}

impl Cpu {
    /// As it is used: the best instructions, on threads.
    pub(crate) fn best() -> Self {
        Self {
            isa: Isa::detect(),
            threads: 2,
        }
    }

    /// As it is on a processor of which nothing is known.
    pub(crate) fn portable() -> Self {
        Self {
            isa: Isa::Portable,
            threads: 1,
        }
    }
}

impl Device for Cpu {
    type Ops = CpuOps;

    fn open(self, setting: &Setting, comm: Box<dyn Comm>) -> CpuOps {
        let config = Arc::clone(&setting.config);
        let (limits, kv_format) = (setting.limits, setting.kv_format);
        CpuOps::new(config, limits, kv_format, comm, self.threads)
            .and_then(|ops| ops.with_isa(self.isa))
            .expect("a small model fits")
    }
}
