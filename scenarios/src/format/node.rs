//! The tree of settings, each with the place where it was written.
//!
//! `toml` parses; this small tree exists so that values from the file and from
//! `--set` arguments can stand side by side, each pointing at its own text.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Context, Place, Problem};

/// A value and where it is.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A TOML value. Numbers keep their digits, so that a decimal such as a price stays exact.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    /// In decimal, with a sign if negative.
    Integer(String),
    Float(String),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

impl Value {
    /// What the value is, in a sentence.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Text(text) => format!("the text \"{}\"", shorten(text)),
            Self::Integer(digits) | Self::Float(digits) => format!("the number {digits}"),
            Self::Boolean(value) => format!("`{value}`"),
            Self::Datetime(text) => format!("the date {text}"),
            Self::Array(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// A text cut to a length that fits in a message.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Keys and their values, in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

/// A key, where it is, and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) node: Node,
}

impl Table {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The entry of a key; a new table stands there if there was none.
    pub(super) fn entry_or_table(&mut self, key: &str, key_place: Place) -> &mut Entry {
        let found = self.entries.iter().position(|entry| entry.key == key);
        let index = found.unwrap_or_else(|| {
            let node = Node {
                value: Value::Table(Self::default()),
                place: key_place,
            };
            self.entries.push(Entry {
                key: key.to_owned(),
                key_place,
                node,
            });
            self.entries.len() - 1
        });
        &mut self.entries[index]
    }

    /// Puts a value at a key, in place of what was there.
    pub(super) fn put(&mut self, entry: Entry) {
        self.entries.retain(|old| old.key != entry.key);
        self.entries.push(entry);
    }
}

/// The tree of a whole document. Every syntax error is reported; `None` if there was one.
pub(super) fn parse_document(context: &Context, source: usize, text: &str) -> Option<Table> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut line_before = None;
    for error in &errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        // One slip often breaks the rest of its line: the first message says what is wrong.
        let line = text.as_bytes()[..span.start]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        if line_before.replace(line) == Some(line) {
            continue;
        }
        let place = Place {
            source,
            start: span.start,
            end: span.end,
        };
        let problem = Problem::new("scenario::syntax", format!("not TOML: {}", error.message()));
        context.report(problem.at(place, "here"));
    }
    errors
        .is_empty()
        .then(|| table(source, 0, document.into_inner()))
}

/// The tree of a single value that begins `offset` bytes into its source; `None` if it is not TOML.
pub(super) fn parse_value(source: usize, offset: usize, text: &str) -> Option<Node> {
    DeValue::parse(text)
        .ok()
        .map(|value| node(source, offset, value))
}

fn node(source: usize, offset: usize, value: Spanned<DeValue<'_>>) -> Node {
    let place = place(source, offset, value.span());
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(integer) => Value::Integer(decimal(integer.as_str(), integer.radix())),
        DeValue::Float(float) => Value::Float(float.as_str().to_owned()),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
        DeValue::Array(array) => Value::Array(
            array
                .into_iter()
                .map(|value| node(source, offset, value))
                .collect(),
        ),
        DeValue::Table(inner) => Value::Table(table(source, offset, inner)),
    };
    Node { value, place }
}

fn table(source: usize, offset: usize, table: DeTable<'_>) -> Table {
    let entry = |(key, value): (Spanned<_>, Spanned<DeValue<'_>>)| Entry {
        key_place: place(source, offset, key.span()),
        key: std::borrow::Cow::into_owned(key.into_inner()),
        node: node(source, offset, value),
    };
    let mut entries: Vec<Entry> = table.into_iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.key_place.start);
    Table { entries }
}

fn place(source: usize, offset: usize, span: std::ops::Range<usize>) -> Place {
    Place {
        source,
        start: offset + span.start,
        end: offset + span.end,
    }
}

/// Digits of any base in decimal; digits beyond 128 bits stay as they are, and
/// are refused as out of range by whoever wants a number.
fn decimal(digits: &str, radix: u32) -> String {
    match i128::from_str_radix(digits, radix) {
        Ok(value) => value.to_string(),
        Err(_) => digits.to_owned(),
    }
}
