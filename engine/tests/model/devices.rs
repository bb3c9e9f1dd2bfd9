//! The devices that are tested.

use std::sync::Arc;

use foresail_engine::backend::{Limits, StepError};
use foresail_engine::batch::Batch;
use foresail_engine::comm::Comm;
use foresail_engine::config::ModelConfig;
use foresail_engine::cpu::{CpuOps, Isa};
use foresail_engine::ops::{KvFormat, Ops, Role};
use foresail_engine::reference::ReferenceOps;
use foresail_engine::weights::{Adapter, HostMatrix, Layer, Weights};

use crate::random_model::Draw;

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

/// The slow clear operations with what each of them gives (but for keys and values) off at random, by this seed: what
/// a model makes of rounding that is twice as coarse as bf16's.
///
/// A model of a few values a token is sensitive to it: where a sum comes near to zero, the norm after it
/// makes the little that is left, and all of its error, large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shaken(pub(crate) u64);

/// What a value is off by at most, as a share of it: bf16 rounds by at most 2^-8.
const SHAKEN_BY: f32 = 1.0 / 128.0;

pub(crate) struct ShakenOps {
    clear: ReferenceOps,
    draw: Draw,
}

impl Device for Shaken {
    type Ops = ShakenOps;

    fn open(self, setting: &Setting, comm: Box<dyn Comm>) -> ShakenOps {
        ShakenOps {
            clear: Reference.open(setting, comm),
            draw: Draw::new(self.0, "shaken"),
        }
    }
}

impl ShakenOps {
    fn shake(&mut self, values: &mut [f32]) {
        for value in values {
            *value *= 1.0 + SHAKEN_BY * self.draw.value();
        }
    }
}

impl Ops for ShakenOps {
    type Matrix = HostMatrix;
    type Buffer = Vec<f32>;

    fn pack(&mut self, matrix: HostMatrix, role: Role) -> HostMatrix {
        self.clear.pack(matrix, role)
    }

    fn buffer(&mut self, width: usize) -> Vec<f32> {
        self.clear.buffer(width)
    }

    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError> {
        self.clear.load_adapter(slot, adapter)
    }

    fn unload_adapter(&mut self, slot: usize) {
        self.clear.unload_adapter(slot);
    }

    fn read_logits(&mut self) -> Result<&[f32], StepError> {
        self.clear.read_logits()
    }

    fn embed(&mut self, weights: &Weights<HostMatrix>, batch: &Batch, x: &mut Vec<f32>) {
        self.clear.embed(weights, batch, x);
        self.shake(x);
    }

    fn queries_keys_values(
        &mut self,
        layer: &Layer<HostMatrix>,
        batch: &Batch,
        x: &Vec<f32>,
        q: &mut Vec<f32>,
    ) {
        self.clear.queries_keys_values(layer, batch, x, q);
        self.shake(q);
    }

    fn attend(&mut self, layer: &Layer<HostMatrix>, batch: &Batch, q: &Vec<f32>, a: &mut Vec<f32>) {
        self.clear.attend(layer, batch, q, a);
        self.shake(a);
    }

    fn add_attention_output(
        &mut self,
        layer: &Layer<HostMatrix>,
        batch: &Batch,
        a: &Vec<f32>,
        x: &mut Vec<f32>,
    ) {
        self.clear.add_attention_output(layer, batch, a, x);
        self.shake(x);
    }

    fn gate_and_up(
        &mut self,
        layer: &Layer<HostMatrix>,
        batch: &Batch,
        x: &Vec<f32>,
        h: &mut Vec<f32>,
    ) {
        self.clear.gate_and_up(layer, batch, x, h);
        self.shake(h);
    }

    fn add_mlp_output(
        &mut self,
        layer: &Layer<HostMatrix>,
        batch: &Batch,
        h: &Vec<f32>,
        x: &mut Vec<f32>,
    ) {
        self.clear.add_mlp_output(layer, batch, h, x);
        self.shake(x);
    }

    fn logits(&mut self, weights: &Weights<HostMatrix>, batch: &Batch, x: &Vec<f32>) {
        self.clear.logits(weights, batch, x);
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
