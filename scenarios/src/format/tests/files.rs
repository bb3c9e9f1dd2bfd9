//! Files, folders, and names of ready scenarios.

use std::path::Path;

use super::super::{Overrides, load, parse};
use super::{BASE, broken_by, render};
use crate::workload::Source;

fn failure(path: &Path) -> String {
    render(&load(path, &Overrides::default()).expect_err("this should not load"))
}

#[test]
fn neither_a_file_nor_a_ready_scenario() {
    insta::assert_snapshot!(failure(Path::new("chatt")), @r"
    scenario::file

      × there is no file or ready scenario `chatt`
      help: did you mean `chat`? ready scenarios, by name, are: chat, one-replica, scale-to-zero, two-
            to-three, world-size-1, world-size-2, burst, diurnal, long-prompts, multi-turn, adapters,
            failures, two-teams, thrash, hold-or-503, stock-out, spend-limit, update, shoot-out,
            million
    ");
}

#[test]
fn a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let text = failure(folder.path());
    assert!(text.contains("is a folder"), "{text}");
    assert!(text.contains("name a scenario file in it"), "{text}");
}

#[test]
fn not_utf_8_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin1.toml");
    std::fs::write(&path, b"name = \"x\"\n# caf\xe9\n").unwrap();
    let text = failure(&path);
    assert!(
        text.contains("is not UTF-8 text: line 2 has other bytes"),
        "{text}"
    );
}

#[test]
fn too_large_for_a_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.csv");
    std::fs::write(&path, vec![b'#'; 1_048_577]).unwrap();
    let text = failure(&path);
    assert!(
        text.contains("has 1048577 bytes: too large for a scenario"),
        "{text}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_without_end() {
    let text = failure(Path::new("/dev/zero"));
    assert!(
        text.contains("has more than 1048576 bytes: too large for a scenario"),
        "{text}"
    );
}

#[test]
fn paths_in_a_file_are_relative_to_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.csv"), "").unwrap();
    let path = folder.path().join("s.toml");
    let text = "[deployment]\nmodel = \"llama-3-8b\"\ngpu = \"h100\"\n\
                [workload]\ntrace = \"t.csv\"\n";
    std::fs::write(&path, text).unwrap();
    let scenario = load(&path, &Overrides::default()).unwrap();
    assert_eq!(scenario.name, "s");
    let Source::Trace(trace) = scenario.workload.source else {
        panic!("not a trace")
    };
    assert_eq!(trace.path, folder.path().join("t.csv"));
}

#[test]
fn a_trace_on_the_command_line_replaces_the_source_and_keeps_the_transforms() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("t.csv");
    std::fs::write(&trace, "").unwrap();
    let text = BASE.replace("duration", "rate_scale = 2.0\nduration");
    let overrides = Overrides {
        trace: Some(trace.clone()),
        ..Overrides::default()
    };
    let scenario = parse("s.toml", &text, Path::new("elsewhere"), &overrides).unwrap();
    assert_eq!(scenario.workload.transforms.rate_scale, 2.0);
    let Source::Trace(source) = scenario.workload.source else {
        panic!("not a trace")
    };
    assert_eq!(source.path, trace);
}

#[test]
fn a_profile_that_is_not_there() {
    let text = broken_by(&["step_time={ model = \"profile\", file = \"none.json\" }"]);
    assert!(
        text.contains("cannot read the profile `none.json`"),
        "{text}"
    );
}
