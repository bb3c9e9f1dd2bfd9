//! `foresail gate`.

use std::fs;

use foresail_reports::Summary;
use foresail_reports::summary::{Degraded, LatencySummary, Measured, Source};
use serde_json::Value;

use crate::sandbox::{Ended, Sandbox};

/// A sandbox with a simulated run, of which measured ones are made.
fn simulated() -> (Sandbox, Summary) {
    let sandbox = Sandbox::new();
    let arguments = ["simulate", "small.toml", "--out", "simulated", "--quiet"];
    sandbox.run(&arguments).with_code(0);
    let summary = Summary::from_json(&sandbox.read("simulated/summary.json")).unwrap();
    (sandbox, summary)
}

/// The run as if it had been measured, with another seed and latencies so many times as long.
fn measured(summary: &Summary, seed: u64, times: f64) -> Summary {
    let scaled = |latency: Option<LatencySummary>| {
        latency.map(|latency| LatencySummary {
            mean: latency.mean * times,
            p50: latency.p50 * times,
            p90: latency.p90 * times,
            p95: latency.p95 * times,
            p99: latency.p99 * times,
            max: latency.max * times,
        })
    };
    Summary {
        source: Source::Measured,
        seed,
        ttft_s: scaled(summary.ttft_s),
        tpot_s: scaled(summary.tpot_s),
        measured: Some(Box::new(Measured::default())),
        ..summary.clone()
    }
}

fn write(sandbox: &Sandbox, folder: &str, summary: &Summary) {
    fs::create_dir_all(sandbox.path(folder)).unwrap();
    sandbox.write(
        &format!("{folder}/summary.json"),
        summary.to_json().unwrap(),
    );
}

/// Five runs a side with a little noise, those of the candidate so many times as slow.
fn pairs(times: f64) -> Sandbox {
    let (sandbox, summary) = simulated();
    for (seed, noise) in (1..).zip([0.000, 0.004, -0.003, 0.001, -0.002]) {
        let run = |times| measured(&summary, seed, times);
        write(&sandbox, &format!("base/run-{seed}"), &run(1.0 + noise));
        write(
            &sandbox,
            &format!("new/run-{seed}"),
            &run(times * (1.0 - noise)),
        );
    }
    sandbox
}

const GATE: [&str; 5] = ["gate", "--baseline", "base", "--candidate", "new"];

fn gate(sandbox: &Sandbox, arguments: &[&str]) -> Ended {
    sandbox.run(&[&GATE, arguments].concat())
}

#[test]
fn as_fast_as_before_passes() {
    let ended = gate(&pairs(1.0), &[]).with_code(0);
    assert!(
        ended
            .stdout
            .starts_with("GATE  PASS · small · 5 pairs of runs, by seed"),
        "{}",
        ended.stdout
    );
}

#[test]
fn slower_fails_and_says_what_is() {
    let ended = gate(&pairs(1.05), &[]).with_code(3);
    assert!(ended.stdout.contains("✗ tpot.mean"), "{}", ended.stdout);
    assert!(ended.stdout.contains("+5.0 %"), "{}", ended.stdout);
    gate(&pairs(1.05), &["--max-change", "tpot.mean +10%"]).with_code(0);
}

#[test]
fn a_baseline_in_a_file_says_the_same() {
    let sandbox = pairs(1.05);
    sandbox
        .run(&["gate", "--save-baseline", "base.json", "base"])
        .with_code(0);
    assert!(sandbox.read("base.json").len() < 100_000);
    let arguments = ["gate", "--baseline", "base.json", "--candidate", "new"];
    let of_file = sandbox.run(&arguments).with_code(3);
    assert_eq!(of_file.stdout, gate(&sandbox, &[]).stdout);
}

#[test]
fn what_the_runs_do_not_tell_ends_as_it_is_wanted() {
    let sandbox = pairs(1.0);
    // One pair is no pair.
    let one = [
        "gate",
        "--baseline",
        "base/run-1",
        "--candidate",
        "new/run-1",
    ];
    let ended = sandbox.run(&one).with_code(4);
    assert!(
        ended.stdout.contains("run each side at least twice"),
        "{}",
        ended.stdout
    );
    for (how, code) in [("pass", 0), ("fail", 3), ("degraded", 4)] {
        sandbox
            .run(&[&one[..], &["--inconclusive", how]].concat())
            .with_code(code);
    }
}

