//! Bad input: exit code 2, the place and the remedy on standard error, nothing
//! on standard output, nothing written.

use crate::sandbox::{NATIVE_HEADER, SMALL, Sandbox};

/// Runs a command that must refuse its input, and checks that it says all of `told`.
#[track_caller]
fn assert_refused(sandbox: &Sandbox, arguments: &[&str], told: &[&str]) {
    let before = sandbox.names();
    let ended = sandbox.run(arguments).with_code(2);
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

/// The small scenario with one change must be refused at `place`.
#[track_caller]
fn assert_scenario_refused(from: &str, to: &str, told: &[&str]) {
    let sandbox = Sandbox::new();
    sandbox.write_changed("bad.toml", from, to);
    assert_refused(&sandbox, &["simulate", "bad.toml", "--out", "run"], told);
}

/// The small scenario with this trace must be refused.
#[track_caller]
fn assert_trace_refused(trace: impl AsRef<[u8]>, told: &[&str]) {
    let sandbox = Sandbox::new();
    sandbox.write("bad.csv", trace);
    let arguments = [
        "simulate",
        "small.toml",
        "--trace",
        "bad.csv",
        "--out",
        "run",
    ];
    assert_refused(&sandbox, &arguments, told);
    assert_refused(&sandbox, &["trace", "inspect", "bad.csv"], told);
    assert_refused(
        &sandbox,
        &["trace", "convert", "bad.csv", "--out", "good.csv"],
        told,
    );
}

fn native(rows: &str) -> String {
    format!("{NATIVE_HEADER}{rows}")
}

#[test]
fn an_unknown_key() {
    assert_scenario_refused(
        "scale_up_window",
        "scale_up_windw",
        &[
            "bad.toml:9:1",
            "unknown key `scale_up_windw`",
            "did you mean `scale_up_window`?",
        ],
    );
}

#[test]
fn a_minimum_above_the_maximum() {
    assert_scenario_refused(
        "min_replica_count = 1",
        "min_replica_count = 4",
        &[
            "bad.toml:7:21",
            "cannot be greater than max_replica_count",
            "lower min_replica_count",
        ],
    );
}

#[test]
fn a_duration_in_days() {
    assert_scenario_refused(
        "\"10s\"",
        "\"7d\"",
        &[
            "bad.toml:9:19",
            "time: unknown unit \"d\" in duration \"7d\"",
            "write `168h`",
        ],
    );
}

#[test]
fn a_negative_duration() {
    assert_scenario_refused("\"10s\"", "\"-10s\"", &["bad.toml:9:19", "help: "]);
}

#[test]
fn a_duration_that_overflows() {
    assert_scenario_refused(
        "\"10s\"",
        "\"9000000h\"",
        &[
            "bad.toml:9:19",
            "time: invalid duration \"9000000h\"",
            "help: ",
        ],
    );
}

#[test]
fn a_world_size_that_does_not_fit() {
    assert_scenario_refused(
        "llama-3-8b",
        "llama-3-70b",
        &[
            "bad.toml:4:9",
            "llama-3-70b does not fit on 1 h100",
            "what would fit: `world_size` = 2",
        ],
    );
}

#[test]
fn a_world_size_that_does_not_divide_the_heads() {
    assert_scenario_refused(
        "world_size = 1",
        "world_size = 3",
        &[
            "bad.toml:4:9",
            "world size 3 does not divide 32 attention heads",
            "world sizes that divide 32: 1, 2, 4 or 8",
        ],
    );
}

#[test]
fn a_rate_of_zero() {
    assert_scenario_refused(
        "rate_per_s = 30.0",
        "rate_per_s = 0",
        &[
            "bad.toml:13:",
            "rate_per_s` must be above 0",
            "write a number above 0",
        ],
    );
}

#[test]
fn a_text_that_is_not_toml() {
    assert_scenario_refused("[workload]", "[workload", &["bad.toml:11:"]);
}

#[test]
fn a_scenario_that_is_not_utf_8() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.toml", [SMALL.as_bytes(), b"# \xff\n"].concat());
    let told = [
        "`bad.toml` is not UTF-8",
        "line 26",
        "save the file as UTF-8",
    ];
    assert_refused(&sandbox, &["simulate", "bad.toml", "--out", "run"], &told);
}

