//! Which replicas start, stop and drain.
//!
//! Pure bookkeeping: the set decides which replicas a new target takes or costs,
//! and is told what became of them. It remembers only replicas that live.
//!
//! ```text
//! Pending -> Downloading -> Initialising -> Ready -> Draining
//!    |            |              |            |          |
//!    +------------+--------------+------------+----------+--> Gone
//!         cancelled, or failed to start    crashed    finished
//! ```
//!
//! A start that failed and is tried again goes back to Pending.
//!
//! Which replicas go is a choice of ours, as the specification is silent on it:
//! those that start, newest first, because they have served nobody; then those
//! that are ready, newest first, because the oldest have the fullest caches. A
//! replica that drains is not taken back by a later scale-up: its drain has been
//! announced, and a provider that has begun to release a machine does not return it.

use thiserror::Error;

use crate::time::Nanos;

/// Identity of a replica. Counted up from 0 and never used again.
pub type ReplicaId = u32;

/// What a replica is doing, in the order in which it passes through (B05).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Waits for a machine.
    Pending,
    /// Fetches image and weights.
    Downloading,
    /// Starts the engine: weights, compilation, graph capture, warm-up.
    Initialising,
    /// Takes requests.
    Ready,
    /// Takes no more requests and finishes those it has.
    Draining,
    /// Is no more; its GPUs are free.
    Gone,
}

impl Stage {
    /// Whether the replica was asked for and is not ready yet.
    #[must_use]
    pub fn is_starting(self) -> bool {
        self < Stage::Ready
    }
}

/// What the owner of the replicas has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaAction {
    /// Start this new replica, which is [`Stage::Pending`].
    Start(ReplicaId),
    /// Stop starting it. It is gone already.
    Cancel(ReplicaId),
    /// Send it nothing more, let it finish, then report it [`gone`](ReplicaSet::gone).
    Drain(ReplicaId),
}

/// A replica that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Which.
    pub id: ReplicaId,
    /// What it is doing.
    pub stage: Stage,
    /// Since when.
    pub since: Nanos,
}

/// How many replicas are in which stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many there should be.
    pub target: u32,
    /// Asked for and not ready yet.
    pub starting: u32,
    /// Taking requests.
    pub ready: u32,
    /// Finishing.
    pub draining: u32,
}

impl Counts {
    /// Those that count towards the target: starting and ready.
    #[must_use]
    pub fn alive(&self) -> u32 {
        self.starting + self.ready
    }
}

/// A report that cannot be true: a bug of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplicaError {
    /// There is no such replica, or no more.
    #[error("replica {id} does not live")]
    Unknown {
        /// Which.
        id: ReplicaId,
    },
    /// Replicas advance one way, and only [`ReplicaSet::set_target`] drains them.
    #[error("replica {id} cannot go from {from:?} to {to:?}")]
    IllegalTransition {
        /// Which.
        id: ReplicaId,
        /// What it is doing.
        from: Stage,
        /// What was reported.
        to: Stage,
    },
    /// Reports about a replica come in order of time.
    #[error("replica {id} cannot change at {now} ns, before its change at {since} ns")]
    TimeWentBack {
        /// Which.
        id: ReplicaId,
        /// The time of this report.
        now: Nanos,
        /// The time of the change before.
        since: Nanos,
    },
}

/// The replicas of a deployment.
#[derive(Clone, Debug, Default)]
pub struct ReplicaSet {
    /// Those that live, in order of id: new ones go to the end.
    replicas: Vec<Replica>,
    counts: Counts,
    next_id: ReplicaId,
}

impl ReplicaSet {
    /// A set of none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many replicas there should be, and says what that takes. Also
    /// the way to replace a replica that failed: set the same target again.
    ///
    /// # Panics
    /// If the deployment has started 2^32 replicas.
    #[must_use = "the actions have to be carried out"]
    pub fn set_target(&mut self, now: Nanos, target: u32) -> Vec<ReplicaAction> {
        self.counts.target = target;
        let alive = self.counts.alive();
        if alive <= target {
            return (alive..target).map(|_| self.start(now)).collect();
        }
        let mut excess = (alive - target) as usize;
        let mut actions = self.cancel_newest(excess);
        excess -= actions.len();
        actions.extend(self.drain_newest(now, excess));
        actions
    }

