//! Outputs that cannot be written: exit code 2, a remedy, nothing left behind;
//! and readers that go away, which is no failure.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::sandbox::{Ended, SMALL, Sandbox};

#[test]
fn a_file_where_a_folder_is_needed() {
    let sandbox = Sandbox::new();
    for out in ["small.toml", "small.toml/run"] {
        let ended = sandbox
            .run(&["simulate", "small.toml", "--out", out])
            .with_code(2);
        assert_eq!(ended.stdout, "");
        assert!(
            ended
                .stderr
                .contains("is a file where a folder is needed; name another folder")
        );
        assert_eq!(sandbox.names(), ["small.toml"]);
    }
    assert_eq!(sandbox.read("small.toml"), SMALL);
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_made() {
    let sandbox = Sandbox::new();
    let ended = sandbox
        .run(&["simulate", "small.toml", "--out", "/proc/run"])
        .with_code(2);
    assert_eq!(ended.stdout, "");
    assert!(
        ended.stderr.contains("cannot write /proc/run"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("name another folder"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let sandbox = Sandbox::new();
    let ended = sandbox
        .run(&["simulate", "small.toml", "--out", "."])
        .with_code(2);
    assert!(
        ended
            .stderr
            .contains("holds `small.toml`, which is no record of a run")
    );
    assert_eq!(sandbox.names(), ["small.toml"]);
}

#[test]
fn scenarios_that_would_share_a_folder() {
    let sandbox = Sandbox::new();
    let arguments = ["simulate", "small.toml", "small.toml", "--out", "runs"];
    let ended = sandbox.run(&arguments).with_code(2);
    assert!(
        ended.stderr.contains("two scenarios are called `small`"),
        "{}",
        ended.stderr
    );
    sandbox.write("up.toml", format!("name = \"..\"\n{SMALL}"));
    let ended = sandbox
        .run(&["simulate", "small.toml", "up.toml", "--out", "runs"])
        .with_code(2);
    assert!(ended.stderr.contains("`..`"), "{}", ended.stderr);
    assert_eq!(sandbox.names(), ["small.toml", "up.toml"]);
}

/// Files that may not grow any further stand for a disk that is full: the
/// system refuses to write in the middle of the run.
#[cfg(target_os = "linux")]
#[test]
fn files_that_cannot_grow_leave_nothing_behind() {
    let sandbox = Sandbox::new();
    let script = r#"trap '' XFSZ; ulimit -f 8; exec "$0" simulate small.toml --out run"#;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, env!("CARGO_BIN_EXE_foresail")])
        .current_dir(sandbox.path(""));
    let ended = Ended::of(shell.output().expect("there is a shell")).with_code(2);
    assert_eq!(ended.stdout, "");
    assert!(
        ended.stderr.contains("requests.csv: File too large"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("name another folder"),
        "{}",
        ended.stderr
    );
    assert_eq!(sandbox.names(), ["small.toml"]);
}

/// A shell that mounts a file system of 64 KiB at `disk` and then runs a script,
/// out of sight of the rest of the machine.
#[cfg(target_os = "linux")]
fn with_small_disk(sandbox: &Sandbox, script: &str) -> Command {
    let mount = "mount -t tmpfs -o size=64k none disk || exit 99";
    let mut shell = Command::new("unshare");
    shell.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    shell
        .arg(format!("{mount}\n{script}"))
        .arg(env!("CARGO_BIN_EXE_foresail"));
    shell.current_dir(sandbox.path(""));
    shell
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("disk")).unwrap();
    let probe = with_small_disk(&sandbox, "exit 0").output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no small file system can be mounted here: {probe:?}");
        return;
    }
    let script = r#""$0" simulate small.toml --out disk/run; code=$?; ls -A disk; exit $code"#;
    let output = with_small_disk(&sandbox, script).output().unwrap();
    let ended = Ended::of(output).with_code(2);
    assert_eq!(ended.stdout, "", "the disk is empty again");
    assert!(
        ended.stderr.contains("no space left to write disk/run/"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("free some"), "{}", ended.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device() {
    let sandbox = Sandbox::new();
    for arguments in [
        ["trace", "generate", "small.toml", "--out", "/dev/full"].as_slice(),
        &["init", "/dev/full"],
    ] {
        let ended = sandbox.run(arguments).with_code(2);
        assert!(
            ended
                .stderr
                .contains("cannot write /dev/full: No space left"),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains("name another file"),
            "{}",
            ended.stderr
        );
    }
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = sandbox
        .command()
        .args(["simulate", "small.toml"])
        .stdout(full)
        .output()
        .unwrap();
    let ended = Ended::of(output).with_code(2);
    assert!(
        ended
            .stderr
            .contains("cannot write to standard output: No space left")
    );
}

#[test]
fn a_folder_where_a_file_should_be() {
    let sandbox = Sandbox::new();
    let ended = sandbox
        .run(&["trace", "generate", "small.toml", "--out", "."])
        .with_code(2);
    assert!(
        ended.stderr.contains("is a folder; name a file"),
        "{}",
        ended.stderr
    );
    let ended = sandbox.run(&["init", "no/such/folder.toml"]).with_code(2);
    assert!(
        ended.stderr.contains("cannot write no/such/folder.toml"),
        "{}",
        ended.stderr
    );
    assert_eq!(sandbox.names(), ["small.toml"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command();
    // Far more than a pipe holds, so that it is still writing when the reader goes.
    command.args([
        "trace",
        "generate",
        "small.toml",
        "--set",
        "workload.rate_scale=20",
        "--out",
        "-",
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap()).with_code(0);
    assert!(line.starts_with("due_ns,"), "{line}");
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_reader_that_is_gone_before_the_summary_is_no_failure() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command();
    command.args(["simulate", "small.toml", "--out", "run"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let ended = Ended::of(child.wait_with_output().unwrap()).with_code(0);
    assert_eq!(ended.stderr, "");
    assert!(sandbox.path("run/summary.json").is_file());
}

/// Waits until something is so, for as long as a slow machine may need.
#[track_caller]
pub(crate) fn wait_until(is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "it takes too long"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_removes_what_it_began() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command();
    // Hours of work, if nobody stops it.
    command.args([
        "simulate",
        "small.toml",
        "--set",
        "workload.duration=100000h",
        "--out",
        "run",
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until(|| {
        sandbox
            .names()
            .iter()
            .any(|name| name.ends_with("requests.csv"))
    });
    let process = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &process])
            .status()
            .unwrap()
            .success()
    );
    let ended = Ended::of(child.wait_with_output().unwrap()).with_code(130);
    assert_eq!(ended.stdout, "");
    assert!(
        ended.stderr.contains("interrupted; no file was written"),
        "{}",
        ended.stderr
    );
    assert_eq!(sandbox.names(), ["small.toml"]);
}
