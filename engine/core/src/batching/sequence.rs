//! One sequence, as a scheduler sees it.

use super::{AdapterId, BlockId, Request};

/// A sequence. All counts are tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) state: State,
    /// Age: sequences that were admitted earlier have a smaller ticket.
    pub(super) ticket: u64,
    /// Tokens to be computed before the next one can be sampled: the prompt,
    /// and after a preemption also what had been generated.
    pub(super) known: u32,
    /// Tokens still to be generated, while it does not decode.
    pub(super) left: u32,
    pub(super) adapter: Option<AdapterId>,
    pub(super) cacheable: bool,
    /// Ended while a step was in flight: to be freed when that step commits.
    pub(super) aborted: bool,
    /// Leading blocks whose contents have been told.
    pub(super) sealed: u32,
    /// Whether the contents after those are unknown.
    pub(super) exhausted: bool,
    pub(super) table: Vec<BlockId>,
}

/// What a sequence is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The slot is unused.
    Unused,
    /// It holds nothing and waits to be admitted.
    Waiting,
    /// Its known tokens are being computed: so many are, or will be when the step in flight commits.
    Prefill {
        /// Tokens in the KV cache.
        computed: u32,
    },
    /// It computes one token a step. Every decoding sequence does, so the step
    /// count of the scheduler stands for all their counters.
    Decode {
        /// Tokens in the KV cache, less the scheduler's step count.
        offset: i64,
        /// The step count at which it has generated all its tokens.
        finish_at: u64,
    },
}

impl Sequence {
    pub(super) fn new(request: &Request, mut table: Vec<BlockId>) -> Self {
        table.clear();
        Self {
            state: State::Waiting,
            ticket: 0,
            known: request.prompt,
            left: request.max_new,
            adapter: request.adapter,
            cacheable: request.cacheable,
            aborted: false,
            sealed: 0,
            exhausted: false,
            table,
        }
    }

    /// Whether its next full block may be shared.
    pub(super) fn sealing(&self) -> bool {
        self.cacheable && !self.exhausted
    }

    /// Tokens in the KV cache after `steps` committed steps.
    pub(super) fn computed(&self, steps: u64) -> u32 {
        match self.state {
            State::Unused | State::Waiting => 0,
            State::Prefill { computed } => computed,
            State::Decode { offset, .. } => (steps as i64 + offset) as u32,
        }
    }
}
