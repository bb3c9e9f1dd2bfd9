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

/// Several replicas, with nearly all prompts short and some of 8000 tokens, each 0.4 s in the server.
fn with_long_prompts(replicas: u32, more: &str) -> String {
    format!(
        r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        world_size = 1
        min_replica_count = {replicas}
        max_replica_count = {replicas}
        [autoscaler]
        policy = "fixed"
        [router]
        policy = "round-robin"
        [batching]
        max_num_seqs = 64
        [step_time]
        prompt_token_overhead = "50us"
        [workload]
        requests = {}
        arrivals = {{ process = "poisson", rate_per_s = {} }}
        prompt_tokens = {{ empirical = [[100, 97], [8000, 3]] }}
        output_tokens = {{ fixed = 20 }}
        {more}
        "#,
        300 * replicas,
        3 * replicas,
    )
}

/// Mean time outside of the short prompts (s).
fn short_outside_s(records: &Records) -> f64 {
    let short = (records.requests.iter()).filter(|record| record.prompt_tokens == 100);
    let times: Vec<f64> = short
        .map(|record| record.parts.unwrap().outside_ns as f64 / 1e9)
        .collect();
    times.iter().sum::<f64>() / times.len() as f64
}

#[test]
fn a_long_prompt_holds_up_its_own_replica_only() {
    let short_of = |replicas| short_outside_s(&run(&scenario(&with_long_prompts(replicas, "")), 3));
    let (one, many) = (short_of(1), short_of(16));
    // One of 33 holds up 1.2 others for 0.2 s on average, beside 5 ms of their own.
    assert!((0.006..0.03).contains(&one), "{one}");
    assert!((0.006..0.03).contains(&many), "{many}");
}

#[test]
fn who_gives_up_holds_nobody_up() {
    let patience = "[clients]\nfirst_token_timeout = \"100ms\"";
    let records = run(&scenario(&with_long_prompts(1, patience)), 3);
    let gave_up = |tokens| {
        let of_length = (records.requests.iter()).filter(|record| record.prompt_tokens == tokens);
        of_length
            .filter(|record| record.outcome == Outcome::FailedTimeout)
            .count()
    };
    // A long prompt is given up after 0.1 of its 0.4 s, and only then do those behind it come in.
    assert!(gave_up(8000) > 3);
    assert!(gave_up(100) <= 1, "{}", gave_up(100));
}

#[test]
fn a_crash_meets_requests_on_their_way_too() {
    let crashes = "[failures]\ncrash = { time_to_failure = 3.05, on_crash = \"retry\" }\n\
        [cold_start]\ntotal = \"2s\"";
    let deployed = with_long_prompts(3, crashes);
    let deployed = deployed.replace("50us\"", "50us\"\nrequest_overhead = \"300ms\"");
    let (leaps, steps) = (
        run_closely(&scenario(&deployed), 2, true),
        run_closely(&scenario(&deployed), 2, false),
    );
    assert!(leaps.totals.crashes > 3);
    let again = |record: &&RequestRecord| record.attempts > 1;
    assert!(leaps.requests.iter().filter(again).count() > 3);
    assert!(
        (leaps.requests.iter()).all(|record| record.outcome == Outcome::Completed),
        "whoever was on the way to a crashed replica comes to another one"
    );
    assert_eq!(leaps.requests, steps.requests);
}

#[test]
fn each_world_size_has_its_own_overhead() {
    let update = "[[operations]]\nat = \"30s\"\nupdate = { world_size = 2 }\n\
        [cold_start]\ntotal = \"1s\"";
    let deployed = text("request_overhead = \"7ms\"", update);
    let mut deployed = scenario(&deployed.replace("policy = \"fixed\"", "policy = \"fireworks\""));
    assert_eq!(deployed.other_world_sizes[0].world_size, 2);
    deployed.other_world_sizes[0].said_overheads.request_s = Some(0.002);
    let records = run(&deployed, 1);
    let outside = |record: &RequestRecord| record.parts.unwrap().outside_ns;
    assert!((records.requests.iter()).any(|record| outside(record) == 7 * MILLISECOND));
    for record in records
        .requests
        .iter()
        .filter(|record| record.due_ns > 34_000_000_000)
    {
        assert_eq!(outside(record), 2 * MILLISECOND);
    }
    assert!(
        records
            .requests
            .iter()
            .any(|record| outside(record) == 2 * MILLISECOND)
    );
}
