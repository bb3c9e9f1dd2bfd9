//! Four recorded runs of real autoscalers, simulated, and compared with what was
//! recorded. `recorded_runs.md` beside this folder has the figures, and what the
//! data cannot tell. The bounds here are loose: they catch a defect, not an error.
//!
//! ```text
//! FORESAIL_SHARED=... cargo test -p foresail-simulator --test recorded_runs -- --nocapture --test-threads 1
//! ```

#![allow(
    clippy::print_stderr,
    reason = "`--nocapture` shows the comparison, and a missing recording is said loudly"
)]

mod load;
mod recording;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::path::Path;

use foresail_reports::records::{Change, RequestRecord};
use load::{Job, hold_back, order, schedule, trace};
use recording::{Recording, folder};
use support::{Records, run, scenario};

/// How many times the clients' waiting is worked out anew, at most.
const ROUNDS_MAX: u32 = 40;
/// From asked for to reporting metrics: in the moderate run 120 to 180 s.
const COLD_START: &str = "150s";

/// Step times, from the moderate run's own log: the latency between tokens over
/// the sequences in flight (arrivals x tokens x that latency), less what prompts
/// take at 32 us a token (2 FLOP a parameter at half the peak of an H100).
/// Beyond 495 in flight, its highest, the last slope goes on.
const DECODE_MS: [(u32, f64); 9] = [
    (1, 6.8),
    (17, 7.4),
    (45, 8.4),
    (81, 10.1),
    (97, 10.6),
    (425, 30.4),
    (495, 37.6),
    (600, 48.0),
    (1024, 90.0),
];

/// A recorded run, and what is compared.
struct Case {
    folder: &'static str,
    /// Lines of `[autoscaler]`; `None`: what was asked for in the recording.
    autoscaler: Option<&'static str>,
    /// Most replicas there ever were.
    replicas_max: u32,
    jobs: Vec<Job>,
}

/// What a comparison comes to.
struct Comparison {
    /// Mean absolute error of replicas asked for, over time.
    asked: f64,
    /// The same of replicas that serve, if it was recorded.
    serving: Option<f64>,
    /// Mean time to first token (recorded, simulated), over the minutes with both.
    ttft_ms: Option<(f64, f64)>,
}

const fn job(start_s: f64, rate_per_s: f64, requests: u32) -> Job {
    Job {
        start_s,
        rate_per_s,
        requests,
    }
}

/// Compares, prints, and keeps to loose bounds. `None` without recordings.
fn compare(case: &Case) -> Option<Comparison> {
    let recording = Recording::read(&folder()?.join(case.folder));
    let autoscaler = case
        .autoscaler
        .map_or_else(|| script(&recording, case.replicas_max), str::to_owned);
    let (records, moved_s) = replay(case, &autoscaler);
    let completed = records.requests.len();
    let offered: u32 = case.jobs.iter().map(|job| job.requests).sum();
    assert_eq!(completed, offered as usize, "every request ends");
    let comparison = Comparison {
        asked: error(&recording.asked, |at| at_time(&records.changes, at).0),
        serving: (!recording.reporting.is_empty())
            .then(|| error(&recording.reporting, |at| at_time(&records.changes, at).1)),
        ttft_ms: ttft(&recording, &records.requests),
    };
    eprintln!("== {}", case.folder);
    eprintln!("  sending times agree to {moved_s:.2} s in the mean");
    print(&recording, &records, &comparison);
    Some(comparison)
}

/// What was asked for, as a script; no more than there ever were.
fn script(recording: &Recording, replicas_max: u32) -> String {
    let mut steps: Vec<String> = Vec::new();
    let mut before = 1;
    for &(at, replicas) in &recording.asked {
        let replicas = replicas.min(replicas_max);
        if replicas != before {
            steps.push(format!("{{ at = \"{at:.3}s\", replicas = {replicas} }}"));
            before = replicas;
        }
    }
    format!("policy = \"scripted\"\nsteps = [{}]", steps.join(", "))
}

/// Simulates until the clients' waiting agrees with how long requests take, and
/// takes the round that agrees best: where the autoscaler decides by a hair, the
/// rounds go on to differ. Also how much the sending times of that round moved (s).
fn replay(case: &Case, autoscaler: &str) -> (Records, f64) {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        let mut file = std::fs::File::create(&path).expect("a file");
        file.write_all(text.as_bytes()).expect("it is written");
    };
    write("profile.json", &profile());
    let mut requests = schedule(&case.jobs);
    let mut believed_s = vec![0.0; requests.len()];
    let mut best: Option<(Records, f64)> = None;
    for round in 0..ROUNDS_MAX {
        let (records, took_s) = simulate(&requests, folder.path(), &write, case, autoscaler);
        // Half of the news, or the waiting would overshoot from round to round.
        let share = if round == 0 { 1.0 } else { 0.5 };
        for (believed, took) in believed_s.iter_mut().zip(&took_s) {
            *believed += (took - *believed) * share;
        }
        let moved_s = hold_back(&mut requests, &believed_s);
        if best.as_ref().is_none_or(|(_, least)| moved_s < *least) {
            best = Some((records, moved_s));
        }
        if moved_s < 0.05 {
            break;
        }
    }
    best.expect("there was a round")
}

