//! What a driver knows, and what can be asked of it between steps.

use std::collections::HashMap;
use std::sync::Arc;

use foresail_core::batching::{Scheduler, SequenceId};
use tokio::sync::mpsc::UnboundedSender;

use super::adapters::{AdapterGate, Answer};
use super::admission::Rules;
use super::live::Live;
use super::stats::{Counters, Stats};
use super::{Settings, StartError};
use crate::backend::Backend;
use crate::generation::{Event, Generation, GenerationError, Refusal};
use crate::weights::Adapter;

/// A request of a driver. Whoever drives it gives each another, in the order in which they come.
pub type RequestKey = u64;

/// An adapter of a driver. One that is removed and added again is another.
pub type AdapterKey = u32;

/// What came of asking for a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A step was computed, or failed.
    Stepped,
    /// There was nothing to compute.
    Idle,
    /// The step failed, and so will every other, for this reason: the device is gone.
    Lost(String),
}

/// A backend, the scheduler that decides its steps, and the requests that it serves.
///
/// It has no thread and no clock: [`Driver::step`] returns when the backend has
/// computed a step, and what is said between two steps takes effect with the next.
#[derive(Debug)]
pub struct Driver {
    pub(super) backend: Device,
    pub(super) rules: Rules,
    pub(super) scheduler: Scheduler,
    /// What is known of the scheduler's sequences, by their ids.
    pub(super) lives: Vec<Option<Live>>,
    /// The sequence of each request that the scheduler has.
    pub(super) sequences: HashMap<RequestKey, SequenceId>,
    pub(super) gate: AdapterGate,
    /// Whether there was always something to do since the last step.
    pub(super) continues: bool,
    /// For how many steps after the one in flight the batch is certain to stay as it is.
    pub(super) ahead: u32,
    pub(super) counters: Arc<Counters>,
    /// Reused: requests that end with a step.
    pub(super) finished: Vec<Live>,
}

/// A backend, which need not be `Debug`.
pub(super) struct Device(pub(super) Box<dyn Backend>);

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Device")
    }
}

impl Driver {
    /// A driver with nothing to do.
    ///
    /// # Errors
    /// If the limits leave no room to work.
    pub fn new(backend: Box<dyn Backend>, settings: &Settings) -> Result<Self, StartError> {
        let config = settings.config()?;
        let blocks = u64::from(config.num_blocks);
        Ok(Self {
            backend: Device(backend),
            rules: Rules {
                config,
                vocab_size: settings.vocab_size,
            },
            scheduler: Scheduler::new(config)?,
            lives: Vec::new(),
            sequences: HashMap::new(),
            gate: AdapterGate::new(settings.limits.max_loras),
            continues: false,
            ahead: 0,
            counters: Arc::new(Counters::new(blocks)),
            finished: Vec::new(),
        })
    }

    /// Takes a request. What happens to it is sent to `events`, in the order of [`Event`].
    ///
    /// # Errors
    /// If it could never be served, however long it waited.
    ///
    /// # Panics
    /// If there is no such adapter.
    pub fn submit(
        &mut self,
        key: RequestKey,
        generation: Generation,
        adapter: Option<AdapterKey>,
        events: UnboundedSender<Event>,
    ) -> Result<(), Refusal> {
        self.rules.check(&generation)?;
        self.counters.enter_queue(usize::MAX)?;
        self.take(key, generation, adapter, events);
        Ok(())
    }

    /// Takes a request that was checked, and counted as one that waits.
    pub(super) fn take(
        &mut self,
        key: RequestKey,
        generation: Generation,
        adapter: Option<AdapterKey>,
        events: UnboundedSender<Event>,
    ) {
        let live = Live::new(key, generation, adapter, events);
        let answer = self.gate.admit(&mut *self.backend.0, live);
        self.hear(answer);
        self.publish();
    }

    /// Does what the gate has decided about a request.
    pub(super) fn hear(&mut self, answer: Answer) {
        match answer {
            Answer::Joins(live) => self.join(*live),
            Answer::Waits => {}
            Answer::Fails(live, error) => self.fail(&live, error),
        }
    }

