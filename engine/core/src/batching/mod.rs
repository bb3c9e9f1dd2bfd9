//! Continuous batching: which sequences compute which tokens in the next step
//! of a replica, and which KV-cache blocks hold them.

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
    /// Blocks that an admission must leave free.
    pub watermark: u32,
    /// Whether full blocks are kept and found again by their contents.
    pub prefix_caching: bool,
}
