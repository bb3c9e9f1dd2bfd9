//! Each way to fail is an outcome of its own, and none ends the run.

use std::time::Duration;

use foresail_core::control::retry::RetryConfig;
use foresail_core::time::{MILLISECOND, SECOND};
use foresail_loadgen::exchange::Patience;
use foresail_loadgen::run::Settings;
use foresail_mock_endpoint::{Behaviour, Fault, Garbage, Outage, OutageKind, Rule, When};
use foresail_reports::records::Outcome;
use foresail_scenarios::clients::{ClientRetry, Clients, RetryOn};
use foresail_scenarios::distribution::Distribution;

use crate::fixture::{count, every, load, plan, quick, settings};

fn failing(rules: Vec<Rule>) -> Behaviour {
    Behaviour { rules, ..quick() }
}

fn status(status: u16, retry_after_s: Option<u32>) -> Fault {
    Fault::Status {
        status,
        retry_after_s,
    }
}

#[test]
fn every_fault_is_told_apart_and_harms_no_other_request() {
    let faults = [
        (Fault::ResetBeforeHead, Outcome::FailedReset),
        (Fault::ResetMidHead, Outcome::FailedReset),
        (Fault::ResetAfter(3), Outcome::FailedReset),
        (Fault::CloseBeforeHead, Outcome::FailedReset),
        (Fault::CloseAfter(3), Outcome::FailedTruncated),
        (Fault::EndWithoutDone(3), Outcome::FailedTruncated),
        (
            Fault::Stall {
                after_chunks: 3,
                lasts: Duration::from_secs(60),
            },
            Outcome::FailedStalled,
        ),
        (Fault::NeverAnswer, Outcome::FailedTimeout),
        (status(429, Some(1)), Outcome::RejectedRateLimited),
        (status(503, None), Outcome::RejectedUnavailable),
        (status(404, None), Outcome::RejectedStatus),
        (status(500, None), Outcome::FailedStatus),
        (Fault::ErrorEvent(3), Outcome::FailedError),
        (Fault::Garbage(Garbage::NotHttp), Outcome::FailedGarbage),
        (Fault::Garbage(Garbage::Html), Outcome::FailedGarbage),
        (Fault::Garbage(Garbage::BadJson), Outcome::FailedGarbage),
        (Fault::Garbage(Garbage::OtherJson), Outcome::FailedGarbage),
        (
            Fault::Garbage(Garbage::BadChunkSize),
            Outcome::FailedGarbage,
        ),
    ];
    // Every third request fails, each in another way.
    let rules = (1..).zip(&faults).map(|(number, (fault, _))| Rule {
        fault: fault.clone(),
        when: When::Only(3 * number),
    });
    let requests = 3 * faults.len() as u64;
    let impatient = Settings {
        patience: Patience {
            // Long enough for a machine that is busy.
            first_output_ns: Some(3 * SECOND),
            stall_ns: Some(2 * SECOND),
            ..Patience::default()
        },
        ..settings()
    };
    let outcome = load(
        failing(rules.collect()),
        impatient,
        plan(every(5 * MILLISECOND, requests), 8),
    );
    for outcome_of_some in Outcome::ALL {
        let expected = match outcome_of_some {
            Outcome::Completed => 2 * faults.len(),
            _ => faults
                .iter()
                .filter(|(_, of)| *of == outcome_of_some)
                .count(),
        };
        assert_eq!(
            count(&outcome, outcome_of_some),
            expected,
            "{}",
            outcome_of_some.name()
        );
    }
    assert_eq!(outcome.sink.attempts.len(), faults.len());
    let said = outcome
        .sink
        .attempts
        .iter()
        .filter(|attempt| !attempt.detail.is_empty());
    assert!(
        said.count() >= faults.len() - 5,
        "all but truncated, stalled and timed out"
    );
    assert!(
        outcome
            .sink
            .attempts
            .iter()
            .any(|attempt| attempt.retry_after_ns == Some(SECOND))
    );
    let broken_off = outcome
        .sink
        .records
        .iter()
        .filter(|record| record.outcome != Outcome::Completed && record.output_tokens == 3);
    assert_eq!(broken_off.count(), 5, "what had come before is recorded");
}

