//! A deployment's life as its users see it: waking, waiting, draining, and being parked.

mod support;

use foresail_reports::records::{Outcome, RequestRecord};
use foresail_simulator::Options;
use support::{Records, run, scenario, try_run};

/// Requests of the same length, 10 s apart, on a deployment with these settings.
fn deployment(scaling: &str, autoscaler: &str, requests: u32) -> Records {
    let text = format!(
        r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        world_size = 1
        {scaling}
        [autoscaler]
        {autoscaler}
        [cold_start]
        total = "75s"
        [workload]
        requests = {requests}
        arrivals = {{ process = "constant", rate_per_s = 0.1 }}
        prompt_tokens = {{ fixed = 500 }}
        output_tokens = {{ fixed = 100 }}
        "#
    );
    run(&scenario(&text), 1)
}

/// The timeline, a line each.
fn timeline(records: &Records) -> Vec<String> {
    let line = |change: &foresail_reports::records::Change| {
        let replica = change.replica.map_or(String::new(), |id| format!(" {id}"));
        format!(
            "{:.1} {:?}{replica}: {}",
            change.at_ns as f64 / 1e9,
            change.kind,
            change.reason
        )
    };
    records.changes.iter().map(line).collect()
}

fn outcomes(records: &Records, outcome: Outcome) -> usize {
    records
        .requests
        .iter()
        .filter(|record| record.outcome == outcome)
        .count()
}

#[test]
fn requests_at_zero_replicas_wait_for_the_cold_start() {
    let records = deployment("min_replica_count = 0", "tick = \"1s\"", 12);
    assert_eq!(outcomes(&records, Outcome::Completed), 12);
    assert_eq!(
        records.totals.waited_for_cold_start, 8,
        "those of the first 75 s"
    );
    let mut by_id = records.requests.clone();
    by_id.sort_by_key(|record| record.id);
    let waits: Vec<u64> = by_id
        .iter()
        .map(|record| record.parts.unwrap().cold_start_ns / 1_000_000_000)
        .collect();
    assert_eq!(waits, [75, 65, 55, 45, 35, 25, 15, 5, 0, 0, 0, 0]);
}

#[test]
fn the_newer_profile_refuses_them_instead() {
    let records = deployment("min_replica_count = 0", "profile = \"fireworks-2026\"", 12);
    assert_eq!(outcomes(&records, Outcome::RejectedScalingUp), 8);
    assert_eq!(outcomes(&records, Outcome::Completed), 4);
    assert_eq!(records.totals.offered, 12);
    assert_eq!(records.totals.waited_for_cold_start, 0, "none may wait");
}

#[test]
fn a_parked_deployment_serves_nobody_and_costs_nothing() {
    let records = deployment("max_replica_count = 0", "", 5);
    assert_eq!(outcomes(&records, Outcome::RejectedParked), 5);
    assert_eq!(
        (records.totals.cost_nanodollars, records.totals.starts),
        (0, 0)
    );
    let cold = |record: &RequestRecord| {
        record.parts.unwrap().cold_start_ns == record.end_ns - record.due_ns
    };
    assert!(
        records.requests.iter().all(cold),
        "all they did was wait for a replica"
    );
}

#[test]
fn a_deployment_sleeps_and_wakes_by_its_windows() {
    let text = r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        world_size = 1
        min_replica_count = 0
        scale_to_zero_window = "5m"
        [cold_start]
        total = "60s"
        [workload]
        duration = "30m"
        arrivals = { process = "constant", rate_per_s = 0.001 }
        prompt_tokens = { fixed = 500 }
        output_tokens = { fixed = 100 }
        "#;
    let records = run(&scenario(text), 1);
    let expected = [
        "0.0 Target: request at zero replicas",
        "0.0 Pending 0: will be ready in 60.0 s",
        "0.0 Initialising 0: takes 60.0 s",
        "60.0 Ready 0: started",
        "300.0 Target: no request for 5m",
        "300.0 Draining 0: 0 requests to finish",
        "300.0 Gone 0: nothing to finish",
        "1000.0 Target: request at zero replicas",
        "1000.0 Pending 1: will be ready in 60.0 s",
        "1000.0 Initialising 1: takes 60.0 s",
        "1060.0 Ready 1: started",
        "1300.0 Target: no request for 5m",
        "1300.0 Draining 1: 0 requests to finish",
        "1300.0 Gone 1: nothing to finish",
    ];
    assert_eq!(timeline(&records), expected);
    assert_eq!(
        records.totals.end_ns, 1_800_000_000_000,
        "the run lasts as long as the workload says"
    );
    // Ready from 60 to 300 s, twice; starting is not billed.
    assert_eq!(records.totals.gpu_ns.billed, 480_000_000_000);
    assert_eq!(records.totals.gpu_ns.starting, 120_000_000_000);
}

