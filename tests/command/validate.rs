//! `foresail validate`.

use std::fs;

use foresail_core::step_time::calibrated::{
    BatchingLimits, CalibratedProfile, CalibrationProvenance, Factor, HowMeasured, Residuals,
    TermEstimate, Terms, WorldSizeFit,
};
use foresail_reports::Summary;
use foresail_reports::summary::{Degraded, Measured, Server};
use serde_json::Value;

use crate::sandbox::{Ended, Sandbox};

/// One replica at about a third of what it can do, so that some requests come to an idle system.
const CALM: &[(&str, &str)] = &[
    ("max_replica_count = 2", "max_replica_count = 1"),
    ("rate_per_s = 30.0", "rate_per_s = 0.5"),
    ("duration = \"2m\"", "duration = \"10m\""),
    (
        "[batching]",
        "[step_time]\nmodel = \"profile\"\nfile = \"profile.json\"\n[batching]",
    ),
];

/// A profile with steps so many times as long as those of `profile.json`.
fn profile(times: f64) -> String {
    let terms = Terms {
        launch_s: 1e-3 * times,
        weights_s: 6e-3 * times,
        token_s: 5e-5 * times,
        kv_token_s: 1e-8 * times,
        ..Terms::default()
    };
    let estimate = |(name, value): (&str, f64)| TermEstimate {
        name: name.to_owned(),
        value,
        low: value,
        high: value,
        is_identified: true,
    };
    let draws = [0.9, 0.95, 1.05, 1.1].map(|draw| terms.times(draw).to_vec());
    let profile = CalibratedProfile {
        schema: CalibratedProfile::SCHEMA.into(),
        provenance: CalibrationProvenance {
            tool: "foresail".into(),
            engine: "none".into(),
            model: "llama-3-8b".into(),
            shape: None,
            device: "h100".into(),
            threads: 0,
            precision: None,
            kv_precision: None,
            measured_on: "2026-11-21".into(),
            source: "made up".into(),
        },
        batching: BatchingLimits::default(),
        world_sizes: vec![WorldSizeFit {
            world_size: 1,
            how: HowMeasured::Ranks,
            terms: Terms::names().zip(terms.to_vec()).map(estimate).collect(),
            token_factor: Factor::default(),
            kv_factor: Factor::default(),
            all_reduce: None,
            draws: draws.to_vec(),
            run_to_run: 0.0,
            residuals: Residuals::default(),
            cells: Vec::new(),
        }],
        not_identified: Vec::new(),
    };
    serde_json::to_string(&profile).unwrap()
}

/// A sandbox with a calm scenario, and a run of it, with steps so many times as long, to be taken for measured.
fn measured(times: f64) -> Sandbox {
    let sandbox = Sandbox::new();
    let mut scenario = sandbox.read("small.toml");
    for (from, to) in CALM {
        assert!(scenario.contains(from), "{from}");
        scenario = scenario.replacen(from, to, 1);
    }
    sandbox.write("calm.toml", scenario);
    sandbox.write("profile.json", profile(times));
    let simulate = ["simulate", "calm.toml", "--out", "run", "--quiet"];
    sandbox.run(&simulate).with_code(0);
    sandbox.write("profile.json", profile(1.0));
    sandbox
}

fn validate(sandbox: &Sandbox, arguments: &[&str]) -> Ended {
    sandbox.run(&[&["validate", "run", "calm.toml"], arguments].concat())
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).expect("it is JSON")
}

fn error_of(validation: &Value, metric: &str) -> f64 {
    let metrics = validation["metrics"].as_array().unwrap();
    let found = metrics.iter().find(|each| each["name"] == metric).unwrap();
    found["error"].as_f64().unwrap()
}

