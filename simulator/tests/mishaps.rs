//! Replicas that fail to start or crash, and clients that do not wait for ever.

mod support;

use foresail_core::time::{MILLISECOND, Nanos, SECOND};
use foresail_reports::records::{Change, ChangeKind, Outcome, RequestRecord};
use support::{Records, run, scenario};

/// A deployment of `replicas` under requests a second apart, each of some 1.5 s.
fn deployment(replicas: u32, rest: &str) -> String {
    format!(
        r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        world_size = 1
        min_replica_count = {replicas}
        max_replica_count = {replicas}
        [cold_start]
        total = "30s"
        [workload]
        requests = 60
        arrivals = {{ process = "constant", rate_per_s = 1.0 }}
        prompt_tokens = {{ fixed = 500 }}
        output_tokens = {{ fixed = 200 }}
        {rest}
        "#
    )
}

/// One that is asked for its first replica at 10 s.
fn awakening(rest: &str) -> String {
    deployment(0, "").replace("max_replica_count = 0", "max_replica_count = 1")
        + "[autoscaler]\npolicy = \"scripted\"\nsteps = [{ at = \"10s\", replicas = 1 }]\n"
        + rest
}

fn play(text: &str) -> Records {
    run(&scenario(text), 1)
}

fn with(records: &Records, outcome: Outcome) -> Vec<&RequestRecord> {
    let all = records.requests.iter();
    all.filter(|record| record.outcome == outcome).collect()
}

fn changes(records: &Records, kind: ChangeKind) -> Vec<&Change> {
    let all = records.changes.iter();
    all.filter(|change| change.kind == kind).collect()
}

fn lines(records: &Records, kind: ChangeKind) -> Vec<String> {
    changes(records, kind)
        .iter()
        .map(|change| format!("{} {}", change.at_ns / SECOND, change.reason))
        .collect()
}

#[test]
fn a_failing_start_is_tried_again_after_the_waits_that_are_written_and_then_given_up() {
    let failing = "[failures]\nstart_failure = { probability = 1, at = 0.5 }\n\
        start_retry = { first = \"5s\", factor = 3, max = \"40s\", attempts_max = 4 }\n";
    let records = play(&awakening(failing));
    // Half of 30 s, then 5, 15 and 40 s of waiting.
    let expected = [
        "25 failed after 15.0 s, attempt 1 of 4; tries again in 5.0 s",
        "45 failed after 15.0 s, attempt 2 of 4; tries again in 15.0 s",
        "75 failed after 15.0 s, attempt 3 of 4; tries again in 40.0 s",
        "130 failed after 15.0 s, attempt 4 of 4; given up",
    ];
    assert_eq!(lines(&records, ChangeKind::StartFailed), expected);
    let failed = changes(&records, ChangeKind::StartFailed);
    let starting: Vec<_> = failed
        .iter()
        .map(|change| change.replicas.starting)
        .collect();
    assert_eq!(
        starting,
        [1, 1, 1, 0],
        "it counts as starting while it waits"
    );
    assert_eq!(with(&records, Outcome::FailedUnserved).len(), 60);
    assert_eq!(records.totals.end_ns, 130 * SECOND, "nothing more can come");
    let totals = &records.totals;
    let counts = (totals.starts, totals.start_failures, totals.starts_given_up);
    assert_eq!(counts, (1, 4, 1));
    assert_eq!(totals.gpu_ns.starting, u128::from(120 * SECOND));
}

#[test]
fn what_is_given_up_does_not_keep_an_autoscaler_looking_for_ever() {
    let failing = "[failures]\nstart_failure = { probability = 1 }\n[batching]\nmax_num_seqs = 8\n";
    let text = deployment(0, failing);
    let records = play(&text.replace("max_replica_count = 0", "max_replica_count = 3"));
    assert_eq!(with(&records, Outcome::FailedUnserved).len(), 60);
    assert_eq!(records.totals.starts_given_up, 3, "all that are allowed");
}

#[test]
fn a_start_that_takes_too_long_fails_and_a_slow_one_may() {
    let slow = "[failures]\nslow_start = { probability = 1, factor = 3 }\n";
    let ready = |rest: &str| changes(&play(&awakening(rest)), ChangeKind::Ready)[0].at_ns;
    assert_eq!(ready(""), 40 * SECOND);
    assert_eq!(ready(slow), 100 * SECOND);
    let timeout = "start_timeout = \"60s\"\nstart_retry = { attempts_max = 1 }\n";
    let records = play(&awakening(&format!("{slow}{timeout}")));
    let expected = ["70 timed out after 60.0 s, attempt 1 of 1; given up"];
    assert_eq!(lines(&records, ChangeKind::StartFailed), expected);
}