/// A start that takes no time must serve those that were held before it.
#[test]
fn an_instant_start_serves_who_waits() {
    let text = r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        world_size = 1
        max_replica_count = 3
        [autoscaler]
        policy = "scripted"
        steps = [{ at = "35s", replicas = 1 }]
        [cold_start]
        total = "0s"
        [workload]
        requests = 3
        arrivals = { process = "constant", rate_per_s = 0.1 }
        prompt_tokens = { fixed = 500 }
        output_tokens = { fixed = 100 }
        "#;
    let records = run(&scenario(text), 1);
    assert_eq!(outcomes(&records, Outcome::Completed), 3);
    assert!(
        records
            .requests
            .iter()
            .all(|record| record.end_ns < 40_000_000_000)
    );
}

/// Draining: no new requests, those it has are finished, and the rest of the
/// time is draining, not idle.
#[test]
fn a_replica_that_leaves_finishes_what_it_has() {
    let text = r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        world_size = 1
        initial_replica_count = 2
        min_replica_count = 1
        max_replica_count = 2
        [autoscaler]
        policy = "scripted"
        steps = [{ at = "1500ms", replicas = 1 }]
        [router]
        policy = "round-robin"
        [workload]
        requests = 10
        arrivals = { process = "constant", rate_per_s = 2.0 }
        prompt_tokens = { fixed = 500 }
        output_tokens = { fixed = 400 }
        "#;
    let records = run(&scenario(text), 1);
    assert_eq!(outcomes(&records, Outcome::Completed), 10);
    let mut served: Vec<_> = records
        .requests
        .iter()
        .map(|record| (record.id, record.replica))
        .collect();
    served.sort_unstable();
    let to_second: Vec<u64> = served
        .iter()
        .filter(|(_, replica)| *replica == Some(1))
        .map(|(id, _)| *id)
        .collect();
    // The request that comes as the order does precedes it.
    assert_eq!(to_second, [1, 3]);
    assert!(records.totals.gpu_ns.draining > 2_000_000_000);
}

/// Times are 64 bits; a scenario that would run out of them is refused, in words.
#[test]
fn a_run_that_would_outlast_time_is_refused() {
    let error_of = |text: &str| {
        let options = Options {
            seed: 1,
            leaps: true,
        };
        try_run(&scenario(text), options, Records::default())
            .expect_err("this should not end well")
            .to_string()
    };
    let base = r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        [batching]
        num_blocks = 100
        max_num_seqs = 4
        [workload]
        requests = 2
        prompt_tokens = 10
        output_tokens = 2
        "#;
    let never_ready = "arrivals = { rate_per_s = 1.0 }\n[cold_start]\nstages = [\
        { name = \"a\", phase = \"pending\", seconds = 9e9 }, \
        { name = \"b\", phase = \"pending\", seconds = 9e9 }, \
        { name = \"c\", phase = \"pending\", seconds = 9e9 }]";
    let too_late = "time_stretch = 1e9\n\
        arrivals = { process = \"constant\", rate_per_s = 0.08 }\n\
        [autoscaler]\npolicy = \"scripted\"\nsteps = [{ at = \"1s\", replicas = 1 }]";
    for addition in [never_ready, too_late] {
        let error = error_of(&format!("{base}{addition}"));
        assert!(error.contains("longer than 292 years"), "{error}");
    }
}

/// It is not counted as too long, or as anything else that it is not.
#[test]
fn an_empty_request_is_an_error_of_whoever_made_it() {
    let text = r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        min_replica_count = 1
        [workload]
        requests = 2
        arrivals = { process = "constant", rate_per_s = 1.0 }
        prompt_tokens = { fixed = 500 }
        output_tokens = { fixed = 100 }
        "#;
    let scenario = scenario(text);
    let requests = scenario.workload.open(1).expect("the workload opens");
    let emptied = requests.map(|request| {
        let mut request = request?;
        request.output_tokens = if request.due > 0 { 0 } else { 100 };
        Ok(request)
    });
    let options = foresail_simulator::Options {
        seed: 1,
        leaps: true,
    };
    let go_on = |_| std::ops::ControlFlow::Continue(());
    let error =
        foresail_simulator::simulate(&scenario, emptied, options, &mut (), go_on).unwrap_err();
    assert_eq!(
        error.to_string(),
        "request 1 has 500 prompt and 0 output tokens; both must be at least 1"
    );
}
