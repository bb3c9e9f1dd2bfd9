//! Why an engine did not start.

use super::memory::MemoryError;
use crate::backend::StepError;
use crate::checkpoint::CheckpointError;
use crate::comm::ModelledError;
use crate::config::PartitionError;
use crate::cpu::CpuError;
use crate::cuda::gpu::GpuError;
use crate::ranks::RankError;
use crate::text::TokenizerError;

/// Why an engine did not start. Each message names a file, or a setting to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The model is not understood, or not whole.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The model cannot be split over so many ranks.
    #[error(transparent)]
    WorldSize(#[from] PartitionError),
    /// It does not fit into memory, or the limits contradict each other.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The CPU has no memory or no threads for it.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// There is no GPU that could do it, or it failed meanwhile.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// GPUs have one number format.
    #[error(
        "the CUDA backend computes in bf16, and {what} would be {dtype}; \
         --dtype bf16 rounds the weights, --backend cpu computes with them as they are"
    )]
    GpuDtype {
        /// What.
        what: &'static str,
        /// In which format.
        dtype: &'static str,
    },
    /// The kernels find places in the KV cache by shifting.
    #[error("--block-size is {block_size}; the CUDA backend needs a power of two, such as 64")]
    GpuBlockSize {
        /// What was asked for.
        block_size: usize,
    },
    /// There are no times for the sums of so many ranks.
    #[error(transparent)]
    Shard(#[from] ModelledError),
    /// More than adapters can have.
    #[error(
        "--max-lora-rank is {max_lora_rank}; ranks up to {} are supported",
        super::LORA_RANK_MAX
    )]
    LoraRank {
        /// What was asked for.
        max_lora_rank: usize,
    },
    /// Ranks have equally many threads.
    #[error(
        "--threads is {threads}, which {ranks} ranks cannot share equally; choose a multiple of {ranks}"
    )]
    Threads {
        /// What was asked for.
        threads: usize,
        /// Ranks that are here.
        ranks: usize,
    },
    /// A rank panicked while it was made.
    #[error("rank {rank} failed to start: {reason}")]
    Rank {
        /// Which.
        rank: usize,
        /// What it said.
        reason: String,
    },
    /// The weights are not on the device.
    #[error(
        "the model could not be loaded: {0}; if memory is short, a smaller --kv-cache-memory or \
         smaller --max-batched-tokens leave more of it"
    )]
    NotReady(StepError),
    /// The first step failed.
    #[error("the first step failed, so the model cannot be served: {0}")]
    WarmUp(StepError),
    /// There is no tokenizer, or it is another model's.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl From<RankError<Self>> for StartError {
    fn from(error: RankError<Self>) -> Self {
        match error {
            RankError::Partition(error) => Self::WorldSize(error),
            RankError::Make(error) => error,
            RankError::Panicked { rank, reason } => Self::Rank { rank, reason },
        }
    }
}