    /// Puts a request into the scheduler's queue.
    pub(super) fn join(&mut self, live: Live) {
        let added = self.scheduler.add(live.request());
        let id = added.expect("it was checked when it came");
        if id as usize == self.lives.len() {
            self.lives.push(None);
        }
        self.sequences.insert(live.key, id);
        self.lives[id as usize] = Some(live);
    }

    /// A request comes to nothing. The gate, if it had it, has let it go.
    pub(super) fn fail(&mut self, live: &Live, error: GenerationError) {
        self.leave_queue(live);
        self.counters.failed.add(1);
        live.send(Event::Failed(error));
    }

    /// A request ends; if it was never in the batch, it waits no more.
    pub(super) fn leave_queue(&self, live: &Live) {
        if !live.admitted {
            self.counters.leave_queue();
        }
    }

    /// Gives a request up: its KV blocks are free at once. One that has ended already stays so.
    pub fn cancel(&mut self, key: RequestKey) {
        let live = match self.sequences.remove(&key) {
            Some(id) => {
                // No step is in flight, so it ends at once.
                self.scheduler.abort(id);
                let live = self.lives[id as usize].take();
                let live = live.expect("a sequence of the scheduler is live");
                self.release_adapter(&live);
                live
            }
            None => match self.gate.withdraw(&mut *self.backend.0, key) {
                Some(live) => live,
                None => return,
            },
        };
        self.leave_queue(&live);
        self.counters.cancelled.add(1);
        self.publish();
    }

    /// A request of the scheduler has ended: its adapter's slot may go to those who wait for one.
    pub(super) fn release_adapter(&mut self, live: &Live) {
        let Some(adapter) = live.adapter else { return };
        for answer in self.gate.release(&mut *self.backend.0, adapter) {
            self.hear(answer);
        }
    }

    /// Keeps an adapter in host memory, for requests that ask for it.
    pub fn add_adapter(&mut self, key: AdapterKey, adapter: Arc<Adapter>) {
        self.gate.add(key, adapter);
    }

    /// Forgets an adapter once the requests that were taken with it have ended.
    pub fn remove_adapter(&mut self, key: AdapterKey) {
        self.gate.remove(&mut *self.backend.0, key);
    }

    /// Whether no request runs or waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.gate.waiting() == 0
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// Tells the counters what others may look at.
    pub(super) fn publish(&self) {
        let counters = &self.counters;
        counters.running.set(u64::from(self.scheduler.running()));
        let used = self.scheduler.blocks_used_after(0);
        counters.kv_blocks_used.set(u64::from(used));
        counters.adapter_loads.set(self.gate.loads);
        counters.adapter_evictions.set(self.gate.evictions);
    }

    /// Checks every invariant: of the scheduler, and that nothing is held by a request that is no more.
    ///
    /// # Panics
    /// If one does not hold, which is a defect of foresail.
    pub fn check(&self) {
        self.scheduler.check();
        let lives = self.lives.iter().flatten();
        for live in lives.clone() {
            let id = self.sequences.get(&live.key);
            let found = id.and_then(|id| self.lives[*id as usize].as_ref());
            assert!(
                found.is_some_and(|found| found.key == live.key),
                "a request is found"
            );
        }
        let count = lives.clone().count();
        assert_eq!(count, self.sequences.len(), "a request that ended is known");
        let known = self.scheduler.running() + self.scheduler.waiting();
        assert_eq!(count, known as usize, "a sequence has no request");
        let unadmitted = lives.clone().filter(|live| !live.admitted).count() + self.gate.waiting();
        self.gate.check(lives.filter_map(|live| live.adapter));
        if self.is_idle() {
            assert_eq!(unadmitted, 0, "a request waits");
            assert_eq!(
                self.scheduler.blocks_used_after(0),
                0,
                "a block is held by nobody"
            );
        }
    }
}
