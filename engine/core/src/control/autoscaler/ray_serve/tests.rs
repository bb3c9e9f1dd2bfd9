use proptest::prelude::*;

use super::*;
use crate::control::autoscaler::{Autoscaler, AutoscalerConfig, Event};

fn autoscaler(config: &RayServeConfig, initial: u32) -> Autoscaler {
    Autoscaler::new(&AutoscalerConfig::RayServe(config.clone()), initial)
}

fn up_to(max_replicas: u32) -> RayServeConfig {
    RayServeConfig {
        max_replicas,
        ..RayServeConfig::default()
    }
}

/// The changes of target, at one look a second of so many ongoing requests at as
/// many replicas as the target was.
fn changes(
    config: &RayServeConfig,
    initial: u32,
    seconds: u64,
    ongoing: impl Fn(u64) -> f64,
) -> Vec<(u64, u32)> {
    let mut autoscaler = autoscaler(config, initial);
    let mut log = Vec::new();
    for second in 0..seconds {
        let before = autoscaler.target();
        let cells = vec![Some(vec![ongoing(second)]), Some(vec![f64::from(before)])];
        let row = Row::new(COLUMNS, cells).expect("a sound row");
        let after = autoscaler.look(second * SECOND, &row).desired;
        if after != before {
            log.push((second, after));
        }
    }
    log
}

/// `ongoing` that asks for so many replicas of the default target.
fn asking_for(replicas: impl Fn(u64) -> u64) -> impl Fn(u64) -> f64 {
    move |second| 2.0 * replicas(second) as f64
}

// The vectors were executed with Ray's own functions at one look a second.

#[test]
fn a_higher_load_is_waited_for_and_its_level_at_the_end_counts() {
    let config = up_to(20);
    assert_eq!(changes(&config, 1, 100, asking_for(|_| 5)), [(30, 5)]);
    let ramp = asking_for(|second| 2 + second / 5);
    assert_eq!(changes(&config, 1, 90, ramp), [(30, 8), (65, 15)]);
}

#[test]
fn one_look_that_asks_for_no_more_begins_the_wait_anew() {
    for dip in [0, 1] {
        let load = asking_for(|second| if second == 20 { dip } else { 5 });
        assert_eq!(changes(&up_to(20), 1, 100, load), [(51, 5)]);
    }
    let short = asking_for(|second| if second % 30 < 20 { 5 } else { 1 });
    assert_eq!(changes(&up_to(20), 1, 600, short), []);
    let long = asking_for(|second| if second % 40 < 31 { 5 } else { 1 });
    assert_eq!(changes(&up_to(20), 1, 600, long), [(30, 5)]);
}

#[test]
fn the_last_replica_goes_alone_and_by_its_own_delay() {
    let mut config = RayServeConfig {
        min_replicas: 0,
        ..up_to(20)
    };
    let idle = |config: &RayServeConfig| changes(config, 10, 5_000, |_| 0.0);
    assert_eq!(changes(&up_to(20), 10, 700, asking_for(|_| 2)), [(600, 2)]);
    assert_eq!(idle(&config), [(600, 1), (1201, 0)]);
    config.downscale_to_zero_delay_s = Some(3600.0);
    assert_eq!(idle(&config), [(600, 1), (4201, 0)]);
}

#[test]
fn factors_go_part_of_the_way() {
    let wanted = |desired: f64, running, factor| {
        let config = RayServeConfig {
            upscaling_factor: Some(factor),
            downscaling_factor: Some(factor),
            upscale_delay_s: 0.0,
            downscale_delay_s: 0.0,
            ..up_to(100)
        };
        let state = State {
            target: running,
            wish: None,
        };
        state.look(&config, 0.0, desired * 2.0, running).0.target
    };
    assert_eq!(wanted(20.0, 10, 0.5), 15);
    assert_eq!(wanted(5.0, 20, 0.5), 13);
    assert_eq!(wanted(9.0, 10, 0.5), 9);
    assert_eq!(wanted(9.0, 10, 0.01), 9);
    assert_eq!(wanted(11.0, 10, 0.3), 11);
}

#[test]
fn requests_without_a_replica_wait_for_no_delay() {
    let mut config = RayServeConfig {
        min_replicas: 0,
        ..up_to(20)
    };
    assert_eq!(changes(&config, 0, 1, |_| 500.0), [(0, 1)]);
    config.upscaling_factor = Some(2.5);
    assert_eq!(changes(&config, 0, 1, |_| 500.0), [(0, 3)]);
}

