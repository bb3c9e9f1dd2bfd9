//! The simulator against queueing theory. A replica whose steps all take the
//! same time, with a batch of one, is a server whose service time is its
//! output length; so the textbook formulas apply, and the whole simulator,
//! batch scheduler included, has to reproduce them.
//!
//! Each figure is the mean over independent seeds and must lie within four
//! standard errors of theory, plus what discreteness costs: a chance of about
//! one in ten thousand to fail if the simulator is right. Seeds are fixed.

#![allow(
    clippy::print_stderr,
    reason = "`--nocapture` shows how close the figures are"
)]

mod support;

use std::io::Write;

use support::{mean_and_error, run, scenario};

/// Seconds of one step; service times are whole steps.
const STEP_S: f64 = 1e-3;

fn profile(folder: &tempfile::TempDir) -> String {
    let path = folder.path().join("constant.json");
    let text = format!(
        r#"{{"schema": "foresail.profile/1",
            "provenance": {{"engine": "none", "model": "none", "gpu": "none", "world_size": 1,
                "precision": "bf16", "measured_on": "2026-11-21", "source": "theory test"}},
            "decode": [{{"batch": 1, "past_tokens": 0, "seconds": {STEP_S}}}],
            "prefill": [{{"tokens": 1, "past_tokens": 0, "seconds": 0.0}}]}}"#
    );
    std::fs::File::create(&path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    path.display().to_string()
}

/// `servers` servers with one queue, mean service time 1 s.
fn queue(servers: u32, rate_per_s: f64, service: &str, requests: u32, profile: &str) -> String {
    format!(
        r#"
        [deployment]
        model = "llama-3.2-1b"
        gpu = "h100"
        world_size = 1
        initial_replica_count = {servers}
        min_replica_count = {servers}
        max_replica_count = {servers}
        [autoscaler]
        policy = "fixed"
        [batching]
        max_num_seqs = 1
        max_num_batched_tokens = 1
        block_size = 1024
        num_blocks = 1000
        watermark = 0
        [router]
        policy = "least-outstanding"
        max_outstanding = 1
        [step_time]
        model = "profile"
        file = "{profile}"
        [workload]
        requests = {requests}
        [workload.arrivals]
        process = "poisson"
        rate_per_s = {rate_per_s}
        [workload.prompt_tokens]
        fixed = 1
        [workload.output_tokens]
        {service}
        "#
    )
}

/// Mean time in the system over seeds, with its standard error.
fn time_in_system(text: &str, seeds: u64) -> (f64, f64) {
    let scenario = scenario(text);
    let mean = |seed| run(&scenario, seed).mean_s(|record| record.end_ns - record.due_ns);
    mean_and_error(&(1..=seeds).map(mean).collect::<Vec<_>>())
}

fn assert_agrees(what: &str, (mean, error): (f64, f64), theory: f64) {
    // The first token takes no step, and lengths are whole tokens.
    let discreteness = 2.0 * STEP_S;
    eprintln!("{what}: {mean:.4} ± {error:.4} s, theory {theory:.4} s");
    assert!(
        error < 0.05 * theory,
        "{what}: too noisy to tell ({mean} ± {error})"
    );
    assert!(
        (mean - theory).abs() < 4.0 * error + discreteness,
        "{what}: {mean} ± {error}, theory {theory}"
    );
}

const EXPONENTIAL: &str = "exponential = { mean = 1000 }";
const FIXED: &str = "fixed = 1001";

#[test]
fn m_m_1() {
    let folder = tempfile::tempdir().unwrap();
    for load in [0.3, 0.7] {
        let text = queue(1, load, EXPONENTIAL, 20_000, &profile(&folder));
        assert_agrees("M/M/1", time_in_system(&text, 20), 1.0 / (1.0 - load));
    }
}

