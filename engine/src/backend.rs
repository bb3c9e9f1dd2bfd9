//! The device of a replica, as its driver sees it.

use foresail_core::batching::BlockId;
use foresail_core::step_time::StepLoad;

use crate::sampling::{Context, Logprobs, SampleError, Sampled};
use crate::weights::Adapter;

/// What computes steps: a CPU, a GPU, or a model of one.
///
/// One thread owns it from when it is made until it is dropped.
pub trait Backend: Send {
    /// Computes one step, and samples the tokens that are due.
    ///
    /// # Errors
    /// If the step could not be computed. What it wrote to the KV cache is then unknown.
    fn step(&mut self, step: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError>;

    /// Puts an adapter into a slot, which is empty.
    ///
    /// # Errors
    /// If there is no such slot, or no memory for it.
    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError>;

    /// Empties a slot, which no sequence uses.
    fn unload_adapter(&mut self, slot: usize);

    /// How often a kind of step has to be computed before it takes its usual time.
    fn warm_up_steps(&self) -> usize {
        1
    }

    /// Batches of decoding sequences that take longer the first times than ever after.
    fn warm_up_batches(&self) -> Vec<usize> {
        Vec::new()
    }

    /// How long the device computed since this was last asked (s), if it keeps count: it does from the first time on.
    fn take_busy_seconds(&mut self) -> Option<f64> {
        None
    }

    /// Whether it is gone for good, so that no step can succeed any more.
    fn is_lost(&self) -> bool {
        false
    }
}

/// Why a step, or a load, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StepError(pub String);

/// One step, with the tokens that the scheduler does not know.
#[derive(Clone, Debug)]
pub struct StepInput<'a> {
    /// What its duration depends on.
    pub load: StepLoad<'a>,
    /// Distinct adapters in the batch.
    pub adapters: u32,
    /// Whether it begins when the one before ends: there was always something to do.
    pub continues: bool,
    /// For so many steps after this one, the rows are certain to decode again, each one
    /// token further in the blocks that its table has, unless a token that is sampled
    /// ends one of them or somebody comes or goes. A backend may begin those steps
    /// before it is asked to, and forgets them if it is asked for others.
    pub ahead: u32,
    /// A row for each sequence: those that decode, oldest first, then pieces of prompts.
    pub rows: Vec<Row<'a>>,
}

/// One sequence's part of a step.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// All of its tokens that are known: prompt, and what was generated.
    pub known: &'a [u32],
    /// Its tokens in the KV cache. The step computes `known[past..past + len]`.
    pub past: usize,
    /// Tokens to compute.
    pub len: usize,
    /// Its KV blocks, in order, for at least `past + len` tokens.
    pub table: &'a [BlockId],
    /// The slot of its adapter.
    pub adapter: Option<usize>,
    /// Log-probabilities to report for each known token that follows one computed here: of the token, and of so many of the most likely.
    pub prompt_logprobs: Option<u32>,
    /// How to sample the token after the last one known, if the step gets there.
    pub sample: Option<Context<'a>>,
}

/// What came of a [`Row`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowOutput {
    /// For the known tokens at `past + 1 ..= past + len`, as far as there are any, if asked for.
    pub prompt_logprobs: Vec<Logprobs>,
    /// The token that was sampled, if one was due.
    pub sampled: Option<Sampled>,
    /// Why this row has not what it asked for. Its request fails; the others of the step do not.
    pub failure: Option<SampleError>,
}

/// The memory of a replica, which its scheduler and its backend agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens a KV block holds.
    pub block_size: usize,
    /// KV blocks.
    pub num_blocks: usize,
    /// Most sequences in a step.
    pub max_num_seqs: usize,
    /// Most tokens in a step.
    pub max_batched_tokens: usize,
    /// Most tokens of a sequence, prompt and output.
    pub max_model_len: usize,
    /// Slots for adapters.
    pub max_loras: usize,
    /// The largest rank of an adapter.
    pub max_lora_rank: usize,
}
