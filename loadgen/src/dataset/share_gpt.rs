//! A JSON array of conversations, read one after the other.

use std::fmt;
use std::io::BufRead;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::{Answer, Dataset, DatasetError, Row, json_problem};
use crate::plan::Prompt;

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    conversations: FirstTwo,
}

#[derive(Deserialize)]
struct Turn {
    value: String,
}

/// The first two turns of a conversation. The others are read over.
#[derive(Default)]
struct FirstTwo(Option<(Turn, Turn)>);

impl<'de> Deserialize<'de> for FirstTwo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Turns;
        impl<'de> Visitor<'de> for Turns {
            type Value = FirstTwo;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of turns, each with `from` and `value`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut turns: A) -> Result<FirstTwo, A::Error> {
                let first = turns.next_element()?;
                let second = turns.next_element()?;
                while turns.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstTwo(first.zip(second)))
            }
        }
        deserializer.deserialize_seq(Turns)
    }
}

/// Puts the conversations of an array into a dataset as they come.
struct Entries<'a>(&'a mut Dataset);

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects with `conversations`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut place = 0;
        while let Some(Entry { conversations }) = entries.next_element()? {
            place += 1;
            let FirstTwo(Some((prompt, answer))) = conversations else {
                self.0.skipped_rows += 1;
                continue;
            };
            self.0.rows.push(Row {
                place,
                prompt: Prompt::Given(prompt.value.into()),
                answer: Answer::Like(answer.value.into()),
            });
        }
        Ok(())
    }
}

pub(super) fn read(reader: impl BufRead, dataset: &mut Dataset) -> Result<(), DatasetError> {
    let mut json = serde_json::Deserializer::from_reader(reader);
    let read = json.deserialize_seq(Entries(dataset));
    read.and_then(|()| json.end()).map_err(|error| {
        let path = dataset.path.clone();
        match error.line() as u64 {
            line if error.is_io() || line == 0 => DatasetError::Io {
                path,
                source: error.into(),
            },
            line => DatasetError::Malformed {
                path,
                line,
                problem: json_problem(&error),
            },
        }
    })
}
