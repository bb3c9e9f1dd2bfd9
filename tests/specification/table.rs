//! The README's table of the specification: complete, and true.

use std::fs;
use std::path::Path;

use foresail_scenarios::format::{Overrides, load};
use foresail_scenarios::library;

/// A row of the table.
#[derive(Debug)]
struct Row {
    number: String,
    test: String,
    file: String,
    /// What is typed to see it; `None` if no command shows it.
    command: Option<String>,
    /// Whether the command is there to be refused.
    is_refused: bool,
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is between two marks, the first time.
fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(from)?;
    rest.split_once(to).map(|(found, _)| found)
}

fn row(line: &str) -> Row {
    let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    let [number, _, test, command] = cells[..] else {
        panic!("a row has four cells: {line}");
    };
    let found = |text: Option<&str>| text.unwrap_or_else(|| panic!("{line}")).to_owned();
    Row {
        number: number.to_owned(),
        test: found(between(test, "[`", "`]")),
        file: found(between(test, "](", ")")),
        command: between(command, "`", "`").map(str::to_owned),
        is_refused: command.ends_with("(refused)"),
    }
}

fn table() -> Vec<Row> {
    let readme = read("README.md");
    let lines = readme.lines();
    let rows = lines.filter(|line| {
        let number = line.strip_prefix("| S").and_then(|rest| rest.get(..2));
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    rows.map(row).collect()
}

#[test]
fn every_row_is_there_once_and_in_order() {
    let numbers: Vec<_> = table().into_iter().map(|row| row.number).collect();
    let expected: Vec<_> = (1..=37).map(|number| format!("S{number:02}")).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn every_test_is_named_by_its_row_and_is_where_the_table_says() {
    for row in table() {
        let prefix = format!("{}_", row.number.to_lowercase());
        assert!(row.test.starts_with(&prefix), "{row:?}");
        let test = format!("\n#[test]\nfn {}() {{\n", row.test);
        assert!(read(&row.file).contains(&test), "{row:?}");
    }
}

/// The words of a command, in which quotes keep spaces.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for letter in command.chars() {
        match letter {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(letter),
        }
    }
    words
}

/// Scenarios with settings that a command runs: of what it varies, each value.
fn runs(command: &str) -> Vec<(String, Vec<String>)> {
    let words = words(command);
    let verb = words[0].as_str();
    assert!(["simulate", "compare"].contains(&verb), "{command}");
    let is_option = |word: &&String| word.starts_with("--");
    let scenarios = words[1..].iter().take_while(|word| !is_option(word));
    let options: Vec<_> = words.iter().skip_while(|word| !is_option(word)).collect();
    let mut settings = vec![Vec::new()];
    for option in options.chunks(2) {
        let [name, value] = option else {
            panic!("{command}: {option:?}");
        };
        match name.as_str() {
            "--set" => settings
                .iter_mut()
                .for_each(|set: &mut Vec<String>| set.push((*value).clone())),
            "--vary" if verb == "compare" => {
                let (path, values) = value.split_once('=').expect("a path and its values");
                let values = values.split(',').map(|value| format!("{path}={value}"));
                settings = values.map(|value| vec![value]).collect();
            }
            other => panic!("{command}: {other}"),
        }
    }
    let each = scenarios.flat_map(|scenario| {
        let settings = settings.iter();
        settings.map(move |set| (scenario.clone(), set.clone()))
    });
    each.collect()
}

#[test]
fn every_command_is_read_as_the_table_says() {
    let mut commands = 0;
    for row in table() {
        let Some(command) = &row.command else {
            continue;
        };
        let command = command.strip_prefix("foresail ").expect(command);
        if command == "init deployment.toml" {
            continue;
        }
        let runs = runs(command);
        assert!(!runs.is_empty(), "{row:?}");
        for (scenario, set) in runs {
            assert!(library::find(&scenario).is_some(), "{row:?}");
            let overrides = Overrides {
                set,
                ..Overrides::default()
            };
            let loaded = load(Path::new(&scenario), &overrides);
            assert_eq!(loaded.is_err(), row.is_refused, "{row:?}");
        }
        commands += 1;
    }
    assert!(commands > 20, "{commands}");
}

/// The helpers above find what is wrong.
mod helpers {
    use super::*;

    #[test]
    fn a_row_is_taken_apart() {
        let row = row("| S09 | a | [`s09_b`](c.rs) | `foresail d` (refused) |");
        assert_eq!(
            (&*row.number, &*row.test, &*row.file),
            ("S09", "s09_b", "c.rs")
        );
        assert_eq!(
            (row.command.as_deref(), row.is_refused),
            (Some("foresail d"), true)
        );
    }

    #[test]
    fn a_command_is_taken_apart() {
        let set = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(
            runs("compare a b --vary c=1,2 --set 'd=[{ e = 3 }]'"),
            [
                ("a".to_owned(), set(&["c=1", "d=[{ e = 3 }]"])),
                ("a".to_owned(), set(&["c=2", "d=[{ e = 3 }]"])),
                ("b".to_owned(), set(&["c=1", "d=[{ e = 3 }]"])),
                ("b".to_owned(), set(&["c=2", "d=[{ e = 3 }]"])),
            ]
        );
    }
}
