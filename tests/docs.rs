//! The examples in `docs` stay true: workflows are YAML, and every command in
//! them is one that the program reads.

use std::fs;
use std::path::Path;
use std::process::Command;

use yaml_rust2::{Yaml, YamlLoader};

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The scripts of all steps of a workflow.
fn scripts(workflow: &str) -> Vec<String> {
    let documents = YamlLoader::load_from_str(workflow).expect("it is YAML");
    let jobs = documents[0]["jobs"].as_hash().expect("it has jobs");
    let steps = jobs
        .values()
        .flat_map(|job| job["steps"].as_vec().expect("a job has steps"));
    steps
        .filter_map(|step| step["run"].as_str().map(str::to_owned))
        .collect()
}

/// The arguments of every command of ours in a script: the programs are called
/// `foresail`, or what a workflow copies it to.
fn commands(script: &str) -> Vec<Vec<String>> {
    const PROGRAMS: [&str; 4] = ["foresail", "bin/foresail", "bin/base", "bin/candidate"];
    let of_line = |line: &str| {
        let words = words(line);
        let (first, arguments) = words.split_first()?;
        PROGRAMS
            .contains(&first.as_str())
            .then(|| arguments.to_vec())
    };
    script.lines().filter_map(of_line).collect()
}

/// The words of a line up to where its command ends. Variables are numbers here.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in line.trim().chars() {
        match (quote, character) {
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().expect("there is one").push(character),
        }
    }
    let is_end = |word: &String| ["&", "&&", "||", "|", ";"].contains(&word.as_str());
    let command = words.into_iter().filter(|word| !word.is_empty());
    let command = command.take_while(|word| !is_end(word));
    let variables = ["$1", "$2", "$3", "$pair"];
    command
        .map(|word| {
            variables
                .iter()
                .fold(word, |word, name| word.replace(name, "1"))
        })
        .collect()
}

/// Reads the arguments as the program does, and then shows help in place of running.
fn check(arguments: &[String]) {
    let ended = Command::new(env!("CARGO_BIN_EXE_foresail"))
        .args(arguments)
        .arg("--help")
        .output()
        .expect("it starts");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.success(),
        "foresail {}\n{errors}",
        arguments.join(" ")
    );
}

#[test]
fn the_commands_of_the_workflow_are_commands() {
    let scripts = scripts(&read("performance.yml"));
    let commands: Vec<_> = scripts.iter().flat_map(|script| commands(script)).collect();
    let names: Vec<&str> = commands.iter().map(|words| words[0].as_str()).collect();
    assert_eq!(names, ["serve", "serve", "load", "gate"]);
    commands.iter().for_each(|arguments| check(arguments));
}

#[test]
fn the_commands_of_the_page_are_commands() {
    let page = read("github-actions.md");
    let commands = commands(&page);
    assert_eq!(commands.len(), 4);
    commands.iter().for_each(|arguments| check(arguments));
}

/// The check finds what it looks for.
#[test]
fn a_command_that_is_none_is_found() {
    let script = "  bin/base gate --no-such-option 'a b' \"$1\" & \necho foresail gate\n";
    assert_eq!(commands(script), [["gate", "--no-such-option", "a b", "1"]]);
    let found = std::panic::catch_unwind(|| check(&commands(script)[0]));
    assert!(found.is_err());
}

#[test]
fn a_workflow_has_a_trigger_and_every_step_does_something() {
    let workflow = &YamlLoader::load_from_str(&read("performance.yml")).unwrap()[0];
    assert_eq!(workflow["on"], Yaml::String("pull_request".to_owned()));
    let steps = workflow["jobs"]["gate"]["steps"].as_vec().unwrap();
    let does = |step: &Yaml| step["run"].is_badvalue() != step["uses"].is_badvalue();
    assert!(steps.iter().all(does));
}