#[test]
fn objectives_need_no_baseline() {
    let sandbox = pairs(1.0);
    let judged =
        |objective: &str| sandbox.run(&["gate", "--candidate", "new", "--objective", objective]);
    judged("ttft.p99 < 10m").with_code(0);
    let ended = judged("ttft.p99 < 1us").with_code(3);
    assert!(ended.stdout.contains("✗ ttft.p99"), "{}", ended.stdout);
    // The scenario's own are judged beside it.
    assert!(ended.stdout.contains("✓ success_rate"), "{}", ended.stdout);
    let ended = judged("tftf.p99 < 1s").with_code(2);
    assert!(
        ended.stderr.contains("did you mean `ttft.p99`?"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("^^^^^^^^"), "{}", ended.stderr);
    let nothing = ["gate", "--candidate", "new", "--no-scenario-objectives"];
    let ended = sandbox.run(&nothing).with_code(2);
    assert!(
        ended.stderr.contains("nothing to judge by"),
        "{}",
        ended.stderr
    );
}

#[test]
fn degraded_runs_are_not_judged() {
    let sandbox = pairs(1.0);
    let mut run = Summary::from_json(&sandbox.read("new/run-2/summary.json")).unwrap();
    run.measured.as_mut().unwrap().degraded.push(Degraded {
        code: "sends_late".to_owned(),
        text: "sends were 12 ms late".to_owned(),
    });
    write(&sandbox, "new/run-2", &run);
    let ended = gate(&sandbox, &[]).with_code(4);
    assert!(
        ended.stdout.contains("new/run-2: sends were 12 ms late"),
        "{}",
        ended.stdout
    );
    gate(&sandbox, &["--allow-degraded"]).with_code(0);
    let ended = sandbox
        .run(&["gate", "--save-baseline", "base.json", "new"])
        .with_code(2);
    assert!(
        ended.stderr.contains("degraded and no baseline"),
        "{}",
        ended.stderr
    );
}

#[test]
fn simulated_runs_are_compared_to_the_last_digit() {
    let (sandbox, _) = simulated();
    sandbox
        .run(&["simulate", "small.toml", "--out", "again", "--quiet"])
        .with_code(0);
    let same = ["gate", "--baseline", "simulated", "--candidate", "again"];
    let ended = sandbox.run(&same).with_code(0);
    assert!(ended.stdout.contains("no difference"), "{}", ended.stdout);
    let other = [
        "simulate",
        "small.toml",
        "--set",
        "batching.max_num_seqs=31",
        "--out",
        "other",
    ];
    sandbox.run(&other);
    let differs = [
        "gate",
        "--baseline",
        "simulated",
        "--candidate",
        "other",
        "--format",
        "json",
    ];
    let ended = sandbox.run(&differs).with_code(3);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(report["exact"]["count"].as_u64() > Some(0));
    let first = &report["exact"]["differences"][0];
    assert!(
        first["field"].is_string() && first["baseline"] != first["candidate"],
        "{first}"
    );
}

#[test]
fn every_form_is_written_where_it_is_wanted() {
    let sandbox = pairs(1.05);
    let files = [
        "--json",
        "gate.json",
        "--junit",
        "gate.xml",
        "--markdown",
        "gate.md",
    ];
    gate(&sandbox, &files).with_code(3);
    let report: Value = serde_json::from_str(&sandbox.read("gate.json")).unwrap();
    assert_eq!(
        (&report["schema"], &report["verdict"]),
        (&"foresail.gate/1".into(), &"fail".into())
    );
    assert!(
        sandbox
            .read("gate.xml")
            .contains("<failure message=\"tpot.mean +5.0 %")
    );
    assert!(sandbox.read("gate.md").contains("| ❌ | tpot.mean |"));
    let ended = gate(&sandbox, &["--format", "text,json"]).with_code(2);
    assert!(ended.stderr.contains("--json"), "{}", ended.stderr);
}

#[test]
fn github_gets_annotations_and_a_summary() {
    let sandbox = pairs(1.05);
    sandbox.write("summary.md", "of another step\n");
    let mut command = sandbox.command();
    command.args(GATE).args(["--format", "text,github"]);
    command.env("GITHUB_STEP_SUMMARY", sandbox.path("summary.md"));
    let ended = Ended::of(command.output().unwrap()).with_code(3);
    let errors = ended
        .stdout
        .lines()
        .filter(|line| line.starts_with("::error title="))
        .count();
    assert!(errors > 0, "{}", ended.stdout);
    let summary = sandbox.read("summary.md");
    assert!(
        summary.starts_with("of another step\n## Gate: ❌ fail\n"),
        "{summary}"
    );
}

#[test]
fn history_grows_by_a_line_a_gate() {
    let sandbox = pairs(1.0);
    for commit in ["commit=a", "commit=b"] {
        gate(
            &sandbox,
            &["--history", "history.jsonl", "--attribute", commit],
        )
        .with_code(0);
    }
    let history = sandbox.read("history.jsonl");
    let commits: Vec<Value> = history
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["attributes"]["commit"].clone())
        .collect();
    assert_eq!(commits, ["a", "b"]);
}

#[test]
fn what_is_no_run_is_named() {
    let sandbox = pairs(1.0);
    fs::create_dir(sandbox.path("empty")).unwrap();
    let ended = sandbox
        .run(&["gate", "--baseline", "empty", "--candidate", "new"])
        .with_code(2);
    assert!(
        ended.stderr.contains("`empty` holds no run"),
        "{}",
        ended.stderr
    );
    let ended = sandbox
        .run(&["gate", "--baseline", "small.toml", "--candidate", "new"])
        .with_code(2);
    assert!(
        ended
            .stderr
            .contains("cannot read small.toml: not a baseline"),
        "{}",
        ended.stderr
    );
    let ended = sandbox
        .run(&["gate", "--save-baseline", "b.json", "simulated"])
        .with_code(2);
    assert!(
        ended.stderr.contains("compared to the last digit"),
        "{}",
        ended.stderr
    );
}
