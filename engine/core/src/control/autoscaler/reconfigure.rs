//! What people change of an autoscaler while it runs: limits, windows, and the
//! number of replicas itself.
//!
//! Only the policy `fireworks` has these: an update of a deployment speaks of its
//! windows, which the other policies do not know.

use thiserror::Error;

use super::fireworks::Fireworks;
use super::{AnyPolicy, Autoscaler, AutoscalerConfig, ConfigError, Decision, FireworksConfig};
use crate::time::Nanos;

/// Why an autoscaler goes on as it was.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ReconfigureError {
    /// The parameters cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It has another policy.
    #[error("only an autoscaler with the policy fireworks can be changed while it runs")]
    OtherPolicy,
}

impl Autoscaler {
    /// An autoscaler, with the policy `fireworks`, of a deployment that begins at
    /// `now`, which counts as the last request received.
    ///
    /// # Errors
    /// If the parameters cannot be used.
    pub fn beginning_at(
        now: Nanos,
        config: &FireworksConfig,
        initial_replicas: u32,
    ) -> Result<Self, ConfigError> {
        AutoscalerConfig::Fireworks(config.clone()).validate()?;
        let policy = Fireworks::beginning_at(now, config, initial_replicas);
        Ok(Autoscaler {
            policy: AnyPolicy::Fireworks(Box::new(policy)),
        })
    }

    /// Goes on with other parameters. `Some` when they do not allow the number of
    /// replicas there is. What was observed so far still counts, but for what was
    /// waited for under windows that are other now.
    ///
    /// # Errors
    /// If the parameters cannot be used, or the policy is another. Nothing changes then.
    pub fn reconfigure(
        &mut self,
        now: Nanos,
        config: &FireworksConfig,
    ) -> Result<Option<Decision>, ReconfigureError> {
        AutoscalerConfig::Fireworks(config.clone()).validate()?;
        Ok(self.fireworks()?.reconfigure(now, config))
    }

    /// Sets the number of replicas, which the autoscaler takes up from there. To
    /// ask for some counts as a request received, so that they are not idle at once.
    ///
    /// # Errors
    /// If the policy is another than `fireworks`. Nothing changes then.
    pub fn scale(
        &mut self,
        now: Nanos,
        replicas: u32,
    ) -> Result<Option<Decision>, ReconfigureError> {
        Ok(self.fireworks()?.scale(now, replicas))
    }

