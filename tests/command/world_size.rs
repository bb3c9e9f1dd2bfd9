//! `foresail world-size`: what more GPUs a replica bring.

use serde_json::Value;

use crate::sandbox::Sandbox;

fn json(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let arguments = [&["world-size"], arguments, &["--format", "json"]].concat();
    let ended = sandbox.run(&arguments).with_code(0);
    serde_json::from_str(&ended.stdout).unwrap()
}

fn row(report: &Value, world_size: u64) -> &Value {
    let rows = report["world_sizes"].as_array().unwrap();
    rows.iter()
        .find(|row| row["world_size"] == world_size)
        .unwrap()
}

fn number(row: &Value, field: &str) -> f64 {
    row["figures"][field].as_f64().unwrap()
}

#[test]
fn more_gpus_are_faster_and_less_than_proportionally() {
    let report = json(
        &Sandbox::new(),
        &["chat", "--requests", "200", "--world-size", "1,2,4"],
    );
    assert_eq!(report["schema"], "foresail.world-size/1");
    for (size, smaller) in [(2, 1), (4, 2)] {
        let (large, small) = (row(&report, size), row(&report, smaller));
        assert!(
            number(large, "speed_up") > number(small, "speed_up"),
            "{report}"
        );
        assert!(number(large, "speed_up") < size as f64, "{report}");
        assert!(
            number(large, "ttft_idle_s") < number(small, "ttft_idle_s"),
            "{report}"
        );
        assert!(
            number(large, "kv_tokens") > number(small, "kv_tokens"),
            "{report}"
        );
        assert!(
            number(large, "saturation_requests_per_s") > number(small, "saturation_requests_per_s"),
            "{report}"
        );
        assert!(
            number(large, "requests_per_s_max") <= number(large, "saturation_requests_per_s"),
            "{report}"
        );
    }
    assert_eq!(report["break_even"].as_array().unwrap().len(), 3);
}

#[test]
fn a_world_size_that_cannot_be_is_a_row_that_says_so() {
    let report = json(
        &Sandbox::new(),
        &["chat", "--requests", "100", "--world-size", "1,3"],
    );
    let refused = row(&report, 3);
    assert!(refused["figures"].is_null(), "{report}");
    assert!(!refused["why_not"].as_str().unwrap().is_empty(), "{report}");
    assert!(row(&report, 1)["why_not"].is_null(), "{report}");
}

/// What a deployment rejects and counts is no reason to say nothing of the rest.
#[test]
fn requests_that_are_too_long_are_left_out_and_counted() {
    let sandbox = Sandbox::new();
    let short = "--set=deployment.max_model_len=600";
    let arguments = ["chat", "--requests", "300", "--world-size", "1", short];
    let report = json(&sandbox, &arguments);
    assert!(number(row(&report, 1), "requests_per_s_max") > 0.0);
    assert!(report["output_tokens_mean"].as_f64().unwrap() < 600.0);
    let facts = report["facts"].to_string();
    assert!(facts.contains("requests are left out"), "{facts}");
    assert!(facts.contains("the first of them"), "{facts}");
    let none = "--set=deployment.max_model_len=2";
    let ended = sandbox.run(&["world-size", "chat", "--world-size", "1", none]);
    let ended = ended.with_code(2);
    assert!(!ended.stderr.contains("defect"), "{}", ended.stderr);
}

/// An answer of one token has no time between tokens, and is met by none.
#[test]
fn single_tokens_do_not_meet_an_objective_for_tpot() {
    let sandbox = Sandbox::new();
    let of = |lengths: &str| {
        let arguments = [
            "small.toml",
            "--requests=200",
            "--world-size=1",
            "--set=objectives.tpot_p50=1us",
            lengths,
        ];
        json(&sandbox, &arguments)
    };
    let mixed = of("--set=workload.output_tokens={ log_normal = { mean = 1.3, cv = 0.5 } }");
    assert_eq!(number(row(&mixed, 1), "requests_per_s_max"), 0.0, "{mixed}");
    let single = of("--set=workload.output_tokens=1");
    let judged = single["objectives"].to_string();
    assert!(!judged.contains("tpot"), "{judged}");
    assert_eq!(
        single["objectives_not_judged"],
        mixed["objectives_not_judged"].as_u64().unwrap() + 1
    );
}

/// What the scenario says of its server is in what a request takes alone.
#[test]
fn the_overhead_of_a_request_is_in_its_time() {
    let sandbox = Sandbox::new();
    let of = |overhead: &str| {
        let set = format!("--set=step_time.request_overhead={overhead}");
        let report = json(
            &sandbox,
            &["small.toml", "--requests=100", "--world-size=1", &set],
        );
        (
            number(row(&report, 1), "ttft_idle_s"),
            report["facts"].to_string(),
        )
    };
    let ((without, said), (with, said_with)) = (of("0s"), of("50ms"));
    assert!((with - without - 0.05).abs() < 1e-6, "{without} {with}");
    assert!(said.contains("no request overhead of a server"), "{said}");
    assert!(
        said_with.contains("a request overhead of 50.000 ms"),
        "{said_with}"
    );
}

#[test]
fn if_none_can_be_the_scenario_is_what_is_wrong() {
    let arguments = ["world-size", "chat", "--world-size", "3,5"];
    let ended = Sandbox::new().run(&arguments).with_code(2);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("world"), "{}", ended.stderr);
    Sandbox::new()
        .run(&["world-size", "no-such-scenario"])
        .with_code(2);
    Sandbox::new()
        .run(&["world-size", "chat", "--world-size", "0"])
        .with_code(2);
}

#[test]
fn text_says_what_it_stands_on_and_a_picture_is_drawn() {
    let sandbox = Sandbox::new();
    let arguments = [
        "world-size",
        "chat",
        "--requests",
        "100",
        "--world-size",
        "1,2",
        "--picture",
        "sizes.svg",
    ];
    let ended = sandbox.run(&arguments).with_code(0);
    for part in [
        "speed-up",
        "req/s max",
        "one of 2 against 2 of 1",
        "This stands on:",
    ] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    assert!(sandbox.read("sizes.svg").starts_with("<svg"), "no picture");
    assert_eq!(sandbox.run(&arguments).with_code(0).stdout, ended.stdout);
}
