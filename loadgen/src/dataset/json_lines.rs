//! An object a line, each a prompt or the messages of a conversation.

use std::io::{BufRead, Read as _};

use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Dataset, DatasetError, Row, json_problem};
use crate::plan::Prompt;

/// The longest line that is read: more text than any model takes.
const LINE_BYTES_MAX: u64 = 1 << 26;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    output_tokens: Option<u32>,
    max_tokens: Option<u32>,
}

/// A message of which only what every message has is looked at; the rest is sent as it is.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Message(Value);

impl TryFrom<Value> for Message {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value.get("role") {
            Some(Value::String(_)) => Ok(Self(value)),
            _ => Err("a message must be an object with a `role`"),
        }
    }
}

pub(super) fn read(mut reader: impl BufRead, dataset: &mut Dataset) -> Result<(), DatasetError> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let count = (reader.by_ref().take(LINE_BYTES_MAX + 1)).read_until(b'\n', &mut line);
        let count = count.map_err(|source| DatasetError::Io {
            path: dataset.path.clone(),
            source,
        })?;
        if count == 0 {
            break;
        }
        if line.len() as u64 > LINE_BYTES_MAX {
            let problem = format!("the line is longer than {LINE_BYTES_MAX} bytes");
            return Err(dataset.malformed(number, problem));
        }
        // Blank lines are common at the end of such files, and mean nothing anywhere.
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = row(number, &line).map_err(|problem| dataset.malformed(number, problem))?;
        dataset.rows.push(row);
    }
    Ok(())
}

fn row(place: u64, line: &[u8]) -> Result<Row, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| json_problem(&error))?;
    let prompt = match (line.prompt, line.messages) {
        (Some(prompt), None) if !prompt.is_empty() => Prompt::Given(prompt.into()),
        (None, Some(messages)) if !messages.is_empty() => {
            let messages = messages.into_iter().map(|message| message.0).collect();
            Prompt::Messages(Value::Array(messages).to_string().into())
        }
        _ => return Err("expected either `prompt` or `messages`, and not empty".to_owned()),
    };
    let answer = match (line.output_tokens, line.max_tokens) {
        (None, None) => Answer::Unknown,
        (Some(tokens @ 1..), None) | (None, Some(tokens @ 1..)) => Answer::Tokens(tokens),
        _ => {
            let expected = "expected either `output_tokens` or `max_tokens`, at least 1";
            return Err(expected.to_owned());
        }
    };
    Ok(Row {
        place,
        prompt,
        answer,
    })
}
