//! The README stays true: what it says is printed is printed, what it says to
//! type runs, and the checks of a change run the same commands.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A file of the repository.
fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The contents of the fenced blocks of this kind, in order.
fn blocks(text: &str, kind: &str) -> Vec<String> {
    let opening = format!("```{kind}");
    let mut lines = text.lines();
    let mut blocks = Vec::new();
    while lines.any(|line| line == opening) {
        let block = lines.by_ref().take_while(|line| *line != "```");
        blocks.push(block.map(|line| format!("{line}\n")).collect());
    }
    blocks
}

/// What is typed in consoles, without the prompt.
fn typed(text: &str) -> Vec<String> {
    let consoles = blocks(text, "console").concat();
    let lines = consoles
        .lines()
        .filter_map(|line| line.strip_prefix("$ foresail "));
    lines.map(str::to_owned).collect()
}

/// All of a summary but the time it took, which is no result.
fn without_speed(text: &str) -> String {
    let text = text.trim_end();
    let (before, last) = text.rsplit_once('\n').unwrap_or(("", text));
    let steps_and_events = last.rsplit_once(" in ").map_or(last, |(kept, _)| kept);
    format!("{before}\n{steps_and_events}")
}

/// Commands that a script does not run, each on a line of its own.
fn not_run(commands: &[String], script: &str) -> Vec<String> {
    let runs = |command: &str| script.lines().any(|line| is_run(command, line));
    let missing = commands.iter().filter(|command| !runs(command));
    missing.cloned().collect()
}

/// Whether a line of a script runs the command as it stands, or with what only reads its output.
fn is_run(command: &str, line: &str) -> bool {
    line.strip_prefix(command)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(" 2>&1 |"))
}

fn foresail(folder: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_foresail"))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .env_remove("CLICOLOR_FORCE")
        .output()
        .expect("it starts")
}

#[test]
fn the_transcript_is_what_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let transcript = blocks(&read("README.md"), "console").remove(0);
    let (command, expected) = transcript.split_once('\n').unwrap();
    let arguments = command.strip_prefix("$ foresail ").unwrap();
    let ended = foresail(folder.path(), arguments);
    assert_eq!(ended.status.code(), Some(0), "the first command succeeds");
    let printed = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(
        without_speed(expected),
        without_speed(&printed),
        "paste the new output into README.md, and read the words around it again"
    );
}

#[test]
fn the_comparison_is_what_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let consoles = blocks(&read("README.md"), "console");
    let is_comparison = |block: &&String| block.starts_with("$ foresail compare ");
    let transcript = consoles.iter().find(is_comparison).unwrap();
    let (command, expected) = transcript.split_once('\n').unwrap();
    let arguments = command.strip_prefix("$ foresail ").unwrap();
    let ended = foresail(folder.path(), arguments);
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(expected, String::from_utf8(ended.stdout).unwrap());
}

#[test]
fn the_tour_can_be_taken() {
    let readme = read("README.md");
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("support.toml"),
        blocks(&readme, "toml").concat(),
    )
    .unwrap();
    let mut tour = typed(&readme);
    assert!(tour.len() > 10, "{tour:?}");
    tour.push("simulate support.toml".to_owned());
    for arguments in tour {
        let ended = foresail(folder.path(), &arguments);
        // A scenario that misses an objective has run.
        assert!(
            [Some(0), Some(3)].contains(&ended.status.code()),
            "foresail {arguments}: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
    for file in ["requests.csv", "timeline.csv", "summary.json"] {
        assert!(folder.path().join("runs/chat").join(file).is_file());
    }
}

#[test]
fn the_checks_of_a_change_run_the_two_commands() {
    let readme = read("README.md");
    let commands: Vec<_> = blocks(&readme, "sh")[..2]
        .iter()
        .map(|block| block.trim_end().to_owned())
        .collect();
    assert_eq!(not_run(&commands, &read(".ci/run")), Vec::<String>::new());
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let folder = tempfile::tempdir().unwrap();
    let help = String::from_utf8(foresail(folder.path(), "--help").stdout).unwrap();
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    let codes: Vec<_> = codes
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
        .map(|(code, meaning)| format!("| {code} | {meaning} |"))
        .collect();
    assert_eq!(codes.len(), 6, "{codes:?}");
    let readme = read("README.md");
    for row in codes {
        assert!(readme.contains(&row), "{row}");
    }
}

#[test]
fn no_figure_is_left_out() {
    let place_holder = concat!("FIG", "URES");
    for file in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        assert!(!read(file).contains(place_holder), "{file}");
    }
}

/// The helpers above find what they look for.
mod helpers {
    use super::*;

    const TEXT: &str =
        "a\n```sh\nb\n```\n```console\n$ foresail c d\ne\n$ foresail f\n```\n```sh\ng\n```\n";

    #[test]
    fn blocks_are_found_by_their_kind() {
        assert_eq!(blocks(TEXT, "sh"), ["b\n", "g\n"]);
        assert_eq!(blocks(TEXT, "toml"), [""; 0]);
        assert_eq!(typed(TEXT), ["c d", "f"]);
    }

    #[test]
    fn only_the_speed_is_left_out() {
        let [slow, fast, other] = [
            "x 1 in 2 s\n5 steps in 1 s (5/s)\n",
            "x 1 in 2 s\n5 steps in 2 s",
            "x 1 in 3 s\n5 steps in 1 s",
        ];
        assert_eq!(without_speed(slow), without_speed(fast));
        assert_ne!(without_speed(slow), without_speed(other));
    }

    #[test]
    fn a_command_that_is_not_run_is_found() {
        let commands = ["make".to_owned(), "make test".to_owned()];
        assert!(not_run(&commands, "make\nmake test 2>&1 | tee log\n").is_empty());
        assert_eq!(not_run(&commands, "make test"), ["make"]);
        assert_eq!(not_run(&commands, "make\n# make test\n"), ["make test"]);
    }
}