#[test]
fn looks_that_are_counted_take_as_long_as_they_take() {
    let config = RayServeConfig {
        delays: Delays::Looks,
        upscale_delay_s: 3.0,
        ..up_to(20)
    };
    // 3 s are 30 looks of 0.1 s, and the next one fires: 30 s at one look a second.
    assert_eq!(changes(&config, 1, 100, asking_for(|_| 5)), [(30, 5)]);
}

/// A deployment as a simulation shows it: what each of its replicas has.
#[derive(Clone, Debug)]
struct Deployment {
    held: u64,
    replicas: Vec<ReplicaLoad>,
}

impl Deployment {
    fn observation(&self) -> Observation {
        let of_all = |part: fn(&ReplicaLoad) -> u32| {
            let parts = self.replicas.iter().map(|load| u64::from(part(load)));
            parts.sum::<u64>()
        };
        Observation {
            running: of_all(|load| load.running),
            queued: self.held + of_all(|load| load.waiting),
            held: self.held,
            ready: self.replicas.len() as u32,
            ..Observation::default()
        }
    }
}

/// What happens to it: after some time, another number of requests waits, and
/// replicas have others.
#[derive(Clone, Debug)]
struct Happening {
    pause: Nanos,
    request: bool,
    held: u64,
    loads: Vec<u32>,
}

fn happening() -> impl Strategy<Value = Happening> {
    let held = prop_oneof![Just(0), 0_u64..20];
    let loads = prop::collection::vec(prop_oneof![Just(0), 0_u32..8], 0..5);
    (0_u64..9_000, any::<bool>(), held, loads).prop_map(|(pause_ms, request, held, loads)| {
        Happening {
            pause: pause_ms * MILLISECOND,
            request,
            held,
            loads,
        }
    })
}

fn config() -> impl Strategy<Value = RayServeConfig> {
    let counts = (0_u32..3, 1_u32..8);
    let delays = (0.0..9.0_f64, 0.0..9.0_f64, 0.0..9.0_f64);
    let intervals = (0.5..12.0_f64, 0.3..7.0_f64);
    let kinds = (any::<bool>(), 0..3_usize, 0.2..2.0_f64);
    (counts, delays, intervals, kinds).prop_map(
        |((min, more), (up, down, zero), (look_back, interval), (clock, function, factor))| {
            RayServeConfig {
                delays: if clock { Delays::Clock } else { Delays::Looks },
                min_replicas: min,
                max_replicas: min + more,
                upscale_delay_s: up,
                downscale_delay_s: down,
                downscale_to_zero_delay_s: Some(zero),
                look_back_period_s: look_back,
                metrics_interval_s: interval,
                upscaling_factor: Some(factor),
                aggregation_function: [
                    AggregationFunction::Mean,
                    AggregationFunction::Max,
                    AggregationFunction::Min,
                ][function],
                ..RayServeConfig::default()
            }
        },
    )
}

/// Drives a policy through what happens, with looks at its own deadlines, or at
/// each pass of the control loop as well. The changes of target, with their reasons.
fn run(
    config: &RayServeConfig,
    happenings: &[Happening],
    every_look: bool,
) -> (Vec<(Nanos, u32, String)>, u64) {
    let mut policy = RayServe::new(config, config.initial());
    let mut deployment = Deployment {
        held: 0,
        replicas: Vec::new(),
    };
    let (mut log, mut looks, mut now) = (Vec::new(), 0, 0);
    for happening in happenings {
        now += happening.pause;
        loop {
            let next_look = policy.looked.map_or(0, |looked| looked + LOOK);
            let deadline = policy.next_deadline().expect("it always looks");
            let at = if every_look {
                deadline.min(next_look)
            } else {
                deadline
            };
            if at >= now {
                break;
            }
            if every_look && at == next_look {
                policy.look = at;
            }
            looks += 1;
            let decision = policy.observe(at, &deployment.observation(), &deployment.replicas);
            log.extend(decision.map(|it| (at, it.target, it.reason.to_string())));
        }
        if happening.request {
            assert_eq!(policy.on_request(now), None);
        }
        let replica = |(replica, running): (u32, &u32)| ReplicaLoad {
            replica,
            running: *running,
            tokens_generated: 1,
            ..ReplicaLoad::default()
        };
        deployment.held = happening.held;
        deployment.replicas = (0..).zip(&happening.loads).map(replica).collect();
        policy.replicas_changed(now);
    }
    (log, looks)
}

