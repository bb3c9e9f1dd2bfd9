//! A request on its way through the deployment, and where its time goes.
//!
//! ```text
//! due ── cold start ── dispatched ── outside ── adapter ── queue ── admitted ── prefill ── first token ── decode ── end
//!                                                              └── preempted ── … ── next token ──┘
//! ```
//!
//! `outside` is what its replica's server and its client do for it beside its steps. Some of that is after the first token on its way
//! back; all of it is put before the engine, which shifts the engine's time as a whole.
//!
//! A request that is sent again begins anew: what went before is then one part of
//! its time, and the others are those of the last attempt.

use foresail_core::time::Nanos;
use foresail_reports::records::{Outcome, Parts, RequestRecord};
use foresail_scenarios::workload::Request;

/// A request that has been received and has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Passage {
    pub(crate) request: Request,
    id: u64,
    /// How often its client has sent it.
    sends: u32,
    /// How often the deployment has begun to serve it again by itself.
    served_again: u32,
    /// When the last attempt began; what follows is about that one only.
    sent_at: Nanos,
    /// Time it waited while no replica was ready.
    cold_start: Nanos,
    /// Time from its replica's server to the engine.
    outside: Nanos,
    /// Time it waited at a replica for its adapter.
    adapter: Nanos,
    admitted_at: Option<Nanos>,
    first_token_at: Option<Nanos>,
    /// Since when it has been preempted.
    preempted_at: Option<Nanos>,
    preempted_before_first: Nanos,
    preempted_after_first: Nanos,
    preemptions: u32,
    cached_tokens: u32,
}

impl Passage {
    pub(crate) fn new(id: u64, request: Request) -> Self {
        Self {
            sent_at: request.due,
            request,
            id,
            sends: 1,
            served_again: 0,
            cold_start: 0,
            outside: 0,
            adapter: 0,
            admitted_at: None,
            first_token_at: None,
            preempted_at: None,
            preempted_before_first: 0,
            preempted_after_first: 0,
            preemptions: 0,
            cached_tokens: 0,
        }
    }

    /// Its position in the workload.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// How often its client has sent it.
    pub(crate) fn sends(&self) -> u32 {
        self.sends
    }

    /// How often the deployment has received it, or begun to serve it again.
    pub(crate) fn attempts(&self) -> u32 {
        self.sends + self.served_again
    }

    /// How often the deployment has begun to serve it again by itself.
    pub(crate) fn served_again(&self) -> u32 {
        self.served_again
    }

    /// Its client sends it again: all that was done for it is lost.
    pub(crate) fn send_again(self, now: Nanos) -> Self {
        Self {
            sends: self.sends + 1,
            ..self.begin_again(now)
        }
    }

    /// The deployment serves it again, because its replica is no more.
    pub(crate) fn serve_again(self, now: Nanos) -> Self {
        Self {
            served_again: self.served_again + 1,
            ..self.begin_again(now)
        }
    }

    fn begin_again(self, now: Nanos) -> Self {
        Self {
            sends: self.sends,
            served_again: self.served_again,
            sent_at: now,
            ..Self::new(self.id, self.request)
        }
    }

    /// Whether its first token has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.first_token_at.is_some()
    }

    /// It is given to a replica, having waited so long for one to be ready.
    pub(crate) fn dispatched(&mut self, cold_start: Nanos) {
        self.cold_start = cold_start;
    }

    /// It has been on its way into the engine for so long.
    pub(crate) fn was_outside(&mut self, outside: Nanos) {
        self.outside = outside;
    }

    /// It has waited so long at a replica for its adapter.
    pub(crate) fn waited_for_adapter(&mut self, adapter: Nanos) {
        self.adapter = adapter;
    }

    /// It is in a step for the first time, or again after a preemption.
    pub(crate) fn admitted(&mut self, now: Nanos, cached_tokens: u32) {
        if self.admitted_at.is_none() {
            self.admitted_at = Some(now);
            self.cached_tokens = cached_tokens;
        }
    }

    pub(crate) fn preempted(&mut self, now: Nanos) {
        self.preemptions += 1;
        // A second preemption before any new token prolongs the first.
        self.preempted_at.get_or_insert(now);
    }

    /// The last of its known tokens has been computed, and the next one is
    /// sampled. Returns the gap since its last token if that was interrupted.
    pub(crate) fn sampled(&mut self, now: Nanos) -> Option<Nanos> {
        let interruption = self.preempted_at.take().map(|since| now - since);
        if self.first_token_at.is_none() {
            self.first_token_at = Some(now);
            self.preempted_before_first += interruption.unwrap_or(0);
            return None;
        }
        self.preempted_after_first += interruption.unwrap_or(0);
        interruption
    }

    /// What is recorded of it when it ends.
    pub(crate) fn record(
        self,
        end: Nanos,
        outcome: Outcome,
        output_tokens: u32,
        replica: Option<u32>,
    ) -> RequestRecord {
        RequestRecord {
            id: self.id,
            due_ns: self.request.due,
            prompt_tokens: self.request.prompt_tokens,
            output_tokens,
            session: self.request.session,
            adapter: self.request.adapter,
            attempts: self.attempts(),
            replica,
            cached_tokens: self.cached_tokens,
            preemptions: self.preemptions,
            outcome,
            first_token_ns: self.first_token_at,
            end_ns: end,
            parts: Some(self.parts(end)),
            wire: None,
        }
    }

    /// The parts of its time; each counts from where the one before ended, so
    /// they sum to all of it, wherever it was cut off.
    fn parts(&self, end: Nanos) -> Parts {
        let open_preemption = self.preempted_at.map_or(0, |since| end - since);
        let admitted = self.admitted_at.unwrap_or(end);
        let waited = admitted - self.sent_at - self.outside;
        let in_prefill = self.first_token_at.unwrap_or(end) - admitted;
        let in_decode = self.first_token_at.map_or(0, |first| end - first);
        let (before, after) = match self.first_token_at {
            None => (self.preempted_before_first + open_preemption, 0),
            Some(_) => (
                self.preempted_before_first,
                self.preempted_after_first + open_preemption,
            ),
        };
        Parts {
            retry_ns: self.sent_at - self.request.due,
            outside_ns: self.outside,
            cold_start_ns: self.cold_start,
            queue_ns: waited - self.cold_start - self.adapter,
            adapter_ns: self.adapter,
            prefill_ns: in_prefill - before,
            preemption_ns: before + after,
            decode_ns: in_decode - after,
        }
    }
}
