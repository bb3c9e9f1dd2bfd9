//! Datasets as their users have them: files in, prompts out.

use std::sync::Arc;

use foresail_scenarios::workload::Content;
use tempfile::NamedTempFile;

use super::*;
use crate::bodies::{Counting, Form, Frame, TokenCounter};
use crate::schedule::{Plan, Rate, Shard, Traffic};

/// A token a word.
struct WordTokens;

impl TokenCounter for WordTokens {
    fn encode(&self, text: &str) -> Option<Vec<u32>> {
        Some(
            text.split_whitespace()
                .map(|word| word.len() as u32)
                .collect(),
        )
    }

    fn decode(&self, _: &[u32]) -> String {
        String::new()
    }

    fn frame(&self, form: Form) -> Frame {
        match form {
            Form::Completions => Frame::default(),
            Form::Chat => Frame {
                before: 3,
                after: 2,
            },
        }
    }
}

fn counting() -> Counting {
    Counting::Exact(Arc::new(WordTokens))
}

fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn dataset(text: &str) -> Result<Dataset, DatasetError> {
    Dataset::read(file(text).path())
}

/// The error of a file, without its folder.
fn error(text: &str) -> String {
    let file = file(text);
    let message = Dataset::read(file.path()).unwrap_err().to_string();
    message.replace(&file.path().display().to_string(), "FILE")
}

fn plan(requests: u64, shard: &str) -> Plan {
    let traffic = Traffic {
        rate: Rate::PerSecond(10.0),
        requests: Some(requests),
        ..Traffic::default()
    };
    let shard: Shard = shard.parse().unwrap();
    Plan::new(&traffic.workload().unwrap(), 3, shard).unwrap()
}

fn sent(plan: &Plan) -> Vec<(String, u32, u32)> {
    let requests = plan.requests.iter();
    let row = requests.map(|planned| match &planned.prompt {
        Prompt::Given(text) | Prompt::Messages(text) => {
            let request = &planned.request;
            (
                text.to_string(),
                request.prompt_tokens,
                request.output_tokens,
            )
        }
        Prompt::Synthetic => panic!("no prompt is made up"),
    });
    row.collect()
}

const SHARE_GPT: &str = r#"[
    {"id": "a", "conversations": [
        {"from": "human", "value": "one two three four five"}, {"from": "gpt", "value": "1 2 3 4 5 6"},
        {"from": "human", "value": "never read"}]},
    {"id": "b", "conversations": [{"from": "human", "value": "alone with no answer"}]},
    {"id": "c"},
    {"id": "d", "conversations": [
        {"from": "human", "value": "too short"}, {"from": "gpt", "value": "1 2 3 4"}]},
    {"id": "e", "conversations": [
        {"from": "system", "value": "\"quoted\"\nand so on"}, {"from": "gpt", "value": "1 2 3 4"}]}
]"#;

#[test]
fn share_gpt_gives_its_first_two_turns_by_vllm_s_rules() {
    let dataset = dataset(SHARE_GPT).unwrap();
    assert_eq!((dataset.rows(), dataset.skipped_rows), (3, 2));
    let selection = Selection::usual(Format::ShareGpt);
    let with = |form| {
        let plan = plan(2, "1/1").with_dataset(&dataset, &selection, (&counting(), form), 1);
        let mut sent = sent(&plan.unwrap());
        sent.sort();
        sent
    };
    let first = ("\"quoted\"\nand so on".to_owned(), 4, 4);
    let second = ("one two three four five".to_owned(), 5, 6);
    assert_eq!(with(Form::Completions), [first.clone(), second.clone()]);
    let framed = |(text, prompt, output)| (text, prompt + 5, output);
    let chat = with(Form::Chat);
    // With the frame, the short prompt is long enough as well.
    assert!(chat.iter().all(|row| {
        let short = ("too short".to_owned(), 7, 4);
        [framed(first.clone()), framed(second.clone()), short].contains(row)
    }));
}

#[test]
fn every_row_is_sent_once_before_any_is_sent_again() {
    let lines: String = (0..10)
        .map(|n| format!("{{\"prompt\": \"prompt {n}\", \"output_tokens\": 3}}\n"))
        .collect();
    let dataset = dataset(&lines).unwrap();
    let selection = Selection::usual(dataset.format);
    let with = |seed, shard| {
        let form = Form::Completions;
        let plan = plan(25, shard).with_dataset(&dataset, &selection, (&counting(), form), seed);
        plan.unwrap()
    };
    let whole = with(1, "1/1");
    assert_eq!(whole.repeated_prompts, 15);
    let rows = sent(&whole);
    for round in [&rows[..10], &rows[10..20]] {
        let mut round = round.to_vec();
        round.sort();
        round.dedup();
        assert_eq!(round.len(), 10);
    }
    assert_ne!(sent(&with(2, "1/1")), rows);
    // Shards have their part of the very same plan.
    for (number, shard) in ["1/2", "2/2"].into_iter().enumerate() {
        let of_whole: Vec<_> = rows.iter().skip(number).step_by(2).cloned().collect();
        assert_eq!(sent(&with(1, shard)), of_whole);
    }
}

