//! The main job, and what scripts rely on.

use serde_json::Value;

use crate::sandbox::{NATIVE_HEADER, SMALL, Sandbox};

#[test]
fn a_ready_scenario_runs_anywhere() {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&["simulate", "chat", "--set", "workload.duration=2m"]);
    assert!([0, 3].contains(&ended.code), "{}", ended.stderr);
    assert!(
        ended.stdout.starts_with("chat · llama-3-8b on "),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("OBJECTIVES"), "{}", ended.stdout);
}

#[test]
fn the_ready_scenarios_are_listed() {
    let list = Sandbox::new()
        .run(&["simulate", "--list"])
        .with_code(0)
        .stdout;
    assert!(list.lines().count() >= 8, "{list}");
    for line in list.lines() {
        let (name, description) = line.split_once(' ').unwrap();
        assert!(!name.is_empty() && description.trim().len() > 10, "{line}");
    }
}

#[test]
fn the_summary_of_a_small_scenario() {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&["simulate", "small.toml"]).with_code(0);
    assert_eq!(ended.stderr, "");
    insta::with_settings!({
        filters => [(r"in [0-9.]+ (µs|ms|s) \([0-9.,]+ requests/s\)", "in [TIME]")],
    }, {
        insta::assert_snapshot!("summary", ended.stdout);
    });
}

#[test]
fn an_objective_that_is_not_met_is_exit_code_3() {
    let sandbox = Sandbox::new();
    let arguments = [
        "simulate",
        "small.toml",
        "--set",
        "objectives.ttft_p95=1us",
        "--out",
        "run",
    ];
    let ended = sandbox.run(&arguments).with_code(3);
    assert!(
        ended.stdout.contains("OBJECTIVES  1 of 2 met"),
        "{}",
        ended.stdout
    );
    assert!(sandbox.path("run/summary.json").is_file());
    let ended = sandbox.run(&[
        "simulate",
        "small.toml",
        "--seeds",
        "2",
        "--set",
        "objectives.ttft_p95=1us",
    ]);
    ended.with_code(3);
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn json_is_an_object_for_one_scenario_and_an_array_for_several() {
    let sandbox = Sandbox::new();
    sandbox.write("other.toml", SMALL);
    let one = json(
        &sandbox
            .run(&["simulate", "small.toml", "--format", "json"])
            .with_code(0)
            .stdout,
    );
    assert_eq!(one["scenario"]["name"], "small");
    assert!(one["run"]["wall_s"].is_number() && one["run"]["requests_per_wall_s"].is_number());
    let arguments = ["simulate", "small.toml", "other.toml", "--format", "json"];
    let both = json(&sandbox.run(&arguments).with_code(0).stdout);
    let names: Vec<_> = both
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["scenario"]["name"])
        .collect();
    assert_eq!(names, ["small", "other"]);
}

#[test]
fn several_seeds_are_one_summary_with_an_interval() {
    let sandbox = Sandbox::new();
    let arguments = [
        "simulate",
        "small.toml",
        "--seed",
        "7",
        "--seeds",
        "3",
        "--format",
        "json",
        "--out",
        "runs",
    ];
    let summary = json(&sandbox.run(&arguments).with_code(0).stdout);
    assert_eq!(summary["seeds"]["seeds"], serde_json::json!([7, 8, 9]));
    let metrics = summary["seeds"]["metrics"].as_array().unwrap();
    let ttft = metrics
        .iter()
        .find(|metric| metric["name"] == "ttft_p95")
        .unwrap();
    assert!(ttft["half_width"].as_f64().unwrap() > 0.0, "{ttft}");
    for (index, seed) in [7, 8, 9].into_iter().enumerate() {
        let run = json(&sandbox.read(format!("runs/seed-{seed}/summary.json")));
        assert_eq!(run["seed"], seed);
        assert_eq!(run["ttft_s"]["p95"], ttft["values"][index]);
    }
}

