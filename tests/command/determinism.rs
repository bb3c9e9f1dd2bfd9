//! The same seed gives the same bytes, and one knob leaves the others alone.

use crate::sandbox::Sandbox;

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let sandbox = Sandbox::new();
    let simulate = |out: &str, threads: &str| {
        let arguments = [
            "simulate",
            "small.toml",
            "chat",
            "--set",
            "workload.duration=3m",
            "--seeds",
            "3",
            "--threads",
            threads,
            "--out",
            out,
            "--quiet",
        ];
        let ended = sandbox.run(&arguments);
        assert!([0, 3].contains(&ended.code), "{}", ended.stderr);
        ended.stdout
    };
    // The last line of each summary is about the time that this run took.
    let lasting = |text: String| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains(" requests/s)"));
        lines.map(str::to_owned).collect()
    };
    let one = lasting(simulate("one", "1"));
    assert_eq!(lasting(simulate("again", "1")), one);
    assert_eq!(lasting(simulate("four", "4")), one);
    let files = sandbox.contents("one");
    assert_eq!(files.len(), 2 * 3 * 3);
    assert_eq!(files[0].0, "chat/seed-1/requests.csv");
    assert!(sandbox.contents("again") == files, "the same seed again");
    assert!(
        sandbox.contents("four") == files,
        "another number of threads"
    );
}

#[test]
fn another_seed_gives_other_requests() {
    let sandbox = Sandbox::new();
    for seed in ["1", "2"] {
        sandbox
            .run(&["simulate", "small.toml", "--seed", seed, "--out", seed])
            .with_code(0);
    }
    assert_ne!(
        sandbox.read("1/requests.csv"),
        sandbox.read("2/requests.csv")
    );
}

#[test]
fn steps_one_by_one_give_the_same_records() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["simulate", "small.toml", "--out", "leaps"])
        .with_code(0);
    sandbox
        .run(&["simulate", "small.toml", "--step-by-step", "--out", "steps"])
        .with_code(0);
    for file in ["requests.csv", "timeline.csv"] {
        let name = |folder: &str| format!("{folder}/{file}");
        assert_eq!(
            sandbox.read(name("leaps")),
            sandbox.read(name("steps")),
            "{file}"
        );
    }
    // It was another computation: each step was an event.
    let events = |folder: &str| -> u64 {
        let json: serde_json::Value =
            serde_json::from_str(&sandbox.read(format!("{folder}/summary.json"))).unwrap();
        json["run"]["events"].as_u64().unwrap()
    };
    assert!(events("steps") > events("leaps"));
}

#[test]
fn a_knob_leaves_the_arrivals_alone() {
    let sandbox = Sandbox::new();
    // Every length is drawn, so that there is something to reshuffle.
    let arrivals = |out: &str, set: &str| {
        let drawn = "workload.output_tokens={ log_normal = { mean = 128, cv = 1.0 } }";
        let arguments = [
            "simulate",
            "small.toml",
            "--set",
            drawn,
            "--set",
            set,
            "--out",
            out,
        ];
        let ended = sandbox.run(&arguments);
        assert!([0, 3].contains(&ended.code), "{}", ended.stderr);
        let records = sandbox.read(format!("{out}/requests.csv"));
        let mut rows: Vec<(u64, String)> = records.lines().skip(1).map(offered).collect();
        rows.sort();
        rows
    };
    let before = arrivals("before", "deployment.max_replica_count=2");
    assert!(before.len() > 1_000);
    assert_eq!(
        arrivals("replicas", "deployment.max_replica_count=1"),
        before
    );
    assert_eq!(arrivals("window", "deployment.scale_up_window=1s"), before);
    assert_eq!(arrivals("gpu", "deployment.gpu=a100-80gb"), before);
}

/// What the workload decides of a row of `requests.csv`, with its id: when the
/// request was due and how long it is.
fn offered(row: &str) -> (u64, String) {
    let fields: Vec<&str> = row.split(',').collect();
    (fields[0].parse().unwrap(), fields[1..5].join(","))
}