#[test]
fn messages_are_sent_as_they_are() {
    let line = r#"{"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "name": "x",
        "content": [{"type": "text", "text": "one two three"}]}], "max_tokens": 9}"#;
    let line = line.replace('\n', " ") + "\n\n";
    let dataset = dataset(&line).unwrap();
    let selection = Selection::usual(dataset.format);
    let form = Form::Chat;
    let plan = plan(1, "1/1").with_dataset(&dataset, &selection, (&counting(), form), 1);
    let (messages, prompt_tokens, output_tokens) = sent(&plan.unwrap()).remove(0);
    assert_eq!((prompt_tokens, output_tokens), (10, 9));
    let sent: serde_json::Value = serde_json::from_str(&messages).unwrap();
    let given: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(sent, given["messages"]);
}

#[test]
fn answers_have_a_length_of_their_own_or_one_for_all() {
    let dataset = dataset("{\"prompt\": \"one two\"}\n").unwrap();
    let with = |output_tokens| {
        let selection = Selection {
            output_tokens,
            ..Selection::usual(Format::JsonLines)
        };
        let how = (&counting(), Form::Completions);
        plan(1, "1/1").with_dataset(&dataset, &selection, how, 1)
    };
    assert_eq!(
        sent(&with(Some(64)).unwrap()),
        [("one two".to_owned(), 2, 64)]
    );
    let error = with(None).unwrap_err();
    assert!(
        matches!(error, DatasetError::NoOutputTokens { row: 1, .. }),
        "{error}"
    );
}

#[test]
fn when_no_row_fits_it_says_why() {
    let dataset = dataset(SHARE_GPT).unwrap();
    let selection = Selection {
        prompt_tokens_max: 3,
        ..Selection::usual(Format::ShareGpt)
    };
    let how = (&counting(), Form::Completions);
    let error = plan(1, "1/1")
        .with_dataset(&dataset, &selection, how, 1)
        .unwrap_err();
    let DatasetError::NoneFits {
        rows,
        too_short,
        too_long,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((rows, too_short, too_long), (3, 1, 2));
}

#[test]
fn conversations_and_a_dataset_exclude_each_other() {
    let dataset = dataset(SHARE_GPT).unwrap();
    let mut plan = plan(1, "1/1");
    plan.requests[0].request.content = Content::Session {
        group: 0,
        shared_tokens: 5,
        session: 0,
    };
    let how = (&counting(), Form::Completions);
    let selection = Selection::usual(Format::ShareGpt);
    let error = plan.with_dataset(&dataset, &selection, how, 1).unwrap_err();
    assert!(matches!(error, DatasetError::PromptsPlanned), "{error}");
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let good = "{\"prompt\": \"a\", \"max_tokens\": 1}\n";
    let messages = [
        error(&format!("{good}{{\"prompt\": \"a\", \"tokens\": 1}}\n")),
        error(&format!("{good}\n{{\"prompt\": \"\"}}\n")),
        error("{\"prompt\": \"a\", \"messages\": []}"),
        error("{\"prompt\": \"a\", \"max_tokens\": 0}"),
        error("{\"prompt\": \"a\", \"max_tokens\": 1, \"output_tokens\": 1}"),
        error("{\"messages\": [{\"content\": \"a\"}]}"),
        error("prompt,tokens\n"),
        error("[\n{\"conversations\": [{\"from\": \"human\"}]}]"),
        error("[\n{\"conversations\": 5}]"),
        error("[\n{\"conversations\": []},\n"),
        error("[]"),
        error(""),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    FILE:2: column 24: unknown field `tokens`, expected one of `prompt`, `messages`, `output_tokens`, `max_tokens`
    FILE:3: expected either `prompt` or `messages`, and not empty
    FILE:1: expected either `prompt` or `messages`, and not empty
    FILE:1: expected either `output_tokens` or `max_tokens`, at least 1
    FILE:1: expected either `output_tokens` or `max_tokens`, at least 1
    FILE:1: column 31: a message must be an object with a `role`
    FILE:1: column 1: expected value
    FILE:2: column 36: missing field `value`
    FILE:2: column 20: invalid type: integer `5`, expected an array of turns, each with `from` and `value`
    FILE:3: column 0: EOF while parsing a value
    FILE: no prompts; expected a JSON array of conversations of at least two turns, or an object with `prompt` or `messages` a line
    FILE: no prompts; expected a JSON array of conversations of at least two turns, or an object with `prompt` or `messages` a line
    ");
}

#[test]
fn a_file_that_is_not_there() {
    let error = Dataset::read(Path::new("no-such-file.json")).unwrap_err();
    assert!(matches!(error, DatasetError::Io { .. }), "{error}");
}
