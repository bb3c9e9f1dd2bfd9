//! Every launcher that a model needs, compiled for its shapes.

use super::choices::ADJUSTED_ROWS;
use super::scratch::logit_rows;
use crate::backend::Limits;
use crate::config::{AttentionBias, ModelConfig, Partition};
use crate::cuda::gpu::{Gpu, GpuError};
use crate::cuda::kernels::advance::Advance;
use crate::cuda::kernels::attention_decode::AttentionDecode;
use crate::cuda::kernels::attention_prefill::AttentionPrefill;
use crate::cuda::kernels::attention_shape::AttentionShape;
use crate::cuda::kernels::delay::Delay;
use crate::cuda::kernels::embed::Embed;
use crate::cuda::kernels::gate::Gate;
use crate::cuda::kernels::heads::{Heads, HeadsVariant};
use crate::cuda::kernels::norm::Norm;
use crate::cuda::kernels::sample::{Sampler, SamplerShape};
use crate::cuda::kernels::skinny::Skinny;
use crate::cuda::memory::{self, GATE_ROWS};

/// The launchers of one rank.
pub(super) struct Kernels {
    pub(super) embed: Embed,
    pub(super) norm: Norm,
    pub(super) skinny: Skinny,
    pub(super) heads: Heads,
    pub(super) decode: AttentionDecode,
    pub(super) prefill: AttentionPrefill,
    pub(super) gate: Gate,
    pub(super) delay: Delay,
    pub(super) sampler: Sampler,
    pub(super) advance: Advance,
}

impl Kernels {
    pub(super) fn new(
        gpu: &mut dyn Gpu,
        config: &ModelConfig,
        shape: AttentionShape,
        limits: Limits,
        partition: Partition,
    ) -> Result<Self, GpuError> {
        let outputs_max = outputs_max(config, shape, partition);
        let workspace = Skinny::workspace_bytes(gpu.properties(), outputs_max);
        let workspace = memory::zeros(gpu, workspace)?;
        let sampler = SamplerShape {
            vocab_size: config.vocab_size,
            logits_stride: memory::stride(config.vocab_size),
            rows: logit_rows(config, &limits),
            adjusted_rows: ADJUSTED_ROWS,
        };
        let heads = HeadsVariant {
            bias: config.attention_bias != AttentionBias::None,
            norm: config.query_key_norm,
        };
        Ok(Self {
            embed: Embed::new(gpu)?,
            norm: Norm::new(gpu, config.hidden_size)?,
            skinny: Skinny::new(gpu, workspace, outputs_max)?,
            heads: Heads::new(gpu, shape, heads)?,
            decode: AttentionDecode::new(gpu, shape)?,
            prefill: AttentionPrefill::new(gpu, shape)?,
            gate: Gate::new(gpu)?,
            delay: Delay::new(gpu)?,
            sampler: Sampler::new(gpu, sampler)?,
            advance: Advance::new(gpu)?,
        })
    }
}

/// Outputs of the widest product of a rank.
fn outputs_max(config: &ModelConfig, shape: AttentionShape, partition: Partition) -> usize {
    let inner = partition.intermediate(config).len();
    let products = [
        shape.product_width(),
        config.hidden_size,
        2 * inner.next_multiple_of(GATE_ROWS),
        partition.vocabulary(config).len(),
    ];
    products.into_iter().max().unwrap_or(0)
}
