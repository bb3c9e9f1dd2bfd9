//! What is measured is what the server did.

use std::time::Duration;

use foresail_core::time::{MILLISECOND, Nanos, SECOND};
use foresail_mock_endpoint::{Behaviour, MockEndpoint, Outage, OutageKind};
use foresail_reports::records::{Outcome, TokensFrom};
use foresail_reports::summary::Load;

use crate::fixture::{
    BUSY, check, count, every, load, percentile, plan, quick, settings, start_at, ttft,
};

#[test]
fn latencies_tokens_and_chunks_are_those_of_the_server() {
    let outcome = load(
        Behaviour::default(),
        settings(),
        plan(every(20 * MILLISECOND, 50), 16),
    );
    assert_eq!(count(&outcome, Outcome::Completed), 50);
    for record in &outcome.sink.records {
        let wire = record.wire.expect("a measured request");
        assert_eq!((record.output_tokens, wire.chunks), (16, 16));
        assert_eq!(
            (wire.tokens_from, wire.status),
            (TokensFrom::Usage, Some(200))
        );
        assert!(wire.is_in_window);
        assert!(ttft(record) >= 50 * MILLISECOND);
        assert!(record.end_ns - record.due_ns >= (50 + 15 * 5) * MILLISECOND);
    }
    assert_eq!(outcome.sink.gaps.len(), 50 * 15);
    let ttfts = outcome.sink.records.iter().map(ttft).collect();
    assert!(percentile(ttfts, 50) < 50 * MILLISECOND + BUSY);
    let gaps: Vec<_> = outcome
        .sink
        .gaps
        .iter()
        .map(|gaps| gaps.first_ps / 1_000)
        .collect();
    // A chunk that is seen late makes the next gap shorter: their mean is what the server did.
    let mean = gaps.iter().sum::<Nanos>() / gaps.len() as Nanos;
    assert!(
        (4 * MILLISECOND..50 * MILLISECOND).contains(&mean),
        "{mean}"
    );
}

#[test]
fn chunks_of_several_tokens_are_chunks_and_their_tokens_are_counted() {
    let behaviour = Behaviour {
        tokens_per_chunk: 4,
        ..quick()
    };
    let outcome = load(behaviour, settings(), plan(every(0, 5), 16));
    for record in &outcome.sink.records {
        let wire = record.wire.expect("a measured request");
        assert_eq!((record.output_tokens, wire.chunks), (16, 4));
    }
    assert_eq!(outcome.sink.gaps.len(), 5 * 3);
    assert_eq!(outcome.tally.tokens_from_usage, 5);
}

#[test]
fn an_answer_that_comes_whole_has_no_first_token() {
    let whole = foresail_loadgen::run::Settings {
        is_streamed: false,
        ..settings()
    };
    let outcome = load(quick(), whole, plan(every(0, 3), 10));
    assert_eq!(count(&outcome, Outcome::Completed), 3);
    for record in &outcome.sink.records {
        assert_eq!((record.first_token_ns, record.output_tokens), (None, 10));
        assert!(record.end_ns - record.due_ns >= 10 * MILLISECOND);
    }
}

#[test]
fn no_send_waits_for_an_answer() {
    let slow = Behaviour {
        ttft: Duration::from_secs(2),
        ..quick()
    };
    let outcome = load(slow, settings(), plan(every(10 * MILLISECOND, 30), 1));
    assert_eq!(count(&outcome, Outcome::Completed), 30);
    assert_eq!(outcome.tally.in_flight_max, 30);
    let sends = outcome
        .sink
        .records
        .iter()
        .map(|record| record.wire.and_then(|wire| wire.sent_ns));
    let first_end = outcome.sink.records[0].end_ns;
    assert!(sends.flatten().all(|sent| sent < first_end));
}

#[test]
fn several_threads_share_a_plan() {
    let threads = foresail_loadgen::run::Settings {
        threads: 3,
        ..settings()
    };
    let outcome = load(quick(), threads, plan(every(MILLISECOND, 200), 5));
    assert_eq!(count(&outcome, Outcome::Completed), 200);
    assert_eq!(outcome.threads, 3);
    assert!(outcome.watch.lateness().count() == 200);
}

/// From 0.5 s to 2.5 s the server stands still. Whoever is due at t meanwhile waits until
/// 2.5 s and then as long as everybody does, and an open loop has to show that of all of them.
#[test]
fn a_stall_is_met_by_everyone_who_was_due_in_it() {
    const TTFT: Nanos = 20 * MILLISECOND;
    let (from, until) = (SECOND / 2, 5 * SECOND / 2);
    let head_start = Duration::from_millis(500);
    let behaviour = Behaviour {
        ttft: Duration::from_nanos(TTFT),
        outages: vec![Outage {
            kind: OutageKind::Frozen,
            from: head_start + Duration::from_nanos(from),
            until: head_start + Duration::from_nanos(until),
        }],
        ..Behaviour::default()
    };
    let mock = MockEndpoint::start(behaviour).expect("a port");
    let zero = mock.started() + head_start;
    let dues: Vec<_> = every(20 * MILLISECOND, 200).collect();
    let run = start_at(&mock, settings(), plan(dues.clone(), 1), zero);
    let outcome = run.wait().expect("a run");
    check(&outcome, 200);
    assert_eq!(count(&outcome, Outcome::Completed), 200);

    let analytic = |due: Nanos| match due {
        due if due + TTFT <= from => TTFT,
        // In progress when it began: longer by all of it.
        due if due < from => TTFT + (until - from),
        due => TTFT + until.saturating_sub(due),
    };
    for of in [50, 75, 90, 95, 99] {
        let truth = percentile(dues.iter().copied().map(analytic).collect(), of);
        let seen = percentile(outcome.sink.records.iter().map(ttft).collect(), of);
        // Clocks of two processes' threads: the server's may begin its freeze a little sooner or later.
        let expected = truth.saturating_sub(25 * MILLISECOND)..truth + BUSY;
        assert!(expected.contains(&seen), "p{of}: {seen} beside {truth}");
    }
}

/// The same stall as a closed loop sees it: once.
#[test]
fn a_closed_loop_does_not_show_a_stall() {
    let head_start = Duration::from_millis(500);
    let behaviour = Behaviour {
        outages: vec![Outage {
            kind: OutageKind::Frozen,
            from: head_start + Duration::from_millis(200),
            until: head_start + Duration::from_millis(1_700),
        }],
        ..quick()
    };
    let mock = MockEndpoint::start(behaviour).expect("a port");
    let zero = mock.started() + head_start;
    let closed = foresail_loadgen::run::Settings {
        load: Load::Closed { concurrency: 1 },
        duration_ns: Some(2 * SECOND),
        ..settings()
    };
    let outcome = start_at(&mock, closed, plan(every(0, 100_000), 1), zero)
        .wait()
        .expect("a run");
    let slow = outcome
        .sink
        .records
        .iter()
        .filter(|record| ttft(record) > SECOND);
    assert_eq!(slow.count(), 1);
    assert!(outcome.tally.completed > 10);
    assert!(!outcome.is_interrupted);
    assert_eq!(
        outcome.tally.unsent, 0,
        "what was not begun in time was not offered"
    );
}
