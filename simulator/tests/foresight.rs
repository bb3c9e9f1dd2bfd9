//! The policy `oracle`: a bound that means something.

mod support;

use std::ops::ControlFlow;

use foresail_reports::records::Outcome;
use foresail_scenarios::scenario::Scenario;
use foresail_simulator::{Options, SimulationError, foresee};
use support::Records;

fn deployment(policy: &str, more: &str) -> Scenario {
    support::scenario(&format!(
        r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        min_replica_count = 0
        max_replica_count = 6
        {more}
        [autoscaler]
        policy = "{policy}"
        [batching]
        max_num_seqs = 16
        [workload]
        duration = "2h"
        prompt_tokens = 256
        output_tokens = 200
        [workload.arrivals]
        rate_per_s = 4.0
        [workload.shape]
        kind = "on-off"
        on = "20m"
        off = "20m"
        low_factor = 0.0
        "#
    ))
}

fn run(policy: &str, more: &str, seed: u64) -> Records {
    let mut scenario = deployment(policy, more);
    foresee(&mut scenario, seed, |_| ControlFlow::Continue(())).expect("the future is known");
    support::run(&scenario, seed)
}

fn cost(records: &Records) -> u128 {
    records.totals.cost_nanodollars
}

fn waited_s(records: &Records) -> f64 {
    records.mean_s(|record| record.parts.unwrap().cold_start_ns)
}

#[test]
fn the_oracle_waits_for_no_cold_start_and_pays_for_no_idle_hour() {
    for seed in 1..=5 {
        let oracle = run("oracle", "", seed);
        // The first replica cannot be ready before the run begins.
        let late = oracle.requests.iter().filter(|record| {
            record.due_ns > 240_000_000_000 && record.parts.unwrap().cold_start_ns > 0
        });
        assert_eq!(late.count(), 0);
        let completed = |record: &&foresail_reports::records::RequestRecord| {
            record.outcome == Outcome::Completed
        };
        assert_eq!(
            oracle.requests.iter().filter(completed).count(),
            oracle.requests.len()
        );
        for (policy, more) in [
            ("fireworks", ""),
            (
                "fireworks",
                "scale_down_window = \"2m\"\nscale_to_zero_window = \"5m\"",
            ),
        ] {
            let other = run(policy, more, seed);
            assert!(cost(&oracle) < cost(&other), "{policy}");
            assert!(waited_s(&oracle) <= waited_s(&other), "{policy}");
        }
    }
}

#[test]
fn the_oracle_sees_the_same_future_twice() {
    assert_eq!(run("oracle", "", 3), run("oracle", "", 3));
}

#[test]
fn an_oracle_that_was_told_nothing_is_an_error() {
    let options = Options {
        seed: 1,
        leaps: true,
    };
    let error = support::try_run(&deployment("oracle", ""), options, Records::default());
    assert!(matches!(error, Err(SimulationError::NotForeseen)));
}
