//! The policy `oracle`: it knows what load will come and how long each start
//! will take, so that replicas are ready when they are needed and go when they
//! are not. No autoscaler can know that: it is the bound that others are
//! measured by.
//!
//! The machine only follows a plan. Who knows the future, which is a
//! simulator, makes the plan.

use std::collections::VecDeque;

use super::policy::Policy;
use super::trace::{Column, Row, Verdict};
use super::{Decision, Foreseen, Observation, Reason, ReplicaLoad};
use crate::time::Nanos;

/// A trace says nothing of the future.
pub(super) const COLUMNS: &[Column] = &[];

/// The policy that follows a plan made with knowledge of the future.
#[derive(Clone, Debug)]
pub(super) struct Oracle {
    /// What is still to come, in order of time.
    plan: VecDeque<Foreseen>,
    target: u32,
}

impl Oracle {
    pub(super) fn new(plan: &[Foreseen], initial_replicas: u32) -> Self {
        Oracle {
            plan: plan.iter().copied().collect(),
            target: initial_replicas,
        }
    }

    /// Applies the last of the steps that are due.
    fn apply_due(&mut self, now: Nanos) -> Option<Decision> {
        let mut due = None;
        while let Some(&step) = self.plan.front().filter(|step| step.at <= now) {
            due = Some(step);
            self.plan.pop_front();
        }
        let step = due.filter(|step| step.replicas != self.target)?;
        self.target = step.replicas;
        Some(Decision {
            target: step.replicas,
            reason: Reason::Foreseen(step),
        })
    }
}

impl Policy for Oracle {
    fn target(&self) -> u32 {
        self.target
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.plan.front().map(|step| step.at)
    }

    fn observe(&mut self, now: Nanos, _: &Observation, _: &[ReplicaLoad]) -> Option<Decision> {
        self.apply_due(now)
    }

    fn look(&mut self, now: Nanos, _: &Row) -> Verdict {
        let decision = self.apply_due(now);
        Verdict {
            desired: self.target,
            reason: decision.map_or_else(|| Reason::words("as planned"), |d| d.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Autoscaler, AutoscalerConfig, Event, Foreseen, Observation, OracleConfig};
    use crate::time::SECOND;

    #[test]
    fn follows_its_plan_and_says_what_it_foresees() {
        let step = |at, replicas, needed_at| Foreseen {
            at: at * SECOND,
            replicas,
            needed_at: needed_at * SECOND,
        };
        let plan = vec![step(30, 2, 90), step(200, 1, 200)];
        let config = AutoscalerConfig::Oracle(OracleConfig {
            plan: Some(plan),
            ..OracleConfig::new(0, 4)
        });
        let mut autoscaler = Autoscaler::new(&config, 1);
        let mut log = Vec::new();
        while let Some(now) = autoscaler.next_deadline() {
            let event = Event::Observed(Observation::default());
            let decision = autoscaler.on_event(now, event).expect("each step changes");
            log.push(format!("{} {}", decision.target, decision.reason));
        }
        let expected = [
            "2 the load in 1m calls for 2 replicas",
            "1 the load from now on calls for 1 replica",
        ];
        assert_eq!(log, expected);
    }

    #[test]
    fn without_a_plan_there_is_no_oracle() {
        let config = AutoscalerConfig::Oracle(OracleConfig::new(0, 4));
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "the oracle has no plan yet: only a simulation can make one"
        );
    }
}
