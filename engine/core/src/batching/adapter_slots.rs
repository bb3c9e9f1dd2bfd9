//! Which adapters a replica holds, and where.
//!
//! ```text
//! storage ──Load──> loading ──loaded──> in use <──request── unused
//!    ^                                    └────release────────^ │
//!    └── forgotten <── host copy <── evicted, least recently used first
//! ```
//!
//! GPU memory has a fixed number of slots, each large enough for any adapter,
//! as in vLLM (`LoRAModelManager.lora_index_to_id`) and SGLang (`LoRAMemoryPool`).
//! An adapter that some sequence uses stays; of the others, the least recently
//! used one gives its slot up. Host memory keeps copies, those of the adapters
//! on the GPU included (vLLM's `max_cpu_loras`), so that an adapter that comes
//! back need not be read from storage again.

use std::collections::{BTreeMap, BTreeSet};

use super::AdapterId;

/// The adapter slots of one replica. It knows no sequences and no time: whoever
/// drives it loads what it says, and tells when that is done.
#[derive(Clone, Debug)]
pub struct AdapterSlots {
    slots: u32,
    host_slots: u32,
    /// The adapters in slots.
    held: BTreeMap<AdapterId, Held>,
    /// Those of them that nobody uses.
    unused: Recency,
    /// Copies in host memory of adapters that are in no slot.
    copies: Recency,
    /// How often an adapter was asked for, loaded or let go: the clock of what is recent.
    uses: u64,
}

/// An adapter in a slot.
#[derive(Clone, Copy, Debug)]
struct Held {
    users: u32,
    is_loading: bool,
}

/// Where an adapter is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterSource {
    /// The replica's storage: its first use, or it has been forgotten.
    Storage,
    /// A copy in host memory.
    Host,
}

/// What becomes of a sequence that needs an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterAnswer {
    /// The adapter is in a slot: it can be computed with.
    Resident,
    /// A slot has been given to it: load it, then say [`AdapterSlots::loaded`].
    Load {
        /// The adapter that was in the slot.
        evict: Option<AdapterId>,
        /// Where to read it from.
        source: AdapterSource,
    },
    /// It is being loaded already.
    Loading,
    /// Every slot is in use: ask again when one is not.
    Wait,
}

impl AdapterSlots {
    /// Empty slots. `host_slots` are the adapters that host memory holds, those in slots
    /// included; below `slots` it is as if it were `slots`: no copies.
    #[must_use]
    pub fn new(slots: u32, host_slots: u32) -> Self {
        Self {
            slots,
            host_slots: host_slots.max(slots),
            held: BTreeMap::new(),
            unused: Recency::default(),
            copies: Recency::default(),
            uses: 0,
        }
    }

    /// A sequence needs this adapter. With every answer but
    /// [`AdapterAnswer::Wait`] it is a user of the adapter, until [`AdapterSlots::release`].
    pub fn request(&mut self, adapter: AdapterId) -> AdapterAnswer {
        self.uses += 1;
        if let Some(held) = self.held.get_mut(&adapter) {
            held.users += 1;
            self.unused.remove(adapter);
            return if held.is_loading {
                AdapterAnswer::Loading
            } else {
                AdapterAnswer::Resident
            };
        }
        let is_full = self.held.len() as u64 >= u64::from(self.slots);
        let evict = if is_full { self.unused.oldest() } else { None };
        if is_full && evict.is_none() {
            return AdapterAnswer::Wait;
        }
        let source = if self.copies.remove(adapter).is_some() {
            AdapterSource::Host
        } else {
            AdapterSource::Storage
        };
        if let Some(evicted) = evict {
            self.evict(evicted);
        }
        let held = Held {
            users: 1,
            is_loading: true,
        };
        self.held.insert(adapter, held);
        self.forget_copies();
        AdapterAnswer::Load { evict, source }
    }

    /// The adapter has been loaded into its slot.
    ///
    /// # Panics
    /// If it was not being loaded.
    pub fn loaded(&mut self, adapter: AdapterId) {
        self.uses += 1;
        let held = self.held.get_mut(&adapter);
        let held = held.expect("an adapter that is loaded has a slot");
        assert!(held.is_loading, "it is loaded once");
        held.is_loading = false;
        // Its users may have gone while it was loaded.
        if held.users == 0 {
            self.unused.insert(adapter, self.uses);
        }
    }

