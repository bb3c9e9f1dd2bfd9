//! Variants under the same traffic.
//!
//! The policy that knows the future is left out where it is not the subject.

use serde_json::Value;

use crate::sandbox::{Ended, NATIVE_HEADER, Sandbox};

const WINDOWS: [&str; 7] = [
    "compare",
    "small.toml",
    "--vary",
    "deployment.scale_up_window=5s,45s",
    "--exact-step-times",
    "--no-oracle",
    "--seeds=3",
];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Runs a comparison with more arguments.
fn compare(sandbox: &Sandbox, arguments: &[&str], more: &[&str]) -> Ended {
    sandbox.run(&[arguments, more].concat())
}

/// A metric of the variant at this place.
fn metric<'a>(comparison: &'a Value, variant: usize, name: &str) -> &'a Value {
    let metrics = comparison["variants"][variant]["metrics"]
        .as_array()
        .unwrap();
    let found = metrics.iter().find(|metric| metric["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}"))
}

fn names(comparison: &Value) -> Vec<&str> {
    let variants = comparison["variants"].as_array().unwrap();
    let names = variants.iter().map(|variant| variant["name"].as_str());
    names.map(Option::unwrap).collect()
}

#[test]
fn the_comparison_of_two_windows() {
    let sandbox = Sandbox::new();
    let ended = compare(&sandbox, &WINDOWS, &[]).with_code(0);
    assert_eq!(ended.stderr, "");
    insta::assert_snapshot!("comparison", ended.stdout);
    let wide = ended.stdout.lines().find(|line| line.chars().count() > 100);
    assert_eq!(wide, None);
}

