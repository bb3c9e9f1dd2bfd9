//! Always the same number of replicas.

use super::policy::Policy;
use super::trace::{Column, Row, Verdict};
use super::{Decision, Observation, Reason, ReplicaLoad};
use crate::time::Nanos;

/// It reads nothing.
pub(super) const COLUMNS: &[Column] = &[];

/// The policy that wants `replicas`, from time 0 on.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    replicas: u32,
    target: u32,
}

impl Fixed {
    pub(super) fn new(replicas: u32, initial_replicas: u32) -> Self {
        Fixed {
            replicas,
            target: initial_replicas,
        }
    }

    fn reason(&self) -> Reason {
        Reason::Fixed {
            replicas: self.replicas,
        }
    }
}

/// It follows a plan, not the traffic.
impl Policy for Fixed {
    fn target(&self) -> u32 {
        self.target
    }

    /// There is one thing to do, at time 0, if the run begins with another number.
    fn next_deadline(&self) -> Option<Nanos> {
        (self.target != self.replicas).then_some(0)
    }

    fn observe(&mut self, _: Nanos, _: &Observation, _: &[ReplicaLoad]) -> Option<Decision> {
        if self.target == self.replicas {
            return None;
        }
        self.target = self.replicas;
        Some(Decision {
            target: self.replicas,
            reason: self.reason(),
        })
    }

    fn look(&mut self, _: Nanos, _: &Row) -> Verdict {
        self.target = self.replicas;
        Verdict {
            desired: self.replicas,
            reason: self.reason(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Autoscaler, AutoscalerConfig, Event, Observation};
    use crate::time::SECOND;

    #[test]
    fn stays_as_it_is_whatever_the_load() {
        let mut autoscaler = Autoscaler::new(&AutoscalerConfig::Fixed { replicas: 3 }, 3);
        let crowded = Observation {
            running: 1_000,
            queued: 1_000,
            batch_slots: 1,
            ..Observation::default()
        };
        assert_eq!(autoscaler.next_deadline(), None);
        assert_eq!(autoscaler.on_event(SECOND, Event::RequestReceived), None);
        assert_eq!(autoscaler.on_event(SECOND, Event::Observed(crowded)), None);
        assert_eq!(autoscaler.target(), 3);
    }

    #[test]
    fn corrects_another_initial_number_once_at_time_zero() {
        let mut autoscaler = Autoscaler::new(&AutoscalerConfig::Fixed { replicas: 3 }, 1);
        assert_eq!(autoscaler.next_deadline(), Some(0));
        let decision = autoscaler
            .on_event(0, Event::Observed(Observation::default()))
            .expect("one replica is not three");
        assert_eq!(decision.target, 3);
        assert_eq!(decision.reason.to_string(), "fixed at 3 replicas");
        assert_eq!(autoscaler.next_deadline(), None);
    }
}