#[test]
fn m_d_1() {
    let folder = tempfile::tempdir().unwrap();
    for load in [0.3, 0.7] {
        let text = queue(1, load, FIXED, 20_000, &profile(&folder));
        // Pollaczek and Khinchine: the wait is half that of M/M/1.
        assert_agrees(
            "M/D/1",
            time_in_system(&text, 20),
            1.0 + load / (2.0 * (1.0 - load)),
        );
    }
}

/// The probability that all servers are busy (Erlang, 1917), by the recursion of Erlang B.
fn erlang_c(servers: u32, offered: f64) -> f64 {
    let blocked = (1..=servers).fold(1.0, |b, n| offered * b / (f64::from(n) + offered * b));
    let load = offered / f64::from(servers);
    blocked / (1.0 - load + load * blocked)
}

#[test]
fn m_m_c() {
    let folder = tempfile::tempdir().unwrap();
    for (servers, load) in [(2, 0.7), (8, 0.8)] {
        let rate = f64::from(servers) * load;
        let text = queue(servers, rate, EXPONENTIAL, 30_000, &profile(&folder));
        let wait = erlang_c(servers, rate) / (f64::from(servers) - rate);
        assert_agrees("M/M/c", time_in_system(&text, 20), 1.0 + wait);
    }
}

/// A deployment that goes to zero after an idle window, with requests that take no time.
fn to_zero(
    rate_per_hour: f64,
    requests: u32,
    window: &str,
    idle_from: &str,
    profile: &str,
) -> String {
    format!(
        r#"
        [deployment]
        model = "llama-3.2-1b"
        gpu = "h100"
        world_size = 1
        min_replica_count = 0
        scale_to_zero_window = "{window}"
        [autoscaler]
        idle_from = "{idle_from}"
        [batching]
        max_num_seqs = 1
        max_num_batched_tokens = 1
        [step_time]
        model = "profile"
        file = "{profile}"
        [cold_start]
        total = "75s"
        [workload]
        requests = {requests}
        [workload.arrivals]
        process = "poisson"
        rate_per_s = {}
        [workload.prompt_tokens]
        fixed = 1
        [workload.output_tokens]
        fixed = 1
        "#,
        rate_per_hour / 3600.0
    )
}

/// The share of requests that find no replica ready.
#[test]
fn scale_to_zero() {
    let folder = tempfile::tempdir().unwrap();
    let profile = profile(&folder);
    let cold_s = 75.0;
    let cases = [
        (1.0, 1500, 3600.0, "1h"),
        (4.0, 6000, 300.0, "5m"),
        (12.0, 6000, 300.0, "5m"),
    ];
    for (rate_per_hour, requests, window_s, window) in cases {
        let rate: f64 = rate_per_hour / 3600.0;
        let (arrivals_while_cold, survival) = (rate * cold_s, libm::exp(rate * window_s));
        // The timer begins again when the replica is ready: a cycle has, on
        // average, one request that wakes, those during the cold start, and
        // e^(rate window) - 1 until a gap as long as the window.
        let from_active = (1.0 + arrivals_while_cold) / (arrivals_while_cold + survival);
        // The timer runs from the last request, cold start or not; the window
        // is longer than the cold start, so it cannot end during it.
        let from_received = (1.0 + arrivals_while_cold) / survival;
        for (idle_from, theory) in [
            ("last-active", from_active),
            ("last-received", from_received),
        ] {
            let scenario = scenario(&to_zero(
                rate_per_hour,
                requests,
                window,
                idle_from,
                &profile,
            ));
            let share = |seed| {
                let totals = run(&scenario, seed).totals;
                totals.waited_for_cold_start as f64 / totals.offered as f64
            };
            let (mean, error) = mean_and_error(&(1..=8).map(share).collect::<Vec<_>>());
            eprintln!(
                "{rate_per_hour}/h, {window}, {idle_from}: {mean:.4} ± {error:.4}, theory {theory:.4}"
            );
            // The autoscaler looks once a second: the window is up to a second longer.
            let tick = theory * rate * 1.0;
            assert!(
                (mean - theory).abs() < 4.0 * error + tick,
                "{mean} ± {error}, theory {theory}"
            );
        }
    }
}
