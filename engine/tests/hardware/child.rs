//! Tests that take a process of their own: one whose GPU is lost, or whose driver is another.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Set in the process of such a test.
const CHILD: &str = "FORESAIL_TEST_CHILD";
/// No test takes nearly as long (s); one that hangs does.
const SECONDS_MAX: u64 = 240;

/// Whether this is the process of its own.
pub(crate) fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Runs one test in a process of its own: what it printed.
pub(crate) fn run_alone(test: &str, variables: &[(&str, &OsStr)]) -> String {
    let all = [variables, &[(CHILD, OsStr::new("1"))]].concat();
    run(&["--exact", test, "--nocapture"], &all)
}

/// Runs this program again with other arguments and variables. Fails if that fails, or hangs.
pub(crate) fn run(arguments: &[&str], variables: &[(&str, &OsStr)]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("output");
    let output = File::create(&path).expect("made");
    let program = env::current_exe().expect("it runs");
    let mut child = Command::new(program)
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a second handle"))
        .stderr(output)
        .spawn()
        .expect("started");
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it was started") {
            break Some(status);
        }
        if began.elapsed() > Duration::from_secs(SECONDS_MAX) {
            child.kill().expect("killed");
            child.wait().expect("ended");
            break None;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let output = fs::read_to_string(&path).expect("it is there");
    assert!(
        status.is_some_and(|status| status.success()),
        "{arguments:?} ended with {status:?} (none: it hangs), and this:\n{output}"
    );
    output
}