/// A run, and how long each request took (s).
fn simulate(
    requests: &[load::Sent],
    folder: &Path,
    write: &impl Fn(&str, &str),
    case: &Case,
    autoscaler: &str,
) -> (Records, Vec<f64>) {
    let order = order(requests);
    write("requests.csv", &trace(requests, &order));
    let records = run(&scenario(&text(folder, case, autoscaler)), 1);
    let mut took_s = vec![0.0; requests.len()];
    for record in &records.requests {
        let index = order[usize::try_from(record.id).expect("a position")];
        took_s[index] = (record.end_ns - record.due_ns) as f64 / 1e9;
    }
    (records, took_s)
}

fn text(folder: &Path, case: &Case, autoscaler: &str) -> String {
    format!(
        r#"
        [deployment]
        model = "llama-3.1-8b"
        gpu = "h100"
        world_size = 1
        min_replica_count = 1
        max_replica_count = {}
        [autoscaler]
        {autoscaler}
        [batching]
        max_num_seqs = 1024
        max_num_batched_tokens = 8192
        block_size = 16
        [step_time]
        model = "profile"
        file = "{folder}/profile.json"
        [cold_start]
        total = "{COLD_START}"
        [workload]
        trace = "{folder}/requests.csv"
        "#,
        case.replicas_max,
        folder = folder.display(),
    )
}

fn profile() -> String {
    let decode: Vec<String> = DECODE_MS
        .iter()
        .map(|(batch, ms)| {
            let seconds = ms / 1e3;
            format!(r#"{{"batch": {batch}, "past_tokens": 0, "seconds": {seconds}}}"#)
        })
        .collect();
    format!(
        r#"{{"schema": "foresail.profile/1",
            "provenance": {{"engine": "vllm", "model": "llama-3.1-8b", "gpu": "h100", "world_size": 1,
                "precision": "bf16", "measured_on": "2025-12-10", "source": "a recorded run"}},
            "decode": [{}],
            "prefill": [{{"tokens": 1, "past_tokens": 0, "seconds": 0.000032}},
                {{"tokens": 8192, "past_tokens": 0, "seconds": 0.262144}}]}}"#,
        decode.join(", ")
    )
}

/// Replicas asked for, and replicas that serve, at a time (s).
fn at_time(changes: &[Change], at_s: f64) -> (u32, u32) {
    let before = changes
        .iter()
        .take_while(|change| change.at_ns as f64 / 1e9 <= at_s);
    before.last().map_or((1, 1), |change| {
        (change.replicas.target, change.replicas.ready)
    })
}

/// Mean absolute error over the recorded times.
fn error(recorded: &[(f64, u32)], simulated: impl Fn(f64) -> u32) -> f64 {
    let sum: u32 = recorded
        .iter()
        .map(|&(at, replicas)| replicas.abs_diff(simulated(at)))
        .sum();
    f64::from(sum) / recorded.len() as f64
}

/// Mean time to first token over the minutes that have both.
fn ttft(recording: &Recording, requests: &[RequestRecord]) -> Option<(f64, f64)> {
    let pairs: Vec<(f64, f64)> = recording
        .ttft_ms
        .iter()
        .filter(|(_, ms)| *ms > 0.0)
        .filter_map(|&(at, ms)| Some((ms, ttft_of_minute(requests, at)?)))
        .collect();
    let count = pairs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / count;
    (!pairs.is_empty()).then(|| (mean(|pair| pair.0), mean(|pair| pair.1)))
}

/// Mean time to the first tokens that came in the minute before `at_s` (ms).
fn ttft_of_minute(requests: &[RequestRecord], at_s: f64) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for request in requests {
        let Some(first) = request.first_token_ns else {
            continue;
        };
        let came_s = first as f64 / 1e9;
        if came_s > at_s - 60.0 && came_s <= at_s {
            sum += (first - request.due_ns) as f64 / 1e6;
            count += 1;
        }
    }
    (count > 0).then(|| sum / f64::from(count))
}

