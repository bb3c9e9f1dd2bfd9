//! Replicas that start as soon as there are GPUs for them, and how long they waited.

use std::collections::{BTreeMap, BTreeSet};

use foresail_core::control::replica_set::ReplicaAction;
use foresail_core::time::Nanos;

/// Replicas that were ordered and have no GPUs.
#[derive(Debug, Default)]
pub(super) struct WithoutGpus {
    replicas: BTreeSet<u32>,
    /// Since when those that wait in the pool's line have.
    since: BTreeMap<u32, Nanos>,
    waits: u64,
    ended_waits_ns: u128,
}

impl WithoutGpus {
    /// Orders were given, and will be carried out. From here on the replicas to
    /// start count as starting, and those to be cancelled do not any more.
    pub(super) fn ordered(&mut self, actions: &[ReplicaAction]) {
        for action in actions {
            match action {
                ReplicaAction::Start(id) => self.replicas.insert(*id),
                ReplicaAction::Cancel(id) => self.replicas.remove(id),
                ReplicaAction::Drain(_) => false,
            };
        }
    }

    /// There are no GPUs for a replica: it waits from now on.
    pub(super) fn wait(&mut self, replica: u32, now: Nanos) {
        self.since.insert(replica, now);
        self.waits += 1;
    }

    /// A replica has its GPUs: whether it is to start.
    pub(super) fn granted(&mut self, replica: u32, now: Nanos) -> bool {
        self.end_wait(replica, now);
        self.replicas.remove(&replica)
    }

    /// The wait of a replica is over, if it did wait.
    pub(super) fn end_wait(&mut self, replica: u32, now: Nanos) {
        if let Some(since) = self.since.remove(&replica) {
            self.ended_waits_ns += u128::from(now - since);
        }
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.replicas.iter().copied()
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.replicas.len() as u32
    }

    /// How many replicas ever waited.
    pub(super) fn waits(&self) -> u64 {
        self.waits
    }

    /// How long all of them did, up to `now` [replica ns].
    pub(super) fn waits_ns(&self, now: Nanos) -> u128 {
        let going_on = self.since.values().map(|since| u128::from(now - since));
        self.ended_waits_ns + going_on.sum::<u128>()
    }
}