    /// Moves a replica on to a later stage of its start, or to [`Stage::Ready`].
    /// Stages may be left out, not repeated.
    ///
    /// # Errors
    /// If the replica does not live, the stage is not one that it can reach so,
    /// or time went back. Nothing changes then.
    pub fn advance(&mut self, now: Nanos, id: ReplicaId, to: Stage) -> Result<(), ReplicaError> {
        let index = self.index_at(now, id)?;
        let from = self.replicas[index].stage;
        if to <= from || to > Stage::Ready {
            return Err(ReplicaError::IllegalTransition { id, from, to });
        }
        self.enter(index, to, now);
        Ok(())
    }

    /// Takes a replica whose start failed back to [`Stage::Pending`]: it is going
    /// to be started again. It keeps its id and counts as starting meanwhile.
    ///
    /// # Errors
    /// If the replica does not live or is ready, or time went back. Nothing changes then.
    pub fn restart(&mut self, now: Nanos, id: ReplicaId) -> Result<(), ReplicaError> {
        let index = self.index_at(now, id)?;
        let (from, to) = (self.replicas[index].stage, Stage::Pending);
        if !from.is_starting() {
            return Err(ReplicaError::IllegalTransition { id, from, to });
        }
        self.enter(index, to, now);
        Ok(())
    }

    /// Removes a replica: it has drained, crashed, or failed to start for good. Returns
    /// what it was last.
    ///
    /// # Errors
    /// If the replica does not live, or time went back. Nothing changes then.
    pub fn gone(&mut self, now: Nanos, id: ReplicaId) -> Result<Replica, ReplicaError> {
        let index = self.index_at(now, id)?;
        let replica = self.replicas.remove(index);
        *self.count(replica.stage) -= 1;
        Ok(replica)
    }

    /// How many replicas are in which stage.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Replicas ever started.
    #[must_use]
    pub fn started(&self) -> u32 {
        self.next_id
    }

    /// The replica of that id, if it lives.
    #[must_use]
    pub fn get(&self, id: ReplicaId) -> Option<Replica> {
        self.index(id).ok().map(|index| self.replicas[index])
    }