fn print(recording: &Recording, records: &Records, comparison: &Comparison) {
    eprintln!(
        "  replicas asked for: mean absolute error {:.2}",
        comparison.asked
    );
    if let Some(serving) = comparison.serving {
        eprintln!("  replicas serving: mean absolute error {serving:.2}");
    }
    for replicas in 2..=recording.asked.iter().map(|&(_, n)| n).max().unwrap_or(1) {
        let simulated = records
            .changes
            .iter()
            .find(|change| change.replicas.target >= replicas)
            .map(|change| change.at_ns as f64 / 1e9);
        let seconds = |at: Option<f64>| at.map_or("never".to_owned(), |at| format!("{at:.0} s"));
        eprintln!(
            "  first asked for {replicas}: recorded {}, simulated {}",
            seconds(recording.first_asked(replicas)),
            seconds(simulated)
        );
    }
    for &(at, replicas) in &recording.asked {
        let (asked, serving) = at_time(&records.changes, at);
        let near = |list: &[(f64, f64)]| {
            let found = list.iter().find(|(time, _)| (time - at).abs() < 2.0);
            found.map_or("-".to_owned(), |(_, ms)| format!("{ms:.0}"))
        };
        let ms =
            ttft_of_minute(&records.requests, at).map_or("-".to_owned(), |ms| format!("{ms:.0}"));
        let reporting = recording
            .reporting
            .iter()
            .find(|(time, _)| (time - at).abs() < 2.0);
        let reporting = reporting.map_or("-".to_owned(), |(_, n)| n.to_string());
        eprintln!(
            "  {at:>5.0} s  asked {replicas} / {asked}  serving {reporting} / {serving}  ttft {} / {ms} ms",
            near(&recording.ttft_ms)
        );
    }
    if let Some((recorded, simulated)) = comparison.ttft_ms {
        eprintln!("  mean TTFT: recorded {recorded:.0} ms, simulated {simulated:.0} ms");
    }
}

/// What the rest is calibrated on.
#[test]
fn the_moderate_run_under_the_model_based_autoscaler() {
    let case = Case {
        folder: "model-based-moderate-parallel-extended-20251210-071015",
        autoscaler: None,
        replicas_max: 3,
        jobs: vec![
            job(298.0, 5.0, 3000),
            job(478.0, 12.0, 7200),
            job(658.0, 10.0, 6000),
            job(838.0, 10.0, 6000),
        ],
    };
    let Some(comparison) = compare(&case) else {
        return;
    };
    assert!(comparison.asked < 0.2, "{}", comparison.asked);
    assert!(comparison.serving.is_some_and(|error| error < 0.5));
}

#[test]
fn the_high_run_under_the_model_based_autoscaler() {
    let case = Case {
        folder: "model-based-high-parallel-20251209-224705",
        autoscaler: None,
        replicas_max: 6,
        jobs: vec![
            job(0.0, 20.0, 18_000),
            job(120.0, 30.0, 27_000),
            job(240.0, 15.0, 13_500),
        ],
    };
    let Some(comparison) = compare(&case) else {
        return;
    };
    assert!(comparison.serving.is_some_and(|error| error < 0.6));
    let (recorded, simulated) = comparison.ttft_ms.expect("it was recorded");
    assert!(simulated > recorded / 3.0 && simulated < recorded * 3.0);
}

#[test]
fn the_high_run_under_the_saturation_autoscaler() {
    let case = Case {
        folder: "capacity-based-high-parallel-20251209-153346",
        autoscaler: Some(
            "policy = \"wva-saturation\"\nkvCacheThreshold = 0.5\nqueueLengthThreshold = 5\n\
             kvSpareTrigger = 0.1\nqueueSpareTrigger = 3\ninterval = \"60s\"",
        ),
        replicas_max: 10,
        jobs: vec![
            job(165.0, 20.0, 18_000),
            job(298.0, 30.0, 27_000),
            job(418.0, 15.0, 13_500),
        ],
    };
    let Some(comparison) = compare(&case) else {
        return;
    };
    assert!(comparison.asked < 0.7, "{}", comparison.asked);
    assert!(comparison.serving.is_some_and(|error| error < 0.7));
}

#[test]
fn the_moderate_run_under_the_hpa() {
    let case = Case {
        folder: "moderate-load-hpa-20251124-161753",
        autoscaler: Some(
            "policy = \"k8s-hpa\"\n\
             metrics = [{ metric = \"queue\", averageValue = 20 }, { metric = \"kv-usage\", averageValue = 0.5 }]\n\
             behavior = { scaleUp = { stabilizationWindowSeconds = 0, selectPolicy = \"Max\", policies = [\
             { type = \"Percent\", value = 100, periodSeconds = 15 }, { type = \"Pods\", value = 4, periodSeconds = 15 }] }, \
             scaleDown = { stabilizationWindowSeconds = 0, selectPolicy = \"Min\", policies = [{ type = \"Pods\", value = 1, periodSeconds = 15 }] } }",
        ),
        replicas_max: 10,
        jobs: vec![
            job(78.0, 10.0, 3600),
            job(222.0, 15.0, 5400),
            job(335.0, 12.0, 4320),
        ],
    };
    let Some(comparison) = compare(&case) else {
        return;
    };
    assert!(comparison.asked < 1.0, "{}", comparison.asked);
}
