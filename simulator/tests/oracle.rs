//! Leaping against stepping: the same records, gaps and changes, to the
//! nanosecond, whatever the scenario does to the batch meanwhile.

#[path = "support/meddling.rs"]
mod meddling;
mod support;

use meddling::{Meddling, meddling};
use proptest::prelude::*;
use support::{scenario, try_closely};

/// The knobs of a random scenario.
#[derive(Clone, Debug)]
struct Knobs {
    router: &'static str,
    max_outstanding: Option<u32>,
    max_num_seqs: u32,
    budget: u32,
    chunk: u32,
    block_size: u32,
    num_blocks: u32,
    watermark: f64,
    prefix_caching: bool,
    sessions: bool,
    min: u32,
    more: u32,
    semantics: &'static str,
    at_zero: &'static str,
    drain_timeout_ms: u32,
    cold_start_ms: u32,
    /// Replica counts at 400 ms intervals, in place of the autoscaler.
    script: Option<Vec<u32>>,
    rate_per_s: f64,
    world_size: u32,
    adapters: Option<AdapterKnobs>,
    mishaps: Option<Mishaps>,
    meddling: Option<Meddling>,
    seed: u64,
}

/// What goes wrong in a random scenario. Times are milliseconds.
#[derive(Clone, Debug)]
struct Mishaps {
    start_failure: Option<f64>,
    start_timeout: Option<u32>,
    slow_start: Option<f64>,
    /// Mean time to a crash, and what becomes of the requests.
    crash: Option<(u32, &'static str)>,
    first_token_timeout: Option<u32>,
    timeout: Option<u32>,
    /// Mean and attempts.
    retry: Option<(u32, u32)>,
}

fn mishaps() -> impl Strategy<Value = Mishaps> {
    let on_crash = prop::sample::select(vec!["retry", "fail"]);
    (
        prop::option::of(0.01..0.7_f64),
        prop::option::of(500..4000_u32),
        prop::option::of(0.01..1.0_f64),
        prop::option::of((1000..6000_u32, on_crash)),
        prop::option::of(1..3000_u32),
        prop::option::of(1..5000_u32),
        prop::option::of((1..1000_u32, 1..5_u32)),
    )
        .prop_map(
            |(start_failure, start_timeout, slow_start, crash, first, timeout, retry)| Mishaps {
                start_failure,
                start_timeout,
                slow_start,
                crash,
                first_token_timeout: first,
                timeout,
                retry,
            },
        )
}

fn mishaps_text(mishaps: &Mishaps) -> String {
    let mut lines = vec!["[failures]".to_owned()];
    if let Some(probability) = mishaps.start_failure {
        lines.push(format!("start_failure = {{ probability = {probability} }}"));
    }
    if let Some(timeout) = mishaps.start_timeout {
        lines.push(format!("start_timeout = \"{timeout}ms\""));
    }
    if mishaps.start_failure.is_some() || mishaps.start_timeout.is_some() {
        lines.push("start_retry = { first = \"300ms\", max = \"2s\", attempts_max = 3 }".into());
    }
    if let Some(probability) = mishaps.slow_start {
        lines.push(format!(
            "slow_start = {{ probability = {probability}, factor = {{ uniform = {{ min = 1, max = 3 }} }} }}"
        ));
    }
    if let Some((mean, on_crash)) = mishaps.crash {
        let mean = f64::from(mean) / 1000.0;
        lines.push(format!(
            "crash = {{ time_to_failure = {{ exponential = {{ mean = {mean} }} }}, on_crash = \"{on_crash}\" }}"
        ));
    }
    lines.push("[clients]".into());
    let seconds = |millis: u32| f64::from(millis) / 1000.0;
    if let Some(millis) = mishaps.first_token_timeout {
        let mean = seconds(millis);
        lines.push(format!(
            "first_token_timeout = {{ exponential = {{ mean = {mean} }} }}"
        ));
    }
    if let Some(millis) = mishaps.timeout {
        let mean = seconds(millis);
        lines.push(format!(
            "timeout = {{ log_normal = {{ mean = {mean}, cv = 1 }} }}"
        ));
    }
    if let Some((first, attempts_max)) = mishaps.retry {
        lines.push(format!(
            "retry = {{ first = \"{first}ms\", max = \"5s\", attempts_max = {attempts_max} }}"
        ));
    }
    lines.join("\n")
}

/// The knobs of a scenario's adapters.
#[derive(Clone, Debug)]
struct AdapterKnobs {
    count: u32,
    max_loras: u32,
    more_slots: u32,
    more_host_slots: u32,
    /// Loads from under a millisecond to a second.
    size_mib: f64,
    zipf: f64,
    base_share: f64,
}

fn adapter_knobs() -> impl Strategy<Value = AdapterKnobs> {
    let slots = (1..12_u32, 1..5_u32, 0..3_u32, 0..4_u32);
    (slots, 1.0..2_500.0_f64, 0.0..2.0_f64, 0.0..0.5_f64).prop_map(
        |((count, max_loras, more_slots, more_host_slots), size_mib, zipf, base_share)| {
            AdapterKnobs {
                count,
                max_loras,
                more_slots,
                more_host_slots,
                size_mib,
                zipf,
                base_share,
            }
        },
    )
}

fn knobs() -> impl Strategy<Value = Knobs> {
    let router = prop::sample::select(vec![
        "round-robin",
        "least-outstanding",
        "least-kv-use",
        "power-of-two-choices",
        "prefix-affinity",
        "adapter-affinity",
    ]);
    let semantics = prop::sample::select(vec![
        "sustained",
        "stabilized",
        "average",
        "cooldown",
        "oneshot",
    ]);
    let at_zero = prop::sample::select(vec!["spec", "fireworks-2026"]);
    let batch = (1..24_u32, 0..300_u32, 16..200_u32, 1..40_u32);
    let blocks = (0..300_u32, 0.0..0.2_f64, any::<bool>(), any::<bool>());
    let script = prop::option::of(prop::collection::vec(0..4_u32, 1..12));
    let scale = (0..3_u32, 1..4_u32, 1..200_u32, 0..4000_u32, script);
    let load = (5.0..120.0_f64, 0..2_u32, any::<u64>());
    let extras = (
        prop::option::of(adapter_knobs()),
        prop::option::of(mishaps()),
        prop::option::of(meddling()),
    );
    let load = (load, extras);
    (
        router,
        prop::option::of(1..30_u32),
        semantics,
        at_zero,
        batch,
        blocks,
        scale,
        load,
    )
        .prop_map(
            |(router, max_outstanding, semantics, at_zero, batch, blocks, scale, load)| {
                let (max_num_seqs, spare, chunk, block_size) = batch;
                let (spare_blocks, watermark, prefix_caching, sessions) = blocks;
                let (min, more, drain_timeout_ms, cold_start_ms, script) = scale;
                let ((rate_per_s, world, seed), (adapters, mishaps, meddling)) = load;
                let budget = max_num_seqs + spare;
                // Enough for the longest request, and often not for all that run.
                let num_blocks = 500_u32.div_ceil(block_size) + spare_blocks;
                Knobs {
                    router,
                    max_outstanding,
                    max_num_seqs,
                    budget,
                    chunk: chunk.min(budget),
                    block_size,
                    num_blocks,
                    watermark,
                    prefix_caching,
                    sessions,
                    min,
                    more,
                    semantics,
                    at_zero,
                    drain_timeout_ms,
                    cold_start_ms,
                    script,
                    rate_per_s,
                    world_size: 1 << world,
                    adapters,
                    mishaps,
                    meddling,
                    seed,
                }
            },
        )
}

fn text(knobs: &Knobs) -> String {
    let limit = knobs
        .max_outstanding
        .map_or(String::new(), |max| format!("max_outstanding = {max}"));
    let sessions = if knobs.sessions {
        "[workload.sessions]\nturns = { uniform = { min = 1, max = 4 } }\n\
         think_time = { exponential = { mean = 0.5 } }\ngroups = 2\nshared_tokens = 40\nmax_context_tokens = 400"
    } else {
        ""
    };
    let (adapters, max_loras) = adapter_tables(knobs.adapters.as_ref());
    let Knobs { min, more, .. } = knobs;
    let policy = match &knobs.script {
        None => format!(
            "window_semantics = \"{}\"\ntick = \"100ms\"",
            knobs.semantics
        ),
        Some(counts) => {
            let step = |(index, count)| {
                format!("{{ at = \"{}ms\", replicas = {count} }}", 400 * (index + 1))
            };
            let steps: Vec<_> = counts.iter().enumerate().map(step).collect();
            format!("policy = \"scripted\"\nsteps = [{}]", steps.join(", "))
        }
    };
    format!(
        r#"
        [deployment]
        model = "llama-3.2-1b"
        gpu = "h100"
        world_size = {world_size}
        min_replica_count = {min}
        max_replica_count = {max}
        scale_up_window = "300ms"
        scale_down_window = "500ms"
        scale_to_zero_window = "{zero}"
        {unused}
        [autoscaler]
        {policy}
        profile = "{at_zero}"
        drain_timeout = "{drain_timeout_ms}ms"
        [router]
        policy = "{router}"
        {limit}
        [batching]
        max_num_seqs = {max_num_seqs}
        max_num_batched_tokens = {budget}
        prefill_chunk = {chunk}
        block_size = {block_size}
        num_blocks = {num_blocks}
        watermark = {watermark:.3}
        prefix_caching = {prefix_caching}
        max_loras = {max_loras}
        [cold_start]
        total = "{cold_start_ms}ms"
        [workload]
        requests = 150
        [workload.arrivals]
        process = "gamma"
        rate_per_s = {rate_per_s}
        cv = 2.0
        [workload.shape]
        kind = "on-off"
        on = "2s"
        off = "3s"
        [workload.prompt_tokens]
        log_normal = {{ mean = 60, cv = 1.5 }}
        max = 300
        [workload.output_tokens]
        log_normal = {{ mean = 30, cv = 1.5 }}
        max = 100
        {sessions}
        {adapters}
        {mishaps}
        {meddling}
        "#,
        unused = unused_text(knobs),
        meddling = meddling_text(knobs),
        mishaps = knobs.mishaps.as_ref().map_or(String::new(), mishaps_text),
        world_size = knobs.world_size,
        max = min + more,
        zero = if knobs.at_zero == "spec" {
            "800ms"
        } else {
            "5m"
        },
        at_zero = knobs.at_zero,
        drain_timeout_ms = knobs.drain_timeout_ms,
        router = knobs.router,
        max_num_seqs = knobs.max_num_seqs,
        budget = knobs.budget,
        chunk = knobs.chunk,
        block_size = knobs.block_size,
        num_blocks = knobs.num_blocks,
        watermark = knobs.watermark,
        prefix_caching = knobs.prefix_caching,
        cold_start_ms = knobs.cold_start_ms,
        rate_per_s = knobs.rate_per_s,
    )
}

fn meddling_text(knobs: &Knobs) -> String {
    let limits = (knobs.min, knobs.min + knobs.more);
    let limits = knobs.script.is_none().then_some(limits);
    let text = |meddling: &Meddling| meddling.text(limits);
    knobs.meddling.as_ref().map_or(String::new(), text)
}

fn unused_text(knobs: &Knobs) -> String {
    let meddling = knobs.meddling.as_ref();
    let unused = meddling.and_then(|meddling| meddling.unused_auto_delete_ms);
    let text = |ms| format!("unused_auto_delete_duration = \"{ms}ms\"");
    unused.map_or(String::new(), text)
}

/// The tables of the adapters, and how many a batch may use.
fn adapter_tables(knobs: Option<&AdapterKnobs>) -> (String, u32) {
    let Some(knobs) = knobs else {
        return (String::new(), 8);
    };
    let slots = knobs.max_loras + knobs.more_slots;
    let tables = format!(
        "[adapters]\ncount = {}\nsize_mib = {}\nslots = {slots}\nhost_slots = {}\n\
         [workload.adapters]\nzipf = {}\nbase_share = {}",
        knobs.count,
        knobs.size_mib,
        slots + knobs.more_host_slots,
        knobs.zipf,
        knobs.base_share,
    );
    (tables, knobs.max_loras)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Conservation and Little's law are checked by every run itself: a run
    /// that does not add up ends in an error, and `try_closely` panics.
    #[test]
    fn leaping_is_stepping(knobs in knobs()) {
        let scenario = scenario(&text(&knobs));
        let leapt = try_closely(&scenario, knobs.seed, true);
        let stepped = try_closely(&scenario, knobs.seed, false);
        let (mut leapt, stepped) = match (leapt, stepped) {
            (Ok(leapt), Ok(stepped)) => (leapt, stepped),
            (leapt, stepped) => {
                prop_assert_eq!(leapt.err(), stepped.err());
                return Ok(());
            }
        };
        prop_assert!(leapt.totals.events <= stepped.totals.events);
        leapt.totals.events = stepped.totals.events;
        prop_assert_eq!(&leapt.totals, &stepped.totals);
        prop_assert_eq!(&leapt.changes, &stepped.changes);
        prop_assert_eq!(&leapt.requests, &stepped.requests);
        prop_assert_eq!(&leapt.gaps, &stepped.gaps);
    }

    #[test]
    fn the_same_seed_gives_the_same_run(knobs in knobs()) {
        let scenario = scenario(&text(&knobs));
        prop_assert_eq!(try_closely(&scenario, knobs.seed, true), try_closely(&scenario, knobs.seed, true));
    }

    /// One deployment that never waits for GPUs runs as one of a group does.
    #[test]
    fn a_pool_that_is_large_enough_changes_nothing(knobs in knobs()) {
        let mut knobs = knobs;
        knobs.meddling.get_or_insert_default().pool = None;
        let alone = try_closely(&scenario(&text(&knobs)), knobs.seed, true);
        knobs.meddling.get_or_insert_default().pool = Some((1_000_000, None));
        let pooled = try_closely(&scenario(&text(&knobs)), knobs.seed, true);
        prop_assert_eq!(alone, pooled);
    }

    /// Common random numbers: a knob of the deployment moves no arrival.
    #[test]
    fn a_knob_leaves_the_arrivals_alone(knobs in knobs()) {
        let knobs = Knobs { meddling: None, ..knobs };
        let other = Knobs { router: "round-robin", max_num_seqs: 1, min: 1, more: 0, script: None, mishaps: None, meddling: None, ..knobs.clone() };
        let arrivals = |knobs: &Knobs| {
            let mut records = try_closely(&scenario(&text(knobs)), knobs.seed, true).expect("nothing is asked for").requests;
            records.sort_by_key(|record| record.id);
            let due = records.iter().map(|record| (record.due_ns, record.prompt_tokens, record.session));
            due.collect::<Vec<_>>()
        };
        prop_assert_eq!(arrivals(&knobs), arrivals(&other));
    }
}

/// What the provider does, and how a run tells it.
const STORIES: [(&str, &str); 7] = [
    ("deleted", "DELETED"),
    ("unused", "no request received for"),
    ("spent", "spend limit"),
    ("undeleted", "started again"),
    ("updating", "UPDATING: updated"),
    ("updated", "READY: all replicas as updated"),
    ("without GPUs", "waits for GPUs"),
];

/// The random scenarios must really do what makes leaping hard.
#[test]
fn the_oracle_meets_the_hard_cases() {
    use foresail_reports::records::Outcome;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use std::collections::BTreeMap;
    let mut runner = TestRunner::deterministic();
    let mut met = BTreeMap::new();
    let mut stories = Vec::new();
    let mut meet = |what: &'static str, count: u64| *met.entry(what).or_insert(0) += count;
    for _ in 0..120 {
        let knobs = knobs().new_tree(&mut runner).unwrap().current();
        let Ok(records) = try_closely(&scenario(&text(&knobs)), knobs.seed, true) else {
            meet("refused", 1);
            continue;
        };
        for record in &records.requests {
            meet("preempted", record.preemptions.into());
            meet("cached", record.cached_tokens.into());
            meet("cold", u64::from(record.parts.unwrap().cold_start_ns > 0));
            meet(
                "waited for an adapter",
                u64::from(record.parts.unwrap().adapter_ns > 0),
            );
            meet("sent again", u64::from(record.attempts > 1));
            let is_late = record.attempts > 1 && record.outcome == Outcome::Completed;
            meet("completed in the end", is_late.into());
            let is_cut = record.outcome == Outcome::FailedTimeout && record.output_tokens > 1;
            meet("given up while it decoded", is_cut.into());
        }
        for outcome in [
            Outcome::FailedDrain,
            Outcome::RejectedScalingUp,
            Outcome::FailedCrash,
            Outcome::FailedTimeout,
            Outcome::FailedUnserved,
            Outcome::RejectedDeleted,
            Outcome::RejectedPaused,
        ] {
            let with_outcome = records.requests.iter().filter(|r| r.outcome == outcome);
            meet(outcome.name(), with_outcome.count() as u64);
        }
        stories.extend(records.changes.into_iter().map(|change| change.reason));
        let totals = &records.totals;
        meet("drained", u64::from(totals.gpu_ns.draining > 0));
        meet("crashed", totals.crashes);
        meet("failed to start", totals.start_failures);
        meet("given up", totals.starts_given_up);
        meet("lost", totals.output_tokens_retried);
        let evictions = totals.adapters.map_or(0, |adapters| adapters.evictions);
        meet("evicted an adapter", evictions);
    }
    for (what, words) in STORIES {
        let count = stories.iter().filter(|story| story.contains(words)).count();
        met.insert(what, count as u64);
    }
    let missed: Vec<_> = met.iter().filter(|(_, count)| **count == 0).collect();
    assert!(missed.is_empty(), "never met: {missed:?}; met: {met:?}");
}
