//! The driver of a replica: requests come in, tokens go out, and the core's
//! scheduler decides each step in between.
//!
//! ```text
//!  Replica (handles, any thread)              one thread, which owns the device
//!  submit ──refusals──> commands ───────────> Driver: Scheduler, AdapterSlots
//!                                                │  step = schedule, add the tokens,
//!  Ticket <──── events <─────────────────────────┘         Backend::step, commit
//! ```
//!
//! [`Driver`] is all that decides and keeps books: it has no thread, no channel
//! of commands and no clock, so that a test can drive it through virtual time.
//! [`Replica`] is a handle to the thread that runs one. A step is a sentence:
//! the scheduler plans it, the driver adds the tokens, the device computes and
//! samples, and what was sampled goes to those who wait for it.
//!
//! Nothing that a client does or leaves undone can hold the device up. Events
//! go into a queue of each request without waiting; it holds no more than the
//! request's tokens, log-probabilities and three events beside. A client that
//! drops its [`Ticket`] gives the request up.
//!
//! A step that fails, or panics, costs the requests that it computed. The KV
//! cache is then not to be trusted, so the scheduler is made anew with an empty
//! one, and with those that waited, in the order in which they came.

mod adapters;
mod admission;
mod contents;
mod core;
mod live;
mod replica;
mod stats;
mod step;
#[cfg(test)]
mod tests;
mod ticket;

use foresail_core::batching::{Config, ConfigError};

use crate::backend::Limits;

pub use self::core::{AdapterKey, Driver, Progress, RequestKey};
pub use replica::Replica;
pub use stats::{Histogram, Stats};
pub use ticket::Ticket;

/// How a driver runs a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The backend's memory.
    pub limits: Limits,
    /// Tokens that the model has.
    pub vocab_size: usize,
    /// Most prompt tokens of one request computed in a step.
    pub prefill_chunk: usize,
    /// Whether full KV blocks are found again by their contents.
    pub prefix_caching: bool,
    /// KV blocks that an admission must leave free, unless nothing runs.
    pub watermark_blocks: usize,
    /// Most distinct adapters in a step; at most `limits.max_loras`.
    pub step_adapters_max: usize,
    /// Most adapters that are kept in host memory, to be loaded into slots from there.
    pub host_adapters_max: usize,
    /// Most requests that wait to be admitted for the first time.
    pub waiting_max: usize,
}

impl Settings {
    /// What `foresail serve` runs with unless it is told otherwise.
    #[must_use]
    pub fn new(limits: Limits, vocab_size: usize) -> Self {
        Self {
            limits,
            vocab_size,
            // vLLM V1 bounds a chunk by the step's tokens only.
            prefill_chunk: limits.max_batched_tokens,
            prefix_caching: true,
            // 1 %, rounded up, as scenarios have it (vLLM V0's `watermark`).
            watermark_blocks: limits.num_blocks.div_ceil(100),
            step_adapters_max: limits.max_loras,
            host_adapters_max: limits.max_loras.max(1) * 32,
            waiting_max: 1_024,
        }
    }

    /// The scheduler's limits.
    fn config(&self) -> Result<Config, StartError> {
        let config = Config {
            block_size: count("block_size", self.limits.block_size)?,
            num_blocks: count("num_blocks", self.limits.num_blocks)?,
            max_num_seqs: count("max_num_seqs", self.limits.max_num_seqs)?,
            max_batched_tokens: count("max_batched_tokens", self.limits.max_batched_tokens)?,
            max_model_len: count("max_model_len", self.limits.max_model_len)?,
            prefill_chunk: count("prefill_chunk", self.prefill_chunk)?,
            max_loras: count("step_adapters_max", self.step_adapters_max)?,
            watermark: count("watermark_blocks", self.watermark_blocks)?,
            prefix_caching: self.prefix_caching,
        };
        config.validate()?;
        if self.step_adapters_max > self.limits.max_loras {
            return Err(StartError::TooFewSlots {
                step_adapters_max: self.step_adapters_max,
                max_loras: self.limits.max_loras,
            });
        }
        Ok(config)
    }
}

fn count(name: &'static str, value: usize) -> Result<u32, StartError> {
    u32::try_from(value).map_err(|_| StartError::TooLarge { name, value })
}

/// Why a driver cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The limits leave no room to work.
    #[error("the limits of the batch cannot be used: {0}")]
    Limits(#[from] ConfigError),
    /// A limit that counts do not reach.
    #[error("{name} is {value}; it must be below 2^32")]
    TooLarge {
        /// Which limit.
        name: &'static str,
        /// What it is.
        value: usize,
    },
    /// A step may have more adapters than there are slots.
    #[error("step_adapters_max ({step_adapters_max}) is more than max_loras ({max_loras})")]
    TooFewSlots {
        /// Most distinct adapters in a step.
        step_adapters_max: usize,
        /// Slots of the backend.
        max_loras: usize,
    },
    /// The operating system gave no thread.
    #[error("cannot start the thread of the replica: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why an adapter is not added or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    /// The replica was started without slots for adapters.
    #[error("the replica takes no adapters; start it with slots for some")]
    NoSlots,
    /// Its matrices do not fit into a slot.
    #[error("adapter {name} has rank {rank}, and the replica was started for up to {rank_max}")]
    RankTooLarge {
        /// Which.
        name: String,
        /// Its rank.
        rank: usize,
        /// The largest that fits.
        rank_max: usize,
    },
    /// There is one of this name.
    #[error("there is an adapter {0} already; remove it first")]
    AlreadyThere(String),
    /// There is none of this name.
    #[error("there is no adapter {0}")]
    Unknown(String),
    /// As many are there as may be.
    #[error("there are {adapters} adapters already, as many as may be; remove one first")]
    TooMany {
        /// How many.
        adapters: usize,
    },
    /// The replica takes nothing new.
    #[error("the replica is shutting down")]
    ShutDown,
}
