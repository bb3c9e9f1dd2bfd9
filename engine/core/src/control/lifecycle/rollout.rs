//! Replicas of one world size replaced by those of another, without dropping requests.
//!
//! A [`Rollout`] is a [`ReplicaSet`] whose replicas have world sizes, one of which
//! is wanted. It always does the same four things, in this order, so that a target
//! or a world size may change again while it is under way, back to what it was as well:
//!
//! 1. cancel what starts with another world size: it has served nobody;
//! 2. end what is too many of the wanted one, as a `ReplicaSet` would;
//! 3. drain others, newest first, as far as more than the target are ready;
//! 4. start what is missing of the wanted one, within the surge and the GPUs.
//!
//! So capacity does not sink below what it was: an old replica drains only when a
//! new one is ready in its place. The rule and the surge, a quarter of the target
//! rounded up, are those of Kubernetes' rolling updates with `maxUnavailable: 0`
//! and `maxSurge: 25%` (its documentation of Deployments).

use super::state::Replacement;
use crate::control::replica_set::{
    Counts, Replica, ReplicaAction, ReplicaError, ReplicaId, ReplicaSet, Stage,
};
use crate::time::Nanos;

/// The replicas of a deployment, of one world size or on the way to another.
#[derive(Clone, Debug)]
pub struct Rollout {
    set: ReplicaSet,
    /// World sizes, each from which replica on: the last is the wanted one.
    world_sizes: Vec<(ReplicaId, u32)>,
    /// While there are replicas of another world size.
    ongoing: Option<Ongoing>,
}

#[derive(Clone, Copy, Debug)]
struct Ongoing {
    replacement: Replacement,
    /// Ready when it began: what is kept where there is no room for more.
    ready: u32,
}

impl Rollout {
    /// A set of none, whose replicas will have so many GPUs.
    #[must_use]
    pub fn new(world_size: u32) -> Self {
        Rollout {
            set: ReplicaSet::new(),
            world_sizes: vec![(0, world_size)],
            ongoing: None,
        }
    }

    /// Begins with so many replicas of that world size, or begins again: what of
    /// another still drains goes on to.
    ///
    /// # Panics
    /// If the deployment has started 2^32 replicas.
    #[must_use = "the actions have to be carried out"]
    pub fn begin(&mut self, now: Nanos, world_size: u32, replicas: u32) -> Vec<ReplicaAction> {
        self.set.note_target(replicas);
        let replacement = Replacement {
            world_size,
            gpus_max: None,
            drain_first: false,
        };
        self.replace(now, replacement)
    }

    /// Begins to replace the replicas that have another world size.
    ///
    /// # Panics
    /// If the deployment has started 2^32 replicas.
    #[must_use = "the actions have to be carried out"]
    pub fn replace(&mut self, now: Nanos, replacement: Replacement) -> Vec<ReplicaAction> {
        let from = self.set.started();
        self.world_sizes.retain(|&(first, _)| first < from);
        self.world_sizes.push((from, replacement.world_size));
        self.ongoing = Some(Ongoing {
            replacement,
            ready: self.set.counts().ready,
        });
        self.reconcile(now)
    }

    /// Sets how many replicas there should be, and says what that takes. The same
    /// target again replaces a replica that failed.
    ///
    /// # Panics
    /// If the deployment has started 2^32 replicas.
    #[must_use = "the actions have to be carried out"]
    pub fn set_target(&mut self, now: Nanos, target: u32) -> Vec<ReplicaAction> {
        self.set.note_target(target);
        self.reconcile(now)
    }

    /// Moves a replica on, and says what follows from one that is ready.
    ///
    /// # Errors
    /// As [`ReplicaSet::advance`]. Nothing changes then.
    pub fn advance(
        &mut self,
        now: Nanos,
        id: ReplicaId,
        to: Stage,
    ) -> Result<Vec<ReplicaAction>, ReplicaError> {
        self.set.advance(now, id, to)?;
        let follow = to == Stage::Ready && self.ongoing.is_some();
        Ok(if follow {
            self.reconcile(now)
        } else {
            Vec::new()
        })
    }