#[test]
fn a_server_that_is_not_there_fails_each_request() {
    let behaviour = Behaviour {
        outages: vec![Outage {
            kind: OutageKind::Dead,
            from: Duration::ZERO,
            until: Duration::MAX,
        }],
        ..quick()
    };
    let outcome = load(behaviour, settings(), plan(every(MILLISECOND, 20), 4));
    assert_eq!(count(&outcome, Outcome::FailedConnect), 20);
    assert_eq!(outcome.connections.failed, 20);
    let sent = outcome
        .sink
        .records
        .iter()
        .filter_map(|record| record.wire?.sent_ns);
    assert_eq!(sent.count(), 0);
}

#[test]
fn a_server_that_dies_fails_what_is_in_flight_and_what_comes_after() {
    let behaviour = Behaviour {
        ttft: Duration::from_millis(10),
        itl: Duration::from_millis(10),
        outages: vec![Outage {
            kind: OutageKind::Dead,
            from: Duration::from_millis(1_300),
            until: Duration::MAX,
        }],
        ..Behaviour::default()
    };
    let outcome = load(
        behaviour,
        settings(),
        plan(every(10 * MILLISECOND, 200), 20),
    );
    let completed = count(&outcome, Outcome::Completed);
    let reset = count(&outcome, Outcome::FailedReset) + count(&outcome, Outcome::FailedTruncated);
    let refused = count(&outcome, Outcome::FailedConnect);
    assert!(
        completed > 0 && reset > 0 && refused > 0,
        "{completed} {reset} {refused}"
    );
    assert_eq!(completed + reset + refused, 200);
}

#[test]
fn a_request_may_be_sent_again_and_its_latency_counts_from_the_first_send() {
    let rules = vec![Rule {
        fault: status(429, None),
        when: When::First(2),
    }];
    let outcome = load(failing(rules), retrying(3), plan([0], 4));
    let record = &outcome.sink.records[0];
    assert_eq!((record.outcome, record.attempts), (Outcome::Completed, 3));
    assert!(record.first_token_ns.expect("output") >= (100 + 200) * MILLISECOND);
    let outcomes: Vec<_> = outcome
        .sink
        .attempts
        .iter()
        .map(|attempt| attempt.outcome)
        .collect();
    let refused = Outcome::RejectedRateLimited;
    assert_eq!(outcomes, [refused, refused, Outcome::Completed]);
    let ends = outcome.sink.attempts.windows(2);
    for (pair, wait) in ends.zip([100, 200]) {
        assert!(pair[1].sent_ns.expect("sent") >= pair[0].end_ns + wait * MILLISECOND);
    }
}

#[test]
fn clients_give_up_after_so_many_attempts_and_wait_as_long_as_they_are_asked_to() {
    let rules = vec![Rule {
        fault: status(503, Some(1)),
        when: When::Always,
    }];
    let outcome = load(failing(rules), retrying(2), plan([0], 4));
    let record = &outcome.sink.records[0];
    assert_eq!(
        (record.outcome, record.attempts),
        (Outcome::RejectedUnavailable, 2)
    );
    assert!(record.end_ns >= SECOND);
}

#[test]
fn without_retries_a_request_is_sent_once() {
    let rules = vec![Rule {
        fault: status(503, None),
        when: When::Always,
    }];
    let outcome = load(failing(rules), settings(), plan(every(0, 5), 4));
    assert!(
        outcome
            .sink
            .records
            .iter()
            .all(|record| record.attempts == 1)
    );
}

fn retrying(attempts_max: u32) -> Settings {
    Settings {
        clients: Clients {
            retry: Some(ClientRetry {
                config: RetryConfig {
                    attempts_max,
                    first: 100 * MILLISECOND,
                    factor: 2.0,
                    max: SECOND,
                },
                jitter: Distribution::Fixed { value: 1.0 },
                retry_on: RetryOn::ALL,
            }),
            ..Clients::default()
        },
        ..settings()
    }
}
