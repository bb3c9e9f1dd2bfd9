//! Several deployments in one run: isolated from one another, except for the GPUs they share.

mod support;

use std::ops::ControlFlow;

use foresail_reports::records::{ChangeKind, Outcome};
use foresail_scenarios::distribution::Distribution;
use foresail_scenarios::scenario::{
    GpuPool, GpuStock, RandomStockOuts, Scenario, StockOut, StockOuts,
};
use foresail_simulator::{Deployed, Options, SimulationError, simulate_together};
use support::Records;

const SECOND: u64 = 1_000_000_000;

/// A deployment that grows from one replica to four.
fn deployment(name: &str, rate_per_s: f64) -> Scenario {
    support::scenario(&format!(
        r#"
        name = "{name}"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        min_replica_count = 1
        max_replica_count = 4
        [batching]
        max_num_seqs = 16
        [cold_start]
        total = "60s"
        [workload]
        duration = "20m"
        prompt_tokens = 256
        output_tokens = 200
        [workload.arrivals]
        rate_per_s = {rate_per_s}
        "#
    ))
}

fn try_together(scenarios: &[Scenario], seeds: &[u64]) -> Result<Vec<Records>, SimulationError> {
    let mut records = vec![Records::default(); scenarios.len()];
    let deployed = scenarios.iter().zip(seeds).zip(&mut records);
    let deployed = deployed.map(|((scenario, &seed), sink)| Deployed {
        scenario,
        requests: scenario.workload.open(seed).expect("the workload opens"),
        sink,
        seed,
    });
    let options = Options {
        seed: 1,
        leaps: true,
    };
    let go_on = |_| ControlFlow::Continue(());
    let totals = simulate_together(deployed.collect(), options, go_on)?;
    for (records, totals) in records.iter_mut().zip(totals) {
        records.totals = totals;
    }
    Ok(records)
}

fn together(scenarios: &[Scenario], seeds: &[u64]) -> Vec<Records> {
    try_together(scenarios, seeds).unwrap_or_else(|error| panic!("{error}"))
}

fn with_pool(mut scenario: Scenario, gpus: u32, stock_outs: StockOuts) -> Scenario {
    scenario.gpu_pool = Some(GpuPool {
        kinds: vec![GpuStock {
            gpu: "h100".to_owned(),
            gpus: Some(gpus),
        }],
        stock_outs,
    });
    scenario
}

/// GPUs held by all deployments, at most, over the changes of their replicas.
fn most_held(runs: &[Records]) -> u32 {
    let mut changes: Vec<_> = (runs.iter().enumerate())
        .flat_map(|(run, records)| records.changes.iter().map(move |change| (run, change)))
        .collect();
    changes.sort_by_key(|(_, change)| change.at_ns);
    let mut held = vec![0_i64; runs.len()];
    let mut most = 0;
    for (run, change) in changes {
        held[run] += match change.kind {
            // A replica that only waits for GPUs has not come this far.
            ChangeKind::Initialising => 1,
            ChangeKind::Ready if change.reason.starts_with("there from") => 1,
            ChangeKind::Gone => -1,
            _ => 0,
        };
        most = most.max(held.iter().sum::<i64>());
    }
    most as u32
}

/// S01: whatever the neighbour does, each has the records that it has alone.
#[test]
fn deployments_with_enough_gpus_do_not_notice_each_other() {
    let quiet = deployment("quiet", 2.0);
    let loud = deployment("loud", 40.0);
    let both = together(&[quiet.clone(), loud.clone()], &[7, 8]);
    let alone = [support::run(&quiet, 7), support::run(&loud, 8)];
    for (together, alone) in both.iter().zip(&alone) {
        assert_eq!(together.requests, alone.requests);
        // The run of both lasts until the later one ends.
        let upto = alone.totals.end_ns;
        let until = |records: &Records| -> Vec<_> {
            let changes = records.changes.iter();
            changes.filter(|c| c.at_ns < upto).cloned().collect()
        };
        assert_eq!(until(together), until(alone));
    }
}

#[test]
fn a_pool_is_never_overdrawn_and_goes_to_who_asked_first() {
    let loud = |name| with_pool(deployment(name, 40.0), 5, StockOuts::default());
    let runs = together(&[loud("first"), loud("second")], &[1, 2]);
    assert_eq!(most_held(&runs), 5);
    let waits = |records: &Records| {
        let changes = records.changes.iter();
        let waits = changes.filter(|change| change.reason.starts_with("waits for GPUs"));
        waits.count()
    };
    assert!(waits(&runs[0]) + waits(&runs[1]) > 0);
    for records in &runs {
        let completed = |r: &&_| {
            matches!(
                r,
                foresail_reports::records::RequestRecord {
                    outcome: Outcome::Completed,
                    ..
                }
            )
        };
        assert_eq!(
            records.requests.iter().filter(completed).count(),
            records.requests.len()
        );
        assert!(records.totals.replicas_max <= 4);
    }
}

#[test]
fn waiting_for_gpus_is_not_billed_and_holds_none() {
    let scarce = with_pool(deployment("scarce", 40.0), 2, StockOuts::default());
    let records = support::run(&scarce, 1);
    let target_max = records
        .changes
        .iter()
        .map(|change| change.replicas.target)
        .max();
    assert_eq!(target_max, Some(4));
    assert_eq!(records.totals.replicas_max, 2);
    let held = records.totals.replica_ns;
    assert!(held <= 2 * u128::from(records.totals.end_ns));
    // The run ends before anybody gives GPUs back.
    let since = waits_since(&records);
    assert_eq!(since.len(), 2);
    let waited: u64 = since.iter().map(|at| records.totals.end_ns - at).sum();
    assert_eq!(records.totals.waited_for_gpus, 2);
    assert_eq!(records.totals.waited_for_gpus_ns, u128::from(waited));
}