    /// Removes a replica: it has drained, crashed, or failed to start. Returns what
    /// it was last, and what follows from the GPUs of one that has drained.
    ///
    /// # Errors
    /// As [`ReplicaSet::gone`]. Nothing changes then.
    pub fn gone(
        &mut self,
        now: Nanos,
        id: ReplicaId,
    ) -> Result<(Replica, Vec<ReplicaAction>), ReplicaError> {
        let replica = self.set.gone(now, id)?;
        let follow = replica.stage == Stage::Draining && self.ongoing.is_some();
        let actions = if follow {
            self.reconcile(now)
        } else {
            Vec::new()
        };
        Ok((replica, actions))
    }

    /// Takes a replica whose start failed back to the beginning of it.
    ///
    /// # Errors
    /// As [`ReplicaSet::restart`]. Nothing changes then.
    pub fn restart(&mut self, now: Nanos, id: ReplicaId) -> Result<(), ReplicaError> {
        self.set.restart(now, id)
    }

    /// The replicas themselves.
    #[must_use]
    pub fn replicas(&self) -> &ReplicaSet {
        &self.set
    }

    /// How many replicas are in which stage.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.set.counts()
    }

    /// GPUs of that replica, whether it lives or not.
    #[must_use]
    pub fn world_size(&self, id: ReplicaId) -> u32 {
        let later = self.world_sizes.partition_point(|&(first, _)| first <= id);
        self.world_sizes[later.max(1) - 1].1
    }

    /// Replicas that start or are ready with another world size than the wanted one.
    #[must_use]
    pub fn outdated(&self) -> u32 {
        self.counts().alive() - self.wanted()
    }

    /// GPUs of all replicas that live, those that drain included.
    #[must_use]
    pub fn gpus_held(&self) -> u64 {
        let gpus = |replica: Replica| u64::from(self.world_size(replica.id));
        self.set.iter().map(gpus).sum()
    }

    fn reconcile(&mut self, now: Nanos) -> Vec<ReplicaAction> {
        let mut actions = Vec::new();
        self.cancel_outdated(now, &mut actions);
        self.shed(now, &mut actions);
        self.retire_outdated(now, &mut actions);
        self.start_missing(now, &mut actions);
        self.finish();
        actions
    }

    fn cancel_outdated(&mut self, now: Nanos, actions: &mut Vec<ReplicaAction>) {
        let which = |rollout: &Self, replica: &Replica| {
            replica.stage.is_starting() && !rollout.is_wanted(replica.id)
        };
        while let Some(id) = self.newest(which) {
            self.stop(now, id, actions);
        }
    }

    /// Those that start first, and then those that are ready: the order of a `ReplicaSet`.
    fn shed(&mut self, now: Nanos, actions: &mut Vec<ReplicaAction>) {
        let starts = |rollout: &Self, replica: &Replica| {
            rollout.is_wanted(replica.id) && replica.stage.is_starting()
        };
        let ready = |rollout: &Self, replica: &Replica| {
            rollout.is_wanted(replica.id) && replica.stage == Stage::Ready
        };
        while self.wanted() > self.counts().target {
            let Some(id) = self.newest(starts).or_else(|| self.newest(ready)) else {
                return;
            };
            self.stop(now, id, actions);
        }
    }

    fn retire_outdated(&mut self, now: Nanos, actions: &mut Vec<ReplicaAction>) {
        while self.counts().ready > self.ready_to_keep() {
            let which = |rollout: &Self, replica: &Replica| {
                replica.stage == Stage::Ready && !rollout.is_wanted(replica.id)
            };
            let Some(id) = self.newest(which) else {
                return;
            };
            self.stop(now, id, actions);
        }
    }

    /// As many as are asked for. Where the GPUs have no room to get there, as many
    /// as there were: each new one makes room for the next.
    fn ready_to_keep(&self) -> u32 {
        let target = self.counts().target;
        let Some(ongoing) = self.ongoing else {
            return target;
        };
        if ongoing.replacement.drain_first {
            return 0;
        }
        if self.wanted() < target && !self.has_room() {
            return target.min(ongoing.ready);
        }
        target
    }

    fn start_missing(&mut self, now: Nanos, actions: &mut Vec<ReplicaAction>) {
        let target = self.counts().target;
        let alive_max = self.alive_max();
        while self.wanted() < target && self.counts().alive() < alive_max && self.has_room() {
            actions.push(self.set.start(now));
        }
    }

    /// The most replicas that may start or be ready: beyond the target only while
    /// others are replaced.
    fn alive_max(&self) -> u32 {
        let target = self.counts().target;
        let drain_first = (self.ongoing).is_some_and(|ongoing| ongoing.replacement.drain_first);
        if drain_first || self.outdated() == 0 {
            return target;
        }
        target.saturating_add(surge(target))
    }

    /// Whether one more replica fits in the GPUs.
    fn has_room(&self) -> bool {
        let gpus_max = (self.ongoing).and_then(|ongoing| ongoing.replacement.gpus_max);
        let needed = || self.gpus_held() + u64::from(self.wanted_world_size());
        gpus_max.is_none_or(|gpus_max| needed() <= gpus_max)
    }

    /// It is over when nothing of another world size holds a GPU, and nothing waits for room.
    fn finish(&mut self) {
        let left = |replica: Replica| !self.is_wanted(replica.id);
        let waits = self.wanted() < self.counts().target;
        if !waits && !self.set.iter().any(left) {
            self.ongoing = None;
        }
    }

    fn wanted_world_size(&self) -> u32 {
        self.world_sizes[self.world_sizes.len() - 1].1
    }

    fn is_wanted(&self, id: ReplicaId) -> bool {
        self.world_size(id) == self.wanted_world_size()
    }

    /// Replicas that start or are ready with the wanted world size.
    fn wanted(&self) -> u32 {
        let wanted =
            |replica: &Replica| replica.stage <= Stage::Ready && self.is_wanted(replica.id);
        self.set.iter().filter(wanted).count() as u32
    }

    fn newest(&self, which: impl Fn(&Self, &Replica) -> bool) -> Option<ReplicaId> {
        let mut newest_first = self.set.iter().rev();
        let found = newest_first.find(|replica| which(self, replica));
        found.map(|replica| replica.id)
    }

    fn stop(&mut self, now: Nanos, id: ReplicaId, actions: &mut Vec<ReplicaAction>) {
        actions.extend(self.set.stop(now, id));
    }
}

