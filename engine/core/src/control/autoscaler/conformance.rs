//! The rows of the specification that an autoscaler can be held to.

use super::*;
use crate::time::{HOUR, MINUTE, SECOND};

/// The defaults of the specification, with room to scale.
pub(super) fn defaults() -> FireworksConfig {
    FireworksConfig {
        min_replica_count: 0,
        max_replica_count: 20,
        scale_up_window: 30 * SECOND,
        scale_down_window: 10 * MINUTE,
        scale_to_zero_window: HOUR,
        load_targets: LoadTargets {
            default: Some(0.8),
            tokens_generated_per_second: None,
            prompt_tokens_per_second: None,
            requests_per_second: None,
            concurrent_requests: None,
        },
        window_semantics: WindowSemantics::Sustained,
        tick: SECOND,
        signal_smoothing: 0,
        rate_window: 0,
        occupancy_capped: false,
        idle_from: IdleFrom::LastReceived,
    }
}

/// A change of target: at which second, from how many, to how many.
type Change = (u64, u32, u32);

/// Drives an autoscaler as a simulator would: at equal times, requests precede
/// deadlines. `observe` says what the deployment looks like at a second.
fn drive(
    config: &FireworksConfig,
    initial: u32,
    until: u64,
    requests: &[u64],
    observe: impl Fn(u64) -> Observation,
) -> Vec<Change> {
    let mut autoscaler = Autoscaler::new(&AutoscalerConfig::Fireworks(config.clone()), initial);
    let mut requests = requests.iter().map(|at| at * SECOND).peekable();
    let mut changes = Vec::new();
    let mut target = initial;
    loop {
        let deadline = autoscaler.next_deadline();
        let request = requests.next_if(|&at| deadline.is_none_or(|deadline| at <= deadline));
        let (now, event) = match (request, deadline) {
            (Some(now), _) => (now, Event::RequestReceived),
            (None, Some(now)) => (now, Event::Observed(observe(now / SECOND))),
            (None, None) => return changes,
        };
        if now > until * SECOND {
            return changes;
        }
        if let Some(decision) = autoscaler.on_event(now, event) {
            changes.push((now / SECOND, target, decision.target));
            target = decision.target;
        }
    }
}

/// The deployment of the executed vectors: one full batch a replica is its load
/// target, so that the load is the number of replicas that it calls for.
fn vector_config() -> FireworksConfig {
    FireworksConfig {
        min_replica_count: 1,
        load_targets: LoadTargets {
            default: Some(1.0),
            ..defaults().load_targets
        },
        ..defaults()
    }
}

fn load(replicas: u32) -> Observation {
    Observation {
        running: 10 * u64::from(replicas),
        batch_slots: 10,
        ready: 1,
        ..Observation::default()
    }
}

fn vector(initial: u32, until: u64, demand: impl Fn(u64) -> u32) -> Vec<Change> {
    drive(&vector_config(), initial, until, &[], |t| load(demand(t)))
}

/// Nothing in flight, one replica ready.
fn idle(_: u64) -> Observation {
    load(0)
}

// Vectors executed on Ray Serve 2.60.0: it has the defaults of the
// specification, and its timer is what `sustained` means.

#[test]
fn ray_constant_load_acts_after_the_window() {
    assert_eq!(vector(1, 100, |_| 5), [(30, 1, 5)]);
}

#[test]
fn ray_ramp_takes_the_value_of_the_moment_and_starts_again() {
    assert_eq!(
        vector(1, 80, |t| 2 + (t / 5) as u32),
        [(30, 1, 8), (65, 8, 15)]
    );
}

#[test]
fn ray_one_equal_or_lower_look_starts_the_window_anew() {
    for dip in [1, 0] {
        assert_eq!(
            vector(1, 100, |t| if t == 20 { dip } else { 5 }),
            [(51, 1, 5)]
        );
    }
}

#[test]
fn ray_square_wave_shorter_than_the_window_never_acts() {
    assert_eq!(vector(1, 600, |t| if t % 30 < 20 { 5 } else { 1 }), []);
}

