//! `foresail compare` of measured runs, with each other and with simulated ones.

use std::fs;

use foresail_reports::Summary;
use foresail_reports::summary::{Measured, Source};
use serde_json::Value;

use crate::sandbox::Sandbox;

/// A simulated run, and what a client would have seen of it: without what can
/// not be seen from outside.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["simulate", "small.toml", "--out", "simulated", "--quiet"])
        .with_code(0);
    let simulated = Summary::from_json(&sandbox.read("simulated/summary.json")).unwrap();
    let measured = Summary {
        source: Source::Measured,
        queue_s: None,
        replicas: None,
        gpu_seconds: None,
        cost: None,
        parts: None,
        why: None,
        measured: Some(Box::new(Measured::default())),
        ..simulated
    };
    fs::create_dir(sandbox.path("measured")).unwrap();
    sandbox.write("measured/summary.json", measured.to_json().unwrap());
    let requests = sandbox.read("simulated/requests.csv");
    sandbox.write("measured/requests.csv", requests);
    sandbox
}

#[test]
fn what_one_side_lacks_is_a_dash() {
    let sandbox = sandbox();
    let ended = sandbox
        .run(&["compare", "simulated", "measured"])
        .with_code(0);
    let row = ended
        .stdout
        .lines()
        .find(|line| line.contains("measured ") && line.contains('–'));
    assert!(row.is_some(), "{}", ended.stdout);
    let json = sandbox
        .run(&["compare", "simulated", "measured", "--format", "json"])
        .with_code(0);
    let comparison: Value = serde_json::from_str(&json.stdout).unwrap();
    let metrics = comparison["variants"][1]["metrics"].as_array().unwrap();
    let mean = |name: &str| {
        let metric = metrics
            .iter()
            .find(|metric| metric["name"] == name)
            .unwrap();
        metric["mean"].clone()
    };
    assert!(mean("cost_usd").is_null() && mean("replicas").is_null());
    assert!(mean("ttft_p99").is_f64());
}

#[test]
fn the_same_requests_are_compared_one_by_one() {
    let sandbox = sandbox();
    let ended = sandbox
        .run(&["compare", "simulated", "measured"])
        .with_code(0);
    let section = ended
        .stdout
        .split("\n\n")
        .find(|part| part.starts_with("SAME REQUESTS"));
    let section = section.unwrap_or_else(|| panic!("{}", ended.stdout));
    // They are the same to the last digit.
    assert!(section.contains("measured less simulated"), "{section}");
    assert!(
        section.contains("ttft") && section.contains("0 % took longer"),
        "{section}"
    );
    // Another seed has other requests, and is no partner.
    sandbox
        .run(&[
            "simulate",
            "small.toml",
            "--seed",
            "2",
            "--out",
            "other",
            "--quiet",
        ])
        .with_code(0);
    let ended = sandbox.run(&["compare", "other", "measured"]).with_code(0);
    assert!(!ended.stdout.contains("SAME REQUESTS"), "{}", ended.stdout);
}
