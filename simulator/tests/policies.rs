//! Each policy in a run: a rush that one replica cannot serve, and an end of it.

mod support;

use foresail_reports::records::{ChangeKind, Outcome};
use support::{Records, run, scenario};

/// One H100 serves about 30 of these requests a second; the rush brings 60.
fn rush(autoscaler: &str) -> Records {
    let text = format!(
        r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        world_size = 1
        max_replica_count = 4
        [autoscaler]
        {autoscaler}
        [cold_start]
        total = "60s"
        [workload]
        duration = "30m"
        arrivals = {{ process = "poisson", rate_per_s = 6.0 }}
        shape = {{ kind = "spike", at = "5m", duration = "5m", factor = 10.0 }}
        prompt_tokens = 512
        output_tokens = 256
        "#
    );
    run(&scenario(&text), 1)
}

/// Everything is served; there were more replicas, and then fewer; reasons have numbers.
fn scales(autoscaler: &str) {
    let records = rush(autoscaler);
    let completed = |outcome| outcome == Outcome::Completed;
    assert!(
        records
            .requests
            .iter()
            .all(|request| completed(request.outcome))
    );
    let targets: Vec<(u32, &str)> = records
        .changes
        .iter()
        .filter(|change| change.kind == ChangeKind::Target)
        .map(|change| (change.replicas.target, change.reason.as_str()))
        .collect();
    let most = targets.iter().map(|(target, _)| *target).max();
    assert!(
        most.is_some_and(|most| (2..=4).contains(&most)),
        "{targets:?}"
    );
    let (last, _) = targets.last().expect("there was a rush");
    assert!(Some(*last) < most, "{targets:?}");
    for (_, reason) in &targets {
        assert!(
            reason.chars().any(|letter| letter.is_ascii_digit()),
            "{reason}"
        );
    }
}

#[test]
fn the_hpa_by_requests_in_flight() {
    scales("policy = \"k8s-hpa\"");
}

#[test]
fn the_hpa_by_queue_and_kv_usage() {
    scales(
        "policy = \"k8s-hpa\"\nmetrics = [{ metric = \"queue\", averageValue = 5 }, { metric = \"kv-usage\", averageValue = 0.5 }]",
    );
}

#[test]
fn keda_from_zero() {
    scales("policy = \"keda\"");
}

#[test]
fn the_saturation_analyser() {
    scales("policy = \"wva-saturation\"");
}

#[test]
fn the_saturation_analyser_from_zero() {
    scales("policy = \"wva-saturation\"\nenable_scale_to_zero = true");
}

#[test]
fn the_planner() {
    scales("policy = \"dynamo-load\"\noptimization_target = \"latency\"");
}