/// What a calibration has wrong is in every run: more of them do not make it less.
#[test]
fn draws_are_told_around_the_best_run_and_no_narrower_for_more_seeds() {
    let sandbox = Sandbox::new();
    let run = |arguments: &[&str]| {
        let arguments = [&["simulate", "one-replica", "--format=json"], arguments].concat();
        let ended = sandbox.run(&[&arguments[..], &["--set=workload.duration=20s"]].concat());
        json(&ended.stdout)
    };
    let tpot = |summary: &Value| {
        let metrics = summary["seeds"]["metrics"].as_array().unwrap();
        let found = metrics.iter().find(|metric| metric["name"] == "tpot_mean");
        let found = found.unwrap();
        let [mean, half] = ["mean", "half_width"].map(|part| found[part].as_f64().unwrap());
        (mean, half)
    };
    let best = run(&[]);
    let of_best = best["tpot_s"]["mean"].as_f64().unwrap();
    let (few, many) = (run(&["--seeds=10"]), run(&["--seeds=60"]));
    for summary in [&few, &many] {
        assert_eq!(summary["seeds"]["include_calibration_error"], true);
        assert_eq!(summary["tpot_s"], best["tpot_s"]);
        let (mean, half) = tpot(summary);
        assert!((mean - of_best).abs() < half, "{mean} ± {half}, {of_best}");
    }
    assert!(tpot(&many).1 > 0.6 * tpot(&few).1, "{many}");
    let exact = run(&["--seeds=60", "--exact-step-times"]);
    assert!(tpot(&exact).1 < 0.2 * tpot(&many).1, "{exact}");
}

#[test]
fn several_scenarios_are_set_side_by_side() {
    let sandbox = Sandbox::new();
    sandbox.write_changed(
        "slow.toml",
        "max_replica_count = 2",
        "max_replica_count = 1",
    );
    let ended = sandbox
        .run(&["simulate", "small.toml", "slow.toml", "--out", "runs"])
        .with_code(0);
    let table = ended
        .stdout
        .split("\nSCENARIO")
        .nth(1)
        .expect("there is a table");
    assert!(
        table.contains("\nsmall ") && table.contains("\nslow "),
        "{table}"
    );
    for file in [
        "small/requests.csv",
        "small/timeline.csv",
        "small/summary.json",
        "slow/summary.json",
    ] {
        assert!(sandbox.path("runs").join(file).is_file(), "{file}");
    }
}

#[test]
fn the_summary_file_has_no_wall_time() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["simulate", "small.toml", "--out", "run"])
        .with_code(0);
    let run = &json(&sandbox.read("run/summary.json"))["run"];
    assert!(run["steps"].as_u64().unwrap() > 0);
    assert!(run.get("wall_s").is_none() && run.get("requests_per_wall_s").is_none());
}

#[test]
fn settings_and_seed_of_the_command_line_win() {
    let sandbox = Sandbox::new();
    let set = [
        "--set",
        "deployment.world_size=2",
        "--set",
        "name=other",
        "--seed",
        "99",
    ];
    let arguments = [
        ["simulate", "small.toml", "--format", "json"].as_slice(),
        &set,
    ]
    .concat();
    let summary = json(&sandbox.run(&arguments).with_code(0).stdout);
    assert_eq!(summary["scenario"]["world_size"], 2);
    assert_eq!(summary["scenario"]["name"], "other");
    assert_eq!(summary["seed"], 99);
}

#[test]
fn a_summary_says_what_traffic_and_settings_it_is_of() {
    let sandbox = Sandbox::new();
    sandbox.write("t.csv", format!("{NATIVE_HEADER}0,5,5,,,,,,\n"));
    let setting = "deployment.scale_up_window=5s";
    let arguments = [
        "simulate",
        "small.toml",
        "--set",
        setting,
        "--trace",
        "t.csv",
    ];
    let text = sandbox.run(&arguments).with_code(0).stdout;
    let header: Vec<_> = text.lines().skip(1).take(2).collect();
    let settings = ["--trace t.csv", setting];
    assert_eq!(
        header,
        ["trace t.csv", &format!("with {}", settings.join(", "))]
    );
    let arguments = [arguments.as_slice(), &["--format", "json"]].concat();
    let facts = &json(&sandbox.run(&arguments).with_code(0).stdout)["scenario"];
    assert_eq!(facts["workload"], "trace t.csv");
    assert_eq!(facts["settings"], serde_json::json!(settings));
    assert_eq!(facts["replica_count_min"], 1);
}

