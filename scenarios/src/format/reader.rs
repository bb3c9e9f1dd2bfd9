//! Reads the settings of one table, and remembers which keys it was asked for.
//!
//! A problem does not stop the reading: it is reported, the default takes the
//! setting's place, and the next setting is read, so that a person sees all
//! problems at once. [`Reader::finish`] turns keys that nobody asked for into
//! errors that name the nearest key there is.

use std::cell::RefCell;

use super::node::{Entry, Node, Table, Value};
use super::problem::{Context, Place, Problem};

/// A setting: its value, and where it was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    /// `None` for a default.
    pub(super) place: Option<Place>,
    /// Whether the value is what was written; false if a default stands in for
    /// a value that was reported as wrong, so that it is not reported twice.
    pub(super) is_sound: bool,
}

impl<T> Setting<T> {
    fn default(value: T) -> Self {
        Self {
            value,
            place: None,
            is_sound: true,
        }
    }

    pub(super) fn is_written(&self) -> bool {
        self.place.is_some()
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting {
            value: change(self.value),
            place: self.place,
            is_sound: self.is_sound,
        }
    }
}

/// A value to be decoded, and what it is called.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) context: &'a Context,
    pub(super) node: &'a Node,
    /// The dotted path of the value.
    pub(super) path: &'a str,
}

impl<'a> Field<'a> {
    pub(super) fn place(self) -> Place {
        self.node.place
    }

    /// "`deployment.gpu` is not `what`", pointing at the value.
    pub(super) fn problem(self, code: &'static str, what: &str, label: &str) -> Problem {
        Problem::new(code, format!("`{}` {what}", self.path)).at(self.place(), label)
    }

    /// The value is of the wrong kind.
    pub(super) fn wrong_type(self, expected: &str) -> Problem {
        let message = format!("`{}` must be {expected}", self.path);
        let label = format!("this is {}", self.node.value.kind());
        Problem::new("scenario::type", message).at(self.place(), label)
    }

    /// The field as a table of its own.
    pub(super) fn reader(self) -> Result<Reader<'a>, Problem> {
        match &self.node.value {
            Value::Table(table) => Ok(Reader::new(
                self.context,
                self.path,
                Some((table, self.place())),
            )),
            _ => Err(self.wrong_type("a table")),
        }
    }
}

