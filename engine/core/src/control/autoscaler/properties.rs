//! What holds for every policy parameter and every traffic.

use proptest::prelude::*;

use super::conformance::defaults;
use super::*;
use crate::time::{MILLISECOND, SECOND};

/// What happens next: after a pause, the load changes and a request may come.
#[derive(Clone, Debug)]
struct Happening {
    pause: Nanos,
    running: u64,
    queued: u64,
    ready: u32,
    request: bool,
}

fn happening() -> impl Strategy<Value = Happening> {
    let loads = (
        prop_oneof![Just(0), 0_u64..80],
        prop_oneof![Just(0), 0_u64..40],
    );
    (0_u64..6_000, loads, 0_u32..4, prop::bool::weighted(0.3)).prop_map(
        |(pause_ms, (running, queued), ready, request)| Happening {
            pause: pause_ms * MILLISECOND,
            running,
            queued,
            ready,
            request,
        },
    )
}

fn semantics() -> impl Strategy<Value = WindowSemantics> {
    prop::sample::select(vec![
        WindowSemantics::Sustained,
        WindowSemantics::Stabilized,
        WindowSemantics::Average,
        WindowSemantics::Cooldown,
        WindowSemantics::Oneshot,
    ])
}

fn config() -> impl Strategy<Value = FireworksConfig> {
    let counts = (0_u32..4, 0_u32..6).prop_map(|(min, more)| (min, min + more));
    let windows = (0_u64..8, 0_u64..12, 0_u64..15, 0_u64..4);
    let ticks = 200_u64..2_500;
    (counts, windows, ticks, semantics(), any::<[bool; 3]>()).prop_map(
        |((min, max), (up, down, zero, smoothing), tick_ms, semantics, flags)| FireworksConfig {
            min_replica_count: min,
            max_replica_count: max,
            scale_up_window: up * SECOND,
            scale_down_window: down * SECOND,
            scale_to_zero_window: zero * SECOND,
            load_targets: LoadTargets {
                requests_per_second: flags[0].then_some(0.5),
                ..defaults().load_targets
            },
            window_semantics: semantics,
            tick: tick_ms * MILLISECOND,
            signal_smoothing: smoothing * SECOND,
            rate_window: 0,
            occupancy_capped: flags[1],
            idle_from: if flags[2] {
                IdleFrom::LastActive
            } else {
                IdleFrom::LastReceived
            },
        },
    )
}

/// One step of a run, with the autoscaler's answer.
#[derive(Clone, Debug, PartialEq)]
struct Step {
    now: Nanos,
    event: Event,
    before: u32,
    decision: Option<Decision>,
    deadline: Option<Nanos>,
}

/// Drives an autoscaler through what happens; at equal times, events precede deadlines.
fn run(config: &FireworksConfig, initial: u32, happenings: &[Happening]) -> Vec<Step> {
    let mut autoscaler = Autoscaler::new(&AutoscalerConfig::Fireworks(config.clone()), initial);
    let mut steps = Vec::new();
    let mut send = |autoscaler: &mut Autoscaler, now, event| {
        let before = autoscaler.target();
        let decision = autoscaler.on_event(now, event);
        let deadline = autoscaler.next_deadline();
        steps.push(Step {
            now,
            event,
            before,
            decision,
            deadline,
        });
    };
    let mut seen = Observation {
        batch_slots: 10,
        ..Observation::default()
    };
    let mut now = 0;
    for happening in happenings {
        now += happening.pause;
        while let Some(deadline) = autoscaler.next_deadline().filter(|&at| at < now) {
            send(&mut autoscaler, deadline, Event::Observed(seen));
        }
        (seen.running, seen.queued) = (happening.running, happening.queued);
        seen.ready = happening.ready;
        if happening.request {
            seen.requests_received += 1;
            send(&mut autoscaler, now, Event::RequestReceived);
        }
    }
    steps
}

fn allowed(config: &FireworksConfig, target: u32) -> bool {
    let (min, max) = (config.min_replica_count, config.max_replica_count);
    (min..=max).contains(&target)
}

fn in_flight(event: &Event) -> u64 {
    match event {
        Event::RequestReceived => 0,
        Event::Observed(seen) => seen.running + seen.queued,
    }
}

proptest! {
    #[test]
    fn targets_stay_within_limits_and_every_decision_is_a_change(
        config in config(),
        initial in 0_u32..8,
        happenings in prop::collection::vec(happening(), 1..80),
    ) {
        for step in run(&config, initial, &happenings) {
            let Some(decision) = &step.decision else { continue };
            prop_assert_ne!(decision.target, step.before);
            prop_assert!(allowed(&config, decision.target), "{:?}", step);
        }
    }

    #[test]
    fn the_same_events_give_the_same_decisions(
        config in config(),
        happenings in prop::collection::vec(happening(), 1..40),
    ) {
        prop_assert_eq!(run(&config, 1, &happenings), run(&config, 1, &happenings));
    }

    #[test]
    fn deadlines_are_multiples_of_the_tick_and_lie_ahead(
        config in config(),
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        for step in run(&config, 1, &happenings) {
            let target = step.decision.as_ref().map_or(step.before, |decision| decision.target);
            if matches!(step.event, Event::Observed(_)) {
                prop_assert_eq!(step.now % config.tick, 0);
                prop_assert!(step.deadline.is_none_or(|deadline| deadline > step.now));
            }
            prop_assert!(step.deadline.is_some() || target == 0, "{:?}", step);
            prop_assert!(step.deadline.is_none_or(|deadline| deadline % config.tick == 0));
        }
    }

    #[test]
    fn zero_comes_only_from_idleness_and_a_request_ends_it(
        config in config(),
        happenings in prop::collection::vec(happening(), 1..80),
    ) {
        let mut last_received = 0;
        let initial = config.max_replica_count;
        for step in run(&config, initial, &happenings) {
            let target = step.decision.map(|decision| decision.target);
            if step.event == Event::RequestReceived {
                last_received = step.now;
                let wakes = step.before == 0 && config.max_replica_count > 0;
                prop_assert_eq!(target.is_some(), wakes);
                prop_assert!(target.is_none_or(|target| target == 1));
            } else if target == Some(0) {
                prop_assert!(step.now - last_received >= config.scale_to_zero_window);
                prop_assert_eq!(in_flight(&step.event), 0);
            }
        }
    }

    #[test]
    fn no_decision_to_go_up_precedes_the_window_after_the_first_higher_load(
        mut config in config(),
        oneshot in any::<bool>(),
        happenings in prop::collection::vec(happening(), 1..80),
    ) {
        config.window_semantics = if oneshot { WindowSemantics::Oneshot } else { WindowSemantics::Sustained };
        config.signal_smoothing = 0;
        config.occupancy_capped = false;
        config.load_targets = defaults().load_targets;
        let mut first_higher = None;
        for step in run(&config, config.min_replica_count, &happenings) {
            let higher = in_flight(&step.event) as f64 / 10.0 / 0.8 > f64::from(step.before);
            if higher && step.before > 0 {
                first_higher = first_higher.or(Some(step.now));
            }
            let Some(decision) = &step.decision else { continue };
            if let Reason::LoadHigher(_) = decision.reason {
                let since = first_higher.expect("a higher load was seen");
                prop_assert!(step.now - since >= config.scale_up_window, "{:?}", step);
            }
            first_higher = None;
        }
    }
}
