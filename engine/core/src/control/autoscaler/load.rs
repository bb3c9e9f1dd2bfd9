//! How loaded a deployment is, measured by each of its load targets.

use std::collections::VecDeque;

use super::{LoadTargets, Observation};
use crate::time::{Nanos, seconds};

/// What a load target is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Sequences, in units of full batches of one replica.
    BatchOccupancy,
    /// Output tokens a second.
    TokensGeneratedPerSecond,
    /// Prompt tokens a second.
    PromptTokensPerSecond,
    /// Requests a second.
    RequestsPerSecond,
    /// Requests received and not ended.
    ConcurrentRequests,
}

/// The load of the whole deployment, beside what one replica should have of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// What is measured.
    pub signal: Signal,
    /// Of all replicas together, in the signal's unit.
    pub total: f64,
    /// Of one replica, in the signal's unit.
    pub target: f64,
}

impl Load {
    /// How many replicas it takes to bring each to its target, before rounding up.
    #[must_use]
    pub fn replicas(&self) -> f64 {
        self.total / self.target
    }
}

/// Turns observations into load. Remembers those of the rate window, because
/// rates are differences of counters: over a single tick, a few requests more or
/// less would look like a change of load.
#[derive(Clone, Debug)]
pub(super) struct Gauge {
    targets: LoadTargets,
    occupancy_capped: bool,
    rate_window: Nanos,
    /// From the last one that is at least a rate window old, oldest first.
    seen: VecDeque<(Nanos, Observation)>,
}

impl Gauge {
    pub(super) fn new(targets: LoadTargets, occupancy_capped: bool, rate_window: Nanos) -> Self {
        Gauge {
            targets,
            occupancy_capped,
            rate_window,
            seen: VecDeque::new(),
        }
    }

    /// Forgets what was observed, so that no rate spans a time without replicas.
    pub(super) fn restart(&mut self) {
        self.seen.clear();
    }

    /// Forgets observations that the window, which ends now, does not reach back to.
    fn forget_outlived(&mut self, now: Nanos) {
        let begins = now.saturating_sub(self.rate_window);
        let no_rates = !self.targets.has_rates();
        let outlived = |next: &(Nanos, Observation)| no_rates || next.0 <= begins;
        while self.seen.get(1).is_some_and(outlived) {
            self.seen.pop_front();
        }
    }

    /// The load by the target that asks for the most replicas (B01); the first
    /// of equals. `None` when no target has a value yet.
    pub(super) fn read(&mut self, now: Nanos, observation: &Observation) -> Option<Load> {
        self.forget_outlived(now);
        let since = self.seen.front();
        let rate = |signal, target: Option<f64>, counter: fn(&Observation) -> u64| {
            Some(Load {
                signal,
                total: growth_per_second(since, now, observation, counter)?,
                target: target?,
            })
        };
        let targets = &self.targets;
        let loads = [
            self.batch_occupancy(observation),
            rate(
                Signal::TokensGeneratedPerSecond,
                targets.tokens_generated_per_second,
                |seen| seen.tokens_generated,
            ),
            rate(
                Signal::PromptTokensPerSecond,
                targets.prompt_tokens_per_second,
                |seen| seen.prompt_tokens,
            ),
            rate(
                Signal::RequestsPerSecond,
                targets.requests_per_second,
                |seen| seen.requests_received,
            ),
            self.concurrent_requests(observation),
        ];
        self.seen.push_back((now, *observation));
        let largest = |a: Load, b: Load| if b.replicas() > a.replicas() { b } else { a };
        loads.into_iter().flatten().reduce(largest)
    }

    /// Queued sequences count: a gauge that ends at one full batch a replica can
    /// never ask for more than 1 / target times what there is.
    fn batch_occupancy(&self, observation: &Observation) -> Option<Load> {
        let target = self.targets.default?;
        let sequences = if self.occupancy_capped {
            observation.running
        } else {
            observation.running + observation.queued
        };
        // A deployment that does not know its batch size yet has no occupancy.
        let slots = Some(observation.batch_slots).filter(|slots| *slots > 0)?;
        Some(Load {
            signal: Signal::BatchOccupancy,
            total: sequences as f64 / f64::from(slots),
            target,
        })
    }

    fn concurrent_requests(&self, observation: &Observation) -> Option<Load> {
        Some(Load {
            signal: Signal::ConcurrentRequests,
            total: (observation.running + observation.queued) as f64,
            target: self.targets.concurrent_requests?,
        })
    }
}