#[test]
fn a_scenario_that_is_not_there() {
    let sandbox = Sandbox::new();
    let told = [
        "there is no file or ready scenario `chatt`",
        "did you mean `chat`?",
    ];
    assert_refused(&sandbox, &["simulate", "chatt", "--out", "run"], &told);
}

#[test]
fn a_folder_where_a_scenario_should_be() {
    let sandbox = Sandbox::new();
    let told = ["`.` is a folder", "name a scenario file in it"];
    assert_refused(&sandbox, &["simulate", ".", "--out", "run"], &told);
}

#[test]
fn a_trace_given_as_a_scenario() {
    let sandbox = Sandbox::new();
    sandbox.write("long.csv", vec![b'x'; 10 << 20]);
    let told = ["too large for a scenario", "give a trace with `--trace`"];
    assert_refused(&sandbox, &["simulate", "long.csv", "--out", "run"], &told);
}

#[test]
fn every_problem_of_every_scenario_is_told() {
    let sandbox = Sandbox::new();
    sandbox.write_changed("one.toml", "\"10s\"", "\"7d\"");
    sandbox.write(
        "two.toml",
        SMALL.replace("h100", "h1000").replace("\"2m\"", "\"soon\""),
    );
    let arguments = [
        "simulate",
        "one.toml",
        "small.toml",
        "two.toml",
        "three.toml",
        "--out",
        "run",
    ];
    let told = [
        "one.toml:9:19",
        "two.toml:5:7",
        "two.toml:12:12",
        "`three.toml`",
        "4 problems; nothing was run",
    ];
    assert_refused(&sandbox, &arguments, &told);
}

#[test]
fn a_setting_that_is_none() {
    let sandbox = Sandbox::new();
    let set = |argument, told: &[&str]| {
        assert_refused(
            &sandbox,
            &["simulate", "small.toml", "--set", argument, "--out", "run"],
            told,
        );
    };
    set(
        "deployment.gpu",
        &["--set:1:1", "needs a path and a value", "for example"],
    );
    set(
        "deployment.gpus=h100",
        &["--set:1:1", "unknown key `gpus`", "did you mean `gpu`?"],
    );
    set(
        "deployment.scale_up_window=7d",
        &["--set:1:28", "unknown unit \"d\"", "write `168h`"],
    );
    set("seed.of=1", &["--set:1:1", "`seed` must be a whole number"]);
}

#[test]
fn a_setting_that_is_wrong_for_every_scenario_is_told_once() {
    let sandbox = Sandbox::new();
    sandbox.write("other.toml", SMALL);
    let ended = sandbox
        .run(&["simulate", "small.toml", "other.toml", "--set", "x"])
        .with_code(2);
    assert_eq!(
        ended.stderr.matches("needs a path and a value").count(),
        1,
        "{}",
        ended.stderr
    );
}

#[test]
fn a_seed_that_is_given_twice() {
    assert_refused(
        &Sandbox::new(),
        &["simulate", "small.toml", "--set", "seed=2", "--seed", "3"],
        &["--set:1:1", "the seed is given twice", "leave out one"],
    );
}

#[test]
fn seeds_that_there_are_not() {
    let sandbox = Sandbox::new();
    let seed = u64::MAX.to_string();
    let arguments = ["simulate", "small.toml", "--seed", &seed, "--seeds", "2"];
    assert_refused(
        &sandbox,
        &arguments,
        &["there are no 2 seeds", "give a smaller --seed"],
    );
    assert_refused(
        &sandbox,
        &["simulate", "small.toml", "--seeds", "0"],
        &["--seeds", "1..=10000"],
    );
}

#[test]
fn an_empty_trace() {
    let told = [
        "bad.csv",
        "the trace holds no requests",
        "name another trace",
    ];
    assert_trace_refused("", &told);
    assert_trace_refused(native(""), &told);
}

#[test]
fn a_malformed_row() {
    let trace = native("0,5,5,,,,,,\n10,many,5,,,,,,\n");
    assert_trace_refused(
        trace,
        &[
            "bad.csv:3:4: prompt_tokens: expected",
            "found `many`",
            "correct or remove the line",
        ],
    );
}

#[test]
fn a_malformed_row_late_in_a_long_trace() {
    let trace = native(&(rows(20_000) + "x\n"));
    assert_trace_refused(trace, &["bad.csv:20002:1: due_ns: expected", "found `x`"]);
}