#[test]
fn some_starts_fail_and_all_are_served_in_the_end() {
    let failing = "[failures]\nstart_failure = { probability = 0.5 }\n";
    let mut failures = 0;
    for seed in 1..20 {
        let records = run(&scenario(&awakening(failing)), seed);
        failures += records.totals.start_failures;
        if records.totals.starts_given_up == 0 {
            assert_eq!(with(&records, Outcome::Completed).len(), 60);
        }
    }
    assert!((8..40).contains(&failures), "of 19 starts: {failures}");
}

const CRASHES: &str = "[failures]\ncrash = { time_to_failure = 20.5, on_crash = ";

#[test]
fn a_crash_serves_again_whom_it_meets_and_all_complete() {
    let records = play(&deployment(2, &format!("{CRASHES}\"retry\" }}")));
    assert_eq!(with(&records, Outcome::Completed).len(), 60);
    let crashed = changes(&records, ChangeKind::Crashed);
    assert_eq!(crashed[0].at_ns, 20_500 * MILLISECOND);
    assert_eq!(crashed.len(), 2, "those after them outlive the run");
    // Replaced at once: ready 30 s later.
    let ready = changes(&records, ChangeKind::Ready);
    assert_eq!(ready[2].at_ns, 50_500 * MILLISECOND);
    let again: Vec<_> = records.requests.iter().filter(|r| r.attempts > 1).collect();
    assert!(!again.is_empty());
    for record in again {
        assert!(record.parts.unwrap().retry_ns > 0, "{record:?}");
        assert!(record.first_token_ns > Some(record.due_ns + record.parts.unwrap().retry_ns));
    }
    assert!(records.totals.output_tokens_retried > 0);
}

#[test]
fn a_crash_that_fails_its_requests_fails_exactly_those_in_flight() {
    let records = play(&deployment(2, &format!("{CRASHES}\"fail\" }}")));
    let crashes: Vec<Nanos> = changes(&records, ChangeKind::Crashed)
        .iter()
        .map(|change| change.at_ns)
        .collect();
    let failed = with(&records, Outcome::FailedCrash);
    assert!(!failed.is_empty());
    for record in &records.requests {
        let fails = record.outcome == Outcome::FailedCrash;
        assert_eq!(fails, crashes.contains(&record.end_ns), "{record:?}");
        assert!(fails || record.outcome == Outcome::Completed);
        assert_eq!(record.attempts, 1);
    }
    let said: u64 = (lines(&records, ChangeKind::Crashed).iter())
        .map(|line| {
            line.split(' ')
                .nth(3)
                .expect("a count")
                .parse::<u64>()
                .expect("a count")
        })
        .sum();
    assert_eq!(said, failed.len() as u64);
    assert_eq!(records.totals.output_tokens_retried, 0);
}

#[test]
fn a_request_that_outlasts_every_replica_fails_after_so_many_crashes() {
    let text = deployment(1, &format!("{CRASHES}\"retry\", retries_max = 2 }}"))
        .replace("requests = 60", "requests = 1")
        .replace(
            "output_tokens = { fixed = 200 }",
            "output_tokens = { fixed = 6000 }",
        );
    let records = play(&text);
    let [record] = &records.requests[..] else {
        panic!("one request")
    };
    assert_eq!((record.outcome, record.attempts), (Outcome::FailedCrash, 3));
    // 20.5 s each, with two cold starts of 30 s between them.
    assert_eq!(record.end_ns, 121_500 * MILLISECOND);
}

#[test]
fn timeouts_come_at_the_nanosecond() {
    for (timeout, at) in [
        ("\"700ms\"", 700 * MILLISECOND),
        ("0.123456789", 123_456_789),
    ] {
        let records = play(&deployment(1, &format!("[clients]\ntimeout = {timeout}\n")));
        assert_eq!(with(&records, Outcome::FailedTimeout).len(), 60);
        for record in &records.requests {
            assert_eq!(record.end_ns, record.due_ns + at);
            assert!(record.first_token_ns.is_some() && record.output_tokens < 200);
        }
    }
}

#[test]
fn a_first_token_timeout_leaves_alone_whose_first_token_has_come() {
    let patient = play(&deployment(
        1,
        "[clients]\nfirst_token_timeout = \"200ms\"\n",
    ));
    assert_eq!(with(&patient, Outcome::Completed).len(), 60);
    let records = play(&awakening("[clients]\nfirst_token_timeout = \"12s\"\n"));
    // The replica is ready at 40 s; whoever came by 28 s has no first token then.
    for record in &records.requests {
        let gives_up = record.due_ns <= 28 * SECOND;
        assert_eq!(record.outcome == Outcome::FailedTimeout, gives_up);
        if gives_up {
            assert_eq!(record.parts.unwrap().cold_start_ns, 12 * SECOND);
        }
    }
}

