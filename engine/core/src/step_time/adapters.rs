//! What LoRA adapters add to a step.
//!
//! A step of a batch in which some sequences use adapters computes, beside each
//! matrix, the two thin matrices of their adapters: one pair of kernels a
//! projection for the whole batch (Chen et al., "Punica: Multi-Tenant LoRA
//! Serving", arXiv 2310.18547; `lora_shrink` and `lora_expand` in vLLM). While a
//! batch decodes, that costs starting those kernels, which does not depend on
//! who uses which adapter, and reading the adapters, once each:
//!
//! ```text
//! extra = 0                              if no sequence uses an adapter
//!       = step + adapters * adapter      otherwise
//! ```
//!
//! It does not depend on the context, so a leap keeps its closed form.
//! Arithmetic is left out: at rank 16 it is half a percent of the model's.
//!
//! Measured, for comparison: 2 ms a token for a 7B model on an A100 (Punica,
//! abstract); 8 to 24 % less throughput for Llama-3.1-8B (vllm-project/vllm
//! pull request 15655).

use super::{DecodePiece, Gpu, ModelShape, Precision};
use crate::time::Picos;

/// Projections of a layer that engines give one pair of kernels: query, key and
/// value together, output, gate and up together, down (the packed modules of
/// vLLM's Llama). With experts, those of attention only.
const PROJECTIONS_OF_ATTENTION: u32 = 2;
const PROJECTIONS_OF_MLP: u32 = 2;

/// The kernels of a projection: into the rank, and out of it.
const KERNELS_A_PROJECTION: u32 = 2;

/// What LoRA adapters add to a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdapterOverhead {
    /// Once, if any sequence of the batch uses an adapter (ps).
    pub step: Picos,
    /// For each adapter that some sequence of the batch uses (ps).
    pub adapter: Picos,
}

impl AdapterOverhead {
    /// From the model's shape, the GPU's figures, and the largest adapter's share
    /// of one GPU (bytes): slots are as large as the largest adapter, and the
    /// kernels compute all of a slot (vLLM's guide to `max_lora_rank`).
    #[must_use]
    pub fn roofline(shape: &ModelShape, gpu: &Gpu, bytes_per_rank: u64) -> Self {
        let mlp = if shape.experts.is_some() {
            0
        } else {
            PROJECTIONS_OF_MLP
        };
        let kernels = KERNELS_A_PROJECTION * (PROJECTIONS_OF_ATTENTION + mlp);
        let efficiency = &gpu.efficiency;
        let starts_s =
            f64::from(shape.num_hidden_layers) * f64::from(kernels) * efficiency.kernel_overhead_s;
        let read_s = bytes_per_rank as f64 / (gpu.memory_bytes_per_s * efficiency.weight_read);
        Self {
            step: super::roofline::picos(starts_s),
            adapter: super::roofline::picos(read_s),
        }
    }

    /// What a step with so many distinct adapters takes longer.
    #[must_use]
    #[inline]
    pub fn of(&self, adapters: u32) -> Picos {
        if adapters == 0 {
            return 0;
        }
        self.step + self.adapter * u64::from(adapters)
    }

    /// The piece of a batch that uses so many distinct adapters.
    #[must_use]
    #[inline]
    pub fn on(&self, piece: DecodePiece, adapters: u32) -> DecodePiece {
        DecodePiece {
            fixed: piece.fixed + self.of(adapters) as i64,
            ..piece
        }
    }
}

impl ModelShape {
    /// Bytes of a bf16 LoRA adapter of this rank on every projection of every layer,
    /// as QLoRA recommends (arXiv 2305.14314, section 4); with experts, on those of
    /// attention.
    #[must_use]
    pub fn adapter_bytes(&self, rank: u32) -> u64 {
        let [layers, hidden, heads, kv_heads, width, intermediate] = [
            self.num_hidden_layers,
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.intermediate_size,
        ]
        .map(u64::from);
        // A projection from `a` to `b` values gets matrices of `a * rank` and `rank * b`.
        let attention = 2 * (hidden + heads * width) + 2 * (hidden + kv_heads * width);
        let mlp = if self.experts.is_some() {
            0
        } else {
            3 * (hidden + intermediate)
        };
        layers * (attention + mlp) * u64::from(rank) * Precision::Bf16.bytes()
    }
}

/// Bytes of an adapter in each of `world_size` GPUs: of the two matrices of a
/// projection one is split and the other is whole in every GPU, unless asked
/// otherwise (`fully_sharded_loras` of vLLM's `LoRAConfig`).
#[must_use]
pub fn adapter_bytes_per_rank(bytes: u64, world_size: u32) -> u64 {
    let half = bytes.div_ceil(2);
    half + half.div_ceil(u64::from(world_size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step_time::shapes;

    #[test]
    fn an_adapter_of_llama_3_8b_is_as_large_as_peft_makes_it() {
        // PEFT's print_trainable_parameters for r = 16 on all linear layers of
        // Llama-3-8B: 41,943,040 trainable parameters.
        assert_eq!(shapes::LLAMA_3_8B.adapter_bytes(16), 2 * 41_943_040);
    }

    #[test]
    fn a_step_without_adapters_costs_nothing_and_others_are_affine() {
        let overhead = AdapterOverhead {
            step: 1_000,
            adapter: 10,
        };
        assert_eq!(
            [0, 1, 2, 8].map(|n| overhead.of(n)),
            [0, 1_010, 1_020, 1_080]
        );
        let piece = DecodePiece {
            fixed: -5,
            per_past_token: 3,
            past_last: 99,
        };
        assert_eq!(overhead.on(piece, 0), piece);
        assert_eq!(overhead.on(piece, 2).at(7), 1_036);
    }

    #[test]
    fn the_overhead_is_of_the_order_that_was_measured() {
        let shape = shapes::LLAMA_3_8B;
        let overhead =
            AdapterOverhead::roofline(&shape, &Gpu::a100_80gb(), shape.adapter_bytes(16));
        let ms = overhead.of(8) as f64 / 1e9;
        assert!(
            (1.0..3.0).contains(&ms),
            "Punica adds 2 ms a token: {ms} ms"
        );
        let h100 = AdapterOverhead::roofline(&shape, &Gpu::h100(), shape.adapter_bytes(16));
        assert!(h100.of(8) < overhead.of(8));
    }

    #[test]
    fn half_of_an_adapter_is_split() {
        assert_eq!(
            [1, 2, 4].map(|world| adapter_bytes_per_rank(800, world)),
            [800, 600, 500]
        );
    }
}