/// Rewrites the rows of the run: each gets its fields, by the names of the header.
fn rewrite(sandbox: &Sandbox, change: impl Fn(&mut dyn FnMut(&str) -> usize, &mut Vec<String>)) {
    let text = sandbox.read("run/requests.csv");
    let mut lines = text.lines();
    let header = lines.next().unwrap();
    let names: Vec<&str> = header.split(',').collect();
    let mut rewritten = format!("{header}\n");
    for line in lines {
        let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
        let mut place = |name: &str| names.iter().position(|known| *known == name).unwrap();
        change(&mut place, &mut fields);
        rewritten += &(fields.join(",") + "\n");
    }
    sandbox.write("run/requests.csv", rewritten);
}

/// Says of the run what only a measured one says.
fn describe(sandbox: &Sandbox, measured: Measured) {
    let summary = Summary::from_json(&sandbox.read("run/summary.json")).unwrap();
    let summary = Summary {
        measured: Some(Box::new(measured)),
        ..summary
    };
    sandbox.write("run/summary.json", summary.to_json().unwrap());
}

#[test]
fn a_simulated_run_taken_for_measured_has_no_error() {
    let sandbox = measured(1.0);
    let ended = validate(&sandbox, &["--format", "json"]).with_code(0);
    let validation = json(&ended);
    assert_eq!(validation["verdict"], "within");
    for metric in validation["metrics"].as_array().unwrap() {
        assert_eq!(metric["error"].as_f64(), Some(0.0), "{metric}");
    }
    assert_eq!(validation["step_time_scale"].as_f64(), Some(1.0));
    assert!(validation["measured"]["compared"].as_u64().unwrap() > 200);
    let text = validate(&sandbox, &[]).with_code(0).stdout;
    assert!(
        text.starts_with("VALIDATION  WITHIN TOLERANCE · 0 of "),
        "{text}"
    );
    assert!(
        text.contains("none of the prediction: add --seeds 20"),
        "{text}"
    );
}

/// Clients that give up are answers that nobody gets, however fast the others are.
#[test]
fn a_prediction_that_loses_requests_is_beyond_tolerance() {
    let sandbox = measured(1.0);
    let lossy = ["--set", "clients.timeout=940ms", "--format", "json"];
    let validation = json(&validate(&sandbox, &lossy).with_code(3));
    assert!(
        validation["measured"]["not_predicted"].as_u64().unwrap() > 20,
        "{validation}"
    );
    let error = error_of(&validation, "completed");
    assert!(error < -0.05, "{error}");
    let rate = error_of(&validation, "requests_per_s");
    assert!((rate - error).abs() < 0.02, "{rate} {error}");
}

#[test]
fn slower_steps_come_back_as_their_scale() {
    let sandbox = measured(1.25);
    let ended = validate(&sandbox, &["--format", "json"]).with_code(3);
    let validation = json(&ended);
    assert_eq!(validation["verdict"], "beyond");
    let error = error_of(&validation, "tpot.mean");
    assert!((error + 0.2).abs() < 0.02, "{error}");
    let scale = validation["step_time_scale"].as_f64().unwrap();
    assert!((scale - 1.25).abs() < 0.005, "{scale}");
    for source in validation["sources"].as_array().unwrap() {
        let [error, step_time] =
            ["error_s", "step_time_s"].map(|part| source[part].as_f64().unwrap());
        assert!((step_time / error - 1.0).abs() < 0.05, "{source}");
    }
    let text = validate(&sandbox, &[]).stdout;
    assert!(
        text.contains("mostly step time: steps take 1.25 times as long"),
        "{text}"
    );
}

