//! Closed loops, and caps on open ones.

use std::time::Duration;

use foresail_core::time::{MILLISECOND, SECOND};
use foresail_loadgen::run::Settings;
use foresail_loadgen::watch::ReasonCode;
use foresail_mock_endpoint::Behaviour;
use foresail_reports::records::Outcome;
use foresail_reports::summary::Load;

use crate::fixture::{count, every, load, plan, quick, settings, ttft};

fn closed(concurrency: u64) -> Settings {
    Settings {
        load: Load::Closed { concurrency },
        ..settings()
    }
}

#[test]
fn a_closed_loop_keeps_as_many_in_flight_as_was_asked() {
    for threads in [1, 2] {
        let settings = Settings {
            threads,
            ..closed(4)
        };
        // When they are due is of no matter.
        let outcome = load(quick(), settings, plan(every(1_000 * SECOND, 40), 5));
        assert_eq!(count(&outcome, Outcome::Completed), 40);
        assert_eq!(outcome.tally.in_flight_max, 4);
        assert_eq!(outcome.measured().rates.asked_per_s, None);
    }
}

#[test]
fn users_think_between_the_turns_of_their_conversation() {
    let mut turns = plan([0, 300 * MILLISECOND, 600 * MILLISECOND], 2);
    for planned in &mut turns.requests {
        planned.request.session = Some(7);
    }
    let outcome = load(quick(), closed(3), turns);
    assert_eq!(
        outcome.tally.in_flight_max, 1,
        "one conversation is one user's"
    );
    let records = &outcome.sink.records;
    for pair in records.windows(2) {
        assert!(pair[1].due_ns >= pair[0].end_ns + 300 * MILLISECOND);
        assert_eq!(pair[1].id, pair[0].id + 1);
    }
}

#[test]
fn a_cap_makes_requests_late_and_the_user_is_told() {
    let capped = Settings {
        load: Load::Capped { in_flight_max: 3 },
        ..settings()
    };
    let slow = Behaviour {
        ttft: Duration::from_millis(100),
        ..quick()
    };
    let outcome = load(slow, capped, plan(every(0, 12), 1));
    assert_eq!(count(&outcome, Outcome::Completed), 12);
    assert_eq!(outcome.tally.in_flight_max, 3);
    assert_eq!(outcome.watch.held_back_by().count(), 9);
    let slowest = outcome
        .sink
        .records
        .iter()
        .map(ttft)
        .max()
        .expect("records");
    assert!(slowest >= 400 * MILLISECOND, "the wait is in the latency");
    let is_late = |code| matches!(code, ReasonCode::LateSends | ReasonCode::Rate);
    let reasons = &outcome.verdict.degraded;
    assert!(
        !reasons.iter().any(|reason| is_late(reason.code)),
        "{reasons:?}"
    );
    assert!(
        outcome
            .verdict
            .notes
            .iter()
            .any(|note| note.text.contains("--max-concurrency"))
    );
}
