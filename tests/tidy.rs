//! The house rules, checked over every file that git knows or would take in.
//!
//! Each rule is a function from a path and a text to what is wrong with it, so
//! that it can be shown here to find what it looks for.

#![allow(clippy::print_stderr, reason = "a test that is skipped must be seen")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// The longest a source file may be: beyond this it is about more than one subject.
const LINES_MAX: usize = 700;

/// The crates whose `clippy.toml` keeps clocks, threads and unordered maps out.
const PURE_CRATES: [&str; 3] = ["calibration", "engine/core", "simulator"];

/// What those files ban by name.
const BANNED_IN_PURE_CRATES: [&str; 5] = [
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::sleep",
    "std::thread::spawn",
    "std::collections::HashMap",
];

/// Marks of unfinished work, in pieces so that this file does not carry them.
const UNFINISHED: [&str; 6] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("#[ig", "nore"),
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
    concat!("XX", "X:"),
];

/// Beginnings of paths of one machine, in pieces for the same reason.
const MACHINE_PATHS: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/tmp/", "target"),
];

/// Every text file of the repository with its path, or `None`, loudly, without git.
fn files() -> Option<Vec<(String, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output();
    let Some(listed) = listed.ok().filter(|output| output.status.success()) else {
        eprintln!("SKIPPED: git does not list the files of {}", root.display());
        return None;
    };
    let paths = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let files: Vec<_> = paths
        .split('\0')
        // What is deleted and not committed is listed still; what is not text has no rules.
        .filter_map(|path| Some((path.to_owned(), fs::read_to_string(root.join(path)).ok()?)))
        .collect();
    assert!(files.iter().any(|(path, _)| path == "src/main.rs"));
    Some(files)
}

/// Fails with everything that the rule finds.
#[track_caller]
fn check(rule: impl Fn(&str, &str) -> Vec<String>) {
    let Some(files) = files() else {
        return;
    };
    let wrong: Vec<_> = files
        .iter()
        .flat_map(|(path, text)| rule(path, text))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn too_long(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let is_long = path.ends_with(".rs") && lines > LINES_MAX;
    is_long
        .then(|| format!("{path}: {lines} lines, more than {LINES_MAX}; split it by subject"))
        .into_iter()
        .collect()
}

fn containing(path: &str, text: &str, unwanted: &[&str], remedy: &str) -> Vec<String> {
    let numbered = text.lines().enumerate();
    numbered
        .filter_map(|(index, line)| {
            let found = unwanted.iter().find(|unwanted| line.contains(**unwanted))?;
            Some(format!("{path}:{}: `{found}`; {remedy}", index + 1))
        })
        .collect()
}

fn unfinished(path: &str, text: &str) -> Vec<String> {
    containing(path, text, &UNFINISHED, "finish it, or leave it out")
}

fn machine_path(path: &str, text: &str) -> Vec<String> {
    containing(path, text, &MACHINE_PATHS, "no path of one machine")
}

/// Pure crates without a `clippy.toml` that bans what it must.
fn lenient(files: &[(String, String)]) -> Vec<String> {
    let missing = |folder: &str| {
        let path = format!("{folder}/clippy.toml");
        let text = files.iter().find(|(other, _)| *other == path);
        let text = text.map_or("", |(_, text)| text);
        let allowed = BANNED_IN_PURE_CRATES
            .iter()
            .filter(|banned| !text.contains(&format!("\"{banned}\"")));
        allowed
            .map(|allowed| format!("{path}: does not ban `{allowed}`"))
            .collect::<Vec<_>>()
    };
    PURE_CRATES.into_iter().flat_map(missing).collect()
}

#[test]
fn no_source_file_is_too_long() {
    check(too_long);
}

#[test]
fn nothing_is_unfinished() {
    check(unfinished);
}

#[test]
fn no_path_of_one_machine() {
    check(machine_path);
}

#[test]
fn crates_that_are_pure_say_so_to_clippy() {
    if let Some(files) = files() {
        assert_eq!(lenient(&files), Vec::<String>::new());
    }
}

/// The rules find what they look for.
mod rules {
    use super::*;

    #[test]
    fn a_long_file_is_found() {
        let long = "line\n".repeat(LINES_MAX + 1);
        assert_eq!(too_long("a.rs", &long).len(), 1);
        assert!(too_long("a.rs", &"line\n".repeat(LINES_MAX)).is_empty());
        assert!(too_long("a.csv", &long).is_empty());
    }

    #[test]
    fn unfinished_work_is_found_with_its_line() {
        for mark in UNFINISHED {
            let found = unfinished("a.rs", &format!("fn a() {{\n    {mark}\n}}\n"));
            assert_eq!(found.len(), 1, "{mark}");
            assert!(found[0].starts_with("a.rs:2: "), "{found:?}");
        }
        assert!(unfinished("a.rs", "/// What is still to do.\n").is_empty());
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        for path in MACHINE_PATHS {
            assert_eq!(machine_path("a.md", &format!("see {path}x\n")).len(), 1);
        }
        assert!(machine_path("a.md", "see scenarios/library\n").is_empty());
    }

    #[test]
    fn a_pure_crate_without_its_bans_is_found() {
        assert_eq!(
            lenient(&[]).len(),
            PURE_CRATES.len() * BANNED_IN_PURE_CRATES.len()
        );
        let bans = BANNED_IN_PURE_CRATES.map(|banned| format!("\"{banned}\""));
        let strict =
            |folder: &str, bans: &[String]| (format!("{folder}/clippy.toml"), bans.join("\n"));
        let mut files = PURE_CRATES.map(|folder| strict(folder, &bans));
        assert!(lenient(&files).is_empty());
        files[1] = strict(PURE_CRATES[1], &bans[1..]);
        assert_eq!(lenient(&files).len(), 1);
    }
}
