//! Traces: looked at, converted, generated.

use serde_json::Value;

use crate::sandbox::{NATIVE_HEADER, Sandbox};

const VIDUR: &str =
    "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,100,10\n1.5,200,20\n3.0,300,30\n";

#[test]
fn a_generated_trace_replays_as_the_scenario_itself() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["trace", "generate", "small.toml", "--out", "small.csv"])
        .with_code(0);
    sandbox
        .run(&["simulate", "small.toml", "--out", "itself"])
        .with_code(0);
    let arguments = [
        "simulate",
        "small.toml",
        "--trace",
        "small.csv",
        "--out",
        "replayed",
    ];
    sandbox.run(&arguments).with_code(0);
    assert_eq!(
        sandbox.read("itself/requests.csv"),
        sandbox.read("replayed/requests.csv")
    );
}

#[test]
fn generating_follows_seed_and_settings() {
    let sandbox = Sandbox::new();
    let generate = |options: &[&str]| {
        let arguments = [
            ["trace", "generate", "small.toml", "--out", "-"].as_slice(),
            options,
        ];
        sandbox.run(&arguments.concat()).with_code(0).stdout
    };
    let trace = generate(&[]);
    assert!(trace.starts_with(NATIVE_HEADER));
    assert_eq!(generate(&["--seed", "1"]), trace);
    assert_ne!(generate(&["--seed", "2"]), trace);
    assert_eq!(generate(&["--set", "deployment.gpu=a100-80gb"]), trace);
    let twice = generate(&["--set", "workload.rate_scale=2"])
        .lines()
        .count();
    assert!(twice > trace.lines().count() * 3 / 2);
}

#[test]
fn converting_keeps_every_request() {
    let sandbox = Sandbox::new();
    sandbox.write("vidur.csv", VIDUR);
    let ended = sandbox
        .run(&["trace", "convert", "vidur.csv", "--out", "native.csv"])
        .with_code(0);
    assert_eq!(ended.stdout, "");
    assert_eq!(ended.stderr, "note: requests in native.csv: 3\n");
    let rows = "0,100,10,,,,,,\n1500000000,200,20,,,,,,\n3000000000,300,30,,,,,,\n";
    assert_eq!(sandbox.read("native.csv"), format!("{NATIVE_HEADER}{rows}"));
    let again = sandbox
        .run(&["trace", "convert", "native.csv", "--out", "-"])
        .with_code(0);
    assert_eq!(
        (again.stdout, again.stderr),
        (sandbox.read("native.csv"), String::new())
    );
}

#[test]
fn converting_in_place_is_safe() {
    let sandbox = Sandbox::new();
    sandbox.write("trace.csv", VIDUR);
    sandbox
        .run(&["trace", "convert", "trace.csv", "--out", "trace.csv"])
        .with_code(0);
    assert!(sandbox.read("trace.csv").starts_with(NATIVE_HEADER));
    assert_eq!(sandbox.names(), ["small.toml", "trace.csv"]);
}

#[test]
fn converting_cuts_and_scales() {
    let sandbox = Sandbox::new();
    sandbox.write("vidur.csv", VIDUR);
    let dues = |options: &[&str]| -> Vec<String> {
        let arguments = [
            ["trace", "convert", "vidur.csv", "--out", "-"].as_slice(),
            options,
        ];
        let trace = sandbox.run(&arguments.concat()).with_code(0).stdout;
        trace
            .lines()
            .skip(1)
            .map(|row| row.split(',').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(dues(&["--slice", "1s..2s"]), ["500000000"]);
    assert_eq!(
        dues(&["--rate-scale", "2"]),
        ["0", "750000000", "1500000000"]
    );
    assert_eq!(
        dues(&["--time-stretch", "2"]),
        ["0", "3000000000", "6000000000"]
    );
    assert_eq!(dues(&["--slice", "..2s", "--repeat", "2"]).len(), 4);
}

#[test]
fn ticks_are_spread_on_request() {
    let sandbox = Sandbox::new();
    let row = |timestamp| {
        format!(
            r#"{{"timestamp": {timestamp}, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}}"#
        )
    };
    sandbox.write(
        "mooncake.jsonl",
        [row(0), row(0), row(3000), row(3000)].join("\n"),
    );
    let dues = |how| {
        let arguments = [
            "trace",
            "convert",
            "mooncake.jsonl",
            "--timestamps",
            how,
            "--out",
            "-",
        ];
        let trace = sandbox.run(&arguments).with_code(0).stdout;
        trace
            .lines()
            .skip(1)
            .map(|row| row.split(',').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(dues("as-recorded"), ["0", "0", "3000000000", "3000000000"]);
    assert_eq!(
        dues("spread"),
        ["0", "1500000000", "3000000000", "4500000000"]
    );
}

#[test]
fn inspecting_shows_rates_and_lengths() {
    let sandbox = Sandbox::new();
    sandbox.write("vidur.csv", VIDUR);
    let ended = sandbox.run(&["trace", "inspect", "vidur.csv"]).with_code(0);
    insta::assert_snapshot!("inspect", ended.stdout);
    let ended = sandbox
        .run(&["trace", "inspect", "vidur.csv", "--format", "json"])
        .with_code(0);
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["format"], "vidur-csv");
    assert_eq!(json["requests"], 3);
    assert_eq!(json["span_s"], 3.0);
    assert_eq!(json["prompt_tokens"]["mean"], 200.0);
    assert_eq!(json["output_tokens"]["max"], 30);
}

#[test]
fn a_format_that_is_named_is_not_guessed() {
    let sandbox = Sandbox::new();
    sandbox.write("vidur.csv", VIDUR);
    let ended = sandbox
        .run(&["trace", "inspect", "vidur.csv", "--from", "azure-csv"])
        .with_code(2);
    assert!(ended.stderr.contains("vidur.csv:1"), "{}", ended.stderr);
}