#[test]
fn draws_of_step_times_are_said_and_widen_intervals() {
    let sandbox = Sandbox::new();
    let drawn: Vec<&str> = WINDOWS
        .into_iter()
        .filter(|it| *it != "--exact-step-times")
        .collect();
    let text = sandbox.run(&drawn).with_code(0).stdout;
    assert!(
        text.contains("each seed has its own draw of the step times"),
        "{text}"
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    let half_width = |arguments: &[&str]| {
        let arguments = [arguments, &["--format=json"]].concat();
        let comparison = json(&sandbox.run(&arguments).with_code(0).stdout);
        metric(&comparison, 1, "tpot_mean")["half_width"]
            .as_f64()
            .unwrap()
    };
    assert!(half_width(&drawn) > half_width(&WINDOWS));
}

#[test]
fn every_figure_is_that_of_simulate_with_the_same_setting_and_seed() {
    let sandbox = Sandbox::new();
    let comparison = json(
        &compare(&sandbox, &WINDOWS, &["--format=json"])
            .with_code(0)
            .stdout,
    );
    assert_eq!(comparison["schema"], "foresail.compare/1");
    assert_eq!(comparison["pairing"], "seeds");
    assert_eq!(comparison["baseline"], "scale_up_window=5s");
    for (index, window) in ["5s", "45s"].into_iter().enumerate() {
        let set = format!("--set=deployment.scale_up_window={window}");
        let arguments = [
            "simulate",
            "small.toml",
            &set,
            "--exact-step-times",
            "--seeds=3",
            "--format=json",
        ];
        let alone = json(&sandbox.run(&arguments).with_code(0).stdout);
        let variant = &comparison["variants"][index];
        assert_eq!(variant["seeds"], alone["seeds"]["seeds"]);
        assert_eq!(variant["met"], alone["seeds"]["met"]);
        for metric in alone["seeds"]["metrics"].as_array().unwrap() {
            let compared = self::metric(&comparison, index, metric["name"].as_str().unwrap());
            assert_eq!(compared["values"], metric["values"], "{}", metric["name"]);
            assert_eq!(compared["half_width"], metric["half_width"]);
        }
    }
}

#[test]
fn a_difference_is_the_mean_of_those_of_the_seeds() {
    let sandbox = Sandbox::new();
    let comparison = json(
        &compare(&sandbox, &WINDOWS, &["--format=json"])
            .with_code(0)
            .stdout,
    );
    let [base, other] = [0, 1].map(|index| metric(&comparison, index, "ttft_p99"));
    assert!(base["difference"].is_null() && base["above_oracle"].is_null());
    let values = |metric: &Value| -> Vec<f64> {
        let values = metric["values"].as_array().unwrap();
        values.iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let differences: Vec<f64> = values(other)
        .iter()
        .zip(values(base))
        .map(|(other, base)| other - base)
        .collect();
    let mean = differences.iter().sum::<f64>() / 3.0;
    let difference = &other["difference"];
    assert!((difference["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    // Waiting longer before a second replica is ordered makes users wait.
    assert!(differences.iter().all(|difference| *difference > 0.0));
    assert_eq!(difference["verdict"], "higher");
}

#[test]
fn one_seed_is_a_difference_that_may_be_chance() {
    let sandbox = Sandbox::new();
    let arguments = [&WINDOWS[..6], &["--seeds=1"]].concat();
    let text = compare(&sandbox, &arguments, &[]).with_code(0).stdout;
    assert!(text.contains("one seed gives no interval"), "{text}");
    assert!(!text.contains('±') && !text.contains('▲'), "{text}");
    let comparison = json(&compare(&sandbox, &arguments, &["--format=json"]).stdout);
    let difference = &metric(&comparison, 1, "ttft_p99")["difference"];
    assert_eq!(difference["verdict"], "unknown");
    assert!(difference["half_width"].is_null());
}

#[test]
fn policies_settings_and_written_out_variants_go_together() {
    let sandbox = Sandbox::new();
    let arguments = [
        "compare",
        "small.toml",
        "--set=deployment.min_replica_count=2",
        "--policies=fireworks,fixed",
        "--vary=batching.max_num_seqs=16,32",
        "--with",
        "slow: deployment.gpu=a100, batching.max_num_seqs = 16",
        "--baseline=slow",
        "--no-oracle",
        "--seeds=2",
        "--format=json",
    ];
    let comparison = json(&sandbox.run(&arguments).with_code(0).stdout);
    assert_eq!(
        names(&comparison),
        [
            "fireworks, max_num_seqs=16",
            "fireworks, max_num_seqs=32",
            "fixed, max_num_seqs=16",
            "fixed, max_num_seqs=32",
            "slow"
        ]
    );
    assert_eq!(comparison["baseline"], "slow");
    let slow = &comparison["variants"][4];
    assert_eq!(slow["scenario"]["gpu"], "a100");
    let set = "deployment.min_replica_count=2";
    assert_eq!(slow["scenario"]["settings"][0], set);
    // With as many replicas at least as at most, the policy has no say.
    let difference = |index| &metric(&comparison, index, "ttft_p99")["difference"]["mean"];
    assert_eq!(difference(0), difference(2));
}

#[test]
fn several_scenarios_are_compared_as_they_are() {
    let sandbox = Sandbox::new();
    sandbox.write_changed("rare.toml", "rate_per_s = 30.0", "rate_per_s = 3.0");
    let arguments = [
        "compare",
        "small.toml",
        "rare.toml",
        "--no-oracle",
        "--seeds=2",
    ];
    let ended = sandbox.run(&arguments).with_code(0);
    assert!(
        ended
            .stdout
            .contains("its traffic is not that of the baseline"),
        "{}",
        ended.stdout
    );
    let comparison = json(&compare(&sandbox, &arguments, &["--format=json"]).stdout);
    assert_eq!(names(&comparison), ["small", "rare"]);
    assert_eq!(comparison["variants"][1]["same_traffic"], false);
}

#[test]
fn the_same_bytes_on_any_number_of_threads() {
    let sandbox = Sandbox::new();
    let run = |threads: &str, out: &str| {
        let more = ["--format=json", "--threads", threads, "--out", out];
        compare(&sandbox, &WINDOWS, &more).with_code(0).stdout
    };
    let one = run("1", "one");
    assert_eq!(run("4", "four"), one);
    assert!(sandbox.contents("one") == sandbox.contents("four"));
    assert_eq!(sandbox.read("one/comparison.json"), one);
}

#[test]
fn what_was_written_can_be_compared_again() {
    let sandbox = Sandbox::new();
    let more = ["--format=json", "--out=runs"];
    let first = json(&compare(&sandbox, &WINDOWS, &more).with_code(0).stdout);
    let folders = ["runs/scale_up_window=5s", "runs/scale_up_window=45s/"];
    let again = ["compare", folders[0], folders[1], "--format=json"];
    let again = json(&sandbox.run(&again).with_code(0).stdout);
    assert_eq!(
        names(&again),
        [folders[0], folders[1].trim_end_matches('/')]
    );
    assert_eq!(again["pairing"], "seeds");
    for index in 0..2 {
        let [before, after] = [&first, &again].map(|it| &it["variants"][index]);
        assert_eq!(before["metrics"], after["metrics"]);
        assert_eq!(before["settings"], after["settings"]);
    }
}

#[test]
fn runs_of_other_seeds_stand_side_by_side_unpaired() {
    let sandbox = Sandbox::new();
    for seed in ["1", "2"] {
        let arguments = ["simulate", "small.toml", "--seed", seed, "--out", seed];
        sandbox.run(&arguments).with_code(0);
    }
    let text = sandbox.run(&["compare", "1", "2"]).with_code(0).stdout;
    assert!(text.contains("not under the same seeds"), "{text}");
    let arguments = ["compare", "2", "1", "--baseline=1", "--format=json"];
    let comparison = json(&sandbox.run(&arguments).with_code(0).stdout);
    assert_eq!(comparison["pairing"], "none");
    assert!(metric(&comparison, 1, "ttft_p99")["difference"].is_null());
    let difference = &metric(&comparison, 0, "ttft_p99")["difference"];
    assert!(difference["half_width"].is_null() && difference["mean"].is_number());
}

#[test]
fn without_a_price_there_is_no_cost() {
    let sandbox = Sandbox::new();
    let ended = compare(&sandbox, &WINDOWS, &["--set=price.usd_per_gpu_hour=0"]).with_code(0);
    for told in [
        "there is no price",
        "GPU-h",
        "difference in billed GPU-time",
        "then by billed GPU-time",
    ] {
        assert!(
            ended.stdout.contains(told),
            "no `{told}` in:\n{}",
            ended.stdout
        );
    }
    assert!(!ended.stdout.contains('$'), "{}", ended.stdout);
}

#[test]
fn missed_objectives_are_no_failure_of_a_comparison() {
    let sandbox = Sandbox::new();
    let ended = compare(&sandbox, &WINDOWS, &["--set=objectives.ttft_p95=1us"]).with_code(0);
    assert!(ended.stdout.contains("0/3"), "{}", ended.stdout);
}

#[cfg(unix)]
#[test]
fn an_interrupted_comparison_removes_what_it_began() {
    use std::process::{Command, Stdio};

    use crate::bad_output::wait_until;

    let sandbox = Sandbox::new();
    let more = ["--set=workload.duration=100000h", "--out=runs"];
    let mut command = sandbox.command();
    command.args([WINDOWS.as_slice(), &more].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let has_begun = || {
        sandbox
            .names()
            .iter()
            .any(|name| name.ends_with("requests.csv"))
    };
    wait_until(has_begun);
    let process = child.id().to_string();
    let told = Command::new("kill").args(["-INT", &process]).status();
    assert!(told.unwrap().success());
    let ended = Ended::of(child.wait_with_output().unwrap()).with_code(130);
    assert_eq!(ended.stdout, "");
    assert_eq!(sandbox.names(), ["small.toml"]);
}

#[test]
fn what_is_good_to_know_is_told_once() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "long.csv",
        format!("{NATIVE_HEADER}0,5,5,,,,,,\n1000,8190,10,,,,,,\n"),
    );
    let ended = compare(&sandbox, &WINDOWS, &["--trace=long.csv"]).with_code(0);
    let notes: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        matches!(notes[..], [note] if note.starts_with("note: all variants: requests rejected")),
        "{notes:?}"
    );
    let ended = compare(&sandbox, &WINDOWS, &["--trace=long.csv", "--quiet"]);
    assert_eq!(ended.with_code(0).stderr, "");
}

/// Runs a comparison that must be refused, with all of `told` and nothing left behind.
#[track_caller]
fn assert_refused(sandbox: &Sandbox, arguments: &[&str], told: &[&str]) {
    let before = sandbox.names();
    let ended = compare(sandbox, &["compare"], arguments).with_code(2);
    assert_eq!(ended.stdout, "");
    for text in told {
        assert!(
            ended.stderr.contains(text),
            "no `{text}` in:\n{}",
            ended.stderr
        );
    }
    assert_eq!(sandbox.names(), before);
}

#[test]
fn variants_that_cannot_be_are_refused() {
    let sandbox = Sandbox::new();
    let refused: [(&[&str], &[&str]); 12] = [
        (
            &["small.toml"],
            &["nothing to compare `small` with", "--vary"],
        ),
        (&[], &["<SCENARIO>"]),
        (
            &["small.toml", "small.toml"],
            &["two variants are called `small.toml`"],
        ),
        (
            &["small.toml", "--with=a: seed=1", "--with=a: seed=1"],
            &["two variants are called `a`"],
        ),
        (
            &["small.toml", "--vary=seed="],
            &["`--vary seed=`: needs a path and values"],
        ),
        (
            &["small.toml", "--with=seed=1"],
            &["`--with 'seed=1'`: needs a name and settings"],
        ),
        (
            &["small.toml", "--policies=firework"],
            &["a similar value exists: 'fireworks'"],
        ),
        (
            &["small.toml", "--policies=fireworks,fixed"],
            &[
                "in `fixed`:",
                "a fixed deployment has one replica count",
                "small.toml:7:21",
            ],
        ),
        (
            &["small.toml", "--vary=deployment.scale_up_windw=1s,2s"],
            &[
                "unknown key `scale_up_windw`",
                "did you mean `scale_up_window`?",
            ],
        ),
        (
            &["small.toml", "--with=a: seed=1", "--seeds=0"],
            &["--seeds"],
        ),
        (
            &["small.toml", "--with=a: name=a", "--baseline=b"],
            &["there is no variant `b`; the variants are: small; a"],
        ),
        (
            &["small.toml", "--vary=seed=1,2"],
            &["`seed=1` begins with seed 1 and `seed=2` with seed 2"],
        ),
    ];
    for (arguments, told) in refused {
        assert_refused(&sandbox, arguments, told);
    }
}

#[test]
fn a_problem_of_all_variants_is_told_once_and_without_their_names() {
    let sandbox = Sandbox::new();
    let vary = "--vary=deployment.scale_up_window=1s,2s,3s";
    let arguments = ["compare", "small.toml", vary, "--set=deployment.gpu=h900"];
    let ended = sandbox.run(&arguments).with_code(2);
    assert_eq!(ended.stderr.matches("unknown GPU \"h900\"").count(), 1);
    assert!(!ended.stderr.contains("in `"), "{}", ended.stderr);
}

#[test]
fn a_problem_of_many_variants_names_a_few_of_them() {
    let sandbox = Sandbox::new();
    let arguments = [
        "compare",
        "small.toml",
        "--policies=fireworks,fixed",
        "--vary=seed=1,2,3,4,5",
    ];
    let ended = sandbox.run(&arguments).with_code(2);
    let heading = "in `fixed, seed=1`, `fixed, seed=2`, `fixed, seed=3` and 2 more:\n";
    assert!(ended.stderr.starts_with(heading), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("a fixed deployment has").count(), 1);
}

#[test]
fn folders_that_cannot_be_compared_are_refused() {
    let sandbox = Sandbox::new();
    for out in ["a", "b"] {
        let arguments = [
            "simulate",
            "small.toml",
            "--set=workload.duration=5s",
            "--out",
            out,
        ];
        sandbox.run(&arguments).with_code(0);
    }
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    std::fs::create_dir(sandbox.path("bad")).unwrap();
    sandbox.write("bad/summary.json", "{}");
    std::fs::create_dir(sandbox.path("old")).unwrap();
    sandbox.write("old/summary.json", r#"{"schema": "foresail.summary/0"}"#);
    let refused: [(&[&str], &[&str]); 7] = [
        (&["a"], &["nothing to compare `a` with"]),
        (&["a", "a/"], &["two variants are called `a`"]),
        (&["a", "empty"], &["`empty` holds no run", "`seed-N`"]),
        (
            &["a", "bad"],
            &["cannot read bad/summary.json", "not a summary"],
        ),
        (&["a", "old"], &["`foresail.summary/0`"]),
        (&["a", "small.toml"], &["`small.toml` is no folder of runs"]),
        (
            &["a", "b", "--seed=1", "--policies=fixed"],
            &["--policies, --seed cannot change runs"],
        ),
    ];
    for (arguments, told) in refused {
        assert_refused(&sandbox, arguments, told);
    }
}

#[test]
fn names_that_would_share_a_folder_are_refused_before_anything_runs() {
    let sandbox = Sandbox::new();
    let arguments = [
        "small.toml",
        "--with=a b: name=x",
        "--with=a/b: name=y",
        "--out=runs",
    ];
    assert_refused(&sandbox, &arguments, &["two variants are called `a-b`"]);
    let arguments = ["small.toml", "--with=/: name=x", "--out=runs"];
    assert_refused(&sandbox, &arguments, &["cannot be the name of a folder"]);
}

#[test]
fn the_oracle_is_run_along_and_every_distance_is_from_it() {
    let sandbox = Sandbox::new();
    let arguments = [&WINDOWS[..5], &["--seeds=3", "--out=runs", "--format=json"]].concat();
    let comparison = json(&sandbox.run(&arguments).with_code(0).stdout);
    assert_eq!(comparison["oracle"], "oracle");
    assert_eq!(
        names(&comparison),
        ["scale_up_window=5s", "scale_up_window=45s", "oracle"]
    );
    assert!(comparison["variants"][2]["rank"].is_null());
    assert!(sandbox.path("runs/oracle/seed-3/requests.csv").is_file());
    // Who knows what comes has the second replica sooner than who has to see it.
    for variant in 0..2 {
        let above = &metric(&comparison, variant, "ttft_p99")["above_oracle"];
        assert_eq!(above["verdict"], "higher", "{above}");
    }
    assert!(metric(&comparison, 2, "ttft_p99")["above_oracle"].is_null());
    // It is what `simulate` has under that policy.
    let set = "--set=autoscaler.policy=oracle";
    let arguments = [
        "simulate",
        "small.toml",
        set,
        "--seeds=3",
        "--exact-step-times",
        "--format=json",
    ];
    let alone = json(&sandbox.run(&arguments).with_code(0).stdout);
    let metrics = alone["seeds"]["metrics"].as_array().unwrap();
    let cost = metrics.iter().find(|it| it["name"] == "cost_usd").unwrap();
    assert_eq!(metric(&comparison, 2, "cost_usd")["values"], cost["values"]);
}

#[test]
fn the_oracle_needs_no_scenario_of_its_own() {
    let sandbox = Sandbox::new();
    let tuned = "[price]\nusd_per_gpu_hour = 8.00\n\n[autoscaler]\nsignal_smoothing = \"5s\"";
    sandbox.write_changed("tuned.toml", "[price]\nusd_per_gpu_hour = 8.00", tuned);
    let arguments = [
        "compare",
        "tuned.toml",
        "--set=autoscaler.window_semantics=average",
        "--policies=fireworks",
        "--seeds=1",
    ];
    let ended = sandbox.run(&arguments).with_code(0);
    assert_eq!(ended.stderr, "");
    assert!(
        ended.stdout.contains("1 variant of tuned and the oracle"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("than the oracle"), "{}", ended.stdout);
}

/// Every variant has a GPU, and the scenario by itself has none.
#[test]
fn an_oracle_that_cannot_be_is_told_and_left_out() {
    let sandbox = Sandbox::new();
    sandbox.write_changed("open.toml", "gpu = \"h100\"\n", "");
    let vary = "--vary=deployment.gpu=h100,a100";
    let ended = sandbox.run(&["compare", "open.toml", vary, "--seeds=1"]);
    let ended = ended.with_code(0);
    assert!(
        ended.stderr.starts_with("note: no oracle: ") && ended.stderr.contains("gpu"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stdout.contains("oracle"), "{}", ended.stdout);
}
