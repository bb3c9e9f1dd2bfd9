//! Adapters on the command line: into traces and back, and what is wrong with them.

use crate::sandbox::{NATIVE_HEADER, Sandbox};

/// The settings of a deployment with adapters, behind those of another scenario.
const ADAPTERS: &str = "\n[adapters]\nlist = [{ name = \"sql\" }, { name = \"legal\", rank = 8 }]\n\
                        slots = 2\n[workload.adapters]\nzipf = 1.0\nbase_share = 0.2\n";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let text = sandbox.read("small.toml") + ADAPTERS;
    sandbox.write("with.toml", text);
    sandbox
}

#[test]
fn a_generated_trace_names_adapters_and_replays_as_the_scenario_itself() {
    let sandbox = sandbox();
    sandbox
        .run(&["trace", "generate", "with.toml", "--out", "with.csv"])
        .with_code(0);
    let trace = sandbox.read("with.csv");
    let header = format!("{},adapter\n", NATIVE_HEADER.trim_end());
    assert!(trace.starts_with(&header), "{trace}");
    for end in [",sql\n", ",legal\n", ",\n"] {
        assert!(trace.contains(end), "no row ends with {end:?}");
    }
    let converted = ["trace", "convert", "with.csv", "--out", "again.csv"];
    sandbox.run(&converted).with_code(0);
    assert_eq!(sandbox.read("again.csv"), trace);
    sandbox
        .run(&["simulate", "with.toml", "--out", "itself"])
        .with_code(0);
    let replay = [
        "simulate",
        "with.toml",
        "--trace",
        "with.csv",
        "--out",
        "replayed",
    ];
    sandbox.run(&replay).with_code(0);
    let requests = sandbox.read("itself/requests.csv");
    assert_eq!(requests, sandbox.read("replayed/requests.csv"));
    let summary = sandbox.read("itself/summary.json");
    assert!(summary.contains("\"evictions\""), "{summary}");
}

#[test]
fn a_run_without_adapters_has_none_in_its_summary() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["simulate", "small.toml", "--out", "run"])
        .with_code(0);
    assert!(!sandbox.read("run/summary.json").contains("\"evictions\""));
}

#[test]
fn a_trace_that_names_an_adapter_that_is_not_deployed() {
    let sandbox = sandbox();
    let header = NATIVE_HEADER.trim_end();
    sandbox.write(
        "bad.csv",
        format!("{header},adapter\n0,8,8,,,,,,,sql\n5,8,8,,,,,,,sq\n"),
    );
    for (scenario, place) in [
        ("with.toml", "bad.csv:3:13"),
        ("small.toml", "bad.csv:2:13"),
    ] {
        let arguments = ["simulate", scenario, "--trace", "bad.csv", "--out", "run"];
        let ended = sandbox.run(&arguments).with_code(2);
        assert!(ended.stderr.contains(place), "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
    assert!(!sandbox.names().contains(&"run".to_owned()));
    // By itself, a trace may name any.
    sandbox.run(&["trace", "inspect", "bad.csv"]).with_code(0);
}
