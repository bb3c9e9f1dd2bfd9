//! The policies of `hpa`, `keda.rs`, `wva_saturation.rs` and `dynamo_load.rs` in a
//! deployment: between their bounds, never stuck, and in words that read well.

use proptest::prelude::*;

use super::*;
use crate::time::SECOND;

const REPLICAS_MAX: u32 = 6;

/// A deployment whose replicas start in a minute, and hold ten requests each at most.
struct Deployment {
    autoscaler: Autoscaler,
    seen: Observation,
    starting: Vec<Nanos>,
    /// (second, what was decided, why).
    log: Vec<(u64, u32, String)>,
}

impl Deployment {
    fn new(config: &AutoscalerConfig, initial: u32) -> Self {
        Deployment {
            autoscaler: Autoscaler::new(config, initial),
            seen: Observation {
                batch_slots: 10,
                ready: initial,
                ..Observation::default()
            },
            starting: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Lets time pass with so many requests in flight, which were received when it began.
    fn pass(&mut self, from_s: u64, to_s: u64, in_flight: u64) {
        for _ in self.in_flight()..in_flight {
            self.seen.requests_received += 1;
            let decision = self
                .autoscaler
                .on_event(from_s * SECOND, Event::RequestReceived);
            self.carry_out(from_s * SECOND, decision);
        }
        self.seen.queued = in_flight;
        self.seen.running = 0;
        while let Some(now) = self
            .autoscaler
            .next_deadline()
            .filter(|&at| at < to_s * SECOND)
        {
            self.arrive(now);
            self.serve();
            let replicas = self.replicas();
            let decision = self.autoscaler.observe(now, &self.seen, &replicas);
            self.carry_out(now, decision);
        }
    }

    fn in_flight(&self) -> u64 {
        self.seen.running + self.seen.queued
    }

    fn arrive(&mut self, now: Nanos) {
        let before = self.starting.len();
        self.starting.retain(|&ready_at| ready_at > now);
        self.seen.ready += (before - self.starting.len()) as u32;
        self.seen.starting = self.starting.len() as u32;
    }

    fn serve(&mut self) {
        let in_flight = self.in_flight();
        // What was in a batch has been completed, and as many have come anew.
        self.seen.requests_received += self.seen.running;
        self.seen.running = in_flight.min(u64::from(self.seen.ready) * 10);
        self.seen.queued = in_flight - self.seen.running;
    }

    fn replicas(&self) -> Vec<ReplicaLoad> {
        let ready = u64::from(self.seen.ready);
        let share = |count: u64, replica: u64| {
            let share = count / ready + u64::from(replica < count % ready);
            u32::try_from(share).unwrap()
        };
        let load = |replica: u64| {
            let running = share(self.seen.running, replica);
            let waiting = share(self.seen.queued, replica);
            ReplicaLoad {
                replica: replica as u32,
                running,
                waiting,
                kv_blocks_used: running * 100,
                kv_blocks: 1000,
                kv_block_tokens: 16,
                prompt_tokens_waiting: u64::from(waiting) * 1000,
                context_tokens: u64::from(running) * 1600,
                tokens_generated: 0,
            }
        };
        (0..ready).map(load).collect()
    }

    fn carry_out(&mut self, now: Nanos, decision: Option<Decision>) {
        let Some(Decision { target, reason }) = decision else {
            return;
        };
        self.log.push((now / SECOND, target, reason.to_string()));
        while self.seen.ready + (self.starting.len() as u32) < target {
            self.starting.push(now + 60 * SECOND);
        }
        while self.seen.ready + (self.starting.len() as u32) > target {
            if self.starting.pop().is_none() {
                self.seen.ready -= 1;
            }
        }
        self.seen.starting = self.starting.len() as u32;
    }
}

fn metric(measure: Measure, average_value_milli: u32) -> HpaMetric {
    HpaMetric {
        measure,
        source: measure.usual_source(),
        average_value_milli,
    }
}

fn hpa() -> AutoscalerConfig {
    AutoscalerConfig::Hpa(HpaConfig {
        max_replicas: REPLICAS_MAX,
        metrics: vec![
            metric(Measure::ConcurrentRequests, 8000),
            metric(Measure::Queue, 5000),
        ],
        ..HpaConfig::default()
    })
}

fn keda() -> AutoscalerConfig {
    AutoscalerConfig::Keda(KedaConfig {
        max_replica_count: REPLICAS_MAX,
        threshold_milli: 8000,
        ..KedaConfig::default()
    })
}

fn wva(enable_scale_to_zero: bool) -> AutoscalerConfig {
    AutoscalerConfig::WvaSaturation(WvaSaturationConfig {
        min_replicas: if enable_scale_to_zero { 0 } else { 1 },
        max_replicas: REPLICAS_MAX,
        enable_scale_to_zero,
        ..WvaSaturationConfig::default()
    })
}

fn dynamo() -> AutoscalerConfig {
    AutoscalerConfig::DynamoLoad(DynamoLoadConfig {
        max_gpu_budget: Some(REPLICAS_MAX),
        ..DynamoLoadConfig::default()
    })
}

fn told(log: &[(u64, u32, String)]) -> Vec<String> {
    log.iter()
        .map(|(second, target, why)| format!("{second} s: {target}, {why}"))
        .collect()
}

#[test]
fn the_hpa_follows_load_up_at_once_and_down_after_five_minutes() {
    let mut deployment = Deployment::new(&hpa(), 1);
    deployment.pass(0, 60, 4);
    deployment.pass(60, 300, 30);
    deployment.pass(300, 900, 4);
    assert_eq!(
        told(&deployment.log),
        [
            "60 s: 4, concurrent-requests 30 / 8 a replica calls for 4",
            "600 s: 1, concurrent-requests 4 / 8 a replica calls for 1",
        ]
    );
}

#[test]
fn keda_wakes_at_its_poll_and_sleeps_after_its_cooldown() {
    let mut deployment = Deployment::new(&keda(), 0);
    deployment.pass(0, 100, 0);
    deployment.pass(100, 200, 2);
    deployment.pass(200, 900, 0);
    // Last active at the poll of 180 s; 300 s later is not later than 300 s.
    assert_eq!(
        told(&deployment.log),
        [
            "120 s: 1, active: concurrent-requests 2",
            "510 s: 0, not active for 5m30s",
        ]
    );
}

#[test]
fn keda_leaves_one_and_more_to_the_hpa() {
    let mut deployment = Deployment::new(&keda(), 0);
    deployment.pass(0, 300, 30);
    let targets: Vec<u32> = deployment.log.iter().map(|entry| entry.1).collect();
    // One from zero, and in the same second what the HPA makes of it.
    assert_eq!(targets, [4]);
}

#[test]
fn idle_replicas_stand_in_for_the_minimum_of_keda() {
    let config = AutoscalerConfig::Keda(KedaConfig {
        min_replica_count: 2,
        max_replica_count: REPLICAS_MAX,
        idle_replica_count: Some(0),
        threshold_milli: 8000,
        ..KedaConfig::default()
    });
    let mut deployment = Deployment::new(&config, 0);
    deployment.pass(0, 60, 1);
    deployment.pass(60, 900, 0);
    let targets: Vec<(u64, u32)> = deployment.log.iter().map(|e| (e.0, e.1)).collect();
    assert_eq!(targets, [(0, 2), (360, 0)]);
}

#[test]
fn bounds_that_keda_refuses() {
    let refused = |edit: fn(&mut KedaConfig)| {
        let mut config = KedaConfig::default();
        edit(&mut config);
        config.validate().unwrap_err().to_string()
    };
    assert_eq!(
        refused(|config| (config.min_replica_count, config.max_replica_count) = (3, 2)),
        "minReplicaCount must be less than maxReplicaCount: 3 > 2"
    );
    assert_eq!(
        refused(|config| config.idle_replica_count = Some(0)),
        "idleReplicaCount must be less than minReplicaCount: 0 >= 0"
    );
}

#[test]
fn the_saturation_analyser_adds_one_by_one_and_waits_for_each() {
    let mut deployment = Deployment::new(&wva(false), 1);
    deployment.pass(0, 60, 2);
    deployment.pass(60, 240, 18);
    assert_eq!(
        told(&deployment.log),
        [
            "60 s: 2, KV spare 0.000 < 0.100 and queue spare 0.0 < 3.0",
            "120 s: 3, KV spare 0.000 < 0.100 and queue spare 0.0 < 3.0",
        ]
    );
}

#[test]
fn the_saturation_analyser_goes_to_zero_and_wakes_within_a_tenth_of_a_second() {
    let mut deployment = Deployment::new(&wva(true), 1);
    deployment.pass(0, 30, 3);
    deployment.pass(30, 1500, 0);
    assert_eq!(deployment.autoscaler.target(), 0);
    let (second, _, why) = deployment.log.last().unwrap().clone();
    assert_eq!((second, why.as_str()), (630, "no request in 10m"));
    deployment.pass(1500, 1520, 1);
    assert_eq!(deployment.autoscaler.target(), 1);
    assert_eq!(deployment.log.last().unwrap().0, 1500);
}

#[test]
fn the_planner_adds_one_when_any_worker_is_full_and_asks_for_no_more_meanwhile() {
    let mut deployment = Deployment::new(&dynamo(), 1);
    deployment.pass(0, 20, 2);
    deployment.pass(20, 100, 28);
    assert_eq!(
        told(&deployment.log),
        [
            "20 s: 2, KV usage 212.5 % > 100 %",
            "80 s: 3, KV usage 125 % > 100 %",
        ]
    );
}

#[test]
fn columns_have_each_metric_of_an_hpa() {
    use super::trace::Row;
    let config = hpa();
    let mut autoscaler = Autoscaler::new(&config, 2);
    let mut look = |second: u64, load: f64, queue: Option<f64>| {
        let cells = config.columns().iter().map(|column| match column.name {
            "load" => Some(vec![load]),
            "ready" => Some(vec![2.0]),
            "queue" => queue.map(|queue| vec![queue]),
            _ => None,
        });
        let row = Row::new(config.columns(), cells.collect()).unwrap();
        autoscaler.look(second * SECOND, &row)
    };
    // The queue calls for six, of which four are allowed at once.
    let verdict = look(0, 16.0, Some(30.0));
    assert_eq!(verdict.desired, 4);
    assert_eq!(
        verdict.reason.to_string(),
        "queue 15 a replica / 5 calls for 6; limited to 4"
    );
    // Without one of its metrics it may not remove replicas.
    let verdict = look(900, 1.0, None);
    assert_eq!(verdict.desired, 4);
    assert_eq!(verdict.reason.to_string(), "a metric is missing");
}

proptest! {
    #[test]
    fn every_decision_is_a_change_within_the_bounds_and_no_request_is_left_at_zero(
        loads in prop::collection::vec((prop_oneof![Just(0), 0_u64..80], 1_u64..400), 1..30),
        which in 0_usize..5,
    ) {
        let configs = [hpa(), keda(), wva(false), wva(true), dynamo()];
        let goes_to_zero = which == 1 || which == 3;
        let run = || {
            let mut deployment = Deployment::new(&configs[which], 1);
            let mut second = 0;
            for &(in_flight, seconds) in &loads {
                deployment.pass(second, second + seconds, in_flight);
                second += seconds;
            }
            // A request comes right after a look, beside five that came earlier.
            // The next look may be the one that finds that none was completed.
            let after_look = (second / 30 + 2) * 30 + 1;
            deployment.pass(second, after_look, 5);
            deployment.pass(after_look, after_look + 29, 6);
            (deployment.autoscaler.target(), deployment.log)
        };
        let (target, log) = run();
        prop_assert!(target > 0, "a request waits at zero");
        let mut before = 1;
        for (_, target, why) in &log {
            prop_assert_ne!(*target, before, "{}", why);
            prop_assert!(*target <= REPLICAS_MAX, "{}", why);
            prop_assert!(*target > 0 || goes_to_zero, "{}", why);
            before = *target;
        }
        prop_assert_eq!(run().1, log);
    }
}