    /// A sequence does not use this adapter any more. Returns whether its slot
    /// can now be given to another adapter, so that those that wait may ask again.
    ///
    /// # Panics
    /// If nobody uses it.
    pub fn release(&mut self, adapter: AdapterId) -> bool {
        self.uses += 1;
        let held = self.held.get_mut(&adapter);
        let held = held.expect("an adapter in use has a slot");
        held.users = held.users.checked_sub(1).expect("it has a user");
        let is_unused = held.users == 0 && !held.is_loading;
        if is_unused {
            self.unused.insert(adapter, self.uses);
        }
        is_unused
    }

    /// Adapters in slots, those that are being loaded included.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held.len() as u32
    }

    /// Whether the adapter is in a slot and has been loaded.
    #[must_use]
    pub fn is_resident(&self, adapter: AdapterId) -> bool {
        (self.held.get(&adapter)).is_some_and(|held| !held.is_loading)
    }

    fn evict(&mut self, adapter: AdapterId) {
        self.held.remove(&adapter);
        if let Some(used_at) = self.unused.remove(adapter) {
            self.copies.insert(adapter, used_at);
        }
    }

    /// Drops the least recently used copies that host memory has no room for.
    fn forget_copies(&mut self) {
        let room = self.host_slots as usize - self.held.len();
        while self.copies.len() > room
            && let Some(oldest) = self.copies.oldest()
        {
            self.copies.remove(oldest);
        }
    }
}

/// Adapters in the order of their last use.
#[derive(Clone, Debug, Default)]
struct Recency {
    used_at: BTreeMap<AdapterId, u64>,
    order: BTreeSet<(u64, AdapterId)>,
}

impl Recency {
    fn insert(&mut self, adapter: AdapterId, used_at: u64) {
        self.used_at.insert(adapter, used_at);
        self.order.insert((used_at, adapter));
    }

    /// Takes it out, and says when it was last used, if it was there.
    fn remove(&mut self, adapter: AdapterId) -> Option<u64> {
        let used_at = self.used_at.remove(&adapter)?;
        self.order.remove(&(used_at, adapter));
        Some(used_at)
    }

    /// The least recently used.
    fn oldest(&self) -> Option<AdapterId> {
        self.order.first().map(|(_, adapter)| *adapter)
    }

    fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A sequence that comes and goes, its adapter loaded at once.
    fn serve(slots: &mut AdapterSlots, adapter: AdapterId) -> AdapterAnswer {
        let answer = slots.request(adapter);
        if let AdapterAnswer::Load { .. } = answer {
            slots.loaded(adapter);
        }
        slots.release(adapter);
        answer
    }

    const fn load(evict: Option<AdapterId>, source: AdapterSource) -> AdapterAnswer {
        AdapterAnswer::Load { evict, source }
    }

    #[test]
    fn the_least_recently_used_gives_way() {
        use AdapterSource::Storage;
        let mut slots = AdapterSlots::new(2, 2);
        assert_eq!(serve(&mut slots, 1), load(None, Storage));
        assert_eq!(serve(&mut slots, 2), load(None, Storage));
        assert_eq!(serve(&mut slots, 1), AdapterAnswer::Resident);
        assert_eq!(serve(&mut slots, 3), load(Some(2), Storage));
        assert_eq!(serve(&mut slots, 1), AdapterAnswer::Resident);
        assert_eq!(serve(&mut slots, 2), load(Some(3), Storage));
    }

    #[test]
    fn what_is_in_use_stays_and_others_wait() {
        let mut slots = AdapterSlots::new(1, 1);
        assert_eq!(slots.request(1), load(None, AdapterSource::Storage));
        assert_eq!(slots.request(1), AdapterAnswer::Loading);
        assert_eq!(slots.request(2), AdapterAnswer::Wait);
        slots.loaded(1);
        assert_eq!(slots.request(1), AdapterAnswer::Resident);
        assert!(!slots.release(1) && !slots.release(1));
        assert_eq!(slots.request(2), AdapterAnswer::Wait);
        assert!(slots.release(1), "the last user has gone");
        assert_eq!(slots.request(2), load(Some(1), AdapterSource::Storage));
    }

    #[test]
    fn an_adapter_whose_users_left_while_it_was_loaded_can_be_evicted_then() {
        let mut slots = AdapterSlots::new(1, 1);
        slots.request(1);
        assert!(!slots.release(1), "it is still being loaded");
        assert_eq!(slots.request(2), AdapterAnswer::Wait);
        slots.loaded(1);
        assert_eq!(slots.request(2), load(Some(1), AdapterSource::Storage));
    }

