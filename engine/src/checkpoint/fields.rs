//! Fields of a JSON object, taken with their names, so that every error can say which one it was.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::{ConfigError, ConfigProblem};

/// The most characters of a value that a message repeats.
const SHOWN_MAX: usize = 80;

/// The largest width, head count or vocabulary that is taken seriously: with at
/// most [`LAYERS_MAX`] layers, no product of them overflows 64 bits.
pub(super) const SIZE_MAX: usize = 1 << 24;

/// The most layers that are taken seriously.
pub(super) const LAYERS_MAX: usize = 1 << 12;

/// An object of a configuration file.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    file: &'a Path,
    /// What the names of its fields begin with in messages.
    prefix: String,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The object that a file consists of.
    pub(super) fn of(file: &'a Path, value: &'a Value) -> Result<Self, ConfigError> {
        let Value::Object(object) = value else {
            let problem = ConfigProblem::Json("not a JSON object".to_owned());
            return Err(ConfigError {
                file: file.to_owned(),
                problem,
            });
        };
        Ok(Self {
            file,
            prefix: String::new(),
            object,
        })
    }

    /// The value of a field; `null` is as good as nothing.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there, be it `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// All fields that are not `null`.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        let stated = self.object.iter().filter(|(_, value)| !value.is_null());
        stated.map(|(name, _)| name.as_str())
    }

    /// An object in a field.
    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let Value::Object(object) = value else {
            return Err(self.wrong(name, "an object"));
        };
        Ok(Some(Self {
            file: self.file,
            prefix: format!("{}{name}.", self.prefix),
            object,
        }))
    }

    /// An error about the value of a field.
    pub(super) fn wrong(&self, name: &str, expected: impl Into<String>) -> ConfigError {
        let value = self.object.get(name).unwrap_or(&Value::Null);
        self.problem(ConfigProblem::Value {
            field: format!("{}{name}", self.prefix),
            value: shown(value),
            expected: expected.into(),
        })
    }

    /// An error about a field that is not there.
    pub(super) fn missing(&self, name: &str, expected: impl Into<String>) -> ConfigError {
        self.problem(ConfigProblem::Missing {
            field: format!("{}{name}", self.prefix),
            expected: expected.into(),
        })
    }

    fn problem(&self, problem: ConfigProblem) -> ConfigError {
        ConfigError {
            file: self.file.to_owned(),
            problem,
        }
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.wrong(name, "a string"));
        self.get(name).map(text).transpose()
    }

    /// A truth value.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        let flag = |value: &Value| {
            value
                .as_bool()
                .ok_or_else(|| self.wrong(name, "true or false"))
        };
        self.get(name).map(flag).transpose()
    }

    /// A whole number from 1 to `max`.
    pub(super) fn size(&self, name: &str, max: usize) -> Result<Option<usize>, ConfigError> {
        let size = |value: &Value| {
            let number = value
                .as_u64()
                .and_then(|number| usize::try_from(number).ok());
            number
                .filter(|number| (1..=max).contains(number))
                .ok_or_else(|| self.wrong(name, format!("a whole number from 1 to {max}")))
        };
        self.get(name).map(size).transpose()
    }

    /// A whole number from 1 to `max`, which has to be there.
    pub(super) fn required_size(&self, name: &str, max: usize) -> Result<usize, ConfigError> {
        self.size(name, max)?
            .ok_or_else(|| self.missing(name, format!("a whole number from 1 to {max}")))
    }

    /// A number above 0.
    pub(super) fn positive(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        let positive = |value: &Value| {
            value
                .as_f64()
                .filter(|number| number.is_finite() && *number > 0.0)
                .ok_or_else(|| self.wrong(name, "a number above 0"))
        };
        self.get(name).map(positive).transpose()
    }

    /// A number above 0, which has to be there.
    pub(super) fn required_positive(&self, name: &str) -> Result<f64, ConfigError> {
        self.positive(name)?
            .ok_or_else(|| self.missing(name, "a number above 0"))
    }

    /// A token, if there is one.
    pub(super) fn token(&self, name: &str) -> Result<Option<u32>, ConfigError> {
        let token = |value: &Value| token(value).ok_or_else(|| self.wrong(name, "a token id"));
        self.get(name).map(token).transpose()
    }

    /// A token, or a list of them.
    pub(super) fn tokens(&self, name: &str) -> Result<Option<Vec<u32>>, ConfigError> {
        let tokens = |value: &Value| {
            let tokens = match value {
                Value::Array(values) => values.iter().map(token).collect(),
                value => token(value).map(|token| vec![token]),
            };
            tokens.ok_or_else(|| self.wrong(name, "a token id, or a list of them"))
        };
        self.get(name).map(tokens).transpose()
    }
}

fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|token| u32::try_from(token).ok())
}

/// A value as JSON, shortened.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_MAX {
        return text;
    }
    let start: String = text.chars().take(SHOWN_MAX).collect();
    format!("{start}...")
}