#[test]
fn a_trace_out_of_order() {
    let trace = native("10,5,5,,,,,,\n9,5,5,,,,,,\n");
    assert_trace_refused(
        trace,
        &["bad.csv:3: rows must be in time order", "sort the file"],
    );
}

#[test]
fn a_line_of_10_megabytes() {
    let trace = native(&("0,5,".to_owned() + &"5".repeat(10 << 20)));
    assert_trace_refused(
        trace,
        &["bad.csv:2: the line is longer than", "is this a trace?"],
    );
    assert_trace_refused(
        "x".repeat(10 << 20),
        &["bad.csv:1: the line is longer than"],
    );
}

#[test]
fn a_trace_that_is_not_utf_8() {
    let trace = [native("0,5,5,,,,,,\n10,").as_bytes(), b"\xff\xfe,5,,,,,,\n"].concat();
    assert_trace_refused(
        trace,
        &[
            "bad.csv:3:4: text: expected UTF-8",
            "found `\u{fffd}\u{fffd},5",
        ],
    );
}

#[test]
fn a_trace_of_no_known_format() {
    assert_trace_refused(
        "when,what\n1,2\n",
        &["bad.csv", "the first line is `when,what`", "native-csv"],
    );
}

#[test]
fn a_trace_that_is_not_there() {
    let sandbox = Sandbox::new();
    let arguments = [
        "simulate",
        "small.toml",
        "--trace",
        "no.csv",
        "--out",
        "run",
    ];
    assert_refused(
        &sandbox,
        &arguments,
        &["--trace:1:1", "there is no trace `no.csv`", "help: "],
    );
    assert_refused(
        &sandbox,
        &["trace", "inspect", "no.csv"],
        &["cannot read no.csv", "check the path"],
    );
}

#[test]
fn a_folder_where_a_trace_should_be() {
    let sandbox = Sandbox::new();
    let arguments = ["simulate", "small.toml", "--trace", ".", "--out", "run"];
    assert_refused(
        &sandbox,
        &arguments,
        &[
            "--trace:1:1",
            "a folder, and not one of client pools",
            "name a trace file in it",
        ],
    );
    assert_refused(
        &sandbox,
        &["trace", "inspect", "."],
        &["cannot read .", "irectory", "name a trace file in it"],
    );
}

#[test]
fn one_bad_trace_of_several_scenarios_keeps_all_from_being_written() {
    let sandbox = Sandbox::new();
    sandbox.write("late.csv", native(&(rows(20_000) + "x\n")));
    sandbox.write("later.csv", native(&(rows(30_000) + "x\n")));
    let workload = &SMALL[SMALL.find("[workload]").unwrap()..SMALL.find("[price]").unwrap()];
    let replaying = |trace| SMALL.replace(workload, &format!("[workload]\ntrace = \"{trace}\"\n"));
    sandbox.write("later.toml", replaying("later.csv"));
    sandbox.write("late.toml", replaying("late.csv"));
    let scenarios = ["simulate", "small.toml", "chat", "later.toml", "late.toml"];
    for threads in ["1", "4"] {
        let options = ["--threads", threads, "--out", "deep/runs"];
        // The first scenario that fails is told of, even if another one fails before it.
        let told = ["later: later.csv:30002:1: due_ns: expected"];
        assert_refused(&sandbox, &[scenarios.as_slice(), &options].concat(), &told);
    }
}

/// Rows of the native format, one a millisecond.
fn rows(count: u64) -> String {
    (0..count)
        .map(|index| format!("{},5,5,,,,,,\n", index * 1_000_000))
        .collect()
}

#[test]
fn options_of_traces_that_cannot_be() {
    let sandbox = Sandbox::new();
    sandbox.write("good.csv", native("0,5,5,,,,,,\n1000,5,5,,,,,,\n"));
    let convert = |option: &str, told: &[&str]| {
        assert_refused(
            &sandbox,
            &["trace", "convert", "good.csv", "--out", "x.csv", option],
            told,
        );
    };
    convert("--rate-scale=0", &["rate_scale: expected a number above 0"]);
    convert("--repeat=0", &["repeat: expected at least 1"]);
    convert("--slice=1h", &["--slice", "expected FROM..TO"]);
    convert("--slice=0..7d", &["--slice", "unknown unit \"d\""]);
    convert(
        "--slice=1h..",
        &["the slice from 1h0m0s to the end holds no requests"],
    );
    convert("--from=excel", &["--from", "azure-csv"]);
}
