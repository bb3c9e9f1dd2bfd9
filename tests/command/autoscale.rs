//! `foresail autoscale`: decisions, row by row.

use std::io::Write as _;
use std::process::Stdio;

use crate::sandbox::{Ended, Sandbox};

const LOAD: &str = "time_s,load,ready\n0,1,1\n10.0,40,1\n20,40,1\n40,40,1\n41.5,0,8\n";

const RAY_SERVE: [&str; 5] = [
    "autoscale",
    "--policy",
    "ray-serve",
    "--set",
    "max_replicas=8",
];

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("load.csv", LOAD);
    sandbox
}

fn run(sandbox: &Sandbox, arguments: &[&str]) -> Ended {
    sandbox.run(&[&RAY_SERVE[..], arguments].concat())
}

#[test]
fn a_row_is_a_look_and_says_why() {
    let ended = run(&sandbox(), &["--trace", "load.csv"]).with_code(0);
    assert_eq!(ended.stderr, "");
    insta::assert_snapshot!(ended.stdout, @r#"
    time_s,desired,reason
    0,1,1 ongoing requests / 2 per replica = 1 is what there is
    10.0,1,40 ongoing requests / 2 per replica = 20 for 0s of 30s
    20,1,40 ongoing requests / 2 per replica = 20 for 10s of 30s
    40,8,"40 ongoing requests / 2 per replica = 20 for 30s, within limits 8"
    41.5,8,"0 ongoing requests / 2 per replica = 0, applied as 1 for 0s of 10m"
    "#);
}

#[test]
fn only_changes_are_shown_if_so_asked() {
    let arguments = ["--trace", "load.csv", "--changes-only", "--initial", "2"];
    let ended = run(&sandbox(), &arguments).with_code(0);
    let change = "40,8,\"40 ongoing requests / 2 per replica = 20 for 30s, within limits 8\"\n";
    assert_eq!(ended.stdout, format!("time_s,desired,reason\n{change}"));
}

#[test]
fn the_policy_is_that_of_a_scenario_unless_another_is_named() {
    let sandbox = sandbox();
    let of_scenario = ["autoscale", "small.toml", "--trace", "load.csv"];
    let ended = sandbox.run(&of_scenario).with_code(0);
    insta::assert_snapshot!(ended.stdout, @"
    time_s,desired,reason
    0,1,unchanged; the load calls for 1.25
    10.0,2,load 40 full batches > 1 replica x 0.8 for 10s
    20,2,unchanged; the load calls for 50
    40,2,unchanged; the load calls for 50
    41.5,2,unchanged; the load calls for 0
    ");
    let another = [&of_scenario[..], &["--policy", "ray-serve-legacy"]].concat();
    let ended = sandbox.run(&another).with_code(0);
    let waits =
        "20,1,\"40 ongoing requests / 2 per replica = 20, applied as 2 for 2 of 301 looks\"\n";
    assert!(ended.stdout.contains(waits), "{}", ended.stdout);
}

#[test]
fn parameters_of_the_deployment_need_no_table() {
    let arguments = [
        "autoscale",
        "--policy",
        "fireworks",
        "--set",
        "max_replica_count=4",
        "--set",
        "deployment.scale_up_window=5s",
        "--trace",
        "load.csv",
        "--changes-only",
    ];
    let ended = sandbox().run(&arguments).with_code(0);
    insta::assert_snapshot!(ended.stdout, @"
    time_s,desired,reason
    0,1,request at zero replicas
    10.0,4,load 40 full batches > 1 replica x 0.8 for 5s
    ");
}

#[test]
fn the_trace_may_come_through_a_pipe() {
    let sandbox = sandbox();
    let mut command = sandbox.command();
    command
        .args([&RAY_SERVE[..], &["--trace", "-"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(LOAD.as_bytes()).expect("it reads");
    drop(stdin);
    let ended = Ended::of(child.wait_with_output().expect("it ends")).with_code(0);
    let of_file = run(&sandbox, &["--trace", "load.csv"]);
    assert_eq!(ended.stdout, of_file.stdout);
}

#[test]
fn a_reader_that_has_seen_enough_is_success() {
    let sandbox = sandbox();
    let rows = (0..200_000).map(|row| format!("{row},5,1\n"));
    sandbox.write(
        "long.csv",
        "time_s,load,ready\n".to_owned() + &rows.collect::<String>(),
    );
    let mut command = sandbox.command();
    command
        .args([&RAY_SERVE[..], &["--trace", "long.csv"]].concat())
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn columns_are_explained() {
    let ended = sandbox()
        .run(&["autoscale", "--policy", "ray-serve", "--columns"])
        .with_code(0);
    insta::assert_snapshot!(ended.stdout, @"
    ray-serve
      time_s  seconds; may stay, never goes back
      load    total_num_requests: requests running and queued, aggregated over the look-back period
      ready   current_num_replicas: replicas that run
    ");
    let all = sandbox().run(&["autoscale", "--columns"]).with_code(0);
    for policy in ["fireworks\n", "scripted\n", "ray-serve-legacy\n"] {
        assert!(all.stdout.contains(policy), "{}", all.stdout);
    }
}

#[test]
fn a_column_that_is_not_read_is_told() {
    let sandbox = sandbox();
    sandbox.write("wide.csv", "note,ready,load,time_s\nx,1,1,0\n");
    let ended = run(&sandbox, &["--trace", "wide.csv"]).with_code(0);
    assert_eq!(
        ended.stderr,
        "note: ray-serve does not read the column `note` of wide.csv\n"
    );
}

/// A trace that is refused, and all of what is said of it.
#[track_caller]
fn assert_refused(trace: impl AsRef<[u8]>, told: &str) {
    let sandbox = sandbox();
    sandbox.write("bad.csv", trace);
    let ended = run(&sandbox, &["--trace", "bad.csv"]).with_code(2);
    assert_eq!(ended.stdout, "");
    assert_eq!(ended.stderr, format!("error: bad.csv{told}\n"));
}

fn assert_row_refused(row: &str, told: &str) {
    let trace = format!("time_s,load,ready\n5,1,1\n{row}\n");
    assert_refused(trace, &format!(", line 3: {told}"));
}

#[test]
fn a_trace_needs_a_header_with_what_the_policy_reads() {
    let needs = "time_s,load,ready";
    let empty = format!(" is empty; its first line is a header: {needs}");
    assert_refused("", &empty);
    assert_refused("\n\n", &empty);
    assert_refused("time_s,load,ready\n", " has no rows after its header");
    assert_refused(
        "time_s,load\n0,1\n",
        &format!(
            " has no column ready; ray-serve needs {needs} \
             (`foresail autoscale --policy ray-serve --columns` explains them)"
        ),
    );
    assert_refused(
        "time_s,load,ready,load\n0,1,1,1\n",
        " has the column load twice",
    );
}

#[test]
fn a_row_must_be_measurements_in_order_of_time() {
    assert_row_refused("6,x,1", "column load must be a number: `x`");
    assert_row_refused("6,-1,1", "column load must be a number of 0 or more: -1");
    assert_row_refused("6,nan,1", "column load must be a number of 0 or more: NaN");
    assert_row_refused("6,1,inf", "column ready must be a number of 0 or more: inf");
    assert_row_refused("6,1", "2 cells, and the header has 3");
    assert_row_refused(
        "4.9,1,1",
        "column time_s goes back to `4.9`; sort the rows by it",
    );
    assert_row_refused(
        "-6,1,1",
        "column time_s must be a time in seconds, such as 12.5: `-6`",
    );
    assert_row_refused(
        "6,1,",
        "column ready is empty; it is current_num_replicas: replicas that run",
    );
    assert_refused(
        b"time_s,load,ready\n5,\xff,1\n",
        ", line 2: column load must be a number: `\u{fffd}`",
    );
}

/// Arguments that are refused, and something of what is said of them.
fn assert_arguments_refused(arguments: &[&str], told: &[&str]) {
    let ended = sandbox().run(arguments).with_code(2);
    assert_eq!(ended.stdout, "");
    for text in told {
        assert!(ended.stderr.contains(text), "{text}: {}", ended.stderr);
    }
}

#[test]
fn a_policy_or_parameter_that_is_not_known_is_refused_with_a_suggestion() {
    let trace = ["--trace", "load.csv"];
    let with = |arguments: &[&'static str]| [&["autoscale"], arguments, &trace].concat();
    let misspelt = with(&["--policy", "ray-srve"]);
    assert_arguments_refused(&misspelt, &["ray-srve", "a similar value", "'ray-serve'"]);
    let misspelt = with(&["--policy", "ray-serve", "--set", "upscale_dela_s=1"]);
    assert_arguments_refused(
        &misspelt,
        &["unknown key", "did you mean `upscale_delay_s`?"],
    );
    assert_arguments_refused(
        &with(&["nosuch.toml"]),
        &["there is no file", "nosuch.toml"],
    );
    assert_arguments_refused(&with(&[]), &["required", "SCENARIO"]);
    assert_arguments_refused(&with(&["--policy", "oracle"]), &["oracle", "simulation"]);
    let missing = ["autoscale", "--policy", "ray-serve", "--trace", "no.csv"];
    assert_arguments_refused(&missing, &["error: cannot read no.csv"]);
}

#[test]
fn a_parameter_that_ray_serve_refuses_is_refused() {
    for (setting, told) in [
        ("target_ongoing_requests=0", "must be above 0"),
        ("upscale_delay_s=-1", "cannot be negative"),
        (
            "min_replicas=9",
            "max_replicas must be greater than or equal to min_replicas: 8 < 9",
        ),
        (
            "initial_replicas=9",
            "initial_replicas must be at most max_replicas: 9 > 8",
        ),
        ("max_replicas=0", "max_replicas must be greater than 0: 0"),
        ("aggregation_function=median", "\"median\""),
        ("min_replicas=1.5", "min_replicas"),
        ("max_replica_count=4", "are the same bound"),
    ] {
        let arguments = [&RAY_SERVE[..], &["--set", setting, "--trace", "load.csv"]].concat();
        assert_arguments_refused(&arguments, &[told]);
    }
}