/// Replicas beyond the target while others are replaced.
pub(super) fn surge(target: u32) -> u32 {
    target.div_ceil(4).max(1)
}

/// GPUs that replacing `ready` replicas one by one holds at its fullest: the old
/// ones and the first new one, or the last old one and all new ones. What is in
/// between is no fuller, as it changes by the same amount with every replica.
pub(super) fn gpus_at_fullest(ready: u32, from: u32, to: u32) -> u64 {
    let (ready, from, to) = (u64::from(ready), u64::from(from), u64::from(to));
    if ready == 0 {
        return to;
    }
    to + (from * ready).max(from + to * (ready - 1))
}

#[cfg(test)]
mod tests {
    use super::ReplicaAction::{Cancel, Drain, Start};
    use super::*;
    use proptest::prelude::*;

    /// Nothing here depends on time.
    const NOW: Nanos = 1;

    /// Replicas of one GPU, all ready.
    fn ready(replicas: u32) -> Rollout {
        let mut rollout = Rollout::new(1);
        for action in rollout.set_target(NOW, replicas) {
            let Start(id) = action else {
                panic!("nothing to stop")
            };
            assert_eq!(rollout.advance(NOW, id, Stage::Ready), Ok(vec![]));
        }
        rollout
    }

    fn to(world_size: u32, gpus_max: Option<u64>) -> Replacement {
        Replacement {
            world_size,
            gpus_max,
            drain_first: false,
        }
    }

    fn drained(rollout: &mut Rollout, id: ReplicaId) -> Vec<ReplicaAction> {
        let (replica, actions) = rollout.gone(NOW, id).expect("it drains");
        assert_eq!(replica.stage, Stage::Draining);
        actions
    }

    #[test]
    fn an_old_replica_drains_when_a_new_one_is_ready_in_its_place() {
        let mut rollout = ready(3);
        assert_eq!(rollout.replace(NOW, to(2, None)), [Start(3)]);
        assert_eq!((rollout.world_size(2), rollout.world_size(3)), (1, 2));
        assert_eq!(rollout.outdated(), 3);
        let next = rollout.advance(NOW, 3, Stage::Ready);
        assert_eq!(next, Ok(vec![Drain(2), Start(4)]));
        let next = rollout.advance(NOW, 4, Stage::Ready);
        assert_eq!(next, Ok(vec![Drain(1), Start(5)]));
        let next = rollout.advance(NOW, 5, Stage::Ready);
        assert_eq!(next, Ok(vec![Drain(0)]));
        assert_eq!(rollout.outdated(), 0);
        assert_eq!(rollout.gpus_held(), 9);
        for id in 0..3 {
            assert_eq!(drained(&mut rollout, id), []);
        }
        assert_eq!(rollout.gpus_held(), 6);
        assert_eq!(rollout.set_target(NOW, 4), [Start(6)]);
    }