proptest! {
    /// Looks that are left out would have changed nothing.
    #[test]
    fn deadlines_are_as_good_as_every_look(
        config in config(),
        happenings in prop::collection::vec(happening(), 1..30),
    ) {
        let (few, few_looks) = run(&config, &happenings, false);
        let (all, all_looks) = run(&config, &happenings, true);
        prop_assert_eq!(few, all);
        prop_assert!(few_looks <= all_looks);
    }

    #[test]
    fn targets_stay_within_limits_and_every_decision_is_a_change(
        config in config(),
        happenings in prop::collection::vec(happening(), 1..30),
    ) {
        let mut before = config.initial();
        for (_, target, _) in run(&config, &happenings, false).0 {
            prop_assert_ne!(target, before);
            prop_assert!((config.min_replicas..=config.max_replicas).contains(&target));
            before = target;
        }
    }

    /// More load never asks for fewer replicas, where the way is gone at once.
    #[test]
    fn replicas_grow_with_the_load(less in 0.0..500.0_f64, more in 0.0..500.0_f64, running in 1_u32..20) {
        let config = RayServeConfig { upscale_delay_s: 0.0, downscale_delay_s: 0.0, ..up_to(1000) };
        let state = State { target: running, wish: None };
        let target = |load| state.look(&config, 0.0, load, running).0.target;
        prop_assert!(target(less.min(more)) <= target(less.max(more)));
    }
}

#[test]
fn a_request_at_zero_replicas_wakes_one_after_record_and_report() {
    let config = RayServeConfig {
        min_replicas: 0,
        ..up_to(4)
    };
    let mut autoscaler = autoscaler(&config, 0);
    let mut held = 0;
    let mut log = Vec::new();
    let mut asked = false;
    while let Some(now) = autoscaler.next_deadline().filter(|&at| at < 60 * SECOND) {
        if now > 13 * SECOND && !asked {
            asked = true;
            held = 1;
            autoscaler.on_event(13 * SECOND, Event::RequestReceived);
            continue;
        }
        let seen = Observation {
            queued: held,
            held,
            ..Observation::default()
        };
        let decision = autoscaler.observe(now, &seen, &[]);
        log.extend(decision.map(|it| (now, it.target, it.reason.to_string())));
    }
    // Recorded at 18 s, reported at 20 s: of the four values since 0 s, one is a request.
    let reason = "0.1 ongoing requests and no running replica".to_owned();
    assert_eq!(log, [(20 * SECOND, 1, reason)]);
}

#[test]
fn a_row_says_why_and_what_it_waits_for() {
    let config = RayServeConfig {
        min_replicas: 0,
        upscale_delay_s: 2.0,
        ..up_to(12)
    };
    let mut autoscaler = autoscaler(&config, 1);
    let mut look = |second: u64, load: f64, ready: f64| {
        let row = Row::new(COLUMNS, vec![Some(vec![load]), Some(vec![ready])]);
        let verdict = autoscaler.look(second * SECOND, &row.expect("a sound row"));
        format!("{}: {}", verdict.desired, verdict.reason)
    };
    assert_eq!(
        look(0, 2.0, 1.0),
        "1: 2 ongoing requests / 2 per replica = 1 is what there is"
    );
    assert_eq!(
        look(1, 31.0, 1.0),
        "1: 31 ongoing requests / 2 per replica = 16 for 0s of 2s"
    );
    assert_eq!(
        look(2, 31.0, 1.0),
        "1: 31 ongoing requests / 2 per replica = 16 for 1s of 2s"
    );
    assert_eq!(
        look(3, 31.0, 1.0),
        "12: 31 ongoing requests / 2 per replica = 16 for 2s, within limits 12"
    );
    assert_eq!(
        look(4, 0.0, 12.0),
        "12: 0 ongoing requests / 2 per replica = 0, applied as 1 for 0s of 10m"
    );
    assert_eq!(
        look(5, 3.5, 0.0),
        "12: 3.5 ongoing requests and no running replica"
    );
    assert_eq!(
        look(6, 0.0, 0.0),
        "12: no ongoing request and no running replica"
    );
}
