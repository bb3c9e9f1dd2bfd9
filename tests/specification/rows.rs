//! One test a row, named by it.

use std::path::Path;

use foresail_core::control::autoscaler::AutoscalerConfig;
use foresail_reports::records::{Outcome, RequestRecord};
use foresail_scenarios::format::{self, Overrides};

use crate::runs::{Records, run, scenario, together};

const SECOND: u64 = 1_000_000_000;

/// An 8B model on H100s, with this in `[deployment]` and behind it.
fn deployment(settings: &str, rest: &str) -> String {
    format!(
        r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        {settings}
        [batching]
        max_num_seqs = 16
        {rest}
        "#
    )
}

/// A fixed number of replicas.
fn replicas(count: u32) -> String {
    format!("min_replica_count = {count}\nmax_replica_count = {count}")
}

/// So many requests at this rate, alike but for when they come.
fn traffic(rate_per_s: f64, requests: u32) -> String {
    format!(
        r#"
        [workload]
        requests = {requests}
        prompt_tokens = 256
        output_tokens = 100
        arrivals = {{ process = "poisson", rate_per_s = {rate_per_s} }}
        "#
    )
}

fn completed(records: &Records) -> usize {
    let requests = records.requests.iter();
    requests
        .filter(|request| request.outcome == Outcome::Completed)
        .count()
}

#[test]
fn s01_a_deployment_is_dedicated_and_does_not_notice_others() {
    let range = "min_replica_count = 1\nmax_replica_count = 4";
    let named = |name: &str, traffic: &str| {
        scenario(&format!(
            "name = \"{name}\"\n{}",
            deployment(range, traffic)
        ))
    };
    let quiet = named("quiet", &traffic(1.0, 300));
    let loud = named("loud", &traffic(80.0, 16_000));
    let both = together(&[(&quiet, 7), (&loud, 8)]);
    assert!(both[1].totals.replicas_max > 1, "the neighbour is busy");
    assert_eq!(both[0].requests, run(&quiet, 7).requests);
    assert_eq!(both[1].requests, run(&loud, 8).requests);
}

#[test]
fn s02_there_is_no_rate_limit_and_overload_queues() {
    let flood = scenario(&deployment(&replicas(1), &traffic(1000.0, 3_000)));
    let records = run(&flood, 1);
    assert_eq!(completed(&records), 3_000, "none is refused or fails");
    let waited = |request: &&RequestRecord| request.parts.unwrap().queue_ns > 10 * SECOND;
    let waited = records.requests.iter().filter(waited).count();
    assert!(waited > 1_000, "{waited} waited for more than 10 s");
}

#[test]
fn s03_a_token_is_cheaper_the_more_a_deployment_is_used() {
    let cost_of_a_token = |rate_per_s: f64| {
        let requests = (rate_per_s * 600.0) as u32;
        let text = deployment(&replicas(1), &traffic(rate_per_s, requests));
        let records = run(&scenario(&text), 1);
        records.totals.cost_nanodollars as f64 / f64::from(requests * 100)
    };
    let costs = [0.2, 1.0, 4.0, 12.0].map(cost_of_a_token);
    for pair in costs.windows(2) {
        // Three to five times the traffic on the same GPU.
        assert!(pair[1] < 0.5 * pair[0], "{costs:?}");
    }
}

#[test]
fn s19_more_replicas_carry_more() {
    let carried = [1, 2, 3, 5].map(|count| {
        let flood = deployment(&replicas(count), &traffic(1e6, 3_000));
        run(&scenario(&flood), 1).capacity()
    });
    for pair in carried.windows(2) {
        assert!(pair[1] > 1.1 * pair[0], "{carried:?}");
    }
}

