//! Deployments under Ray Serve's autoscaler: from zero and back, up and down, never stuck.

mod support;

use foresail_core::control::autoscaler::AutoscalerConfig;
use foresail_reports::records::{ChangeKind, Outcome};
use proptest::prelude::*;
use support::{Records, run, scenario};

fn deployment(policy: &str, settings: &str, workload: &str) -> String {
    format!(
        r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        [autoscaler]
        policy = "{policy}"
        {settings}
        [batching]
        max_num_seqs = 32
        [workload]
        {workload}
        prompt_tokens = 512
        output_tokens = 128
        "#
    )
}

/// (when, target, why) of each decision.
fn decisions(records: &Records) -> Vec<(f64, u32, &str)> {
    let of_target = |kind| kind == ChangeKind::Target;
    let changes = records.changes.iter().filter(|it| of_target(it.kind));
    changes
        .map(|it| {
            (
                it.at_ns as f64 / 1e9,
                it.replicas.target,
                it.reason.as_str(),
            )
        })
        .collect()
}

#[test]
fn a_request_wakes_a_replica_and_idleness_takes_it_away() {
    let settings = "min_replicas = 0\ndownscale_to_zero_delay_s = 60";
    let workload = "duration = \"20m\"\narrivals = { rate_per_s = 0.005 }";
    for policy in ["ray-serve", "ray-serve-legacy"] {
        let records = run(&scenario(&deployment(policy, settings, workload)), 1);
        let decisions = decisions(&records);
        assert!(decisions.len() >= 4, "{policy}: {decisions:?}");
        for (at_s, target, reason) in decisions {
            let expected = if target == 1 {
                "no running replica"
            } else {
                "0 ongoing requests"
            };
            assert!(reason.contains(expected), "{at_s} {target} {reason}");
        }
        // A record and a report come first, after which no delay is waited for.
        let first = &records.requests[0];
        let woken_ns = records
            .changes
            .iter()
            .find(|it| it.kind == ChangeKind::Pending);
        let waited_ns = woken_ns.expect("a start").at_ns - first.due_ns;
        assert!(waited_ns <= 16_000_000_000, "{waited_ns}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_served_within_the_limits(
        legacy in any::<bool>(), min in 0..2_u32, more in 1..5_u32, target in 1.0..40.0_f64,
        rate in 0.05..25.0_f64, factor in 0.2..3.0_f64, seed in any::<u64>(),
    ) {
        let policy = if legacy { "ray-serve-legacy" } else { "ray-serve" };
        let settings = format!(
            "min_replicas = {min}\nmax_replicas = {}\ntarget_ongoing_requests = {target}\n\
             downscale_delay_s = 45\nupscaling_factor = {factor}",
            min + more,
        );
        let workload = format!("duration = \"5m\"\narrivals = {{ rate_per_s = {rate} }}");
        let scenario = scenario(&deployment(policy, &settings, &workload));
        let AutoscalerConfig::RayServe(config) = &scenario.deployment.autoscaler else {
            panic!("{policy}");
        };
        let records = run(&scenario, seed);
        for request in &records.requests {
            prop_assert_eq!(request.outcome, Outcome::Completed);
        }
        let mut before = config.initial();
        for (at_s, target, reason) in decisions(&records) {
            prop_assert_ne!(target, before, "{} {}", at_s, reason);
            prop_assert!((config.min_replicas..=config.max_replicas).contains(&target));
            prop_assert!(reason.contains("ongoing requests"), "{}", reason);
            before = target;
        }
    }
}
