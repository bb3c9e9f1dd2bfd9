//! Adapters of one replica: in host memory, in the backend's slots, and the
//! requests that wait for a slot.
//!
//! The core's [`AdapterSlots`] decides who has a slot and who gives way. As in
//! the simulator, a request joins the scheduler once its adapter is loaded, and
//! those whose adapter is there pass those that wait. A backend loads an adapter
//! between two steps, so nobody waits for a load that is under way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foresail_core::batching::{AdapterAnswer, AdapterSlots};

use super::core::{AdapterKey, RequestKey};
use super::live::Live;
use super::step::guarded;
use crate::backend::{Backend, StepError};
use crate::generation::GenerationError;
use crate::weights::Adapter;

/// The adapters of one replica, and who waits for them.
#[derive(Debug)]
pub(super) struct AdapterGate {
    slots: AdapterSlots,
    /// The adapter in each of the backend's slots, as `slots` has it.
    places: Vec<Option<AdapterKey>>,
    adapters: BTreeMap<AdapterKey, Held>,
    /// Requests without a slot for their adapter, in the order in which they came.
    waiting: VecDeque<Live>,
    pub(super) loads: u64,
    pub(super) evictions: u64,
}

/// An adapter in host memory.
#[derive(Debug)]
struct Held {
    adapter: Arc<Adapter>,
    /// Requests that run or wait with it.
    requests: usize,
    /// The slot that it is loaded in.
    slot: Option<usize>,
    /// Whether it is to be forgotten with the last of its requests.
    removed: bool,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// It joins the scheduler.
    Joins(Box<Live>),
    /// It waits for a slot.
    Waits,
    /// Its adapter could not be loaded.
    Fails(Box<Live>, GenerationError),
}

impl AdapterGate {
    pub(super) fn new(slots: usize) -> Self {
        // Every adapter is in host memory, so there are no copies to be forgotten.
        let count = slots as u32;
        Self {
            slots: AdapterSlots::new(count, count),
            places: vec![None; slots],
            adapters: BTreeMap::new(),
            waiting: VecDeque::new(),
            loads: 0,
            evictions: 0,
        }
    }

    pub(super) fn add(&mut self, key: AdapterKey, adapter: Arc<Adapter>) {
        let held = Held {
            adapter,
            requests: 0,
            slot: None,
            removed: false,
        };
        self.adapters.insert(key, held);
    }

    pub(super) fn remove(&mut self, backend: &mut dyn Backend, key: AdapterKey) {
        if let Some(held) = self.adapters.get_mut(&key) {
            held.removed = true;
            self.forget_unused(backend, key);
        }
    }

    /// A request comes.
    pub(super) fn admit(&mut self, backend: &mut dyn Backend, live: Live) -> Answer {
        let Some(adapter) = live.adapter else {
            return Answer::Joins(Box::new(live));
        };
        let held = self.adapters.get_mut(&adapter);
        held.expect("a request names an adapter that is there")
            .requests += 1;
        match self.ask(backend, adapter) {
            Ok(true) => Answer::Joins(Box::new(live)),
            Ok(false) => {
                self.waiting.push_back(live);
                Answer::Waits
            }
            Err(error) => self.fails(backend, adapter, live, error),
        }
    }

    fn fails(
        &mut self,
        backend: &mut dyn Backend,
        adapter: AdapterKey,
        live: Live,
        StepError(reason): StepError,
    ) -> Answer {
        let name = self.adapters[&adapter].adapter.name.clone();
        self.let_go(backend, adapter);
        let error = GenerationError::Adapter {
            adapter: name,
            reason,
        };
        Answer::Fails(Box::new(live), error)
    }

    /// Asks for a slot with the adapter in it. If there is one, a request uses it until [`Self::release`].
    fn ask(&mut self, backend: &mut dyn Backend, key: AdapterKey) -> Result<bool, StepError> {
        match self.slots.request(key) {
            AdapterAnswer::Wait => return Ok(false),
            AdapterAnswer::Load { evict, .. } => {
                self.make_place(backend, key, evict);
                // Whatever comes of the load: it is not under way any more.
                self.slots.loaded(key);
            }
            AdapterAnswer::Resident | AdapterAnswer::Loading => {}
        }
        let loaded = self.load(backend, key);
        if loaded.is_err() {
            self.slots.release(key);
        }
        loaded.map(|()| true)
    }

