//! Time outside the engine: what server and client do for a request beside its steps.

mod support;

use foresail_reports::records::{Outcome, RequestRecord};
use support::{Records, run, run_closely, scenario};

const MILLISECOND: u64 = 1_000_000;

/// One replica at about half of what it can do, with this in its `[step_time]`.
fn text(step_time: &str, more: &str) -> String {
    format!(
        r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        world_size = 1
        min_replica_count = 1
        max_replica_count = 1
        [autoscaler]
        policy = "fixed"
        [batching]
        max_num_seqs = 16
        [step_time]
        {step_time}
        [workload]
        requests = 300
        arrivals = {{ process = "poisson", rate_per_s = 8.0 }}
        prompt_tokens = {{ log_normal = {{ mean = 400, cv = 0.8 }}, max = 3000 }}
        output_tokens = {{ log_normal = {{ mean = 60, cv = 0.8 }}, max = 500 }}
        {more}
        "#
    )
}

fn by_id(records: Records) -> Vec<RequestRecord> {
    let mut requests = records.requests;
    requests.sort_by_key(|record| record.id);
    requests
}

#[test]
fn a_constant_time_shifts_the_whole_engine() {
    let without = by_id(run(&scenario(&text("", "")), 1));
    let with = by_id(run(&scenario(&text("request_overhead = \"7ms\"", "")), 1));
    assert_eq!(without.len(), 300);
    for (without, with) in without.iter().zip(&with) {
        let (before, after) = (without.parts.unwrap(), with.parts.unwrap());
        assert_eq!(before.outside_ns, 0);
        assert_eq!(after.outside_ns, 7 * MILLISECOND);
        assert_eq!(with.due_ns, without.due_ns);
        assert_eq!(with.end_ns, without.end_ns + 7 * MILLISECOND);
        let first = without.first_token_ns.unwrap() + 7 * MILLISECOND;
        assert_eq!(with.first_token_ns, Some(first));
        assert_eq!(after.queue_ns, before.queue_ns);
        assert_eq!(after.decode_ns, before.decode_ns);
    }
}

#[test]
fn a_time_a_token_delays_long_prompts_more() {
    let deployed = text("prompt_token_overhead = \"2us\"", "");
    for record in run(&scenario(&deployed), 1).requests {
        let expected = 2_000 * u64::from(record.prompt_tokens);
        let outside = record.parts.unwrap().outside_ns;
        assert!(outside.abs_diff(expected) <= 1, "{outside} {expected}");
    }
}

#[test]
fn a_leap_is_its_steps_with_requests_outside() {
    let deployed = scenario(&text(
        "request_overhead = \"3ms\"\nprompt_token_overhead = \"5us\"",
        "",
    ));
    let (leaps, steps) = (
        run_closely(&deployed, 2, true),
        run_closely(&deployed, 2, false),
    );
    assert_eq!(leaps.requests, steps.requests);
    assert_eq!(leaps.gaps, steps.gaps);
}

#[test]
fn a_client_may_give_up_before_its_request_comes_in() {
    let clients = "[clients]\ntimeout = \"4ms\"";
    let deployed = text("request_overhead = \"5ms\"", clients);
    let requests = run(&scenario(&deployed), 1).requests;
    assert_eq!(requests.len(), 300);
    for record in requests {
        assert_eq!(record.outcome, Outcome::FailedTimeout);
        assert_eq!(record.end_ns - record.due_ns, 4 * MILLISECOND);
        assert_eq!(record.parts.unwrap().outside_ns, 4 * MILLISECOND);
    }
}

#[test]
fn a_request_that_is_sent_again_comes_in_again() {
    let clients = "[clients]\ntimeout = \"4ms\"\nretry = { attempts_max = 3 }";
    let deployed = text("request_overhead = \"5ms\"", clients);
    let requests = run(&scenario(&deployed), 1).requests;
    assert!(requests.iter().all(|record| record.attempts == 3));
}
