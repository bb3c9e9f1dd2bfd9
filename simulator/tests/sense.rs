//! What any planner expects, held over random scenarios: more GPUs a replica
//! answer sooner and carry more, but not as many times more; more replicas
//! carry more; patience before scaling down costs money and saves waiting.

mod support;

use foresail_reports::records::RequestRecord;
use proptest::prelude::*;
use support::{Records, run, scenario};

/// A deployment of an 8B model on H100s, with lengths that keep KV memory from
/// being the limit: that grows faster than the world size, and would hide the rest.
fn deployment(world_size: u32, batch: u32, scaling: &str, workload: &str) -> String {
    format!(
        r#"
        [deployment]
        model = "llama-3-8b"
        gpu = "h100"
        world_size = {world_size}
        {scaling}
        [batching]
        max_num_seqs = {batch}
        max_num_batched_tokens = 2048
        {workload}
        "#
    )
}

fn fixed(replicas: u32) -> String {
    format!(
        "min_replica_count = {replicas}\nmax_replica_count = {replicas}\n[autoscaler]\npolicy = \"fixed\""
    )
}

fn traffic(process: &str, rate_per_s: f64, prompt: u32, output: u32, end: &str) -> String {
    format!(
        r#"
        [workload]
        {end}
        arrivals = {{ process = "{process}", rate_per_s = {rate_per_s} }}
        prompt_tokens = {{ log_normal = {{ mean = {prompt}, cv = 0.8 }}, max = 3000 }}
        output_tokens = {{ log_normal = {{ mean = {output}, cv = 0.8 }}, max = 1500 }}
        "#
    )
}

fn ttft(record: &RequestRecord) -> u64 {
    record.first_token_ns.expect("every request is served") - record.due_ns
}

/// Requests a second when all come at once: what the deployment can carry.
fn capacity(records: &Records) -> f64 {
    records.requests.len() as f64 / (records.totals.end_ns as f64 / 1e9)
}

/// Requests that wait, for a cold start or in a queue (s).
fn waits_s(records: &Records) -> f64 {
    let wait = |record: &RequestRecord| {
        record.parts.unwrap().cold_start_ns + record.parts.unwrap().queue_ns
    };
    records
        .requests
        .iter()
        .map(|record| wait(record) as f64 / 1e9)
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_larger_world_size_answers_sooner_and_carries_more_but_not_in_proportion(
        prompt in 64..1500_u32, output in 32..300_u32, batch in 16..160_u32, seed in any::<u64>(),
    ) {
        let calm = traffic("poisson", 1.0, prompt, output, "requests = 150");
        let flood = traffic("constant", 1e6, prompt, output, "requests = 800");
        let at = |world_size, workload: &str| {
            run(&scenario(&deployment(world_size, batch, &fixed(1), workload)), seed)
        };
        let mut before: Option<(f64, f64)> = None;
        for world_size in [1, 2, 4, 8] {
            let first_token_s = at(world_size, &calm).mean_s(ttft);
            let carried = capacity(&at(world_size, &flood));
            if let Some((first_token_before, carried_before)) = before {
                prop_assert!(first_token_s < first_token_before, "TTFT {first_token_s} at {world_size}");
                prop_assert!(carried > carried_before, "capacity {carried} at {world_size}");
                prop_assert!(carried < 2.0 * carried_before, "capacity {carried} at {world_size}");
            }
            before = Some((first_token_s, carried));
        }
    }

    #[test]
    fn more_replicas_carry_more(
        prompt in 64..1500_u32, output in 32..300_u32, batch in 8..100_u32, seed in any::<u64>(),
    ) {
        let flood = traffic("constant", 1e6, prompt, output, "requests = 4000");
        let carried: Vec<f64> = [1, 2, 3, 5, 8]
            .map(|replicas| capacity(&run(&scenario(&deployment(1, batch, &fixed(replicas), &flood)), seed)))
            .into();
        prop_assert!(carried.is_sorted(), "{carried:?}");
        prop_assert!(carried[4] > 3.0 * carried[0], "{carried:?}");
    }

    /// Over several seeds together: in one, a replica that leaves early may by
    /// luck leave the others with a better mix.
    #[test]
    fn a_longer_scale_down_window_costs_more_and_waits_less(
        rate in 8.0..30.0_f64, on in 60..200_u32, off in 60..300_u32, cold in 20..90_u32,
        window in 15..40_u32, seed in 0..1_000_000_u64,
    ) {
        let end = "duration = \"40m\"";
        let shape = format!("shape = {{ kind = \"on-off\", on = \"{on}s\", off = \"{off}s\" }}");
        let workload = traffic("poisson", rate, 300, 150, end) + &shape;
        let with_window = |window: u32| {
            let scaling = format!(
                "min_replica_count = 1\nmax_replica_count = 4\nscale_up_window = \"10s\"\n\
                 scale_down_window = \"{window}s\"\n[cold_start]\ntotal = \"{cold}s\""
            );
            let scenario = scenario(&deployment(1, 32, &scaling, &workload));
            let runs: Vec<_> = (seed..seed + 3).map(|seed| run(&scenario, seed)).collect();
            let cost: u128 = runs.iter().map(|run| run.totals.cost_nanodollars).sum();
            (cost as f64 / 1e9, runs.iter().map(waits_s).sum::<f64>())
        };
        let (short_cost, short_waits) = with_window(window);
        let (long_cost, long_waits) = with_window(window * 20);
        prop_assert!(long_cost >= short_cost, "costs {short_cost} and {long_cost} USD");
        prop_assert!(long_waits <= short_waits, "waits {short_waits} and {long_waits} s");
    }

    #[test]
    fn a_longer_window_to_zero_costs_more_and_finds_fewer_cold(
        rate_per_hour in 2.0..40.0_f64, window in 60..600_u32, seed in any::<u64>(),
    ) {
        let workload = traffic("poisson", rate_per_hour / 3600.0, 300, 150, "duration = \"48h\"");
        let with_window = |window: u32| {
            let scaling = format!(
                "min_replica_count = 0\nscale_to_zero_window = \"{window}s\"\n[cold_start]\ntotal = \"75s\""
            );
            run(&scenario(&deployment(1, 32, &scaling, &workload)), seed).totals
        };
        let (short, long) = (with_window(window), with_window(window * 3));
        prop_assert!(long.cost_nanodollars >= short.cost_nanodollars);
        prop_assert!(long.waited_for_cold_start <= short.waited_for_cold_start);
    }
}