#[test]
fn requests_that_are_too_long_are_told_with_the_remedy() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "long.csv",
        format!("{NATIVE_HEADER}0,5,5,,,,,,\n1000,8190,10,,,,,,\n2000,9000,10,,,,,,\n"),
    );
    let ended = sandbox.run(&["simulate", "small.toml", "--trace", "long.csv"]);
    assert_eq!(
        ended.stderr,
        "note: small: requests rejected because they are longer than the context of 8192 tokens: 2; \
         the longest has 9010: raise deployment.max_model_len if the model allows more, \
         or choose a model with a longer context\n"
    );
}

#[test]
fn a_trace_takes_the_place_of_the_workload() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "burst.csv",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
        5,ChatGPT,472,18,490,Conversation log\n\
        45,ChatGPT,1087,0,1087,Conversation log\n\
        118,GPT-4,417,276,693,Conversation log\n",
    );
    let arguments = [
        "simulate",
        "small.toml",
        "--trace",
        "burst.csv",
        "--format",
        "json",
    ];
    let ended = sandbox.run(&arguments).with_code(0);
    assert_eq!(json(&ended.stdout)["requests"]["offered"], 2);
    assert!(
        ended
            .stderr
            .starts_with("note: small: rows of the trace that were skipped: 1 ("),
        "{}",
        ended.stderr
    );
    let ended = sandbox
        .run(&[arguments.as_slice(), &["--quiet"]].concat())
        .with_code(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn lengths_that_are_often_cut_are_told() {
    let sandbox = Sandbox::new();
    let told = |max: &str| {
        let lengths = format!("{{ log_normal = {{ mean = 128, cv = 1.0 }}, max = {max} }}");
        let set = format!("workload.output_tokens={lengths}");
        sandbox
            .run(&["simulate", "small.toml", "--set", &set])
            .stderr
    };
    let note = "note: small: lengths drawn again because they were above `max`: ";
    assert!(told("130").starts_with(note), "{}", told("130"));
    assert_eq!(told("4000"), "");
}

#[test]
fn colour_is_for_terminals_unless_asked_for() {
    let sandbox = Sandbox::new();
    let coloured = |arguments: &[&str], no_color: &str| {
        let mut command = sandbox.command();
        command
            .args(["simulate", "small.toml"])
            .args(arguments)
            .env("NO_COLOR", no_color);
        String::from_utf8(command.output().unwrap().stdout)
            .unwrap()
            .contains('\x1b')
    };
    assert!(!coloured(&[], ""));
    assert!(coloured(&["--color", "always"], ""));
    assert!(coloured(&["--color", "always"], "1"));
    assert!(!coloured(&["--color", "never"], ""));
}

/// It takes about a second, which on a terminal would show a progress bar.
#[test]
fn a_long_run_draws_no_bar_where_nobody_sees_it() {
    let ended = Sandbox::new().run(&["simulate", "million", "--color", "always"]);
    assert!([0, 3].contains(&ended.code), "{}", ended.stderr);
    for line in ended.stderr.lines() {
        assert!(line.contains("note: "), "{}", ended.stderr);
    }
}

#[test]
fn a_new_scenario_runs_as_it_is() {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&["init"]).with_code(0);
    assert!(
        ended
            .stderr
            .contains("`foresail simulate scenario.toml` runs it"),
        "{}",
        ended.stderr
    );
    let ended = sandbox.run(&["simulate", "scenario.toml"]);
    assert!([0, 3].contains(&ended.code), "{}", ended.stderr);
    assert_eq!(
        sandbox.run(&["init", "-"]).with_code(0).stdout,
        sandbox.read("scenario.toml")
    );
}

#[test]
fn a_scenario_is_not_replaced_unless_asked_for() {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&["init", "small.toml"]).with_code(2);
    assert!(
        ended.stderr.contains("small.toml is there already"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("--force"), "{}", ended.stderr);
    assert_eq!(sandbox.read("small.toml"), SMALL);
    sandbox
        .run(&["init", "small.toml", "--from", "chat", "--force"])
        .with_code(0);
    assert!(sandbox.read("small.toml").contains("name = \"chat\""));
    assert_eq!(sandbox.names(), ["small.toml"]);
}