#[test]
fn ray_square_wave_longer_than_the_window_acts() {
    assert_eq!(
        vector(1, 600, |t| if t % 40 < 31 { 5 } else { 1 }),
        [(30, 1, 5)]
    );
}

#[test]
fn ray_lower_load_acts_after_the_down_window() {
    assert_eq!(vector(10, 2_000, |_| 2), [(600, 10, 2)]);
}

#[test]
fn ray_no_load_goes_to_one_and_only_idleness_to_zero() {
    let config = FireworksConfig {
        min_replica_count: 0,
        ..vector_config()
    };
    assert_eq!(
        drive(&config, 10, 9_000, &[], idle),
        [(600, 10, 1), (3_600, 1, 0)]
    );
}

// The rows of the specification.

#[test]
fn s12_default_scales_to_zero_after_an_hour_without_requests() {
    assert_eq!(drive(&defaults(), 1, 10_000, &[100], idle), [(3_700, 1, 0)]);
}

#[test]
fn s14_s28_scale_to_zero_is_ignored_above_a_minimum() {
    let config = FireworksConfig {
        min_replica_count: 2,
        ..defaults()
    };
    assert_eq!(drive(&config, 2, 100_000, &[], idle), []);
}

#[test]
fn s20_equal_limits_fix_the_size() {
    let config = FireworksConfig {
        min_replica_count: 3,
        max_replica_count: 3,
        ..vector_config()
    };
    let varying = |t: u64| load(if t < 2_000 { 9 } else { 0 });
    assert_eq!(drive(&config, 3, 5_000, &[], varying), []);
}

#[test]
fn s20_load_is_batch_occupancy_and_its_target_is_a_share_of_it() {
    // 64 sequences in batches of 32 are 2 full batches: 2 / 0.8 rounded up is 3.
    let observe = |_| Observation {
        running: 32,
        queued: 32,
        batch_slots: 32,
        ready: 1,
        ..Observation::default()
    };
    assert_eq!(drive(&defaults(), 1, 100, &[], observe), [(30, 1, 3)]);
}

#[test]
fn s23_zero_after_the_scale_to_zero_window() {
    let config = FireworksConfig {
        scale_to_zero_window: 5 * MINUTE,
        ..defaults()
    };
    assert_eq!(drive(&config, 1, 1_000, &[10, 200], idle), [(500, 1, 0)]);
    // A request within the window starts it anew.
    assert_eq!(drive(&config, 1, 800, &[10, 300, 500], idle), [(800, 1, 0)]);
}

#[test]
fn s24_a_request_at_zero_scales_to_one_at_once_whatever_is_waiting() {
    let crowd = |_| Observation {
        queued: 1_000,
        batch_slots: 10,
        starting: 1,
        ..Observation::default()
    };
    let changes = drive(&defaults(), 0, 60, &[7; 1_000], crowd);
    // Held requests are load, so it goes on up a window after the wake.
    assert_eq!(changes, [(7, 0, 1), (38, 1, 20)]);
}

#[test]
fn s26_scale_up_window() {
    let config = FireworksConfig {
        scale_up_window: 90 * SECOND,
        ..vector_config()
    };
    let observe = |t| load(if t < 10 { 1 } else { 4 });
    assert_eq!(drive(&config, 1, 300, &[], observe), [(100, 1, 4)]);
    let at_once = FireworksConfig {
        scale_up_window: 0,
        ..vector_config()
    };
    assert_eq!(drive(&at_once, 1, 300, &[], observe), [(10, 1, 4)]);
}

#[test]
fn s27_scale_down_window() {
    let config = FireworksConfig {
        scale_down_window: 2 * MINUTE,
        ..vector_config()
    };
    let observe = |t| load(if t < 10 { 4 } else { 2 });
    assert_eq!(drive(&config, 4, 300, &[], observe), [(130, 4, 2)]);
}

// What the specification is silent on.

