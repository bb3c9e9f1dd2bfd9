//! Requests of one replica that wait for their adapter, and the adapters on
//! their way into its memory.
//!
//! A request joins the replica's scheduler once its adapter is in a slot. Until
//! then it is here: its adapter is being loaded, or every slot is in use. As in
//! vLLM's scheduler, requests whose adapter is there pass those that wait, so an
//! adapter in steady demand may keep its slot for long.
//!
//! Loads go one after the other, in the order in which they were asked for: all
//! take the same way from storage or host memory, and sharing it would only
//! make the first ones later (vLLM's `WorkerLoRAManager` loads them in a loop).
//! The batch goes on meanwhile, as in S-LoRA (arXiv 2311.03285, section 5.2).

use std::collections::VecDeque;

use foresail_core::batching::{AdapterAnswer, AdapterId, AdapterSlots};
use foresail_core::time::Nanos;
use foresail_scenarios::scenario::Adapters;

use crate::passage::Passage;

/// The adapters of one replica, and who waits for them.
#[derive(Debug)]
pub(crate) struct AdapterGate<'a> {
    config: &'a Adapters,
    slots: AdapterSlots,
    /// Requests without their adapter, in the order in which they came.
    waiting: VecDeque<Waiting>,
    /// When the last load that was ordered ends.
    loaded_until: Nanos,
    /// Ends of loads that are to be put on the agenda.
    ordered: Vec<(Nanos, AdapterId)>,
    pub(crate) tally: AdapterTally,
}

/// A request without its adapter.
#[derive(Debug)]
struct Waiting {
    passage: Passage,
    since: Nanos,
    adapter: AdapterId,
    /// Whether the adapter has a slot, and is on its way there.
    has_slot: bool,
}

impl Waiting {
    /// The request, which does not wait any more.
    fn end(self, now: Nanos) -> Passage {
        let mut passage = self.passage;
        passage.waited_for_adapter(now - self.since);
        passage
    }
}

/// What a replica's adapters have done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AdapterTally {
    /// Loads ordered.
    pub(crate) loads: u64,
    /// Loads that took the slot of another adapter.
    pub(crate) evictions: u64,
}

impl<'a> AdapterGate<'a> {
    pub(crate) fn new(config: &'a Adapters) -> Self {
        Self {
            config,
            slots: AdapterSlots::new(config.slots, config.host_slots),
            waiting: VecDeque::new(),
            loaded_until: 0,
            ordered: Vec::new(),
            tally: AdapterTally::default(),
        }
    }

    /// A request for this adapter comes at `now`. It is given back if its adapter is there.
    pub(crate) fn admit(
        &mut self,
        now: Nanos,
        adapter: AdapterId,
        passage: Passage,
    ) -> Option<Passage> {
        let answer = self.ask(now, adapter);
        if answer == AdapterAnswer::Resident {
            return Some(passage);
        }
        self.waiting.push_back(Waiting {
            passage,
            since: now,
            adapter,
            has_slot: answer != AdapterAnswer::Wait,
        });
        None
    }

    fn ask(&mut self, now: Nanos, adapter: AdapterId) -> AdapterAnswer {
        let answer = self.slots.request(adapter);
        if let AdapterAnswer::Load { evict, source } = answer {
            self.tally.loads += 1;
            self.tally.evictions += u64::from(evict.is_some());
            let duration = self.config.load_time(adapter, source);
            self.loaded_until = self.loaded_until.max(now).saturating_add(duration);
            self.ordered.push((self.loaded_until, adapter));
        }
        answer
    }

    /// The adapter is there: those who waited for it, in the order in which they came.
    pub(crate) fn loaded(&mut self, now: Nanos, adapter: AdapterId) -> Vec<Passage> {
        self.slots.loaded(adapter);
        let mut served = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.adapter == adapter && waiting.has_slot {
                served.push(waiting.end(now));
            } else {
                self.waiting.push_back(waiting);
            }
        }
        if served.is_empty() {
            // Those who wanted it have gone, and its slot may go to others.
            self.give_slots(now);
        }
        served
    }

    /// This request has ended, and needs its adapter no more.
    pub(crate) fn release_of(&mut self, now: Nanos, passage: &Passage) {
        if let Some(adapter) = passage.request.adapter {
            self.release(now, adapter);
        }
    }

    /// The request, if it waits here.
    pub(crate) fn holds(&self, request: u64) -> Option<&Passage> {
        let passages = self.waiting.iter().map(|waiting| &waiting.passage);
        passages.into_iter().find(|passage| passage.id() == request)
    }

    /// The client of a request that waits here gives it up.
    pub(crate) fn withdraw(&mut self, now: Nanos, request: u64) -> Option<Passage> {
        let is_it = |waiting: &Waiting| waiting.passage.id() == request;
        let place = self.waiting.iter().position(is_it)?;
        let waiting = self.waiting.remove(place)?;
        if waiting.has_slot {
            self.release(now, waiting.adapter);
        }
        Some(waiting.end(now))
    }

    /// A request for this adapter has ended: its slot may go to one who waits for one.
    pub(crate) fn release(&mut self, now: Nanos, adapter: AdapterId) {
        if self.slots.release(adapter) {
            self.give_slots(now);
        }
    }

    /// Asks again for those who have no slot, in the order in which they came.
    fn give_slots(&mut self, now: Nanos) {
        for place in 0..self.waiting.len() {
            let Waiting {
                adapter, has_slot, ..
            } = self.waiting[place];
            if !has_slot {
                // Nobody waits without a slot for an adapter that is there:
                // it would have been loaded for them.
                let answer = self.ask(now, adapter);
                debug_assert_ne!(answer, AdapterAnswer::Resident);
                self.waiting[place].has_slot = answer != AdapterAnswer::Wait;
            }
        }
    }

    /// Ends of loads ordered since the last call.
    pub(crate) fn take_ordered(&mut self) -> impl Iterator<Item = (Nanos, AdapterId)> + '_ {
        self.ordered.drain(..)
    }

    /// How many requests wait for an adapter.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.len() as u32
    }

    /// All who wait, when the replica ends.
    pub(crate) fn abandon(&mut self, now: Nanos) -> impl Iterator<Item = Passage> + '_ {
        self.waiting.drain(..).map(move |waiting| waiting.end(now))
    }
}
