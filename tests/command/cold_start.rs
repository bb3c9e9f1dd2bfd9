//! `foresail calibrate cold-start`: starts that are processes, what they come to, and what is refused.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::{Ended, Sandbox};

const TINY: [&str; 6] = [
    "calibrate",
    "cold-start",
    "--dummy=tiny",
    "--backend=cpu",
    "--starts=5",
    "--quiet",
];

/// What keeps a start short.
const SMALL: [&str; 3] = ["--", "--threads=1", "--kv-cache-memory=1MiB"];

fn tiny(sandbox: &Sandbox, more: &[&str]) -> Ended {
    sandbox.run(&[&TINY, more, &SMALL].concat())
}

fn refused(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let before = sandbox.names();
    let ended = sandbox.run(&[&["calibrate", "cold-start"], arguments].concat());
    let ended = ended.with_code(2);
    assert_eq!(ended.stdout, "");
    assert_eq!(sandbox.names(), before);
    ended.stderr
}

#[test]
fn the_stages_together_are_the_start() {
    let ended = tiny(&Sandbox::new(), &["--format=json"]).with_code(0);
    assert_eq!(ended.stderr, "");
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["schema"], "foresail.cold-start/1");
    assert_eq!(json["model"], "tiny");
    let kinds = json["kinds"].as_array().unwrap();
    assert_eq!(kinds.len(), 1);
    assert_eq!(kinds[0]["page_cache"], "warm");
    let stages = kinds[0]["stages"].as_array().unwrap();
    let names: Vec<_> = stages.iter().map(|stage| &stage["name"]).collect();
    assert!(names.contains(&&Value::from("process")), "{names:?}");
    assert!(names.contains(&&Value::from("weights")), "{names:?}");
    for start in 0..5 {
        let seconds = |stage: &Value| stage["seconds"][start].as_f64().unwrap();
        let sum: f64 = stages.iter().map(seconds).sum();
        let whole = kinds[0]["seconds"][start].as_f64().unwrap();
        assert!((sum - whole).abs() < 1e-9, "{sum} {whole}");
        let first = kinds[0]["first_request_s"][start].as_f64().unwrap();
        assert!(first > 0.0);
    }
    for stage in stages {
        let probability = |outcome: &Value| outcome["probability"].as_f64().unwrap();
        let outcomes = stage["outcomes"].as_array().unwrap();
        let sum: f64 = outcomes.iter().map(probability).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{stage}");
    }
}

#[test]
fn the_table_is_what_a_scenario_reads() {
    let sandbox = Sandbox::new();
    let ended = tiny(&sandbox, &["--out=cold-start.toml"]).with_code(0);
    for text in ["WARM  everything", "process", "weights", "first request"] {
        assert!(ended.stdout.contains(text), "{}", ended.stdout);
    }
    let table = sandbox.read("cold-start.toml");
    for text in [
        "# Starts of tiny on the CPU",
        "by: foresail calibrate cold-start",
        "\n[cold_start]\n",
        "not measured: the catalogue's",
        "phase = \"pending\"",
        "# measured 5 times: mean",
    ] {
        assert!(table.contains(text), "no `{text}` in:\n{table}");
    }
    sandbox.write("whole.toml", sandbox.read("small.toml") + &table);
    let ended = sandbox.run(&["simulate", "whole.toml"]).with_code(0);
    assert!(ended.stdout.contains("LATENCY"), "{}", ended.stdout);
}

