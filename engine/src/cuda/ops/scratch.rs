//! The memory that operations work in. All of it is taken at the start, so that
//! a step never asks for memory and recordings find everything where it was.

use super::choices::LISTS_BYTES;
use super::kernels::Kernels;
use crate::backend::Limits;
use crate::config::{ModelConfig, Partition};
use crate::cuda::buckets::BUCKET_MAX;
use crate::cuda::gpu::{Address, Gpu, GpuError};
use crate::cuda::kernels::attention_shape::AttentionShape;
use crate::cuda::kernels::skinny::{TOKENS_MAX, sum_parts};
use crate::cuda::memory::{self, Buffer, GATE_ROWS};

/// Rows of logits in a pass that there is room for in any case: what [`crate::ranks`] asks for at most,
/// unless more sequences than that may sample.
const LOGIT_ROWS: usize = 64;

/// Room for more rows, where a small vocabulary lets them be small (bytes).
const LOGITS_BYTES: usize = 16 << 20;

/// The most rows of logits in a pass.
pub(super) fn logit_rows(config: &ModelConfig, limits: &Limits) -> usize {
    let more = LOGITS_BYTES / (4 * config.vocab_size.max(1));
    let least = LOGIT_ROWS.max(limits.max_num_seqs).max(BUCKET_MAX);
    // Sampling has a row of blocks for each, of which a launch has no more than 65,535.
    least.max(more.min(limits.max_batched_tokens).min(65_535))
}

/// Memory of operations.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Normalised activations, or what stands for them.
    pub(super) normed: Buffer,
    /// Partial sums of squares of deferred norms, f32.
    pub(super) sums: Address,
    /// The rows whose logits are wanted, normalised.
    pub(super) wanted: Buffer,
    /// Products that are not final yet, as wide as the widest.
    fused: Address,
    /// Logits, f32 `[rows][logits_stride]`; those of other ranks are minus infinity.
    pub(super) logits: Address,
    /// Values from one row of logits to the next.
    pub(super) logits_stride: usize,
    /// This rank's part of the logits, where they are put together: f32 `[rows][part_stride]`.
    pub(super) part: Address,
    /// As many values as the largest part, rounded up.
    pub(super) part_stride: usize,
    /// Lists of tokens that sampling looks at.
    pub(super) lists: Address,
    /// The most rows of logits.
    pub(super) logit_rows: usize,
    /// Of the decode attention.
    pub(super) decode_workspace: Address,
    /// Of the decode attention: zeros between launches.
    pub(super) decode_counters: Address,
}

impl Scratch {
    pub(super) fn new(
        gpu: &mut dyn Gpu,
        config: &ModelConfig,
        limits: Limits,
        partition: Partition,
        shape: AttentionShape,
        kernels: &Kernels,
    ) -> Result<Self, GpuError> {
        let rows = limits.max_batched_tokens.max(BUCKET_MAX);
        let inner = partition.intermediate(config).len();
        let both = 2 * inner.next_multiple_of(GATE_ROWS);
        let widest = shape.product_width().max(both).max(config.hidden_size);
        let logit_rows = logit_rows(config, &limits);
        let logits_stride = memory::stride(config.vocab_size);
        let parts = sum_parts(config.hidden_size);
        let ranks = partition.world_size;
        let part_stride = memory::stride(config.vocab_size.div_ceil(ranks));
        let part_count = if ranks > 1 {
            logit_rows * part_stride
        } else {
            0
        };
        let logits_count = logit_rows * logits_stride.max(ranks * part_stride);
        let queries = limits.max_num_seqs.max(BUCKET_MAX);
        Ok(Self {
            normed: memory::buffer(gpu, rows, config.hidden_size)?,
            sums: memory::zeros(gpu, 4 * parts * TOKENS_MAX)?,
            wanted: memory::buffer(gpu, logit_rows, config.hidden_size)?,
            fused: memory::zeros(gpu, 2 * rows * memory::stride(widest))?,
            logits: no_logits(gpu, logits_count)?,
            logits_stride,
            part: memory::zeros(gpu, 4 * part_count)?,
            part_stride,
            lists: memory::zeros(gpu, LISTS_BYTES)?,
            logit_rows,
            decode_workspace: memory::zeros(gpu, kernels.decode.workspace_bytes())?,
            decode_counters: memory::zeros(gpu, kernels.decode.counter_bytes(queries))?,
        })
    }

    /// Room for a product that is not final yet.
    pub(super) fn fused(&self, width: usize) -> Buffer {
        Buffer {
            address: self.fused,
            width,
            stride: memory::stride(width),
        }
    }
}

/// Logits that are never sampled: a shard that is alone never writes those of the others.
fn no_logits(gpu: &mut dyn Gpu, count: usize) -> Result<Address, GpuError> {
    const CHUNK: usize = 1 << 20;
    let address = gpu.allocate(4 * count)?;
    let none = vec![f32::NEG_INFINITY; CHUNK.min(count)];
    for first in (0..count).step_by(CHUNK) {
        let values = &none[..CHUNK.min(count - first)];
        gpu.write(address.offset(4 * first), bytemuck::cast_slice(values))?;
    }
    Ok(address)
}
