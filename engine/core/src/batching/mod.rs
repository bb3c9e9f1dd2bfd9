//! Continuous batching: which sequences compute which tokens in the next step
//! of a replica, and which KV-cache blocks hold them.
//!
//! [`Scheduler`] is a pure state machine. It sees no tokens and no clock, only
//! counts and hashes, so the simulator and the live engine run the same one:
//!
//! ```text
//! add ──> waiting ──admit──> running: prefill ──> decode ──> finished
//!            ^                            │
//!            └──────── preempted ─────────┘   its blocks were needed; it is computed again
//! ```
//!
//! A driver alternates [`Scheduler::schedule`], which plans a step, and
//! [`Scheduler::commit`], once the step has been computed. While the batch
//! does not change, [`Scheduler::horizon`] says for how many steps that will
//! stay so, and [`Scheduler::leap`] does them at once. A leap is the same, to
//! the last block of every table, as the steps it stands for.

mod adapter_slots;
mod adapters;
mod blocks;
mod check;
mod leap;
mod leaving;
mod ring;
mod scheduler;
mod sequence;
mod step;
#[cfg(test)]
mod tests;

pub use adapter_slots::{AdapterAnswer, AdapterSlots, AdapterSource};
pub use adapters::AdapterId;
pub use blocks::{BlockId, Blocks};
pub use leap::Leap;
pub use leaving::Aborted;
pub use scheduler::{Scheduler, Verdict};
pub use step::{Step, Work};

/// A sequence of a scheduler. Ids are small and used again once a sequence has
/// ended, so a driver can keep what it knows of sequences in a vector.
pub type SequenceId = u32;

/// The contents of a block and all before it, as a chained hash. Equal hashes
/// mean equal tokens.
pub type BlockHash = u128;

/// The limits of one replica's scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Tokens a KV block holds.
    pub block_size: u32,
    /// KV blocks of the replica.
    pub num_blocks: u32,
    /// Most sequences in a batch.
    pub max_num_seqs: u32,
    /// Most tokens computed in a step; at least `max_num_seqs`.
    pub max_batched_tokens: u32,
    /// Most tokens of a sequence, prompt and output.
    pub max_model_len: u32,
    /// Most prompt tokens of one sequence computed in a step.
    pub prefill_chunk: u32,
    /// Most distinct adapters in a batch.
    pub max_loras: u32,
    /// Blocks that an admission must leave free, unless nothing runs.
    pub watermark: u32,
    /// Whether full blocks are kept and found again by their contents.
    pub prefix_caching: bool,
}

impl Config {
    /// Checks that the limits leave room to work.
    ///
    /// # Errors
    /// The first limit that is zero, or too small for another.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = [
            ("block_size", self.block_size),
            ("num_blocks", self.num_blocks),
            ("max_num_seqs", self.max_num_seqs),
            ("max_model_len", self.max_model_len),
            ("prefill_chunk", self.prefill_chunk),
        ];
        if let Some((name, _)) = limits.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { name });
        }
        if self.max_batched_tokens < self.max_num_seqs {
            return Err(ConfigError::BudgetBelowBatch {
                max_batched_tokens: self.max_batched_tokens,
                max_num_seqs: self.max_num_seqs,
            });
        }
        Ok(())
    }
}

/// Why limits cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A limit that must be at least 1 is 0.
    #[error("{name} is 0; it must be at least 1")]
    Zero {
        /// Which limit.
        name: &'static str,
    },
    /// A full batch could not decode in one step.
    #[error(
        "max_batched_tokens ({max_batched_tokens}) is below max_num_seqs ({max_num_seqs}): \
         a full batch needs one token for each sequence"
    )]
    BudgetBelowBatch {
        /// The token budget.
        max_batched_tokens: u32,
        /// The batch limit.
        max_num_seqs: u32,
    },
}

/// What a sequence asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens to generate at most.
    pub max_new: u32,
    /// The adapter to compute with.
    pub adapter: Option<AdapterId>,
    /// Whether blocks of this sequence may be shared; if not, its contents are never asked for.
    pub cacheable: bool,
}

/// Why a request is refused at once. Temporary pressure is never a reason: it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// No prompt, or nothing to generate.
    #[error("the prompt and the output must be at least one token")]
    Empty,
    /// Longer than the model's context.
    #[error("prompt and output are longer than the model's context")]
    TooLong,
    /// More KV blocks than the replica has.
    #[error("the request needs more KV-cache blocks than the replica has")]
    NeverFits,
    /// It needs an adapter and the batch takes none.
    #[error("the replica takes no adapters")]
    NoAdapters,
}

/// The contents of sequences' blocks. The live engine hashes tokens; the
/// simulator hashes what the trace knows of them.
pub trait Content {
    /// The chained hash of this block of the sequence, which is full of known
    /// tokens; `None` if nothing can share it.
    fn hash(&mut self, sequence: SequenceId, block: u32) -> Option<BlockHash>;
}

impl<F: FnMut(SequenceId, u32) -> Option<BlockHash>> Content for F {
    fn hash(&mut self, sequence: SequenceId, block: u32) -> Option<BlockHash> {
        self(sequence, block)
    }
}