/// Growth of a counter since an earlier observation; `None` if there is none,
/// and when the counter began anew.
fn growth_per_second(
    earlier: Option<&(Nanos, Observation)>,
    now: Nanos,
    observation: &Observation,
    counter: fn(&Observation) -> u64,
) -> Option<f64> {
    let (then, before) = earlier?;
    let elapsed = now.checked_sub(*then).filter(|elapsed| *elapsed > 0)?;
    let growth = counter(observation).checked_sub(counter(before))?;
    Some(growth as f64 / seconds(elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    const NO_TARGETS: LoadTargets = LoadTargets {
        default: None,
        tokens_generated_per_second: None,
        prompt_tokens_per_second: None,
        requests_per_second: None,
        concurrent_requests: None,
    };

    fn observation(running: u64, queued: u64) -> Observation {
        Observation {
            running,
            queued,
            batch_slots: 32,
            ready: 1,
            ..Observation::default()
        }
    }

    #[test]
    fn occupancy_counts_the_queue_unless_it_is_capped() {
        let targets = LoadTargets {
            default: Some(0.8),
            ..NO_TARGETS
        };
        let observation = observation(32, 96);
        let mut gauge = Gauge::new(targets, false, 0);
        assert_eq!(gauge.read(0, &observation).map(|l| l.total), Some(4.0));
        let mut gauge = Gauge::new(targets, true, 0);
        assert_eq!(gauge.read(0, &observation).map(|l| l.total), Some(1.0));
    }

    #[test]
    fn rates_are_differences_between_two_looks() {
        let targets = LoadTargets {
            requests_per_second: Some(2.0),
            ..NO_TARGETS
        };
        let mut gauge = Gauge::new(targets, false, 0);
        let mut seen = observation(0, 0);
        seen.requests_received = 100;
        assert_eq!(gauge.read(0, &seen), None);
        seen.requests_received = 130;
        let load = gauge.read(5 * SECOND, &seen).expect("two looks");
        assert_eq!((load.signal, load.total), (Signal::RequestsPerSecond, 6.0));
        assert_eq!(load.replicas(), 3.0);
    }

    #[test]
    fn rates_span_the_window_once_it_is_covered() {
        let targets = LoadTargets {
            requests_per_second: Some(1.0),
            ..NO_TARGETS
        };
        let mut gauge = Gauge::new(targets, false, 10 * SECOND);
        let mut rates = Vec::new();
        // One burst of 30 requests in the fifth second, and nothing else.
        for second in 0..20 {
            let mut seen = observation(0, 0);
            seen.requests_received = if second < 5 { 0 } else { 30 };
            rates.push(gauge.read(second * SECOND, &seen).map(|load| load.total));
        }
        assert_eq!(rates[5], Some(6.0), "over the five seconds there are");
        assert_eq!(rates[10..15], [Some(3.0); 5]);
        assert_eq!(rates[15], Some(0.0), "the burst is out of the window");
        assert!(gauge.seen.len() <= 11, "only the window is remembered");
    }

    #[test]
    fn the_target_that_asks_for_most_replicas_wins() {
        let targets = LoadTargets {
            default: Some(0.5),
            tokens_generated_per_second: Some(1_000.0),
            prompt_tokens_per_second: Some(1e6),
            concurrent_requests: Some(64.0),
            ..NO_TARGETS
        };
        let mut gauge = Gauge::new(targets, false, 0);
        let mut seen = observation(16, 0);
        assert_eq!(
            gauge.read(0, &seen).map(|l| l.signal),
            Some(Signal::BatchOccupancy)
        );
        seen.tokens_generated = 4_000;
        let load = gauge.read(SECOND, &seen).expect("has values");
        assert_eq!(load.signal, Signal::TokensGeneratedPerSecond);
        assert_eq!(load.replicas(), 4.0);
    }

    #[test]
    fn a_counter_that_began_anew_gives_no_rate() {
        let targets = LoadTargets {
            tokens_generated_per_second: Some(1.0),
            ..NO_TARGETS
        };
        let mut gauge = Gauge::new(targets, false, 0);
        let mut seen = observation(0, 0);
        seen.tokens_generated = 10;
        gauge.read(0, &seen);
        seen.tokens_generated = 4;
        assert_eq!(gauge.read(SECOND, &seen), None);
        seen.tokens_generated = 5;
        assert_eq!(gauge.read(2 * SECOND, &seen).map(|l| l.total), Some(1.0));
    }

    #[test]
    fn an_unknown_batch_size_is_no_load_at_all() {
        let targets = LoadTargets {
            default: Some(0.8),
            ..NO_TARGETS
        };
        let mut seen = observation(3, 3);
        seen.batch_slots = 0;
        assert_eq!(Gauge::new(targets, false, 0).read(0, &seen), None);
    }
}