/// Replicas that wait for GPUs are the first to go when fewer are wanted.
#[test]
fn replicas_that_wait_for_gpus_are_cancelled() {
    let rush = support::scenario(
        r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        min_replica_count = 1
        max_replica_count = 4
        scale_down_window = "2m"
        [batching]
        max_num_seqs = 16
        [cold_start]
        total = "60s"
        [workload]
        duration = "40m"
        prompt_tokens = 256
        output_tokens = 200
        arrivals = { rate_per_s = 2.0 }
        shape = { kind = "spike", at = "2m", duration = "5m", factor = 10.0 }
        "#,
    );
    let records = support::run(&with_pool(rush, 2, StockOuts::default()), 1);
    let since = waits_since(&records);
    let cancelled: Vec<_> = (records.changes.iter())
        .filter(|change| change.kind == ChangeKind::Cancelled)
        .map(|change| change.at_ns)
        .collect();
    assert_eq!((since.len(), cancelled.len()), (2, 2));
    let waited = cancelled.iter().sum::<u64>() - since.iter().sum::<u64>();
    assert_eq!(records.totals.waited_for_gpus, 2);
    assert_eq!(records.totals.waited_for_gpus_ns, u128::from(waited));
    let last = records.changes.last().expect("there are changes");
    assert_eq!((last.replicas.ready, last.replicas.starting), (1, 0));
}

/// When replicas began to wait for GPUs (ns).
fn waits_since(records: &Records) -> Vec<u64> {
    let waits = (records.changes.iter()).filter(|c| c.reason.starts_with("waits for GPUs"));
    waits.map(|change| change.at_ns).collect()
}

#[test]
fn during_a_stock_out_nothing_starts() {
    let stock_outs = StockOuts {
        fixed: vec![StockOut {
            at: 0,
            lasts: 600 * SECOND,
        }],
        random: None,
    };
    let records = support::run(&with_pool(deployment("alone", 40.0), 8, stock_outs), 1);
    let ready = (records.changes.iter())
        .filter(|change| change.kind == ChangeKind::Ready)
        .nth(1)
        .expect("a second replica gets ready");
    assert_eq!(ready.at_ns, 660 * SECOND);
    // Each start that waited did so until the end of the stock-out, or until it was cancelled.
    let totals = &records.totals;
    assert!(totals.waited_for_gpus >= 1);
    assert!(totals.waited_for_gpus_ns <= u128::from(totals.waited_for_gpus * 600 * SECOND));
    let waited = records
        .changes
        .iter()
        .any(|c| c.reason == "waits for GPUs: 0 to be had");
    assert!(waited);
}

/// Nobody will ever give GPUs back: the run still ends, and says so.
#[test]
fn requests_that_wait_for_gpus_forever_fail_in_the_end() {
    let zero = r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        [workload]
        requests = 3
        prompt_tokens = 256
        output_tokens = 200
        [workload.arrivals]
        rate_per_s = 1.0
        "#;
    let random = StockOuts {
        fixed: Vec::new(),
        random: Some(RandomStockOuts {
            every_s: Distribution::Fixed { value: 3_600.0 },
            lasts_s: Distribution::Fixed { value: 60.0 },
        }),
    };
    for stock_outs in [StockOuts::default(), random] {
        let parched = with_pool(support::scenario(zero), 0, stock_outs);
        let records = support::run(&parched, 1);
        let outcomes: Vec<_> = records.requests.iter().map(|r| r.outcome).collect();
        assert_eq!(outcomes, [Outcome::FailedUnserved; 3]);
        assert!(records.totals.end_ns < 3 * 24 * 3_600 * SECOND);
        assert_eq!(records.totals.cost_nanodollars, 0);
    }
    let none = with_pool(deployment("first", 1.0), 0, StockOuts::default());
    let crowd = [none, deployment("neighbour", 1.0)];
    let error = try_together(&crowd, &[1, 2]).unwrap_err();
    assert!(matches!(error, SimulationError::PoolTooSmall));
}

/// One account pays for both: its limit ends them at the same moment, when what
/// they have spent together reaches it.
#[test]
fn the_spend_limit_of_an_account_ends_all_of_its_deployments() {
    let limited = |name: &str, rate| {
        let mut scenario = deployment(name, rate);
        // 8 USD an hour each: both together spend 1 USD in 225 s.
        scenario.account.spend_limit_nanodollars = Some(1_000_000_000);
        scenario.deployment.price.nanodollars_per_gpu_hour = 8_000_000_000;
        scenario
    };
    let runs = together(&[limited("quiet", 0.5), limited("other", 1.0)], &[1, 2]);
    for records in &runs {
        let deleted = records
            .changes
            .iter()
            .find(|c| c.reason.contains("spend limit reached"));
        assert_eq!(deleted.map(|change| change.at_ns), Some(225 * SECOND));
    }
    let spent: u128 = runs.iter().map(|r| r.totals.cost_nanodollars).sum();
    assert!((1_000_000_000..1_030_000_000).contains(&spent), "{spent}");
}