#[test]
fn a_client_tries_again_after_its_own_waits_as_often_as_it_says() {
    let retry = "[clients]\ntimeout = \"500ms\"\n\
        retry = { first = \"1s\", factor = 2, max = \"3s\", jitter = 1, attempts_max = 4 }\n";
    let records = play(&deployment(1, retry).replace("requests = 60", "requests = 1"));
    let [record] = &records.requests[..] else {
        panic!("one request")
    };
    assert_eq!(
        (record.outcome, record.attempts),
        (Outcome::FailedTimeout, 4)
    );
    // Four times half a second, and 1, 2 and 3 s in between.
    assert_eq!(record.end_ns, 8 * SECOND);
    assert_eq!(record.parts.unwrap().retry_ns, 7_500 * MILLISECOND);
    let lost = records.totals.output_tokens_retried;
    assert_eq!(lost, 3 * u64::from(record.output_tokens));
}

#[test]
fn only_the_causes_that_are_named_make_a_client_try_again() {
    let timeout = "[clients]\ntimeout = \"500ms\"\n[clients.retry]\nretry_on = ";
    let attempts = |causes: &str| {
        let records = play(&deployment(1, &format!("{timeout}{causes}\n")));
        records.requests.iter().map(|r| r.attempts).max()
    };
    assert_eq!(attempts("[\"timeout\"]"), Some(3));
    assert_eq!(attempts("[\"503\", \"failure\"]"), Some(1));
}

/// At zero replicas, each request gets a 503 at once, wakes the deployment, and comes again.
#[test]
fn a_storm_of_retries_after_503_ends_once_a_replica_is_ready() {
    let text = deployment(0, "[autoscaler]\nprofile = \"fireworks-2026\"\n")
        .replace("max_replica_count = 0", "max_replica_count = 1");
    let refused = with(&play(&text), Outcome::RejectedScalingUp).len();
    assert_eq!(
        refused, 31,
        "the first replica is ready just after the one of 30 s"
    );
    let stubborn = "[clients]\nretry = { first = \"1s\", attempts_max = 8 }\n";
    let records = play(&format!("{text}{stubborn}"));
    assert_eq!(with(&records, Outcome::Completed).len(), 60);
    assert_eq!(records.totals.starts, 1);
    let attempts: u32 = records.requests.iter().map(|r| r.attempts).sum();
    assert!((90..300).contains(&attempts), "{attempts}");
    for record in &records.requests {
        assert_eq!(
            record.attempts > 1,
            record.due_ns <= 30 * SECOND,
            "{record:?}"
        );
    }
}

#[test]
fn a_knob_of_what_goes_wrong_moves_nothing_else() {
    let poisson = |rest: &str| {
        let text = deployment(0, rest)
            .replace("process = \"constant\"", "process = \"poisson\"")
            .replace("max_replica_count = 0", "max_replica_count = 3");
        let mut records = play(&text);
        records.requests.sort_by_key(|record| record.id);
        records
    };
    let due = |records: &Records| -> Vec<_> { records.requests.iter().map(|r| r.due_ns).collect() };
    let plain = poisson("");
    for rest in [
        "[failures]\nslow_start = { probability = 1, factor = 2 }\n",
        "[failures]\nstart_failure = { probability = 0.9 }\n",
        "[failures]\ncrash = { time_to_failure = { exponential = { mean = 20 } } }\n",
        "[clients]\ntimeout = { exponential = { mean = 3 } }\nretry = {}\n",
    ] {
        let records = poisson(rest);
        assert_eq!(due(&records), due(&plain));
        assert!(records.requests != plain.requests, "no effect: {rest}");
        assert!(records == poisson(rest), "not the same twice: {rest}");
    }
    // What can hardly ever happen, and does not, leaves every byte as it is.
    let never = "[failures]\nslow_start = { probability = 1e-12, factor = 2 }\n\
        start_failure = { probability = 1e-12 }\nstart_timeout = \"24h\"\n\
        crash = { time_to_failure = 1e9 }\n\
        [clients]\ntimeout = \"24h\"\nretry = {}\n";
    let records = poisson(never);
    assert!(records.requests == plain.requests);
    assert_eq!(records.changes, plain.changes);
}
