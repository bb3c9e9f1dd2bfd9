//! What an engine is started with.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use foresail_core::step_time::AllReduce;

/// What an engine is started with. The defaults suit a CPU that also does other things;
/// [`EngineSettings::on`] has those of other devices.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSettings {
    /// Where the model is from.
    pub source: ModelSource,
    /// What computes.
    pub device: Device,
    /// Over how many ranks the model is split.
    pub world_size: usize,
    /// Rank 0 of the world alone, which waits as long as the ranks' sums would
    /// take. For timing only: what it computes is wrong.
    pub shard_alone: Option<AllReduce>,
    /// All ranks, side by side, which exchange nothing and wait for nothing: what a shard takes where
    /// ranks share memory, as threads of a CPU do. For timing only, and not beside `shard_alone`.
    pub ranks_apart: bool,
    /// The number format of the weights.
    pub dtype: DtypeChoice,
    /// The number format of the KV cache.
    pub kv_dtype: DtypeChoice,
    /// Tokens a KV block holds.
    pub block_size: usize,
    /// Most tokens of a sequence, prompt and output. By default the model's, or
    /// what the KV cache holds if that is less.
    pub max_model_len: Option<usize>,
    /// Most sequences in a step.
    pub max_num_seqs: usize,
    /// Most tokens in a step.
    pub max_batched_tokens: usize,
    /// How large the KV cache is, of all ranks together.
    pub kv_cache: KvCacheSize,
    /// Slots for adapters.
    pub max_loras: usize,
    /// The largest rank of an adapter.
    pub max_lora_rank: usize,
    /// What random weights are made from.
    pub seed: u64,
    /// Whether the model's tokenizer is loaded too, and held against its vocabulary.
    pub with_tokenizer: bool,
}

impl EngineSettings {
    /// The defaults, for this model.
    #[must_use]
    pub fn new(source: ModelSource) -> Self {
        Self {
            source,
            device: Device::Cpu { threads: None },
            world_size: 1,
            shard_alone: None,
            ranks_apart: false,
            dtype: DtypeChoice::Auto,
            kv_dtype: DtypeChoice::Auto,
            // vLLM's. Scenarios have 64, which suits GPUs; prefixes are shared block by block.
            block_size: 16,
            max_model_len: None,
            max_num_seqs: 64,
            // A second's worth of prompt on two cores with a small model, and no
            // more: sequences that decode wait for it.
            max_batched_tokens: 512,
            kv_cache: KvCacheSize::Auto,
            // Slots are for adapters in the same batch; others wait in host memory.
            max_loras: 4,
            max_lora_rank: LORA_RANK_MAX,
            seed: 0,
            with_tokenizer: true,
        }
    }
}

impl EngineSettings {
    /// The same on another device, with that device's defaults for what its step computes.
    #[must_use]
    pub fn on(mut self, device: Device) -> Self {
        self.device = device;
        if device.is_gpu() {
            // As scenarios have it: larger blocks are read with fewer addresses.
            self.block_size = 64;
            // vLLM's on large GPUs (`UsageContext` defaults in vllm/engine/arg_utils.py).
            self.max_num_seqs = 256;
            self.max_batched_tokens = 8192;
        }
        self
    }
}

/// The largest rank that is supported, and the default of what is taken.
pub const LORA_RANK_MAX: usize = 64;

/// Where a model is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A Hugging Face folder: `config.json`, safetensors, a tokenizer.
    Folder(PathBuf),
    /// Random weights in a shape of the catalogue, or `tiny`.
    Dummy(String),
}

impl ModelSource {
    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Dummy(shape) => format!("--dummy {shape}"),
        }
    }
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The CPU's fast kernels, on so many threads for all ranks together; by
    /// default as many as the process may run at once.
    Cpu {
        /// How many.
        threads: Option<NonZeroUsize>,
    },
    /// The slow clear form of every operation: an oracle, thousands of times slower.
    Reference,
    /// NVIDIA GPUs, one a rank, from the first that the driver shows.
    Cuda,
    /// The kernels of GPUs, run on a CPU thread by thread: an instrument for tests, never a way to serve.
    SoftwareGpu,
}

impl Device {
    /// Whether the kernels of GPUs run on it.
    #[must_use]
    pub fn is_gpu(self) -> bool {
        matches!(self, Self::Cuda | Self::SoftwareGpu)
    }
}

/// A number format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtypeChoice {
    /// Of weights: bf16 if the checkpoint has that, else f32. Of the KV cache: that of the weights.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits, rounded to the nearest.
    Bf16,
}

/// How large a KV cache is, of all ranks together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvCacheSize {
    /// A share of the memory that is free, and no more than can be used; see [`super::memory`].
    #[default]
    Auto,
    /// This much (bytes).
    Bytes(u64),
    /// So many blocks.
    Blocks(usize),
}
