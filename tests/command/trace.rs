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

#[test]
fn a_run_is_recorded_and_replays_as_it_was() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["simulate", "small.toml", "--out", "run"])
        .with_code(0);
    sandbox
        .run(&["trace", "record", "run", "--out", "recorded.csv"])
        .with_code(0);
    let asked = |trace: &str| -> Vec<String> {
        let columns = |row: &str| row.split(',').take(4).collect::<Vec<_>>().join(",");
        trace.lines().map(columns).collect()
    };
    let generated = sandbox
        .run(&["trace", "generate", "small.toml", "--out", "-"])
        .with_code(0);
    let recorded = sandbox.read("recorded.csv");
    assert_eq!(asked(&recorded), asked(&generated.stdout));
    sandbox
        .run(&["trace", "inspect", "recorded.csv"])
        .with_code(0);
}

#[test]
fn an_access_log_is_recorded() {
    let sandbox = Sandbox::new();
    let line = |time: &str, status: u16| {
        format!(
            "{{\"time\":\"2026-02-03T04:05:{time}Z\",\"event\":\"request\",\"id\":\"r\",\"method\":\"POST\",\
             \"route\":\"/v1/completions\",\"status\":{status},\"model\":\"m\",\"stream\":true,\
             \"prompt_tokens\":12,\"cached_tokens\":0,\"output_tokens\":3,\"queue_ms\":0.1,\"ttft_ms\":5.0,\
             \"duration_ms\":500.0,\"client_gone\":false,\"error\":null}}\n"
        )
    };
    let log = [
        line("06.000", 200),
        line("07.250", 200),
        line("08.000", 429),
    ];
    sandbox.write("access.log", log.concat());
    let ended = sandbox
        .run(&["trace", "record", "access.log", "--out", "trace.csv"])
        .with_code(0);
    let rows = "0,12,3,,,,,,\n1250000000,12,3,,,,,,\n";
    assert_eq!(sandbox.read("trace.csv"), format!("{NATIVE_HEADER}{rows}"));
    assert!(
        ended.stderr.contains("did not complete"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.ends_with("requests in trace.csv: 2\n"),
        "{}",
        ended.stderr
    );
}

#[test]
fn what_cannot_be_recorded_says_what_to_name() {
    let sandbox = Sandbox::new();
    sandbox.write("access.log", "ready\n");
    let said = |arguments: &[&str]| {
        let arguments = [&["trace", "record", "--out", "trace.csv"][..], arguments].concat();
        sandbox.run(&arguments).with_code(2).stderr
    };
    assert!(
        said(&["access.log"]).contains("line 1"),
        "{}",
        said(&["access.log"])
    );
    assert!(said(&["absent"]).contains("name the folder of a run"));
    assert!(said(&["."]).contains("summary.json"));
    let superfluous = said(&["access.log", "--adapter", "a"]);
    assert!(superfluous.contains("leave it out"), "{superfluous}");
}