    /// All that live, in order of id.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Replica> + '_ {
        self.replicas.iter().copied()
    }

    /// Those that take requests, in order of id: oldest first.
    pub fn ready(&self) -> impl DoubleEndedIterator<Item = ReplicaId> + '_ {
        let ready = |replica: &Replica| (replica.stage == Stage::Ready).then_some(replica.id);
        self.replicas.iter().filter_map(ready)
    }

    /// Notes how many there should be, for those who choose the replicas themselves.
    pub(super) fn note_target(&mut self, target: u32) {
        self.counts.target = target;
    }

    /// Ends one replica; `None` if it does not live, or drains already.
    pub(super) fn stop(&mut self, now: Nanos, id: ReplicaId) -> Option<ReplicaAction> {
        let index = self.index(id).ok()?;
        let stage = self.replicas[index].stage;
        if stage.is_starting() {
            self.replicas.remove(index);
            self.counts.starting -= 1;
            return Some(ReplicaAction::Cancel(id));
        }
        (stage == Stage::Ready).then(|| {
            self.enter(index, Stage::Draining, now);
            ReplicaAction::Drain(id)
        })
    }

    /// Begins one replica.
    pub(super) fn start(&mut self, now: Nanos) -> ReplicaAction {
        let id = self.next_id;
        self.next_id = id.checked_add(1).expect("fewer than 2^32 replicas");
        self.replicas.push(Replica {
            id,
            stage: Stage::Pending,
            since: now,
        });
        self.counts.starting += 1;
        ReplicaAction::Start(id)
    }

    fn cancel_newest(&mut self, limit: usize) -> Vec<ReplicaAction> {
        let starting = self.iter().rev().filter(|r| r.stage.is_starting());
        let actions: Vec<_> = starting
            .take(limit)
            .map(|replica| ReplicaAction::Cancel(replica.id))
            .collect();
        // The newest that start are those at or after the oldest that is cancelled.
        if let Some(&ReplicaAction::Cancel(oldest)) = actions.last() {
            self.replicas
                .retain(|replica| replica.id < oldest || !replica.stage.is_starting());
            self.counts.starting -= actions.len() as u32;
        }
        actions
    }

    fn drain_newest(&mut self, now: Nanos, limit: usize) -> Vec<ReplicaAction> {
        let mut actions = Vec::with_capacity(limit);
        for index in (0..self.replicas.len()).rev() {
            if actions.len() == limit {
                break;
            }
            if self.replicas[index].stage == Stage::Ready {
                self.enter(index, Stage::Draining, now);
                actions.push(ReplicaAction::Drain(self.replicas[index].id));
            }
        }
        actions
    }

    fn enter(&mut self, index: usize, stage: Stage, now: Nanos) {
        let replica = &mut self.replicas[index];
        let from = replica.stage;
        (replica.stage, replica.since) = (stage, now);
        *self.count(from) -= 1;
        *self.count(stage) += 1;
    }

    fn count(&mut self, stage: Stage) -> &mut u32 {
        match stage {
            Stage::Pending | Stage::Downloading | Stage::Initialising => &mut self.counts.starting,
            Stage::Ready => &mut self.counts.ready,
            Stage::Draining => &mut self.counts.draining,
            Stage::Gone => unreachable!("replicas that are gone are not in the set"),
        }
    }

    fn index(&self, id: ReplicaId) -> Result<usize, ReplicaError> {
        self.replicas
            .binary_search_by_key(&id, |replica| replica.id)
            .map_err(|_| ReplicaError::Unknown { id })
    }

    fn index_at(&self, now: Nanos, id: ReplicaId) -> Result<usize, ReplicaError> {
        let index = self.index(id)?;
        let since = self.replicas[index].since;
        if now < since {
            return Err(ReplicaError::TimeWentBack { id, now, since });
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::ReplicaAction::{Cancel, Drain, Start};
    use super::*;
    use proptest::prelude::*;

    /// A set whose replicas, from id 0, are in these stages.
    fn set(stages: &[Stage]) -> ReplicaSet {
        let mut set = ReplicaSet::new();
        let _ = set.set_target(0, stages.len() as u32);
        for (id, &stage) in (0..).zip(stages) {
            if stage > Stage::Pending {
                set.advance(1, id, stage).expect("stages only rise");
            }
        }
        set
    }

    #[test]
    fn a_replica_passes_through_its_stages_once() {
        let mut set = ReplicaSet::new();
        assert_eq!(set.set_target(5, 1), [Start(0)]);
        for stage in [Stage::Downloading, Stage::Initialising, Stage::Ready] {
            assert_eq!(set.counts().starting, 1);
            assert_eq!(set.advance(6, 0, stage), Ok(()));
        }
        assert_eq!(set.ready().collect::<Vec<_>>(), [0]);
        assert_eq!(set.set_target(7, 0), [Drain(0)]);
        let draining = Replica {
            id: 0,
            stage: Stage::Draining,
            since: 7,
        };
        assert_eq!(set.get(0), Some(draining));
        assert_eq!(set.gone(8, 0), Ok(draining));
        assert_eq!(set.counts(), Counts::default());
        assert_eq!(set.get(0), None);
    }

    #[test]
    fn scaling_down_cancels_the_newest_starting_before_it_drains_the_newest_ready() {
        use Stage::{Initialising, Pending, Ready};
        let stages = [Ready, Pending, Ready, Initialising, Ready];
        assert_eq!(set(&stages).set_target(9, 4), [Cancel(3)]);
        assert_eq!(set(&stages).set_target(9, 3), [Cancel(3), Cancel(1)]);
        let mut set = set(&stages);
        let actions = set.set_target(9, 1);
        assert_eq!(actions, [Cancel(3), Cancel(1), Drain(4), Drain(2)]);
        assert_eq!(set.ready().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn scaling_up_does_not_take_back_what_drains() {
        let mut set = set(&[Stage::Ready, Stage::Ready]);
        assert_eq!(set.set_target(9, 1), [Drain(1)]);
        assert_eq!(set.set_target(9, 2), [Start(2)]);
        assert_eq!(set.get(1).map(|r| r.stage), Some(Stage::Draining));
    }

    #[test]
    fn the_same_target_again_replaces_what_failed() {
        let mut set = set(&[Stage::Ready, Stage::Initialising]);
        assert_eq!(set.gone(5, 1).map(|r| r.stage), Ok(Stage::Initialising));
        assert_eq!(set.set_target(5, 2), [Start(2)]);
    }

    #[test]
    fn a_start_that_failed_begins_again_and_counts_all_the_while() {
        use Stage::{Initialising, Pending, Ready};
        let mut set = set(&[Ready, Initialising, Pending]);
        let before = set.counts();
        for id in [1, 2] {
            assert_eq!(set.restart(5, id), Ok(()));
            assert_eq!(set.get(id).map(|r| r.stage), Some(Pending));
        }
        assert_eq!(set.counts(), before);
        assert_eq!(set.set_target(5, 3), [], "nothing is missing");
        assert_eq!(set.advance(6, 1, Initialising), Ok(()));
        let illegal = ReplicaError::IllegalTransition {
            id: 0,
            from: Ready,
            to: Pending,
        };
        assert_eq!(set.restart(6, 0), Err(illegal));
        assert_eq!(set.restart(6, 9), Err(ReplicaError::Unknown { id: 9 }));
    }

    #[test]
    fn what_cannot_be_is_an_error_and_changes_nothing() {
        let mut set = set(&[Stage::Ready, Stage::Initialising]);
        let before = set.counts();
        let illegal = |id, from, to| Err(ReplicaError::IllegalTransition { id, from, to });
        use Stage::{Downloading, Draining, Gone, Initialising, Ready};
        for to in [Downloading, Ready, Draining, Gone] {
            assert_eq!(set.advance(2, 0, to), illegal(0, Ready, to));
        }
        for to in [Downloading, Initialising, Draining, Gone] {
            assert_eq!(set.advance(2, 1, to), illegal(1, Initialising, to));
        }
        assert_eq!(
            set.advance(2, 7, Ready),
            Err(ReplicaError::Unknown { id: 7 })
        );
        assert_eq!(set.gone(2, 7), Err(ReplicaError::Unknown { id: 7 }));
        let back = ReplicaError::TimeWentBack {
            id: 1,
            now: 0,
            since: 1,
        };
        assert_eq!(set.advance(0, 1, Ready), Err(back));
        assert_eq!(set.gone(0, 1), Err(back));
        assert_eq!(set.counts(), before);
    }

    #[test]
    fn memory_is_that_of_the_living_after_many_have_passed() {
        let mut set = ReplicaSet::new();
        for _ in 0..10_000 {
            for action in set.set_target(0, 3) {
                let Start(id) = action else {
                    panic!("nothing to stop")
                };
                set.advance(0, id, Stage::Ready).expect("it starts");
            }
            for action in set.set_target(0, 0) {
                let Drain(id) = action else {
                    panic!("all are ready")
                };
                set.gone(0, id).expect("it drains");
            }
        }
        assert_eq!(set.started(), 30_000);
        assert!(set.replicas.capacity() <= 16, "{}", set.replicas.capacity());
    }

    fn recount(set: &ReplicaSet) -> Counts {
        let count = |in_stage: &dyn Fn(Stage) -> bool| {
            set.iter().filter(|replica| in_stage(replica.stage)).count() as u32
        };
        Counts {
            target: set.counts().target,
            starting: count(&Stage::is_starting),
            ready: count(&|stage| stage == Stage::Ready),
            draining: count(&|stage| stage == Stage::Draining),
        }
    }

    proptest! {
        #[test]
        fn counts_are_what_they_count_and_targets_are_met(
            steps in prop::collection::vec((0_u8..3, 0_u32..12), 1..120),
        ) {
            let mut set = ReplicaSet::new();
            let mut started = 0;
            for (now, (step, value)) in (0..).zip(steps) {
                let id = set.iter().nth(value as usize % 5).map(|replica| replica.id);
                match (step, id) {
                    (0, _) => {
                        for action in set.set_target(now, value) {
                            if let Start(id) = action {
                                prop_assert_eq!(id, started, "an id was used twice");
                                started += 1;
                            }
                        }
                        prop_assert_eq!(set.counts().alive(), value);
                    }
                    (1, Some(id)) => {
                        let _ = set.advance(now, id, Stage::Ready);
                    }
                    (2, Some(id)) => {
                        prop_assert!(set.gone(now, id).is_ok());
                    }
                    _ => {}
                }
                prop_assert_eq!(set.counts(), recount(&set));
                prop_assert!(set.iter().map(|r| r.id).is_sorted());
            }
        }

        #[test]
        fn scaling_down_spares_the_ready_while_any_starts(
            ready in prop::collection::vec(any::<bool>(), 0..12),
            target in 0_u32..12,
        ) {
            let stages: Vec<_> = ready.iter().map(|&r| if r { Stage::Ready } else { Stage::Pending }).collect();
            let mut set = set(&stages);
            let actions = set.set_target(9, target);
            let drains = actions.iter().filter(|a| matches!(a, Drain(_))).count();
            prop_assert!(drains == 0 || set.counts().starting == 0);
            if (target as usize) < ready.len() {
                prop_assert_eq!(actions.len(), ready.len() - target as usize);
            }
        }
    }
}