#[test]
fn waits_that_nobody_predicts_are_queueing() {
    let sandbox = measured(1.0);
    // Whoever found others there waits for another 200 ms.
    let mut busy_until = 0.0;
    let rows = sandbox.read("run/requests.csv");
    let mut due_and_end: Vec<(f64, f64)> = (rows.lines().skip(1))
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            (fields[1].parse().unwrap(), fields[12].parse().unwrap())
        })
        .collect();
    due_and_end.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut waits = Vec::new();
    for (due, end) in due_and_end {
        if due < busy_until {
            waits.push(format!("{due:.9}"));
        }
        busy_until = f64::max(busy_until, end);
    }
    assert!(waits.len() > 20, "{}", waits.len());
    rewrite(&sandbox, |place, fields| {
        if waits.contains(&fields[place("due_s")]) {
            for name in ["first_token_s", "end_s"] {
                let later: f64 = fields[place(name)].parse::<f64>().unwrap() + 0.2;
                fields[place(name)] = format!("{later:.9}");
            }
        }
    });
    let validation = json(&validate(&sandbox, &["--format", "json"]).with_code(3));
    let ttft = &validation["sources"][0];
    let share = ttft["queueing_s"].as_f64().unwrap() / ttft["error_s"].as_f64().unwrap();
    assert!((share - 1.0).abs() < 0.02, "{ttft}");
    assert!(error_of(&validation, "tpot.mean").abs() < 1e-6);
}

#[test]
fn tokens_that_the_server_counted_otherwise_are_told_as_tokens() {
    let sandbox = measured(1.0);
    let completed = sandbox.read("run/requests.csv").lines().count() as u64 - 1;
    describe(
        &sandbox,
        Measured {
            server: Some(Server {
                prompt_tokens: Some(completed * 512),
                output_tokens: Some(completed * 128),
                ..Server::default()
            }),
            ..Measured::default()
        },
    );
    rewrite(&sandbox, |place, fields| {
        fields[place("prompt_tokens")] = "64".to_owned()
    });
    let validation = json(&validate(&sandbox, &["--format", "json"]).with_code(3));
    let ttft = &validation["sources"][0];
    assert!(ttft["error_s"].as_f64().unwrap() < -1e-3, "{ttft}");
    let share = ttft["tokens_s"].as_f64().unwrap() / ttft["error_s"].as_f64().unwrap();
    assert!((share - 1.0).abs() < 0.02, "{ttft}");
}

#[test]
fn draws_give_intervals_that_hold_the_truth() {
    let sandbox = measured(1.06);
    let ended = validate(&sandbox, &["--format", "json", "--seeds", "8"]).with_code(3);
    let validation = json(&ended);
    assert_eq!(validation["draws"], 8);
    assert_eq!(validation["include_calibration_error"], true);
    let metrics = validation["metrics"].as_array().unwrap();
    let tpot = metrics.iter().find(|each| each["name"] == "tpot.mean");
    let tpot = tpot.unwrap();
    assert_eq!(tpot["verdict"], "beyond", "{tpot}");
    assert_eq!(tpot["is_within_prediction"], true, "{tpot}");
}

/// What is not known of the prompts is said wherever it matters, whatever the requests are from.
#[test]
fn prompts_that_nobody_knows_are_noted_where_prefixes_are_cached() {
    let sandbox = measured(1.0);
    let lists = (0..20).map(|index| f64::from(index) * 0.5);
    let starts: Vec<f64> = lists.collect();
    let details = serde_json::json!({
        "input_lens": vec![64; 20], "output_lens": vec![3; 20], "start_times": starts,
        "ttfts": vec![0.1; 20], "itls": vec![[0.01, 0.03]; 20], "max_concurrency": 4,
    });
    sandbox.write("vllm.json", details.to_string());
    let notes = |arguments: &[&str]| {
        let arguments = [&["validate"], arguments, &["--format", "json"]].concat();
        let validation = json(&sandbox.run(&arguments));
        (validation["notes"].to_string(), validation)
    };
    let cached = ["--set", "batching.prefix_caching=true"];
    let unknown = "nobody knows which prompts begin alike";
    let (said, validation) = notes(&[&["vllm.json", "calm.toml"], &cached[..]].concat());
    assert!(
        said.contains("does not say what the prompts were"),
        "{said}"
    );
    assert!(said.contains(unknown), "{said}");
    let rates = validation["metrics"].as_array().unwrap().iter();
    let rate = rates
        .clone()
        .find(|metric| metric["name"] == "requests_per_s");
    let problem = rate.unwrap()["problem"].to_string();
    assert!(problem.contains("closed loop"), "{problem}");
    let plain = [
        "vllm.json",
        "calm.toml",
        "--set",
        "batching.prefix_caching=false",
    ];
    assert!(!notes(&plain).0.contains(unknown));
    // The run's own traffic is known; that of another seed is not.
    assert!(
        !notes(&[&["run", "calm.toml"], &cached[..]].concat())
            .0
            .contains(unknown)
    );
    let summary = sandbox.read("run/summary.json");
    let other = summary.replacen("\"seed\": 1", "\"seed\": 2", 1);
    assert_ne!(summary, other);
    sandbox.write("run/summary.json", other);
    let (said, _) = notes(&[&["run", "calm.toml"], &cached[..]].concat());
    assert!(
        said.contains("not those of the scenario's traffic"),
        "{said}"
    );
}

