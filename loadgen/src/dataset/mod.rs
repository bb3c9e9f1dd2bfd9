//! Prompts from files: conversations in the shape of ShareGPT, and JSON Lines.
//!
//! A file is read once, from the first byte to the last, and only what can be
//! sent of it is kept: of ShareGPT's conversations the first two turns, each in
//! the bytes it has, and less than 100 bytes a row besides. A file of 700 MB with 98,000
//! conversations of one to twelve turns so needs 200 MB.
//! Tokens are counted when rows are [chosen](Selection), and only of as many as that takes.

mod json_lines;
mod selection;
mod share_gpt;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use selection::Selection;

use crate::plan::Prompt;

/// The shape of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON array of `{"conversations": [{"from": …, "value": …}, …]}`. The first
    /// turn is the prompt, the second the answer whose length is asked for, as vLLM
    /// has it; what has fewer turns is passed over, and other fields are not looked at.
    ShareGpt,
    /// An object a line: `prompt` or `messages`, and, unless it is given for
    /// all, `output_tokens` or `max_tokens`. Anything else is an error.
    JsonLines,
}

/// The rows of a file.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The file.
    pub path: PathBuf,
    /// Its shape.
    pub format: Format,
    /// Rows that were passed over because they are no conversation of two turns.
    pub skipped_rows: u64,
    rows: Vec<Row>,
}

/// Something that can be sent.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    /// Its line, or in a JSON array its place, from 1.
    place: u64,
    prompt: Prompt,
    answer: Answer,
}

/// How long an answer is asked for.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Tokens(u32),
    /// As long as this text.
    Like(Arc<str>),
    Unknown,
}

/// Why a dataset cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; check the path and the permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A place in the file is not what its format asks for.
    #[error("{}:{line}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// There is nothing to send in it.
    #[error(
        "{}: no prompts; expected a JSON array of conversations of at least two turns, or an object with `prompt` or `messages` a line",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// All rows are too short or too long.
    #[error(
        "{}: none of its {rows} prompts fits: {too_short} are too short, {too_long} too long; allow other lengths",
        path.display()
    )]
    NoneFits {
        /// The file.
        path: PathBuf,
        /// How many rows it has.
        rows: u64,
        /// How many have too few tokens in prompt or answer.
        too_short: u64,
        /// How many have too many.
        too_long: u64,
    },
    /// A row does not say how long its answer is to be, and it was not said for all.
    #[error(
        "{}: row {row}: neither `output_tokens` nor `max_tokens`; add one, or give a length for all answers",
        path.display()
    )]
    NoOutputTokens {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
    },
    /// The tokenizer has no tokens for a text.
    #[error("{}: row {row}: the tokenizer cannot encode it", path.display())]
    NotEncodable {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
    },
    /// The workload says more of its prompts than that they are different ones.
    #[error(
        "the workload has conversations or shared prefixes, and a dataset gives single prompts: use one or the other"
    )]
    PromptsPlanned,
}

impl Dataset {
    /// Reads a file in the format that its first character shows.
    ///
    /// # Errors
    /// If it cannot be read, a place in it does not fit, or there are no prompts.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let io = |source| DatasetError::Io {
            path: path.to_owned(),
            source,
        };
        let mut reader = BufReader::with_capacity(1 << 16, File::open(path).map_err(io)?);
        let format = match first_character(&mut reader).map_err(io)? {
            Some(b'[') => Format::ShareGpt,
            _ => Format::JsonLines,
        };
        let mut dataset = Self {
            path: path.to_owned(),
            format,
            skipped_rows: 0,
            rows: Vec::new(),
        };
        match format {
            Format::ShareGpt => share_gpt::read(reader, &mut dataset)?,
            Format::JsonLines => json_lines::read(reader, &mut dataset)?,
        }
        if dataset.rows.is_empty() {
            let path = path.to_owned();
            return Err(DatasetError::Empty { path });
        }
        Ok(dataset)
    }

    /// How many rows can be chosen from.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    fn malformed(&self, line: u64, problem: impl Into<String>) -> DatasetError {
        DatasetError::Malformed {
            path: self.path.clone(),
            line,
            problem: problem.into(),
        }
    }
}

/// What is wrong with JSON, and at which column. The line is told with the file.
fn json_problem(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let place = format!(" at line {line} column {column}");
    let problem = message.strip_suffix(&place).unwrap_or(&message);
    format!("column {column}: {problem}")
}

/// The first character that is no space, which is left where it is. Spaces
/// before it are skipped as far as one buffer has them.
fn first_character(reader: &mut impl BufRead) -> std::io::Result<Option<u8>> {
    let buffer = reader.fill_buf()?;
    Ok(buffer
        .iter()
        .copied()
        .find(|byte| !byte.is_ascii_whitespace()))
}

#[cfg(test)]
mod tests;
