//! One attempt to start a replica: how long its phases take, and whether it fails.
//!
//! What can go wrong is drawn from streams of its own, numbered by the attempt, so
//! that a scenario in which starts fail has otherwise the same starts.

use std::collections::VecDeque;

use foresail_core::time::Nanos;
use foresail_scenarios::distribution::Distribution;
use foresail_scenarios::failures::Failures;
use foresail_scenarios::random::{Stream, numbered_stream};
use foresail_scenarios::scenario::{ColdStartPhase, Deployment};

use crate::cold_start::{self, Phases};

/// What a starting replica has still to go through.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// Which attempt this is, from 1.
    pub(crate) attempt: u32,
    pub(crate) phases: VecDeque<(ColdStartPhase, Nanos)>,
    /// What happens after the last of them.
    pub(crate) end: StartEnd,
    /// How long they take together.
    pub(crate) total: Nanos,
}

/// How a start ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartEnd {
    Ready,
    Failed,
    TimedOut,
}

impl Start {
    /// Draws an attempt to start a replica.
    pub(crate) fn draw(deployment: &Deployment, seed: u64, replica: u32, attempt: u32) -> Self {
        let failures = &deployment.failures;
        let stream = |name: &str| {
            let number = u64::from(attempt - 1);
            numbered_stream(seed, &format!("{name}.{replica}"), number)
        };
        let mut phases = cold_start::draw(&deployment.cold_start, seed, replica, attempt);
        if let Some(slow) = &failures.slow_start {
            let mut rng = stream("slow_start");
            if happens(slow.probability, &mut rng) {
                let factor = slow.factor.sample(&mut rng);
                for (_, nanos) in &mut phases {
                    *nanos = share(*nanos, factor);
                }
            }
        }
        let (limit, end) = limit(failures, total(&phases), || stream("start_failure"));
        cut(&mut phases, limit);
        Self {
            attempt,
            end,
            total: total(&phases),
            phases: phases.into(),
        }
    }
}

/// After how much of a start that would take so long it ends, and how.
fn limit(failures: &Failures, total: Nanos, rng: impl FnOnce() -> Stream) -> (Nanos, StartEnd) {
    let mut limit = (total, StartEnd::Ready);
    if let Some(failure) = &failures.start_failure {
        let mut rng = rng();
        if happens(failure.probability, &mut rng) {
            limit = (share(total, failure.at.sample(&mut rng)), StartEnd::Failed);
        }
    }
    match failures.start_timeout {
        Some(timeout) if timeout < limit.0 => (timeout, StartEnd::TimedOut),
        _ => limit,
    }
}

/// Leaves of the phases what lies within the limit.
fn cut(phases: &mut Phases, limit: Nanos) {
    let (mut left, mut begins) = (limit, true);
    phases.retain_mut(|(_, nanos)| {
        // A phase that takes no time still begins, unless one before it did not.
        begins = begins && (left > 0 || *nanos == 0);
        *nanos = (*nanos).min(left);
        left -= *nanos;
        begins
    });
}

fn total(phases: &Phases) -> Nanos {
    (phases.iter()).fold(0, |sum: Nanos, (_, nanos)| sum.saturating_add(*nanos))
}

fn share(nanos: Nanos, factor: f64) -> Nanos {
    (nanos as f64 * factor) as Nanos
}

fn happens(probability: f64, rng: &mut Stream) -> bool {
    let anywhere = Distribution::Uniform { min: 0.0, max: 1.0 };
    anywhere.sample(rng) < probability
}

#[cfg(test)]
mod tests {
    use super::*;
    use ColdStartPhase::{Downloading, Initialising, Pending};
    use proptest::prelude::*;

    #[test]
    fn a_start_is_cut_in_the_middle_of_a_phase() {
        let mut phases = vec![(Pending, 3), (Downloading, 10), (Initialising, 20)];
        cut(&mut phases, 7);
        assert_eq!(phases, [(Pending, 3), (Downloading, 4)]);
    }

    #[test]
    fn what_fails_first_ends_the_start() {
        let mut failures = Failures {
            start_timeout: Some(50),
            ..Failures::default()
        };
        let rng = || numbered_stream(1, "start_failure.0", 0);
        assert_eq!(limit(&failures, 50, rng), (50, StartEnd::Ready));
        assert_eq!(limit(&failures, 51, rng), (50, StartEnd::TimedOut));
        failures.start_failure = Some(foresail_scenarios::failures::StartFailure {
            probability: 1.0,
            at: Distribution::Fixed { value: 0.5 },
        });
        assert_eq!(limit(&failures, 80, rng), (40, StartEnd::Failed));
        assert_eq!(limit(&failures, 200, rng), (50, StartEnd::TimedOut));
    }

    proptest! {
        #[test]
        fn what_is_left_of_a_start_is_its_beginning(
            nanos in prop::collection::vec(0..100_u64, 0..4), limit in 0..400_u64,
        ) {
            let whole: Phases = [Pending, Downloading, Initialising].into_iter().zip(nanos).collect();
            let mut phases = whole.clone();
            cut(&mut phases, limit);
            prop_assert_eq!(total(&phases), total(&whole).min(limit));
            for ((phase, nanos), (before, most)) in phases.iter().zip(&whole) {
                prop_assert!(phase == before && nanos <= most);
            }
        }
    }
}