    #[test]
    fn host_memory_keeps_copies_of_what_was_evicted() {
        use AdapterSource::{Host, Storage};
        let mut slots = AdapterSlots::new(1, 2);
        assert_eq!(serve(&mut slots, 1), load(None, Storage));
        assert_eq!(serve(&mut slots, 2), load(Some(1), Storage));
        assert_eq!(serve(&mut slots, 1), load(Some(2), Host));
        assert_eq!(serve(&mut slots, 3), load(Some(1), Storage));
        assert_eq!(serve(&mut slots, 2), load(Some(3), Storage), "forgotten");
    }

    /// What the slots must do, said in the simplest way: lists of sequences and adapters.
    #[derive(Default)]
    struct Model {
        /// One entry a user.
        users: Vec<AdapterId>,
        loading: Vec<AdapterId>,
        /// All adapters in slots, least recently used first.
        held: Vec<AdapterId>,
    }

    impl Model {
        fn touch(&mut self, adapter: AdapterId) {
            self.held.retain(|held| *held != adapter);
            self.held.push(adapter);
        }

        fn request(&mut self, slots: u32, adapter: AdapterId) -> &'static str {
            let answer = if self.loading.contains(&adapter) {
                "loading"
            } else if self.held.contains(&adapter) {
                "resident"
            } else {
                if self.held.len() == slots as usize {
                    let is_free = |held: &AdapterId| {
                        !self.users.contains(held) && !self.loading.contains(held)
                    };
                    let Some(place) = self.held.iter().position(is_free) else {
                        return "wait";
                    };
                    self.held.remove(place);
                }
                self.loading.push(adapter);
                "load"
            };
            self.touch(adapter);
            self.users.push(adapter);
            answer
        }
    }

    proptest! {
        #[test]
        fn it_is_a_list_of_slots_with_least_recently_used_eviction(
            count in 0..5_u32, more in 0..4_u32,
            acts in prop::collection::vec((0..3_u8, 0..8_u32, any::<prop::sample::Index>()), 0..200),
        ) {
            let mut slots = AdapterSlots::new(count, count + more);
            let mut model = Model::default();
            for (act, adapter, index) in acts {
                match act {
                    0 => {
                        let answer = match slots.request(adapter) {
                            AdapterAnswer::Resident => "resident",
                            AdapterAnswer::Loading => "loading",
                            AdapterAnswer::Wait => "wait",
                            AdapterAnswer::Load { evict, .. } => {
                                prop_assert!(evict.is_none_or(|evicted| !model.users.contains(&evicted)));
                                "load"
                            }
                        };
                        prop_assert_eq!(answer, model.request(count, adapter));
                    }
                    1 if !model.users.is_empty() => {
                        let adapter = model.users.swap_remove(index.index(model.users.len()));
                        slots.release(adapter);
                        model.touch(adapter);
                    }
                    2 if !model.loading.is_empty() => {
                        let adapter = model.loading.swap_remove(index.index(model.loading.len()));
                        slots.loaded(adapter);
                        if !model.users.contains(&adapter) {
                            model.touch(adapter);
                        }
                    }
                    _ => {}
                }
                prop_assert!(slots.held() <= count);
                prop_assert_eq!(slots.held() as usize, model.held.len());
                for adapter in 0..8 {
                    let resident = model.held.contains(&adapter) && !model.loading.contains(&adapter);
                    prop_assert_eq!(slots.is_resident(adapter), resident);
                }
                prop_assert!(slots.copies.len() <= more as usize + (count - slots.held()) as usize);
            }
        }

        /// Mattson, Gecsei, Slutz and Traiger, "Evaluation techniques for storage
        /// hierarchies", 1970: what a smaller LRU store holds, a larger one holds too.
        #[test]
        fn one_sequence_at_a_time_finds_more_the_more_slots_there_are(
            trace in prop::collection::vec(0..10_u32, 0..300), small in 1..8_u32, more in 1..4_u32,
        ) {
            let loads = |count| {
                let mut slots = AdapterSlots::new(count, count);
                trace.iter().filter(|adapter| serve(&mut slots, **adapter) != AdapterAnswer::Resident).count()
            };
            prop_assert!(loads(small + more) <= loads(small));
        }
    }
}