    #[test]
    fn many_are_replaced_a_quarter_at_a_time() {
        let mut rollout = ready(10);
        let actions = rollout.replace(NOW, to(2, None));
        assert_eq!(actions, [Start(10), Start(11), Start(12)]);
    }

    #[test]
    fn what_starts_with_the_old_world_size_is_cancelled() {
        let mut rollout = ready(1);
        assert_eq!(rollout.set_target(NOW, 3), [Start(1), Start(2)]);
        let actions = rollout.replace(NOW, to(2, None));
        assert_eq!(
            actions,
            [Cancel(2), Cancel(1), Start(3), Start(4), Start(5)]
        );
    }

    #[test]
    fn at_zero_there_is_nothing_to_replace() {
        let mut rollout = ready(0);
        assert_eq!(rollout.replace(NOW, to(2, None)), []);
        assert_eq!(rollout.set_target(NOW, 1), [Start(0)]);
        assert_eq!(rollout.world_size(0), 2);
    }

    #[test]
    fn a_change_of_mind_keeps_what_still_serves() {
        let mut rollout = ready(2);
        assert_eq!(rollout.replace(NOW, to(2, None)), [Start(2)]);
        assert_eq!(rollout.replace(NOW, to(1, None)), [Cancel(2)]);
        assert_eq!((rollout.outdated(), rollout.gpus_held()), (0, 2));
    }

    #[test]
    fn without_room_for_all_each_makes_room_for_the_next() {
        // Two of one GPU, to two of two, in five GPUs: the fullest is 1 + 2 + 2.
        assert_eq!(gpus_at_fullest(2, 1, 2), 5);
        let mut rollout = ready(2);
        assert_eq!(rollout.replace(NOW, to(2, Some(5))), [Start(2)]);
        let next = rollout.advance(NOW, 2, Stage::Ready);
        assert_eq!(next, Ok(vec![Drain(1)]), "1 + 1 + 2 leave one GPU");
        assert_eq!(drained(&mut rollout, 1), [Start(3)]);
        let next = rollout.advance(NOW, 3, Stage::Ready);
        assert_eq!(next, Ok(vec![Drain(0)]));
        assert_eq!(drained(&mut rollout, 0), []);
        assert_eq!(rollout.gpus_held(), 4);
    }

    #[test]
    fn a_scale_up_without_room_waits_for_those_that_make_room() {
        let mut rollout = ready(3);
        assert_eq!(rollout.replace(NOW, to(1, Some(4))), []);
        assert_eq!(rollout.replace(NOW, to(2, Some(8))), [Start(3)]);
        // 3 + 2 GPUs leave room for one more of four.
        assert_eq!(rollout.set_target(NOW, 4), [Start(4)]);
        assert_eq!(rollout.advance(NOW, 3, Stage::Ready), Ok(vec![Drain(2)]));
        assert_eq!(drained(&mut rollout, 2), [Start(5)]);
    }

    #[test]
    fn where_nothing_is_served_the_old_ones_go_first() {
        let mut rollout = ready(2);
        let drain_first = Replacement {
            drain_first: true,
            ..to(2, Some(4))
        };
        let actions = rollout.replace(NOW, drain_first);
        assert_eq!(actions, [Drain(1), Drain(0), Start(2)]);
        assert_eq!(drained(&mut rollout, 0), []);
        assert_eq!(drained(&mut rollout, 1), [Start(3)]);
        for id in [2, 3] {
            assert_eq!(rollout.advance(NOW, id, Stage::Ready), Ok(vec![]));
        }
    }

    #[test]
    fn without_a_replacement_it_is_a_replica_set() {
        let mut rollout = ready(3);
        let mut set = ReplicaSet::new();
        let _ = set.set_target(NOW, 3);
        for id in 0..3 {
            set.advance(NOW, id, Stage::Ready).expect("it starts");
        }
        for target in [5, 4, 2, 3, 0, 1, 1] {
            assert_eq!(rollout.set_target(NOW, target), set.set_target(NOW, target));
            assert_eq!(rollout.counts(), set.counts());
        }
        assert_eq!(
            set.gone(NOW, 6),
            rollout.gone(NOW, 6).map(|(replica, _)| replica)
        );
        assert_eq!(rollout.set_target(NOW, 1), set.set_target(NOW, 1));
    }

