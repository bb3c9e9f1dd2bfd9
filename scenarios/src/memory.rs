//! Whether a model fits the GPUs of a replica, and how much KV cache is left.
//!
//! Each GPU of a replica (a rank) holds its share of the weights, the tensors
//! of the largest step, slots for adapters, and what CUDA and NCCL take; the
//! rest of the memory that an engine may use is cut into KV blocks. This is vLLM's own sum: it
//! runs the largest step once, and what is then left of
//! `gpu_memory_utilization` becomes KV cache (`determine_available_memory` in
//! `vllm/v1/worker/gpu_worker.py`).

use foresail_core::step_time::{Gpu, ModelShape, Precision, adapter_bytes_per_rank};

/// World sizes that are tried when a scenario does not say one.
pub const WORLD_SIZES: [u32; 4] = [1, 2, 4, 8];

/// What CUDA's context, the workspaces of cuBLAS and NCCL's buffers take in
/// each GPU (bytes). Chosen so that the two measured KV caches in this file's
/// tests come out within 1 %; they leave 0.3 GB (4 GPUs) and 0.5 GB (1 GPU).
pub const CUDA_RESERVE_BYTES: u64 = 1 << 29;

/// KV cache that a default world size leaves room for (tokens): 16 sequences of
/// 2,048. With less, a replica cannot batch enough to pay for reading its weights.
pub const USEFUL_KV_TOKENS: u64 = 16 * 2_048;

/// Bytes a logit takes at the peak: bf16 as computed, the fp32 copy that is
/// sampled from, and its sorted or normalised copy
/// (`vllm/v1/sample/sampler.py` casts to float32 first).
const BYTES_PER_LOGIT: u64 = 2 + 4 + 4;

/// What decides the memory of a rank.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The model.
    pub shape: &'a ModelShape,
    /// Number format of the weights.
    pub precision: Precision,
    /// Number format of the KV cache.
    pub kv_precision: Precision,
    /// Share of each GPU's memory that the engine may use.
    pub gpu_memory_utilization: f64,
    /// Most tokens computed in a step.
    pub max_num_batched_tokens: u32,
    /// Most sequences in a batch.
    pub max_num_seqs: u32,
    /// Most tokens of a sequence; the KV cache must hold at least one such.
    pub max_model_len: u32,
    /// Tokens a KV block holds.
    pub block_size: u32,
    /// Slots for LoRA adapters, all of them together (bytes).
    pub adapter_bytes: u64,
}

/// The memory of each GPU of a replica. The parts add up to at most `usable_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the engine may use (bytes).
    pub usable_bytes: u64,
    /// Weights (bytes).
    pub weight_bytes: u64,
    /// Tensors of the largest step (bytes).
    pub activation_bytes: u64,
    /// CUDA and NCCL (bytes).
    pub reserve_bytes: u64,
    /// Slots for adapters (bytes).
    pub adapter_bytes: u64,
    /// One KV block (bytes).
    pub block_bytes: u64,
    /// KV blocks that fit in the rest; 0 if even the other parts do not fit.
    pub num_blocks: u32,
}

impl Layout {
    /// The layout in each of `world_size` GPUs.
    #[must_use]
    pub fn new(demand: &Demand<'_>, gpu: &Gpu, world_size: u32) -> Self {
        let usable_bytes = (gpu.memory_bytes as f64 * demand.gpu_memory_utilization) as u64;
        let weight_bytes = demand
            .shape
            .weight_bytes_per_rank(demand.precision, world_size);
        let activation_bytes = activation_bytes(demand, world_size);
        let token_bytes = demand
            .shape
            .kv_bytes_per_token_per_rank(demand.kv_precision, world_size);
        let block_bytes = u64::from(demand.block_size) * token_bytes;
        let adapter_bytes = adapter_bytes_per_rank(demand.adapter_bytes, world_size);
        let taken =
            (weight_bytes + activation_bytes + CUDA_RESERVE_BYTES).saturating_add(adapter_bytes);
        let blocks = usable_bytes.saturating_sub(taken) / block_bytes;
        Self {
            usable_bytes,
            weight_bytes,
            activation_bytes,
            reserve_bytes: CUDA_RESERVE_BYTES,
            adapter_bytes,
            block_bytes,
            num_blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
        }
    }