#[test]
fn a_longer_scale_down_window_does_not_delay_zero() {
    let config = FireworksConfig {
        scale_down_window: HOUR,
        scale_to_zero_window: 10 * MINUTE,
        ..defaults()
    };
    assert_eq!(drive(&config, 7, 2_000, &[], idle), [(600, 7, 0)]);
}

#[test]
fn a_maximum_of_zero_is_parked_and_does_not_wake() {
    let config = FireworksConfig {
        max_replica_count: 0,
        ..defaults()
    };
    assert_eq!(drive(&config, 0, 1_000, &[5, 6], idle), []);
    assert_eq!(drive(&config, 2, 1_000, &[5, 6], idle), [(0, 2, 0)]);
}

#[test]
fn a_deployment_that_begins_outside_its_limits_is_brought_inside_at_once() {
    let config = FireworksConfig {
        min_replica_count: 2,
        max_replica_count: 4,
        ..vector_config()
    };
    assert_eq!(drive(&config, 0, 20, &[], |_| load(3)), [(0, 0, 2)]);
    assert_eq!(drive(&config, 9, 20, &[], |_| load(3)), [(0, 9, 4)]);
}

#[test]
fn a_stream_longer_than_the_window_is_not_cut_off() {
    let streaming = |t| Observation {
        running: u64::from(t < 5_000),
        ..load(0)
    };
    let counted_from = |idle_from| {
        let config = FireworksConfig {
            idle_from,
            ..defaults()
        };
        drive(&config, 1, 20_000, &[0], streaming)
    };
    assert_eq!(counted_from(IdleFrom::LastReceived), [(5_000, 1, 0)]);
    assert_eq!(counted_from(IdleFrom::LastActive), [(8_599, 1, 0)]);
}

#[test]
fn idleness_from_last_active_restarts_when_held_requests_are_served() {
    // Asked for at 0, held until ready at 400, a window of 300.
    let cold = |t| Observation {
        queued: u64::from(t < 400),
        batch_slots: 10,
        ready: u32::from(t >= 400),
        starting: u32::from(t < 400),
        ..Observation::default()
    };
    let config = FireworksConfig {
        scale_to_zero_window: 5 * MINUTE,
        idle_from: IdleFrom::LastActive,
        ..defaults()
    };
    assert_eq!(
        drive(&config, 0, 2_000, &[0], cold),
        [(0, 0, 1), (699, 1, 0)]
    );
}

#[test]
fn low_use_while_starting_from_zero_does_not_scale_down() {
    // Woken, scaled to 5 by what is held; then clients give up before it is ready at 900.
    let observe = |t: u64| Observation {
        queued: if t < 60 { 50 } else { 1 },
        batch_slots: 10,
        ready: u32::from(t >= 900),
        starting: 5,
        ..Observation::default()
    };
    let config = FireworksConfig {
        min_replica_count: 0,
        ..vector_config()
    };
    let changes = drive(&config, 0, 3_000, &[0], observe);
    assert_eq!(changes, [(0, 0, 1), (31, 1, 5), (1_500, 5, 1)]);
}

#[test]
fn waking_forgets_what_was_observed_before() {
    // Higher load for 20 s up to the moment of going to zero does not count after the wake.
    let config = FireworksConfig {
        min_replica_count: 0,
        scale_to_zero_window: 10 * SECOND,
        ..vector_config()
    };
    let observe = |t| load(if t == 25 { 0 } else { 5 });
    let changes = drive(&config, 1, 100, &[26], observe);
    assert_eq!(changes, [(25, 1, 0), (26, 0, 1), (57, 1, 5)]);
}

