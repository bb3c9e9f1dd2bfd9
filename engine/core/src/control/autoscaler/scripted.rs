//! The number of replicas that a script says, whatever the load: for replaying
//! a schedule, and as a clairvoyant bound to compare other policies with.

use std::collections::VecDeque;

use super::policy::Policy;
use super::trace::{Column, Row, Verdict};
use super::{Decision, Observation, Reason, ReplicaLoad};
use crate::time::Nanos;

/// It reads nothing but the time.
pub(super) const COLUMNS: &[Column] = &[];

/// The policy that follows a list of (from when, how many).
#[derive(Clone, Debug)]
pub(super) struct Scripted {
    /// What is still to come, in order of time.
    steps: VecDeque<(Nanos, u32)>,
    target: u32,
}

impl Scripted {
    pub(super) fn new(steps: &[(Nanos, u32)], initial: u32, initial_replicas: u32) -> Self {
        let mut steps: VecDeque<_> = steps.iter().copied().collect();
        let opens_at_zero = steps.front().is_some_and(|&(from, _)| from == 0);
        if initial != initial_replicas && !opens_at_zero {
            steps.push_front((0, initial));
        }
        Scripted {
            steps,
            target: initial_replicas,
        }
    }

    /// Applies the last of the steps that are due, and says from when it was.
    fn apply_due(&mut self, now: Nanos) -> Option<Nanos> {
        let mut due = None;
        while let Some(&step) = self.steps.front().filter(|(from, _)| *from <= now) {
            due = Some(step);
            self.steps.pop_front();
        }
        let (from, target) = due?;
        if target == self.target {
            return None;
        }
        self.target = target;
        Some(from)
    }
}

/// It follows a plan, not the traffic: a request at zero replicas wakes nothing.
impl Policy for Scripted {
    fn target(&self) -> u32 {
        self.target
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.steps.front().map(|&(from, _)| from)
    }

    fn observe(&mut self, now: Nanos, _: &Observation, _: &[ReplicaLoad]) -> Option<Decision> {
        let from = self.apply_due(now)?;
        Some(Decision {
            target: self.target,
            reason: Reason::Script { from },
        })
    }

    fn look(&mut self, now: Nanos, _: &Row) -> Verdict {
        let from = self.apply_due(now);
        let reason = from.map_or_else(
            || Reason::words("the script has nothing new"),
            |from| Reason::Script { from },
        );
        Verdict {
            desired: self.target,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Autoscaler, AutoscalerConfig, Event, Observation};
    use crate::time::SECOND;

    fn decisions(steps: &[(u64, u32)], initial: u32, initial_replicas: u32) -> Vec<String> {
        let config = AutoscalerConfig::Scripted {
            steps: steps.iter().map(|&(t, n)| (t * SECOND, n)).collect(),
            initial,
        };
        let mut autoscaler = Autoscaler::new(&config, initial_replicas);
        let mut log = Vec::new();
        while let Some(now) = autoscaler.next_deadline() {
            let event = Event::Observed(Observation::default());
            if let Some(decision) = autoscaler.on_event(now, event) {
                log.push(format!("{} {}", decision.target, decision.reason));
            }
        }
        log
    }

    #[test]
    fn follows_the_script_and_skips_steps_that_change_nothing() {
        let log = decisions(&[(10, 2), (20, 2), (90, 0)], 1, 1);
        assert_eq!(
            log,
            [
                "2 the script says so from 10s",
                "0 the script says so from 1m30s"
            ]
        );
    }

    #[test]
    fn begins_with_what_the_script_says() {
        let log = decisions(&[(10, 2)], 1, 4);
        assert_eq!(
            log,
            [
                "1 the script says so from 0s",
                "2 the script says so from 10s"
            ]
        );
        let log = decisions(&[(0, 2)], 1, 4);
        assert_eq!(log, ["2 the script says so from 0s"]);
    }

    #[test]
    fn a_late_look_applies_only_the_last_step_due() {
        let config = AutoscalerConfig::Scripted {
            steps: vec![(1, 5), (2, 6), (3, 7)],
            initial: 1,
        };
        let mut autoscaler = Autoscaler::new(&config, 1);
        let event = Event::Observed(Observation::default());
        assert_eq!(autoscaler.on_event(2, event).map(|d| d.target), Some(6));
        assert_eq!(autoscaler.next_deadline(), Some(3));
    }

    #[test]
    fn a_request_at_zero_replicas_wakes_nothing() {
        let config = AutoscalerConfig::Scripted {
            steps: vec![],
            initial: 0,
        };
        let mut autoscaler = Autoscaler::new(&config, 0);
        assert_eq!(autoscaler.on_event(1, Event::RequestReceived), None);
        assert_eq!(autoscaler.target(), 0);
    }
}