    /// Whether weights fit and the KV cache holds a sequence of the greatest
    /// length. vLLM refuses to start otherwise (`_check_enough_kv_cache_memory`
    /// in `vllm/v1/core/kv_cache_utils.py`).
    #[must_use]
    pub fn fits(&self, demand: &Demand<'_>) -> bool {
        self.num_blocks >= demand.max_model_len.div_ceil(demand.block_size)
    }

    /// Tokens that the KV cache of a replica holds.
    #[must_use]
    pub fn kv_tokens(&self, demand: &Demand<'_>) -> u64 {
        u64::from(self.num_blocks) * u64::from(demand.block_size)
    }
}

/// The tensors alive at the peak of the largest step (bytes).
///
/// In a layer: the residual stream, its normalised copy, and the MLP's input
/// and output, `hidden_size` wide each; and this rank's share of gate, up and
/// their product, for as many experts as a token has. After the last layer: a
/// row of logits a sequence. The larger of the two would do, but allocators
/// keep both.
fn activation_bytes(demand: &Demand<'_>, world_size: u32) -> u64 {
    let shape = demand.shape;
    let mlps = shape.experts.map_or(1, |experts| u64::from(experts.active));
    let mlp = 3 * mlps * u64::from(shape.intermediate_size.div_ceil(world_size));
    let width = 4 * u64::from(shape.hidden_size) + mlp;
    let layer = u64::from(demand.max_num_batched_tokens) * width * Precision::Bf16.bytes();
    let logits = u64::from(demand.max_num_seqs) * u64::from(shape.vocab_size) * BYTES_PER_LOGIT;
    layer + logits
}

/// Whether a model can be split over so many GPUs: its query heads must divide evenly.
#[must_use]
pub fn is_divisible(shape: &ModelShape, world_size: u32) -> bool {
    world_size > 0 && shape.num_attention_heads.is_multiple_of(world_size)
}

/// The world size of a scenario that does not say one: the smallest that leaves
/// a useful KV cache, else the largest on which it fits at all.
#[must_use]
pub fn default_world_size(demand: &Demand<'_>, gpu: &Gpu) -> Option<u32> {
    let useful = |world_size: &u32| {
        Layout::new(demand, gpu, *world_size).kv_tokens(demand) >= USEFUL_KV_TOKENS
    };
    fitting_world_sizes(demand, gpu)
        .find(useful)
        .or_else(|| fitting_world_sizes(demand, gpu).last())
}

