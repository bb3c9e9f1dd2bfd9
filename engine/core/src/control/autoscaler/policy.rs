//! What every autoscaling policy can do. [`super::Autoscaler`] holds one of them.

use super::trace::{Row, Verdict};
use super::{Decision, Observation, ReplicaLoad};
use crate::time::Nanos;

/// A policy: a machine that is told what the deployment looks like, at times of
/// its own choosing, and says how many replicas there should be.
pub(super) trait Policy {
    /// A request was received. Called for every request of a run, so it must
    /// be a few instructions; most policies only look at their own times.
    #[inline]
    fn on_request(&mut self, now: Nanos) -> Option<Decision> {
        let _ = now;
        None
    }

    /// The set of replicas that take requests has changed. A policy that looks
    /// seldom, as long as nothing changes, wants to look again.
    fn replicas_changed(&mut self, now: Nanos) {
        let _ = now;
    }

    /// The deadline came. `replicas` is empty unless [`Policy::wants_each_replica`].
    fn observe(
        &mut self,
        now: Nanos,
        deployment: &Observation,
        replicas: &[ReplicaLoad],
    ) -> Option<Decision>;

    /// Whether the policy compares the replicas with one another, so that
    /// [`Policy::observe`] needs the load of each.
    fn wants_each_replica(&self) -> bool {
        false
    }

    /// When to be observed next; `None` while only a request could change the
    /// target, or nothing could.
    fn next_deadline(&self) -> Option<Nanos>;

    /// How many replicas there should be now.
    fn target(&self) -> u32;

    /// One look of the anchor's control loop at what was measured, as a row of
    /// a trace has it: what the policy wants now, and why. A machine is driven
    /// either by rows or by observations.
    fn look(&mut self, now: Nanos, row: &Row) -> Verdict;
}