/// An id of a file is nothing to make requests by.
#[test]
fn ids_beyond_the_traffic_are_not_looked_for() {
    let sandbox = measured(1.0);
    let last = sandbox.read("run/requests.csv").lines().count() - 2;
    rewrite(&sandbox, |place, fields| {
        if fields[place("id")] == last.to_string() {
            fields[place("id")] = u64::MAX.to_string();
        }
    });
    let validation = json(&validate(&sandbox, &["--format", "json"]).with_code(0));
    assert_eq!(validation["measured"]["compared"], last + 1);
}

#[test]
fn a_degraded_run_is_said() {
    let sandbox = measured(1.0);
    let reason = Degraded {
        code: "sends_late".to_owned(),
        text: "9 % of requests were sent late".to_owned(),
    };
    let degraded = vec![reason];
    describe(
        &sandbox,
        Measured {
            degraded,
            ..Measured::default()
        },
    );
    let text = validate(&sandbox, &[]).with_code(4).stdout;
    assert!(
        text.contains("sends_late: 9 % of requests were sent late"),
        "{text}"
    );
}

#[test]
fn pictures_and_records_are_written() {
    let sandbox = measured(1.0);
    validate(&sandbox, &["--picture", "both.svg", "--out", "predicted"]).with_code(0);
    let picture = sandbox.read("both.svg");
    assert!(
        picture.contains("TTFT, measured and predicted"),
        "{picture}"
    );
    let rows = |folder: &str| {
        sandbox
            .read(format!("{folder}/requests.csv"))
            .lines()
            .count()
    };
    assert_eq!(rows("predicted"), rows("run"));
}

#[test]
fn what_cannot_be_compared_is_refused_by_name() {
    let sandbox = measured(1.0);
    let refused = |arguments: &[&str], expected: &str| {
        let ended = sandbox
            .run(&[&["validate"], arguments].concat())
            .with_code(2);
        let text = ended
            .stderr
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert!(text.contains(expected), "{text}");
    };
    refused(&["none", "calm.toml"], "cannot read none");
    fs::create_dir(sandbox.path("empty")).unwrap();
    refused(&["empty", "calm.toml"], "empty");
    sandbox.write("table.csv", "source,licence,gpu\nx,y,h100\n");
    refused(&["table.csv", "calm.toml"], "it is no JSON");
    sandbox.write("means.json", "{\"mean_ttft_ms\": 5.0}");
    refused(&["means.json", "calm.toml"], "the arrivals are unknown");
    refused(
        &[
            "run",
            "calm.toml",
            "--set",
            "deployment.model=llama-3.1-8b",
            "--set",
            "step_time.check_provenance=false",
        ],
        "the records are of the model `llama-3-8b`, and the scenario is of `llama-3.1-8b`",
    );
    refused(
        &["run", "calm.toml", "--tolerance-mean", "5"],
        "a share of at most 100%, such as 5%",
    );
    refused(
        &["run", "calm.toml", "--profile", "means.json"],
        "is not a profile",
    );
}
