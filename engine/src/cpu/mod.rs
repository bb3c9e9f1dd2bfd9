//! The CPU backend's operations: one rank's part of a model, on a pool of threads.
//!
//! ```text
//!  CpuOps (forward.rs: each operation is a few jobs of the pool)
//!    ├─ packed.rs      matrices in panels of 16 outputs       ─┐
//!    ├─ tiling.rs      activations in tiles of up to 12 tokens ─┤─> product.rs, finish.rs
//!    ├─ kv_cache.rs    keys and values, as packed matrices     ─┘     the one kernel
//!    ├─ norm.rs  heads.rs  rotary.rs  attention.rs  adapters.rs       what is around it
//!    └─ pool.rs        threads;  memory.rs  huge pages;  isa.rs, vector/  16 lanes of whatever there is
//! ```
//!
//! A single kernel does all the heavy work: products of panels and tiles, in
//! which a lane is an output and an output is one chain of fused additions. That
//! makes a token's result independent of the batch, of the chunk and of the
//! processor's vectors, to the last bit; and since weights are read from end to
//! end, each by one worker, a single token runs at the speed of memory, and
//! many run at the speed of arithmetic.

mod adapters;
mod attention;
pub mod ceilings;
mod disjoint;
mod entry;
mod finish;
mod forward;
mod heads;
mod isa;
mod kv_cache;
mod memory;
mod norm;
mod packed;
mod pool;
mod product;
mod rotary;
#[cfg(test)]
mod tests;
mod tiling;
mod vector;

use std::fmt;
use std::sync::Arc;

pub use self::isa::Isa;
pub use self::packed::Matrix;
pub use self::pool::Pool;

use self::adapters::{AdapterScratch, AdapterShard};
use self::attention::{AttentionScratch, Item};
use self::kv_cache::KvCache;
use self::memory::Arena;
use self::rotary::RotaryTable;
use self::tiling::Tiling;
use crate::backend::Limits;
use crate::comm::Comm;
use crate::config::{ModelConfig, Partition};
use crate::ops::KvFormat;
use foresail_core::batching::BlockId;

/// The operations of one rank, with its threads, its KV cache and its adapters.
pub struct CpuOps {
    config: Arc<ModelConfig>,
    limits: Limits,
    comm: Box<dyn Comm>,
    partition: Partition,
    isa: Isa,
    pool: Pool,
    rotary: RotaryTable,
    cache: KvCache,
    /// Where weights are.
    arena: Arena,
    adapters: Vec<Option<AdapterShard>>,
    scratch: Scratch,
    logits: Vec<f32>,
}

/// Activations of a step, in the order that its operation wants: rows
/// `[token][width]`, or tiles (see `tiling.rs`).
#[derive(Clone, Debug)]
pub struct Buffer {
    width: usize,
    values: Vec<f32>,
}

/// Why there are no operations.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// The system has too little memory for the KV cache.
    #[error(
        "no memory for a KV cache of {bytes} bytes in {num_blocks} blocks; \
         ask for fewer blocks, or for the bf16 format"
    )]
    KvCacheMemory {
        /// Bytes that it needs.
        bytes: usize,
        /// Blocks that were asked for.
        num_blocks: usize,
    },
    /// The system has no more threads.
    #[error("no thread for the CPU backend; ask for fewer")]
    Threads(#[source] std::io::Error),
    /// The processor lacks the instructions that were asked for.
    #[error("this processor has no {0:?}")]
    Isa(Isa),
}

/// Memory of operations, reused by each.
struct Scratch {
    /// Normalised activations, in tiles.
    normed: Vec<f32>,
    /// Outputs of a projection that are not final yet, in rows.
    fused: Vec<f32>,
    /// Work of the attention.
    items: Vec<Item>,
    /// KV blocks that a step writes.
    written: Vec<BlockId>,
    /// Of each worker.
    workers: Vec<WorkerScratch>,
}

/// What one worker needs for itself.
struct WorkerScratch {
    attention: AttentionScratch,
    adapter: AdapterScratch,
}

impl CpuOps {
    /// The operations of the rank that `comm` is of, with so many threads (the caller's among
    /// them), an empty KV cache and empty adapter slots.
    ///
    /// # Errors
    /// If there is no memory for the KV cache, or no thread.
    ///
    /// # Panics
    /// If there is no block size, or no head: what reads configurations refuses those.
    pub fn new(
        config: Arc<ModelConfig>,
        limits: Limits,
        kv_format: KvFormat,
        comm: Box<dyn Comm>,
        threads: usize,
    ) -> Result<Self, CpuError> {
        let partition = comm.partition();
        let mut pool = Pool::new(threads).map_err(CpuError::Threads)?;
        let cache = KvCache::new(&config, partition, limits, kv_format, &mut pool)?;
        let workers = pool.workers();
        Ok(Self {
            rotary: RotaryTable::new(&config, limits.max_model_len, &mut pool),
            scratch: Scratch::new(&config, partition, limits, &cache, workers),
            cache,
            arena: Arena::default(),
            adapters: (0..limits.max_loras).map(|_| None).collect(),
            logits: Vec::new(),
            isa: Isa::detect(),
            pool,
            config,
            limits,
            comm,
            partition,
        })
    }

    /// The same with other instructions than the best that the processor has.
    ///
    /// # Errors
    /// If it does not have them.
    pub fn with_isa(mut self, isa: Isa) -> Result<Self, CpuError> {
        if !isa.is_available() {
            return Err(CpuError::Isa(isa));
        }
        self.isa = isa;
        Ok(self)
    }

    /// The instructions that kernels use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads.
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Query heads of this rank.
    fn query_heads(&self) -> usize {
        self.partition.query_heads(&self.config).len()
    }

    /// Key and value heads of this rank.
    fn key_value_heads(&self) -> usize {
        self.partition.key_value_heads(&self.config).len()
    }

    /// Columns of the MLP of this rank.
    fn intermediate(&self) -> usize {
        self.partition.intermediate(&self.config).len()
    }
}

impl Scratch {
    fn new(
        config: &ModelConfig,
        partition: Partition,
        limits: Limits,
        cache: &KvCache,
        workers: usize,
    ) -> Self {
        let hidden = config.hidden_size;
        let query_width = partition.query_heads(config).len() * config.head_dim;
        let key_width = partition.key_value_heads(config).len() * config.head_dim;
        let intermediate = partition.intermediate(config).len();
        let widest = hidden.max(query_width).max(intermediate);
        let fused = hidden
            .max(query_width + 2 * key_width)
            .max(2 * intermediate);
        let shape = cache.shape();
        let worker = || WorkerScratch {
            attention: AttentionScratch::new(&shape, limits.max_model_len),
            adapter: AdapterScratch::new(widest, limits.max_lora_rank),
        };
        Self {
            normed: vec![0.0; Tiling::room(limits.max_batched_tokens, hidden)],
            fused: vec![0.0; limits.max_batched_tokens * fused],
            items: Vec::new(),
            written: Vec::new(),
            workers: (0..workers).map(|_| worker()).collect(),
        }
    }
}

impl fmt::Debug for CpuOps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuOps")
            .field("partition", &self.partition)
            .field("isa", &self.isa)
            .field("workers", &self.pool.workers())
            .finish_non_exhaustive()
    }
}