    /// Lets whatever starts be ready, and whatever drains be gone, until nothing does.
    fn settle(rollout: &mut Rollout) {
        for _ in 0..200 {
            let next = rollout
                .set
                .iter()
                .find(|replica| replica.stage != Stage::Ready);
            let Some(replica) = next else { return };
            let _ = if replica.stage == Stage::Draining {
                rollout.gone(NOW, replica.id).map(|(_, actions)| actions)
            } else {
                rollout.advance(NOW, replica.id, Stage::Ready)
            };
        }
        panic!("it never ends: {rollout:?}");
    }

    /// One of the replicas that are in such a stage.
    fn nth(rollout: &Rollout, n: u32, which: impl Fn(Stage) -> bool) -> Option<ReplicaId> {
        let ids: Vec<_> = (rollout.set.iter())
            .filter(|replica| which(replica.stage))
            .map(|replica| replica.id)
            .collect();
        (!ids.is_empty()).then(|| ids[n as usize % ids.len()])
    }

    proptest! {
        #[test]
        fn capacity_stays_and_the_end_is_what_was_asked_for(
            steps in prop::collection::vec((0_u8..4, 0_u32..9), 1..80),
        ) {
            let mut rollout = ready(3);
            let mut ready_at_start = 3;
            for (step, value) in steps {
                let starting = nth(&rollout, value, Stage::is_starting);
                let draining = nth(&rollout, value, |stage| stage == Stage::Draining);
                let actions = match (step, starting, draining) {
                    (0, ..) => rollout.set_target(NOW, value),
                    (1, ..) => {
                        ready_at_start = rollout.counts().ready;
                        rollout.replace(NOW, to(1 + value % 3, None))
                    }
                    (2, Some(id), _) => rollout.advance(NOW, id, Stage::Ready).expect("it starts"),
                    (3, _, Some(id)) => drained(&mut rollout, id),
                    _ => vec![],
                };
                let counts = rollout.counts();
                prop_assert!(counts.ready <= counts.target);
                if actions.iter().any(|action| matches!(action, Start(_))) {
                    prop_assert!(counts.alive() <= counts.target + surge(counts.target));
                }
                if actions.iter().any(|action| matches!(action, Drain(_))) {
                    prop_assert!(counts.ready >= counts.target.min(ready_at_start), "{actions:?}");
                }
            }
            settle(&mut rollout);
            let counts = rollout.counts();
            prop_assert_eq!((rollout.outdated(), counts.ready), (0, counts.target));
            prop_assert!(rollout.ongoing.is_none());
        }

        #[test]
        fn a_replacement_that_fits_at_its_fullest_ends_within_its_gpus(
            (replicas, from, wanted) in (1_u32..7, 1_u32..5, 1_u32..5),
            spare in 0_u64..6,
            steps in prop::collection::vec((0_u8..3, 0_u32..9), 0..60),
        ) {
            let mut rollout = Rollout::new(from);
            for action in rollout.set_target(NOW, replicas) {
                if let Start(id) = action {
                    rollout.advance(NOW, id, Stage::Ready).expect("it starts");
                }
            }
            let gpus_max = gpus_at_fullest(replicas, from, wanted) + spare;
            let most = (gpus_max / u64::from(wanted)) as u32;
            let _ = rollout.replace(NOW, to(wanted, Some(gpus_max)));
            for (step, value) in steps {
                let starting = nth(&rollout, value, Stage::is_starting);
                let draining = nth(&rollout, value, |stage| stage == Stage::Draining);
                let actions = match (step, starting, draining) {
                    (0, ..) => rollout.set_target(NOW, value % (most + 1)),
                    (1, Some(id), _) => rollout.advance(NOW, id, Stage::Ready).expect("it starts"),
                    (2, _, Some(id)) => drained(&mut rollout, id),
                    _ => vec![],
                };
                let counts = rollout.counts();
                let begins = actions.iter().any(|action| matches!(action, Start(_)));
                if rollout.ongoing.is_some() && begins {
                    prop_assert!(rollout.gpus_held() <= gpus_max, "{rollout:?}");
                }
                if actions.iter().any(|action| matches!(action, Drain(_))) {
                    prop_assert!(counts.ready >= counts.target.min(replicas), "{actions:?}");
                }
            }
            settle(&mut rollout);
            let counts = rollout.counts();
            prop_assert_eq!((rollout.outdated(), counts.ready), (0, counts.target));
        }
    }
}