    fn fireworks(&mut self) -> Result<&mut Fireworks, ReconfigureError> {
        match &mut self.policy {
            AnyPolicy::Fireworks(policy) => Ok(policy),
            _ => Err(ReconfigureError::OtherPolicy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::defaults;
    use super::super::{Event, LoadTargets, Observation, Reason};
    use super::*;
    use crate::time::{HOUR, MINUTE, SECOND};

    fn config(min: u32, max: u32) -> FireworksConfig {
        FireworksConfig {
            min_replica_count: min,
            max_replica_count: max,
            ..defaults()
        }
    }

    /// Looks at every deadline until `until`, at a load of so many full batches.
    fn look(
        autoscaler: &mut Autoscaler,
        until: Nanos,
        full_batches: u64,
    ) -> Vec<(Nanos, Decision)> {
        let seen = Observation {
            running: 10 * full_batches,
            batch_slots: 10,
            ready: 1,
            ..Observation::default()
        };
        let mut decisions = Vec::new();
        while let Some(now) = autoscaler.next_deadline().filter(|&at| at <= until) {
            let decision = autoscaler.on_event(now, Event::Observed(seen));
            decisions.extend(decision.map(|decision| (now, decision)));
        }
        decisions
    }

    fn begin(min: u32, max: u32, replicas: u32) -> Autoscaler {
        Autoscaler::beginning_at(0, &config(min, max), replicas).expect("valid")
    }

    #[test]
    fn a_minimum_that_is_raised_holds_at_once_even_at_zero() {
        let mut autoscaler = begin(0, 1, 0);
        assert_eq!(autoscaler.next_deadline(), None);
        let decision = autoscaler.reconfigure(2 * HOUR, &config(2, 4)).unwrap();
        let expected = Decision {
            target: 2,
            reason: Reason::OutsideLimits { min: 2, max: 4 },
        };
        assert_eq!(decision, Some(expected));
        assert_eq!(autoscaler.next_deadline(), Some(2 * HOUR + SECOND));
    }

    #[test]
    fn a_maximum_of_0_parks_and_a_request_wakes_when_it_is_raised() {
        let mut autoscaler = begin(1, 4, 3);
        let parked = autoscaler.reconfigure(MINUTE, &config(1, 0)).unwrap();
        assert_eq!(parked.map(|decision| decision.target), Some(0));
        let asleep = autoscaler.on_event(HOUR, Event::RequestReceived);
        assert_eq!(asleep, None);
        assert_eq!(autoscaler.reconfigure(HOUR, &config(0, 2)), Ok(None));
        let woken = autoscaler.on_event(HOUR, Event::RequestReceived);
        assert_eq!(woken.map(|decision| decision.target), Some(1));
    }

    #[test]
    fn a_shorter_window_is_waited_for_from_the_change_on() {
        let mut autoscaler = begin(1, 4, 1);
        assert_eq!(look(&mut autoscaler, 10 * SECOND, 2), []);
        let shorter = FireworksConfig {
            scale_up_window: 5 * SECOND,
            ..config(1, 4)
        };
        assert_eq!(autoscaler.reconfigure(10 * SECOND, &shorter), Ok(None));
        let decisions = look(&mut autoscaler, MINUTE, 2);
        // The first look after the change is at 11 s.
        assert_eq!(decisions[0].0, 16 * SECOND);
        assert_eq!(decisions[0].1.target, 3);
    }

    #[test]
    fn what_has_not_changed_goes_on_counting() {
        let mut autoscaler = begin(1, 4, 1);
        assert_eq!(look(&mut autoscaler, 10 * SECOND, 2), []);
        assert_eq!(autoscaler.reconfigure(10 * SECOND, &config(1, 8)), Ok(None));
        let decisions = look(&mut autoscaler, MINUTE, 2);
        assert_eq!(decisions[0].0, 30 * SECOND);
    }

    #[test]
    fn a_look_that_is_due_is_not_skipped() {
        let mut autoscaler = begin(1, 4, 1);
        assert_eq!(look(&mut autoscaler, 9 * SECOND, 0), []);
        assert_eq!(autoscaler.reconfigure(10 * SECOND, &config(1, 8)), Ok(None));
        assert_eq!(autoscaler.next_deadline(), Some(10 * SECOND));
        let slower = FireworksConfig {
            tick: 3 * SECOND,
            ..config(1, 8)
        };
        assert_eq!(autoscaler.reconfigure(10 * SECOND, &slower), Ok(None));
        assert_eq!(autoscaler.next_deadline(), Some(12 * SECOND));
    }

    #[test]
    fn other_targets_are_compared_with_from_then_on() {
        let mut autoscaler = begin(1, 4, 1);
        assert_eq!(look(&mut autoscaler, MINUTE, 0), []);
        let stricter = FireworksConfig {
            load_targets: LoadTargets {
                default: Some(0.25),
                ..defaults().load_targets
            },
            ..config(1, 4)
        };
        assert_eq!(autoscaler.reconfigure(MINUTE, &stricter), Ok(None));
        let decisions = look(&mut autoscaler, 2 * MINUTE, 1);
        assert_eq!(decisions[0].1.target, 4);
    }

    #[test]
    fn replicas_that_are_asked_for_are_not_idle_at_once() {
        let mut autoscaler = begin(0, 4, 0);
        let decision = autoscaler.scale(10 * HOUR, 2).unwrap().expect("a change");
        assert_eq!(decision.target, 2);
        assert_eq!(decision.reason.to_string(), "scaled to 2 replicas");
        assert_eq!(autoscaler.scale(10 * HOUR, 2), Ok(None));
        let decisions = look(&mut autoscaler, 11 * HOUR, 0);
        let targets: Vec<_> = decisions.iter().map(|(at, d)| (*at, d.target)).collect();
        assert_eq!(targets, [(10 * HOUR + 601 * SECOND, 1), (11 * HOUR, 0)]);
    }

    #[test]
    fn a_plan_is_not_reconfigured_and_bad_parameters_change_nothing() {
        let fixed = AutoscalerConfig::Fixed { replicas: 2 };
        let mut fixed = Autoscaler::new(&fixed, 2);
        let follows_plan = Err(ReconfigureError::OtherPolicy);
        assert_eq!(fixed.reconfigure(0, &config(0, 1)), follows_plan);
        assert_eq!(fixed.scale(0, 1), follows_plan);
        let mut autoscaler = begin(1, 4, 2);
        let error = autoscaler.reconfigure(0, &config(5, 4)).unwrap_err();
        let min_above_max = ConfigError::MinAboveMax { min: 5, max: 4 };
        assert_eq!(error, ReconfigureError::Config(min_above_max));
        assert_eq!(autoscaler.target(), 2);
    }
}