/// The world sizes on which it fits, from small to large.
pub fn fitting_world_sizes<'a>(
    demand: &'a Demand<'a>,
    gpu: &'a Gpu,
) -> impl Iterator<Item = u32> + 'a {
    WORLD_SIZES
        .into_iter()
        .filter(|&world_size| is_divisible(demand.shape, world_size))
        .filter(move |&world_size| Layout::new(demand, gpu, world_size).fits(demand))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{gpus, models};

    fn demand(shape: &ModelShape) -> Demand<'_> {
        Demand {
            shape,
            precision: Precision::Bf16,
            kv_precision: Precision::Bf16,
            gpu_memory_utilization: 0.9,
            max_num_batched_tokens: 8192,
            max_num_seqs: 1024,
            max_model_len: 4096,
            block_size: 16,
            adapter_bytes: 0,
        }
    }

    fn relative_error(actual: f64, measured: f64) -> f64 {
        (actual / measured - 1.0).abs()
    }

    /// Measured: vLLM 0.15 on 4 H100 gave Llama-2-70B 31,356 blocks of 16
    /// tokens, with 2,048 tokens a step (inference-sim/inference-sim @9293b22).
    #[test]
    fn kv_cache_of_llama_2_70b_on_four_h100_is_as_measured() {
        let shape = models::find("llama-2-70b").unwrap().shape;
        let demand = Demand {
            max_num_batched_tokens: 2048,
            ..demand(&shape)
        };
        let layout = Layout::new(&demand, &gpus::find("h100").unwrap().spec(), 4);
        assert!(
            relative_error(f64::from(layout.num_blocks), 31_356.0) < 0.01,
            "{layout:?}"
        );
    }

    /// Measured: vLLM 0.19 on one H200 logged "GPU KV cache size: 4,513,888
    /// tokens" for a model of 28 KiB of KV a token, which is Qwen2.5-1.5B.
    #[test]
    fn kv_cache_of_qwen_1_5b_on_an_h200_is_as_measured() {
        let shape = models::find("qwen2.5-1.5b").unwrap().shape;
        let demand = demand(&shape);
        let layout = Layout::new(&demand, &gpus::find("h200").unwrap().spec(), 1);
        let error = relative_error(layout.kv_tokens(&demand) as f64, 4_513_888.0);
        assert!(error < 0.01, "{layout:?}");
    }

    #[test]
    fn an_8b_fits_one_h100_and_a_70b_needs_two() {
        let gpu = gpus::find("h100").unwrap().spec();
        let world_sizes = |name: &str| {
            let shape = models::find(name).unwrap().shape;
            fitting_world_sizes(&demand(&shape), &gpu).collect::<Vec<_>>()
        };
        assert_eq!(world_sizes("llama-3-8b"), [1, 2, 4, 8]);
        assert_eq!(world_sizes("llama-3-70b"), [2, 4, 8]);
        assert_eq!(world_sizes("llama-3.1-405b"), [0_u32; 0]);
    }

    #[test]
    fn the_default_world_size_leaves_a_useful_kv_cache() {
        let gpu = gpus::find("h100").unwrap().spec();
        let default = |name: &str| {
            let shape = models::find(name).unwrap().shape;
            default_world_size(&demand(&shape), &gpu)
        };
        assert_eq!(default("llama-3-8b"), Some(1));
        // On two GPUs it fits, with room for about 20,000 tokens.
        assert_eq!(default("llama-3-70b"), Some(4));
        assert_eq!(default("llama-3.1-405b"), None);
    }

    #[test]
    fn the_parts_never_exceed_what_is_usable() {
        for model in models::MODELS {
            for gpu in gpus::GPUS {
                let demand = demand(&model.shape);
                for world_size in fitting_world_sizes(&demand, &gpu.spec()) {
                    let layout = Layout::new(&demand, &gpu.spec(), world_size);
                    let kv = u64::from(layout.num_blocks) * layout.block_bytes;
                    let rest = layout.weight_bytes + layout.activation_bytes + layout.reserve_bytes;
                    assert!(
                        kv + rest <= layout.usable_bytes,
                        "{} {}",
                        model.name,
                        gpu.name
                    );
                }
            }
        }
    }

    #[test]
    fn slots_for_adapters_are_taken_from_the_kv_cache() {
        let shape = models::find("llama-3-8b").unwrap().shape;
        let gpu = gpus::find("h100").unwrap().spec();
        let plain = Layout::new(&demand(&shape), &gpu, 1);
        let with_adapters = Demand {
            adapter_bytes: 100 * plain.block_bytes,
            ..demand(&shape)
        };
        let layout = Layout::new(&with_adapters, &gpu, 1);
        assert_eq!(plain.num_blocks - layout.num_blocks, 100);
        let endless = Demand {
            adapter_bytes: u64::MAX,
            ..with_adapters
        };
        assert_eq!(Layout::new(&endless, &gpu, 8).num_blocks, 0);
    }

    #[test]
    fn heads_that_do_not_divide_exclude_a_world_size() {
        let shape = models::find("qwen2.5-0.5b").unwrap().shape;
        let gpu = gpus::find("h100").unwrap().spec();
        assert_eq!(
            fitting_world_sizes(&demand(&shape), &gpu).collect::<Vec<_>>(),
            [1, 2]
        );
    }
}