#[test]
fn waking_forgets_smoothed_load_and_counters() {
    let at_once = FireworksConfig {
        min_replica_count: 0,
        scale_up_window: 0,
        scale_to_zero_window: 10 * SECOND,
        ..vector_config()
    };
    let smoothed = FireworksConfig {
        signal_smoothing: 10 * SECOND,
        ..at_once.clone()
    };
    let high_before = |t| load(if t < 25 { 5 } else { u32::from(t > 25) });
    let changes = drive(&smoothed, 5, 100, &[26], high_before);
    assert_eq!(changes, [(25, 5, 0), (26, 0, 1)]);

    let by_rate = FireworksConfig {
        load_targets: LoadTargets {
            default: None,
            requests_per_second: Some(1.0),
            ..at_once.load_targets
        },
        ..at_once
    };
    let jump_while_at_zero = |t| Observation {
        requests_received: if t < 20 { 0 } else { 100 },
        ..idle(t)
    };
    let changes = drive(&by_rate, 1, 30, &[26], jump_while_at_zero);
    assert_eq!(changes, [(10, 1, 0), (26, 0, 1)]);
}

#[test]
fn capped_occupancy_climbs_in_many_rounds() {
    // The signal trap: 1, 2, 3, 4, 5, 7, 9, 12, 15, 19, one step a window.
    let config = FireworksConfig {
        occupancy_capped: true,
        ..defaults()
    };
    let mut autoscaler = Autoscaler::new(&AutoscalerConfig::Fireworks(config), 1);
    let mut targets = vec![1];
    while targets.len() < 10 {
        let now = autoscaler.next_deadline().expect("load is high");
        let full = Observation {
            running: 32 * u64::from(autoscaler.target()),
            queued: 10_000,
            batch_slots: 32,
            ready: autoscaler.target(),
            ..Observation::default()
        };
        targets.extend(
            autoscaler
                .on_event(now, Event::Observed(full))
                .map(|d| d.target),
        );
    }
    assert_eq!(targets, [1, 2, 3, 4, 5, 7, 9, 12, 15, 19]);
}

#[test]
fn smoothing_hides_a_dip_and_delays_a_step() {
    let config = FireworksConfig {
        signal_smoothing: 10 * SECOND,
        ..vector_config()
    };
    let dip = |t| load(if t == 20 { 1 } else { 5 });
    assert_eq!(drive(&config, 1, 100, &[], dip), [(30, 1, 5)]);
    let step = |t| load(if t < 50 { 1 } else { 2 });
    assert_eq!(drive(&config, 1, 100, &[], step), [(80, 1, 2)]);
}

#[test]
fn several_targets_take_the_largest_count() {
    let config = FireworksConfig {
        load_targets: LoadTargets {
            tokens_generated_per_second: Some(1_000.0),
            ..vector_config().load_targets
        },
        ..vector_config()
    };
    let observe = |t| Observation {
        tokens_generated: t * 3_500,
        ..load(2)
    };
    assert_eq!(drive(&config, 1, 100, &[], observe), [(30, 1, 4)]);
}

#[test]
fn at_zero_replicas_there_is_no_deadline() {
    let mut autoscaler = Autoscaler::new(&AutoscalerConfig::Fireworks(defaults()), 0);
    assert_eq!(autoscaler.next_deadline(), None);
    let now = 1_500_000_000;
    let decision = autoscaler
        .on_event(now, Event::RequestReceived)
        .expect("it wakes");
    assert_eq!(decision.reason.to_string(), "request at zero replicas");
    assert_eq!(autoscaler.next_deadline(), Some(2 * SECOND));
    assert_eq!(autoscaler.on_event(now, Event::RequestReceived), None);
}

#[test]
fn decisions_carry_their_reasons() {
    let config = AutoscalerConfig::Fireworks(defaults());
    let mut autoscaler = Autoscaler::new(&config, 2);
    let mut reasons = Vec::new();
    for tick in 0..4_300 {
        let mut seen = idle(tick);
        seen.running = if tick < 700 { 34 } else { 0 };
        let event = Event::Observed(seen);
        if let Some(decision) = autoscaler.on_event(tick * SECOND, event) {
            reasons.push(format!("{} {}", decision.target, decision.reason));
        }
    }
    assert_eq!(
        reasons,
        [
            "5 load 3.4 full batches > 2 replicas x 0.8 for 30s",
            "1 load 0 full batches <= 4 replicas x 0.8 for 10m",
            "0 no request for 1h",
        ]
    );
}
