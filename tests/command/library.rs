//! The ready scenarios show what they say they show. Where a whole run would take
//! long without optimisation, a part of it.

use serde_json::Value;

use crate::sandbox::Sandbox;

fn json(arguments: &[&str]) -> Value {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&[arguments, &["--format", "json"]].concat());
    assert!([0, 3].contains(&ended.code), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}"))
}

/// The mean of a metric of each variant, in their order.
fn means(comparison: &Value, metric: &str) -> Vec<f64> {
    let variants = comparison["variants"].as_array().unwrap();
    let mean = |variant: &Value| {
        let metrics = variant["metrics"].as_array().unwrap();
        let found = metrics.iter().find(|found| found["name"] == metric);
        found.unwrap_or_else(|| panic!("{metric}"))["mean"]
            .as_f64()
            .unwrap()
    };
    variants.iter().map(mean).collect()
}

/// What a run says, and the reasons in its timeline.
fn story(arguments: &[&str]) -> (String, String) {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&[arguments, &["--out", "run"]].concat());
    assert!([0, 3].contains(&ended.code), "{}", ended.stderr);
    (ended.stdout, sandbox.read("run/timeline.csv"))
}

#[test]
fn thrash_turns_knative_and_not_sustained_windows() {
    let comparison = json(&[
        "compare",
        "thrash",
        "--set=workload.duration=20m",
        "--policies=fireworks,knative-kpa",
        "--no-oracle",
        "--seeds=1",
    ]);
    let turns = means(&comparison, "direction_changes");
    assert!(turns[0] <= 1.0 && turns[1] >= 5.0, "{turns:?}");
}

#[test]
fn scale_to_zero_is_cheaper_and_waits() {
    let comparison = json(&[
        "compare",
        "scale-to-zero",
        "--vary=deployment.min_replica_count=0,1",
        "--no-oracle",
        "--seeds=1",
    ]);
    let cost = means(&comparison, "cost_usd");
    assert!(cost[0] < 0.7 * cost[1], "{cost:?}");
    let waited = means(&comparison, "cold_start_hits");
    assert!(waited[0] > 0.0 && waited[1] == 0.0, "{waited:?}");
}

#[test]
fn hold_or_503_holds_or_refuses() {
    let (held, _) = story(&["simulate", "hold-or-503"]);
    assert!(held.contains("· 0 rejected ·"), "{held}");
    let newer = "--set=autoscaler.profile=fireworks-2026";
    let (refused, _) = story(&["simulate", "hold-or-503", newer]);
    assert!(!refused.contains("· 0 failed · 0 rejected ·"), "{refused}");
}

#[test]
fn stock_out_makes_replicas_wait() {
    let (_, timeline) = story(&[
        "simulate",
        "stock-out",
        "--set=workload.duration=2h",
        "--set=gpu_pool.random_stock_outs.every=20m",
    ]);
    assert!(timeline.contains("waits for GPUs"), "{timeline}");
}

/// The oracle lets go of replicas that still wait for GPUs, several at once.
#[test]
fn stock_out_can_be_compared_with_the_oracle() {
    let comparison = json(&[
        "compare",
        "stock-out",
        "--vary=deployment.min_replica_count=1,2",
        "--set=workload.duration=3h",
        "--seeds=1",
    ]);
    let ttft = means(&comparison, "ttft_p99");
    assert!(ttft[0] > ttft[1], "{ttft:?}");
}

#[test]
fn spend_limit_deletes_or_pauses() {
    let small = [
        "--set=account.spend_limit_usd=1",
        "--set=workload.duration=20m",
    ];
    let (_, deleted) = story(&[&["simulate", "spend-limit"][..], &small].concat());
    assert!(
        deleted.contains("DELETING: spend limit reached"),
        "{deleted}"
    );
    let newer = ["--set=autoscaler.profile=fireworks-2026"];
    let (_, paused) = story(&[&["simulate", "spend-limit"][..], &small, &newer].concat());
    assert!(paused.contains("reached its spend limit"), "{paused}");
    assert!(!paused.contains("DELETING"), "{paused}");
}

#[test]
fn update_loses_no_request() {
    let (text, timeline) = story(&["simulate", "update", "--set=workload.arrivals.rate_per_s=1"]);
    assert!(text.contains("· 0 failed · 0 rejected ·"), "{text}");
    let updating = timeline.find("UPDATING").expect(&timeline);
    assert!(timeline[updating..].contains("READY: all replicas as updated"));
}

#[test]
fn shoot_out_has_the_week() {
    let (text, _) = story(&["simulate", "shoot-out", "--set=workload.duration=2h"]);
    assert!(text.contains("a cycle of 168 levels"), "{text}");
}
