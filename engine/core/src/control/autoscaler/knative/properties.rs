//! What holds of the policy under any load: a small deployment, in which replicas
//! take a while to start, is driven second by second.

use proptest::prelude::*;

use super::super::{Autoscaler, AutoscalerConfig, Event, Observation};
use super::config::KnativeKpaConfig;
use super::decider::{Decider, Measured};
use crate::time::{Nanos, SECOND};

/// How long a replica takes to start.
const COLD_START: Nanos = 90 * SECOND;

/// A deployment whose requests in flight are given for each second.
struct Deployment {
    autoscaler: Autoscaler,
    observation: Observation,
    /// When replicas that were ordered are ready.
    starting: Vec<Nanos>,
    decisions: Vec<(Nanos, u32)>,
}

impl Deployment {
    fn new(config: &KnativeKpaConfig, initial: u32) -> Self {
        Deployment {
            autoscaler: Autoscaler::new(&AutoscalerConfig::KnativeKpa(config.clone()), initial),
            observation: Observation {
                ready: initial,
                ..Observation::default()
            },
            starting: Vec::new(),
            decisions: Vec::new(),
        }
    }

    /// Requests come at the beginning of a second and are in flight until its end.
    fn second(&mut self, now: Nanos, in_flight: u64) {
        if self.autoscaler.next_deadline() == Some(now) {
            self.starting.retain(|&ready_at| {
                let is_ready = ready_at <= now;
                self.observation.ready += u32::from(is_ready);
                !is_ready
            });
            self.observation.starting = self.starting.len() as u32;
            let decided = self
                .autoscaler
                .on_event(now, Event::Observed(self.observation));
            self.apply(now, decided.map(|decision| decision.target));
        }
        for _ in 0..in_flight {
            let decided = self.autoscaler.on_event(now, Event::RequestReceived);
            self.apply(now, decided.map(|decision| decision.target));
        }
        self.observation.running = in_flight;
        self.observation.requests_received += in_flight;
        self.observation.in_flight_request_ns += u128::from(in_flight) * u128::from(SECOND);
    }

    fn apply(&mut self, now: Nanos, target: Option<u32>) {
        let Some(target) = target else { return };
        self.decisions.push((now, target));
        while self.observation.ready + self.starting.len() as u32 > target {
            if self.starting.pop().is_none() {
                self.observation.ready -= 1;
            }
        }
        while self.observation.ready + (self.starting.len() as u32) < target {
            self.starting.push(now + COLD_START);
        }
        self.observation.starting = self.starting.len() as u32;
    }
}

fn run(config: &KnativeKpaConfig, initial: u32, load: &[u64]) -> Vec<(Nanos, u32)> {
    let mut deployment = Deployment::new(config, initial);
    for (second, &in_flight) in (0..).zip(load) {
        deployment.second(second * SECOND, in_flight);
    }
    deployment.decisions
}

/// Loads that stay for a while, zero among them.
fn loads() -> impl Strategy<Value = Vec<u64>> {
    let level = prop_oneof![Just(0), 0..5_u64, 0..400_u64];
    let stretch = (level, 1..100_usize).prop_map(|(level, length)| vec![level; length]);
    prop::collection::vec(stretch, 1..8).prop_map(|stretches| stretches.concat())
}

fn configs() -> impl Strategy<Value = KnativeKpaConfig> {
    let windows = (6..120_u64, 0..120_u64, 0..120_u64, 1.0..100.0_f64);
    let scales = (0..3_u32, 3..12_u32, prop::option::of(3..4_u32));
    let rates = (1.1..10.0_f64, 1.1..10.0_f64, -1..300_i32);
    (windows, scales, rates).prop_map(|(windows, scales, rates)| KnativeKpaConfig {
        stable_window: windows.0 * SECOND,
        scale_down_delay: windows.1 * SECOND,
        scale_to_zero_pod_retention_period: windows.2 * SECOND,
        panic_window_percentage: windows.3,
        min_scale: scales.0,
        max_scale: scales.1,
        activation_scale: scales.2,
        max_scale_up_rate: rates.0,
        max_scale_down_rate: rates.1,
        target_burst_capacity: f64::from(rates.2),
        target: Some(20.0),
        ..KnativeKpaConfig::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn targets_stay_within_the_bounds(config in configs(), load in loads()) {
        let initial = config.min_scale.max(1);
        for (_, target) in run(&config, initial, &load) {
            prop_assert!((config.min_scale..=config.max_scale).contains(&target));
        }
    }

    #[test]
    fn the_same_load_has_the_same_decisions(config in configs(), load in loads()) {
        prop_assert_eq!(run(&config, 1, &load), run(&config, 1, &load));
    }

    #[test]
    fn a_request_at_zero_wakes_it_at_once(config in configs(), load in loads()) {
        let config = KnativeKpaConfig { min_scale: 0, ..config };
        let mut deployment = Deployment::new(&config, 0);
        for (second, &in_flight) in (0..).zip(&load) {
            deployment.second(second * SECOND, in_flight);
            let is_awake = deployment.autoscaler.target() > 0;
            prop_assert!(is_awake || in_flight == 0);
        }
    }

    #[test]
    fn without_requests_it_ends_at_its_minimum_and_rests(config in configs(), load in loads()) {
        // Windows, delays, the deadline of a start, and one more of each.
        let quiet = vec![0; 2_000];
        let load = [load, quiet].concat();
        let mut deployment = Deployment::new(&config, 1);
        for (second, &in_flight) in (0..).zip(&load) {
            deployment.second(second * SECOND, in_flight);
        }
        prop_assert_eq!(deployment.autoscaler.target(), config.min_scale);
        prop_assert_eq!(deployment.autoscaler.next_deadline().is_none(), config.min_scale == 0);
    }

    #[test]
    fn more_load_never_calls_for_fewer(
        config in configs(),
        ready in 0..20_u32,
        load in prop::collection::vec((0.0..200.0_f64, 0.0..200.0_f64, 0.0..100.0_f64), 1..40),
    ) {
        let (mut less, mut more) = (Decider::new(&config, 0, ready), Decider::new(&config, 0, ready));
        for (tick, (stable, panic, extra)) in (1..).zip(load) {
            let now = tick * 2 * SECOND;
            let low = less.scale(now, Measured { stable, panic, ready });
            let (stable, panic) = (stable + extra, panic + extra);
            let high = more.scale(now, Measured { stable, panic, ready });
            prop_assert!(low.desired <= high.desired);
            prop_assert!(low.excess_burst_capacity >= high.excess_burst_capacity);
        }
    }
}

/// A pulse of 20 s, and replicas that take 90 s: panic ends, and all that was ordered is
/// undone, before any of it is ready. Knative's own code does this on the same load.
#[test]
fn panic_ends_before_a_slow_start_does() {
    let config = KnativeKpaConfig {
        target: Some(10.0),
        target_utilization_percentage: Some(100.0),
        ..KnativeKpaConfig::default()
    };
    let load: Vec<u64> = (0..200)
        .map(|second| if (60..80).contains(&second) { 60 } else { 5 })
        .collect();
    let decisions = run(&config, 1, &load);
    let seconds: Vec<(Nanos, u32)> = decisions
        .iter()
        .map(|&(at, target)| (at / SECOND, target))
        .collect();
    assert_eq!(seconds, [(62, 3), (64, 5), (66, 6), (146, 1)]);
    assert!(seconds[3].0 * SECOND < 62 * SECOND + COLD_START);
}