    /// Takes a slot for an adapter: an empty one, or that of the adapter which gives way.
    fn make_place(
        &mut self,
        backend: &mut dyn Backend,
        key: AdapterKey,
        evict: Option<AdapterKey>,
    ) {
        if let Some(evicted) = evict {
            self.evictions += 1;
            self.unload(backend, evicted);
        }
        let place = self.places.iter().position(|held| *held == evict);
        let place = place.expect("what gives way has a slot, and else one is empty");
        self.places[place] = Some(key);
    }

    /// Loads an adapter into the slot that it was given, unless it is there.
    fn load(&mut self, backend: &mut dyn Backend, key: AdapterKey) -> Result<(), StepError> {
        let held = self.adapters.get_mut(&key).expect("it is in host memory");
        if held.slot.is_some() {
            return Ok(());
        }
        let slot = self.places.iter().position(|place| *place == Some(key));
        let slot = slot.expect("it was given a slot");
        guarded(|| backend.load_adapter(slot, &held.adapter))?;
        held.slot = Some(slot);
        self.loads += 1;
        Ok(())
    }

    /// Empties the slot of an adapter that is loaded.
    fn unload(&mut self, backend: &mut dyn Backend, key: AdapterKey) {
        let slot = self
            .adapters
            .get_mut(&key)
            .and_then(|held| held.slot.take());
        if let Some(slot) = slot {
            // A slot that cannot be emptied is one that the next load finds unusable, and says so.
            let _ = guarded(|| {
                backend.unload_adapter(slot);
                Ok(())
            });
        }
    }

    /// A request has ended that joined the scheduler with this adapter. Those
    /// who wait ask again, in the order in which they came.
    pub(super) fn release(&mut self, backend: &mut dyn Backend, key: AdapterKey) -> Vec<Answer> {
        let is_unused = self.slots.release(key);
        self.let_go(backend, key);
        if is_unused {
            self.give_slots(backend)
        } else {
            Vec::new()
        }
    }

    fn give_slots(&mut self, backend: &mut dyn Backend) -> Vec<Answer> {
        let mut answers = Vec::new();
        for live in std::mem::take(&mut self.waiting) {
            let adapter = live.adapter.expect("who waits here wants an adapter");
            match self.ask(backend, adapter) {
                Ok(true) => answers.push(Answer::Joins(Box::new(live))),
                Ok(false) => self.waiting.push_back(live),
                Err(error) => answers.push(self.fails(backend, adapter, live, error)),
            }
        }
        answers
    }

    /// Takes a request out that waits here, and is given up.
    pub(super) fn withdraw(&mut self, backend: &mut dyn Backend, key: RequestKey) -> Option<Live> {
        let place = self.waiting.iter().position(|live| live.key == key)?;
        let live = self.waiting.remove(place)?;
        if let Some(adapter) = live.adapter {
            self.let_go(backend, adapter);
        }
        Some(live)
    }

    /// A request needs this adapter no more.
    fn let_go(&mut self, backend: &mut dyn Backend, key: AdapterKey) {
        let held = self.adapters.get_mut(&key);
        held.expect("a request's adapter is in host memory")
            .requests -= 1;
        self.forget_unused(backend, key);
    }

    /// Forgets an adapter that was removed, if no request needs it. Its slot
    /// counts as taken until the core gives it to another.
    fn forget_unused(&mut self, backend: &mut dyn Backend, key: AdapterKey) {
        let held = &self.adapters[&key];
        if held.removed && held.requests == 0 {
            self.unload(backend, key);
            self.adapters.remove(&key);
        }
    }

    /// The slot of an adapter that a request in the scheduler uses.
    pub(super) fn slot(&self, key: AdapterKey) -> usize {
        self.adapters[&key]
            .slot
            .expect("an adapter in use is loaded")
    }

    /// How many requests wait for a slot.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Checks that each adapter counts the requests that have it: those here, and these of the scheduler.
    pub(super) fn check(&self, in_scheduler: impl Iterator<Item = AdapterKey>) {
        let mut requests: BTreeMap<AdapterKey, usize> = BTreeMap::new();
        for key in in_scheduler {
            assert!(
                self.adapters[&key].slot.is_some(),
                "adapter {key} is not loaded"
            );
            *requests.entry(key).or_default() += 1;
        }
        for key in self.waiting.iter().filter_map(|live| live.adapter) {
            *requests.entry(key).or_default() += 1;
        }
        for (key, held) in &self.adapters {
            let expected = requests.get(key).copied().unwrap_or(0);
            assert_eq!(held.requests, expected, "requests of adapter {key}");
            if let Some(slot) = held.slot {
                assert_eq!(self.places[slot], Some(*key), "slot {slot}");
            }
        }
    }
}