#[test]
fn s25_a_request_at_zero_waits_one_or_two_minutes() {
    let settings = "min_replica_count = 0\ninitial_replica_count = 0";
    let asleep = scenario(&deployment(settings, &traffic(1.0, 1)));
    let mut waits: Vec<u64> = (0..101)
        .map(|seed| {
            let records = run(&asleep, seed);
            assert_eq!(completed(&records), 1, "it waits, and is not refused");
            records.requests[0].parts.unwrap().cold_start_ns
        })
        .collect();
    waits.sort_unstable();
    // To the nearest minute, as the specification puts it.
    let minutes = (waits[50] + 30 * SECOND) / (60 * SECOND);
    assert!((1..=2).contains(&minutes), "{} ns", waits[50]);
    assert!(waits[100] < 300 * SECOND, "{} ns", waits[100]);
}

/// The window for scaling up (ns), where a scenario writes it so.
fn scale_up_window(text: &str) -> Result<u64, String> {
    let settings = format!("min_replica_count = 1\nscale_up_window = \"{text}\"");
    let text = deployment(&settings, &traffic(1.0, 1));
    match format::parse("test", &text, Path::new("."), &Overrides::default()) {
        Ok(scenario) => match scenario.deployment.autoscaler {
            AutoscalerConfig::Fireworks(config) => Ok(config.scale_up_window),
            other => panic!("{other:?}"),
        },
        Err(error) => Err(error.diagnostics().map(ToString::to_string).collect()),
    }
}

#[test]
fn s29_durations_are_those_of_go() {
    for (text, nanos) in [
        ("90s", 90 * SECOND),
        ("1m30s", 90 * SECOND),
        ("1.5m", 90 * SECOND),
        ("1h0m0.5s", 3_600 * SECOND + SECOND / 2),
        ("1500ms", 3 * SECOND / 2),
        ("168h", 7 * 24 * 3_600 * SECOND),
        ("0", 0),
    ] {
        assert_eq!(scale_up_window(text), Ok(nanos), "{text}");
    }
    for text in ["", "30", "1d", "1 h", "s", "1h-5m"] {
        let refused = scale_up_window(text).expect_err(text);
        assert!(refused.contains("duration"), "{text}: {refused}");
    }
}

#[test]
fn s33_a_larger_world_size_is_faster_but_not_in_proportion() {
    let at = |world_size: u32, traffic: &str| {
        let settings = format!("world_size = {world_size}\n{}", replicas(1));
        run(&scenario(&deployment(&settings, traffic)), 1)
    };
    let (calm, flood) = (traffic(0.5, 100), traffic(1e6, 1_000));
    let figures = [1, 2, 4, 8].map(|world_size| {
        let calm = at(world_size, &calm);
        let speed = 1.0 / calm.between_tokens_s();
        [
            speed,
            1.0 / calm.ttft_s(),
            at(world_size, &flood).capacity(),
        ]
    });
    for pair in figures.windows(2) {
        for (before, after) in pair[0].iter().zip(&pair[1]) {
            let factor = after / before;
            assert!(factor > 1.0 && factor < 2.0, "{figures:?}");
        }
    }
}

#[test]
fn s37_the_bill_is_gpu_seconds_times_the_price() {
    // 0.001 USD a GPU-second is a nanodollar for a thousand GPU-nanoseconds.
    let rest = traffic(80.0, 24_000) + "[price]\nusd_per_gpu_hour = 3.60";
    let settings = "world_size = 2\nmin_replica_count = 1\nmax_replica_count = 3\n\
                    scale_down_window = \"30s\"";
    let records = run(&scenario(&deployment(settings, &rest)), 1);
    let totals = records.totals;
    assert!(totals.replicas_max > 1, "the count changes");
    let mut gpu_ns = 0_u128;
    let ends = records.changes.iter().skip(1).map(|change| change.at_ns);
    for (change, end) in records.changes.iter().zip(ends.chain([totals.end_ns])) {
        // Ready and draining replicas are billed, starting ones are not (B13).
        let billed = change.replicas.ready + change.replicas.draining;
        gpu_ns += u128::from(2 * billed) * u128::from(end - change.at_ns);
    }
    assert_eq!(totals.gpu_ns.billed, gpu_ns);
    assert_eq!(totals.cost_nanodollars, (gpu_ns + 500) / 1_000);
}
