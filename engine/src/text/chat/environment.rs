//! Jinja as chat templates expect it.

use std::fmt;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};

use super::error::Raised;
use super::python_json::{Style, to_json};
use super::strftime::strftime;

/// Instructions that a template may take. The longest of today's take some
/// hundred a message, so this is enough for tens of thousands of messages, and
/// is spent within a second or so.
const FUEL: u64 = 10_000_000;

/// An environment with what Hugging Face transformers adds to Jinja.
pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(format_as_python);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", tojson);
    environment
}

/// Marks of the assistant's part, which transformers adds to Jinja for
/// training, become blocks that change nothing: `{% generation %}` and
/// `{% endgeneration %}`, with any control of whitespace.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        result.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let word = tag
            .trim_start_matches(['{', '%', '-', '+'])
            .trim_end_matches(['}', '%', '-', '+']);
        match word.trim() {
            "generation" => result.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => result.push_str(&tag.replace("endgeneration", "endif")),
            _ => result.push_str(tag),
        }
        rest = after;
    }
    result + rest
}

fn raise_exception(message: Value) -> Result<Value, Error> {
    let message = message
        .as_str()
        .map_or_else(|| message.to_string(), str::to_owned);
    let error = Error::new(ErrorKind::InvalidOperation, message.clone());
    Err(error.with_source(Raised(message)))
}

/// The function that formats a moment.
pub(super) fn strftime_now(now: SystemTime) -> Value {
    Value::from_function(move |format: &str| {
        strftime(now, format).map_err(|error| Error::new(ErrorKind::InvalidOperation, error))
    })
}

/// `json.dumps`, with what transformers lets templates choose. Jinja's own escapes HTML.
fn tojson(value: Value, positional: Rest<Value>, options: Kwargs) -> Result<String, Error> {
    let refuse = |what: &str| Error::new(ErrorKind::InvalidOperation, what.to_owned());
    if !positional.is_empty() {
        return Err(refuse("tojson takes its options by name"));
    }
    let indent: Option<Value> = options.get("indent")?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(width) if width.as_str().is_some() => width.as_str().map(str::to_owned),
        Some(width) => {
            let width = width.as_usize().filter(|&width| width <= 64);
            Some(" ".repeat(width.ok_or_else(|| refuse("indent of tojson must be from 0 to 64"))?))
        }
    };
    let separators: Option<Vec<String>> = options.get("separators")?;
    let style = Style {
        ensure_ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        separators: separators.and_then(|separators| <[String; 2]>::try_from(separators).ok()),
        indent,
    };
    options.assert_all_used()?;
    let json = serde_json::to_value(&value).map_err(|error| refuse(&error.to_string()))?;
    Ok(to_json(&json, &style))
}

/// Prints as Python does what Jinja prints through Python: `None`, `True`, `False`.
fn format_as_python(
    out: &mut Output<'_>,
    _: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let printed: &dyn fmt::Display = match value.kind() {
        ValueKind::None => &"None",
        ValueKind::Bool if value.is_true() => &"True",
        ValueKind::Bool => &"False",
        _ => value,
    };
    write!(out, "{printed}").map_err(Error::from)
}