/// Reads the settings of one table.
pub(super) struct Reader<'a> {
    pub(super) context: &'a Context,
    path: String,
    table: Option<(&'a Table, Place)>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Reader<'a> {
    pub(super) fn root(context: &'a Context, table: &'a Table, place: Place) -> Self {
        Self::new(context, "", Some((table, place)))
    }

    fn new(context: &'a Context, path: &str, table: Option<(&'a Table, Place)>) -> Self {
        Self {
            context,
            path: path.to_owned(),
            table,
            known: RefCell::default(),
        }
    }

    /// Where the table begins; `None` if it is not in any text.
    pub(super) fn place(&self) -> Option<Place> {
        self.table.map(|(_, place)| place)
    }

    /// Where the table begins, or else where the document does.
    pub(super) fn place_or_start(&self) -> Place {
        self.place().unwrap_or(Place {
            source: 0,
            start: 0,
            end: 0,
        })
    }

    /// The dotted path of a key of this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn entry(&self, key: &'static str) -> Option<&'a Entry> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.table.and_then(|(table, _)| table.entry(key))
    }

    /// Whether the key is written.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.entry(key).is_some()
    }

    /// The place of a key, if it is written.
    pub(super) fn key_place(&self, key: &'static str) -> Option<Place> {
        self.entry(key).map(|entry| entry.key_place)
    }

    /// The place of the value of a key, if it is written.
    pub(super) fn value_place(&self, key: &'static str) -> Option<Place> {
        self.entry(key).map(|entry| entry.node.place)
    }

    /// The keys and values of the table, for tables whose keys are read one by one.
    pub(super) fn entries(&self) -> &'a [Entry] {
        self.table.map_or(&[], |(table, _)| &table.entries)
    }

    /// The setting, or `default` if it is not written.
    pub(super) fn setting<T>(
        &self,
        key: &'static str,
        default: T,
        decode: impl FnOnce(Field<'_>) -> Result<T, Problem>,
    ) -> Setting<T> {
        let Some(entry) = self.entry(key) else {
            return Setting::default(default);
        };
        let path = self.path_of(key);
        let place = Some(entry.node.place);
        match decode(Field {
            context: self.context,
            node: &entry.node,
            path: &path,
        }) {
            Ok(value) => Setting {
                value,
                place,
                is_sound: true,
            },
            Err(problem) => {
                self.context.report(problem);
                Setting {
                    value: default,
                    place,
                    is_sound: false,
                }
            }
        }
    }

    /// The setting, or `None` if it is not written.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        decode: impl FnOnce(Field<'_>) -> Result<T, Problem>,
    ) -> Setting<Option<T>> {
        self.setting(key, None, |field| decode(field).map(Some))
    }

    /// The setting; not writing it is reported, with an example of what to write.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        example: &str,
        decode: impl FnOnce(Field<'_>) -> Result<T, Problem>,
    ) -> Setting<Option<T>> {
        if !self.has(key) {
            self.missing(key, example);
            return Setting {
                value: None,
                place: None,
                is_sound: false,
            };
        }
        self.optional(key, decode)
    }

    /// Reports that a key is not written; if not even its table is, that has been reported.
    pub(super) fn missing(&self, key: &str, example: &str) {
        if self.table.is_none() {
            return;
        }
        let table = if self.path.is_empty() {
            "the scenario".to_owned()
        } else {
            format!("`[{}]`", self.path)
        };
        let problem = Problem::new("scenario::missing", format!("{table} has no `{key}`"))
            .at(self.place_or_start(), format!("`{key}` belongs here"))
            .help(format!("for example `{key} = {example}`"));
        self.context.report(problem);
    }

    /// Reports that a whole table is not written.
    pub(super) fn missing_table(&self, key: &str, example: &str) {
        let path = self.path_of(key);
        let problem = Problem::new("scenario::missing", format!("there is no `[{path}]`"))
            .at(self.place_or_start(), "not in this file")
            .help(format!("it needs at least {example}"));
        self.context.report(problem);
    }

    /// The table of a key; if it is not written, an empty one, so that all its settings are defaults.
    pub(super) fn table(&self, key: &'static str) -> Self {
        let path = self.path_of(key);
        let Some(entry) = self.entry(key) else {
            return Self::new(self.context, &path, None);
        };
        let field = Field {
            context: self.context,
            node: &entry.node,
            path: &path,
        };
        match &entry.node.value {
            Value::Table(table) => Self::new(self.context, &path, Some((table, entry.key_place))),
            _ => {
                self.context
                    .report(field.wrong_type(&format!("a table, `[{path}]`")));
                Self::new(self.context, &path, None)
            }
        }
    }

    /// Names keys that belong to the table but have no use with the settings chosen.
    pub(super) fn unused(&self, keys: &[&'static str], why: &str) {
        for &key in keys {
            if let Some(place) = self.key_place(key) {
                let message = format!("`{}` has no effect {why}", self.path_of(key));
                let problem = Problem::new("scenario::unused", message)
                    .at(place, "this would be ignored")
                    .help(format!("remove `{key}`"));
                self.context.report(problem);
            }
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for entry in self.entries() {
            if !known.contains(&entry.key.as_str()) {
                self.context.report(self.unknown_key(entry, &known));
            }
        }
    }

    fn unknown_key(&self, entry: &Entry, known: &[&'static str]) -> Problem {
        let table = if self.path.is_empty() {
            "the top level".to_owned()
        } else {
            format!("`[{}]`", self.path)
        };
        let message = format!("unknown key `{}` in {table}", entry.key);
        let problem =
            Problem::new("scenario::unknown_key", message).at(entry.key_place, "not a key here");
        problem.help(suggestion(
            &entry.key,
            known.iter().copied(),
            "the keys are",
        ))
    }
}

/// "did you mean `x`?" if a name is near, and the list of names in any case.
pub(super) fn suggestion<'n>(
    written: &str,
    names: impl IntoIterator<Item = &'n str>,
    list_is: &str,
) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let list = format!("{list_is}: {}", names.join(", "));
    match nearest(written, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`? {list}"),
        None => list,
    }
}

/// The name that was probably meant, if one is near.
pub(super) fn nearest<'n>(
    written: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    let written = written.to_lowercase();
    let score = |name: &str| strsim::jaro_winkler(&written, &name.to_lowercase());
    let best = names
        .into_iter()
        .max_by(|a, b| score(a).total_cmp(&score(b)));
    // A similarity of 0.8 accepts a slip or two and refuses unrelated words.
    best.filter(|name| score(name) > 0.8)
}
