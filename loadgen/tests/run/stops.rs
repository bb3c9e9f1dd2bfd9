//! Runs that end before their plan does: nothing is lost, and everything is told.

use std::time::{Duration, Instant};

use foresail_core::time::{MILLISECOND, SECOND};
use foresail_loadgen::clock::RunClock;
use foresail_loadgen::run::{self, HEAD_START, RunError, Settings};
use foresail_mock_endpoint::{Behaviour, Fault, MockEndpoint, Rule, When};
use foresail_reports::records::Outcome;
use foresail_reports::summary::Load;

use crate::fixture::{Kept, check, count, every, load, plan, quick, settings, start, target};

fn silent() -> Behaviour {
    Behaviour {
        rules: vec![Rule {
            fault: Fault::NeverAnswer,
            when: When::Always,
        }],
        ..quick()
    }
}

/// Waits until that many requests have ended, or panics after half a minute.
fn wait_for(live: impl Fn() -> u64, count: u64) {
    let patience = Instant::now() + Duration::from_secs(30);
    while live() < count {
        assert!(Instant::now() < patience, "{} of {count}", live());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_run_that_is_stopped_keeps_its_records_and_counts_what_was_not_sent() {
    for threads in [1, 2] {
        let mock = MockEndpoint::start(quick()).expect("a port");
        let settings = Settings {
            threads,
            ..settings()
        };
        let run = start(&mock, settings, plan(every(100 * MILLISECOND, 600), 2));
        wait_for(|| run.live().completed, 3);
        run.stopper().stop(Duration::from_secs(10));
        let outcome = run.wait().expect("a run");
        check(&outcome, 600);
        assert!(outcome.is_interrupted && outcome.measured().is_interrupted);
        let (completed, unsent) = (count(&outcome, Outcome::Completed), outcome.tally.unsent);
        assert!(completed >= 3 && unsent > 0);
        assert_eq!(
            completed as u64 + unsent,
            600,
            "what was in flight had the time to end"
        );
        assert!(
            outcome.window.until_ns < 60 * SECOND,
            "until the last that was sent"
        );
    }
}

#[test]
fn a_closed_loop_that_is_stopped_does_the_same() {
    let mock = MockEndpoint::start(quick()).expect("a port");
    let settings = Settings {
        load: Load::Closed { concurrency: 2 },
        ..settings()
    };
    let run = start(&mock, settings, plan(every(0, 50_000), 20));
    wait_for(|| run.live().completed, 3);
    run.stopper().stop(Duration::from_secs(10));
    let outcome = run.wait().expect("a run");
    check(&outcome, 50_000);
    assert_eq!(outcome.tally.completed + outcome.tally.unsent, 50_000);
}

#[test]
fn what_is_in_flight_may_be_given_up_at_once() {
    let mock = MockEndpoint::start(silent()).expect("a port");
    let run = start(&mock, settings(), plan(every(MILLISECOND, 10), 2));
    wait_for(|| run.live().sent, 10);
    run.stopper().stop(Duration::ZERO);
    let outcome = run.wait().expect("a run");
    check(&outcome, 10);
    assert_eq!(count(&outcome, Outcome::FailedCancelled), 10);
}

#[test]
fn a_server_that_never_answers_does_not_hold_a_run_for_ever() {
    let brief = Settings {
        drain_ns: 200 * MILLISECOND,
        ..settings()
    };
    let outcome = load(silent(), brief, plan(every(MILLISECOND, 10), 2));
    assert_eq!(count(&outcome, Outcome::FailedCancelled), 10);
    assert!(!outcome.is_interrupted);
}

#[test]
fn a_duration_bounds_what_is_offered() {
    let mock = MockEndpoint::start(quick()).expect("a port");
    let brief = Settings {
        duration_ns: Some(100 * MILLISECOND),
        ..settings()
    };
    let run = start(&mock, brief, plan(every(10 * MILLISECOND, 1_000), 2));
    let outcome = run.wait().expect("a run");
    check(&outcome, 10);
    assert_eq!(outcome.window.until_ns, 90 * MILLISECOND + 1);
    assert!(!outcome.is_interrupted);
}

#[test]
fn a_body_that_cannot_be_made_stops_the_run_and_is_told() {
    let mock = MockEndpoint::start(quick()).expect("a port");
    let bodies = Box::new(
        |planned: &foresail_loadgen::plan::Planned| match planned.id {
            2 => Err("no text has so few tokens".to_owned()),
            _ => Ok("{}".into()),
        },
    );
    let clock = RunClock::starting_at(Instant::now() + HEAD_START);
    let plan = plan(every(SECOND, 5), 2).into();
    let run = run::start(
        settings(),
        plan,
        bodies,
        &target(&mock),
        clock,
        Kept::default(),
    );
    let outcome = run.expect("threads").wait().expect("a run");
    check(&outcome, 5);
    assert_eq!(
        outcome.failure.as_deref(),
        Some("request 2: no text has so few tokens")
    );
    assert!(outcome.is_interrupted && outcome.tally.unsent >= 3);
}

#[test]
fn an_empty_plan_is_a_run_of_nothing() {
    let outcome = load(quick(), settings(), plan([], 1));
    assert_eq!(outcome.tally.offered, 0);
    assert!(!outcome.verdict.is_degraded());
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let mock = MockEndpoint::start(quick()).expect("a port");
    let refused = |settings| {
        let clock = RunClock::starting_at(Instant::now());
        let bodies = crate::fixture::bodies(true);
        let plan = plan([], 1).into();
        run::start(
            settings,
            plan,
            bodies,
            &target(&mock),
            clock,
            Kept::default(),
        )
        .err()
    };
    for wrong in [
        Settings {
            threads: 0,
            ..settings()
        },
        Settings {
            load: Load::Closed { concurrency: 0 },
            ..settings()
        },
        Settings {
            load: Load::Capped { in_flight_max: 0 },
            ..settings()
        },
    ] {
        assert!(matches!(refused(wrong), Some(RunError::Settings(_))));
    }
}

#[test]
fn a_run_that_is_watched_shows_how_it_goes() {
    let mock = MockEndpoint::start(quick()).expect("a port");
    let run = start(&mock, settings(), plan(every(5 * MILLISECOND, 40), 3));
    wait_for(|| run.live().completed, 40);
    let live = run.live();
    assert_eq!(
        (live.asked, live.sent, live.failed, live.in_flight),
        (40, 40, 0, 0)
    );
    assert_eq!(live.output_tokens, 120);
    assert!(live.ttft_p50_ns.is_some_and(|ttft| ttft >= MILLISECOND));
    assert!(live.ttft_p99_ns >= live.ttft_p50_ns);
    let outcome = run.wait().expect("a run");
    check(&outcome, 40);
}
