//! Leaping against stepping where everything happens at once. All times are whole
//! ticks: steps, gaps between requests, timeouts, waits, starts and crashes. So
//! requests come, are given up, and move from replica to replica just as steps
//! end, which random times hardly ever do.

mod support;

use std::io::Write;
use std::ops::ControlFlow;

use foresail_core::time::{MILLISECOND, Nanos};
use foresail_scenarios::workload::{Content, Request};
use foresail_simulator::{Options, simulate};
use proptest::prelude::*;
use support::{Records, scenario};

/// A step takes one tick, or two if it also computes prompts.
const TICK: Nanos = 10 * MILLISECOND;

#[derive(Clone, Debug)]
struct Knobs {
    router: &'static str,
    max_outstanding: u32,
    max_num_seqs: u32,
    chunk: u32,
    spare_blocks: u32,
    at_zero: &'static str,
    /// Ticks.
    cold_start: u64,
    drain_timeout: u64,
    first_token_timeout: Option<u64>,
    timeout: Option<u64>,
    /// Ticks of the first wait, and attempts.
    retry: Option<(u64, u32)>,
    crash: Option<(u64, &'static str)>,
    /// Replica counts, 60 ticks apart.
    script: Vec<u32>,
    /// For each request the ticks since the one before, prompt and output tokens.
    requests: Vec<(u64, u32, u32)>,
}

fn knobs() -> impl Strategy<Value = Knobs> {
    let routers = vec![
        "round-robin",
        "least-outstanding",
        "least-kv-use",
        "power-of-two-choices",
    ];
    let router = (prop::sample::select(routers), 1..12_u32);
    let batch = (1..5_u32, 1..40_u32, 0..12_u32);
    let at_zero = prop::sample::select(vec!["spec", "fireworks-2026"]);
    let start = (at_zero, 0..40_u64, 1..60_u64);
    let timeouts = (
        prop::option::of(1..30_u64),
        prop::option::of(1..80_u64),
        prop::option::of((1..12_u64, 1..5_u32)),
    );
    // Crashes are a second or more apart on average.
    let on_crash = prop::sample::select(vec!["retry", "fail"]);
    let crash = prop::option::of((100..160_u64, on_crash));
    let script = prop::collection::vec(0..4_u32, 1..8);
    let requests = prop::collection::vec((0..8_u64, 1..50_u32, 1..40_u32), 1..60);
    (router, batch, start, timeouts, crash, script, requests).prop_map(
        |(router, batch, start, timeouts, crash, script, requests)| Knobs {
            router: router.0,
            max_outstanding: router.1,
            max_num_seqs: batch.0,
            chunk: batch.1,
            spare_blocks: batch.2,
            at_zero: start.0,
            cold_start: start.1,
            drain_timeout: start.2,
            first_token_timeout: timeouts.0,
            timeout: timeouts.1,
            retry: timeouts.2,
            crash,
            script,
            requests,
        },
    )
}

fn millis(ticks: u64) -> u64 {
    ticks * TICK / MILLISECOND
}

fn text(knobs: &Knobs, profile: &str) -> String {
    let seconds = |ticks: u64| millis(ticks) as f64 / 1000.0;
    let steps: Vec<_> = (1..)
        .zip(&knobs.script)
        .map(|(nth, count)| format!("{{ at = \"{}ms\", replicas = {count} }}", millis(60 * nth)))
        .collect();
    let mut mishaps = String::new();
    if let Some((ticks, on_crash)) = knobs.crash {
        mishaps += &format!(
            "[failures]\ncrash = {{ time_to_failure = {}, on_crash = \"{on_crash}\" }}\n",
            seconds(ticks)
        );
    }
    mishaps += "[clients]\n";
    if let Some(ticks) = knobs.first_token_timeout {
        mishaps += &format!("first_token_timeout = {}\n", seconds(ticks));
    }
    if let Some(ticks) = knobs.timeout {
        mishaps += &format!("timeout = {}\n", seconds(ticks));
    }
    if let Some((ticks, attempts_max)) = knobs.retry {
        mishaps += &format!(
            "retry = {{ first = \"{}ms\", jitter = 1, attempts_max = {attempts_max} }}\n",
            millis(ticks)
        );
    }
    format!(
        r#"
        [deployment]
        model = "llama-3.2-1b"
        gpu = "h100"
        world_size = 1
        initial_replica_count = 1
        min_replica_count = 0
        max_replica_count = 4
        [autoscaler]
        policy = "scripted"
        steps = [{steps}]
        profile = "{at_zero}"
        drain_timeout = "{drain_timeout}ms"
        [router]
        policy = "{router}"
        max_outstanding = {max_outstanding}
        [batching]
        max_num_seqs = {max_num_seqs}
        max_num_batched_tokens = 64
        prefill_chunk = {chunk}
        block_size = 8
        num_blocks = {num_blocks}
        watermark = 0
        [step_time]
        model = "profile"
        file = "{profile}"
        [cold_start]
        total = "{cold_start}ms"
        [workload]
        requests = 1
        arrivals = {{ rate_per_s = 1 }}
        prompt_tokens = 1
        output_tokens = 1
        {mishaps}
        "#,
        steps = steps.join(", "),
        at_zero = knobs.at_zero,
        drain_timeout = millis(knobs.drain_timeout),
        router = knobs.router,
        max_outstanding = knobs.max_outstanding,
        max_num_seqs = knobs.max_num_seqs,
        chunk = knobs.chunk,
        num_blocks = 12 + knobs.spare_blocks,
        cold_start = millis(knobs.cold_start),
    )
}

/// Decode steps, and what prompts add, take one tick whatever the batch.
fn profile(folder: &tempfile::TempDir) -> String {
    let path = folder.path().join("ticks.json");
    let seconds = TICK as f64 / 1e9;
    let decode = [1, 2, 4]
        .map(|batch| format!(r#"{{"batch": {batch}, "past_tokens": 0, "seconds": {seconds}}}"#));
    let text = format!(
        r#"{{"schema": "foresail.profile/1",
            "provenance": {{"engine": "none", "model": "none", "gpu": "none", "world_size": 1,
                "precision": "bf16", "measured_on": "2026-11-21", "source": "coincidences test"}},
            "decode": [{}],
            "prefill": [{{"tokens": 1, "past_tokens": 0, "seconds": {seconds}}},
                {{"tokens": 64, "past_tokens": 0, "seconds": {seconds}}}]}}"#,
        decode.join(", ")
    );
    std::fs::File::create(&path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    path.display().to_string()
}

fn play(knobs: &Knobs, profile: &str, leaps: bool) -> Records {
    let scenario = scenario(&text(knobs, profile));
    let mut due = 0;
    let requests = knobs
        .requests
        .iter()
        .map(|&(gap, prompt_tokens, output_tokens)| {
            due += gap * TICK;
            Ok(Request {
                due,
                prompt_tokens,
                output_tokens,
                session: None,
                content: Content::Unique,
                adapter: None,
            })
        });
    let mut records = Records {
        gaps: Some(Default::default()),
        ..Records::default()
    };
    let options = Options { seed: 1, leaps };
    let go_on = |_| ControlFlow::Continue(());
    records.totals = simulate(&scenario, requests, options, &mut records, go_on)
        .unwrap_or_else(|error| panic!("{error}"));
    records
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn leaping_is_stepping_when_everything_happens_at_once(knobs in knobs()) {
        let folder = tempfile::tempdir().unwrap();
        let profile = profile(&folder);
        let mut leapt = play(&knobs, &profile, true);
        let stepped = play(&knobs, &profile, false);
        leapt.totals.events = stepped.totals.events;
        let pairs = leapt.requests.iter().zip(&stepped.requests);
        for (leapt, stepped) in pairs {
            prop_assert_eq!(leapt, stepped);
        }
        prop_assert_eq!(leapt.requests.len(), stepped.requests.len());
        prop_assert_eq!(&leapt.totals, &stepped.totals);
        prop_assert_eq!(&leapt.changes, &stepped.changes);
        prop_assert_eq!(&leapt.gaps, &stepped.gaps);
        for record in &stepped.requests {
            prop_assert!(record.end_ns.is_multiple_of(TICK), "{record:?}");
        }
    }
}