#[test]
fn cold_starts_read_the_model_from_storage() {
    let sandbox = Sandbox::new();
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/engine/goldens/llama"));
    fs::create_dir(sandbox.path("model")).unwrap();
    for entry in fs::read_dir(golden).unwrap() {
        let file = entry.unwrap().path();
        if file.is_file() {
            fs::copy(&file, sandbox.path("model").join(file.file_name().unwrap())).unwrap();
        }
    }
    let ended = sandbox.run(
        &[
            &[
                "calibrate",
                "cold-start",
                "--model=model",
                "--backend=cpu",
                "--cold",
                "--starts=5",
                "--format=json",
                "--out=table.toml",
            ][..],
            &SMALL,
        ]
        .concat(),
    );
    if ended.code == 2 {
        assert!(
            ended.stderr.contains("leave --cold away"),
            "{}",
            ended.stderr
        );
        eprintln!("SKIPPED: {}", ended.stderr);
        return;
    }
    let json: Value = serde_json::from_str(&ended.with_code(0).stdout).unwrap();
    assert_eq!(json["kinds"][0]["page_cache"], "cold");
    assert_eq!(json["kinds"][1]["page_cache"], "warm");
    let from_storage = |kind: usize| -> Vec<u64> {
        let bytes = json["kinds"][kind]["bytes_from_storage"]
            .as_array()
            .unwrap();
        bytes.iter().map(|bytes| bytes.as_u64().unwrap()).collect()
    };
    let (cold, warm) = (from_storage(0), from_storage(1));
    assert_eq!((cold.len(), warm.len()), (5, 5));
    assert!(cold.iter().min() > warm.iter().min(), "{cold:?} {warm:?}");
    // The warm table is there as a comment, so that there is one that counts.
    let table = sandbox.read("table.toml");
    assert_eq!(table.matches("\n[cold_start]\n").count(), 1);
    assert_eq!(table.matches("[cold_start]").count(), 2);
}

#[test]
fn what_cannot_be_measured_says_what_to_change() {
    let sandbox = Sandbox::new();
    let texts = [
        &["--dummy=tiny", "--starts=4"][..],
        &["--dummy=tiny", "--starts=18446744073709551615"],
        &["--dummy=tiny", "--out=-"],
        &["--dummy=tiny", "--out=nowhere/table.toml"],
        &["--model=nowhere", "--cold"],
    ]
    .map(|arguments| refused(&sandbox, arguments));
    insta::assert_snapshot!(texts.concat(), @r"
    error: --starts 4: so few say nothing of a spread; start at least 5 times
    error: --starts 18446744073709551615: more than 10000 would say nothing more
    error: --out needs the name of a file; standard output has the figures
    error: cannot write nowhere/table.toml: No such file or directory (os error 2); free space, check permissions, or name another file
    error: nowhere: No such file or directory (os error 2); name the folder of a model with --model
    ");
    let text = refused(&sandbox, &["--dummy=tiny", "--cold"]);
    assert!(text.contains("cannot be used with"), "{text}");
    assert!(refused(&sandbox, &[]).contains("required"));
}

#[test]
fn a_start_that_fails_says_why_in_its_own_words() {
    let sandbox = Sandbox::new();
    let out = ["--out=table.toml"];
    let of_engine = sandbox.run(&[&TINY, &["--world-size=3"][..], &out, &SMALL].concat());
    let told = of_engine.with_code(2).stderr;
    for text in [
        "the start before the first failed (exit status: 2)",
        "8 query heads cannot be split over 3 ranks",
    ] {
        assert!(told.contains(text), "{told}");
    }
    let of_help = sandbox.run(&[&TINY, &out[..], &["--", "--help"]].concat());
    let told = of_help.with_code(2).stderr;
    assert!(told.contains("did not say that it is ready"), "{told}");
    let slow = sandbox.run(&[&TINY, &["--timeout=1ms"][..], &out, &SMALL].concat());
    let told = slow.with_code(2).stderr;
    assert!(
        told.contains("not ready within 0.001 s; --timeout"),
        "{told}"
    );
    assert_eq!(sandbox.names(), ["small.toml"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_signal_ends_it_and_every_server() {
    let sandbox = Sandbox::new();
    let many = ["--starts=1000", "--out=table.toml"];
    let mut child = sandbox
        .command()
        .args(
            [
                &[
                    "calibrate",
                    "cold-start",
                    "--dummy=tiny",
                    "--backend=cpu",
                    "--quiet",
                ],
                &many[..],
                &SMALL,
            ]
            .concat(),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // The command, and a server.
    while processes_in(&sandbox) < 2 {
        assert!(Instant::now() < deadline, "no server was ever started");
        thread::sleep(Duration::from_millis(1));
    }
    let parent = child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &parent]).status();
    assert!(sent.unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert_eq!(processes_in(&sandbox), 0);
    assert_eq!(sandbox.names(), ["small.toml"]);
}

#[cfg(target_os = "linux")]
/// How many processes run in the sandbox. What a command starts inherits its folder.
fn processes_in(sandbox: &Sandbox) -> usize {
    let folder = fs::canonicalize(sandbox.path("")).unwrap();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let folders = processes.filter_map(|entry| fs::read_link(entry.path().join("cwd")).ok());
    folders.filter(|of_process| *of_process == folder).count()
}
