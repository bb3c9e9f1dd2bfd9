//! JSON as Python's `json.dumps` writes it, which models have seen in training.

use std::fmt::Write;

use serde_json::Value;

/// The options of `json.dumps` that templates use.
#[derive(Clone, Debug, Default)]
pub(super) struct Style {
    /// Characters beyond ASCII as `\uNNNN`.
    pub(super) ensure_ascii: bool,
    /// Keys of objects in order.
    pub(super) sort_keys: bool,
    /// Between elements, and between key and value.
    pub(super) separators: Option<[String; 2]>,
    /// What a level is indented by; everything on one line without.
    pub(super) indent: Option<String>,
}

/// A value as text.
pub(super) fn to_json(value: &Value, style: &Style) -> String {
    // The defaults of `json.dumps`: no space before a line break.
    let between = if style.indent.is_some() { "," } else { ", " };
    let [item, key] = match &style.separators {
        Some([item, key]) => [item.as_str(), key],
        None => [between, ": "],
    };
    let mut writer = Writer {
        style,
        item,
        key,
        text: String::new(),
        level: 0,
    };
    writer.value(value);
    writer.text
}

struct Writer<'a> {
    style: &'a Style,
    item: &'a str,
    key: &'a str,
    text: String,
    level: usize,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.text.push_str("null"),
            Value::Bool(value) => self.text.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) => self.text.push_str(&number.to_string()),
            Value::String(string) => self.string(string),
            Value::Array(items) => {
                self.within('[', ']', items, |writer, item| writer.value(item));
            }
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                if self.style.sort_keys {
                    fields.sort_by_key(|(key, _)| *key);
                }
                self.within('{', '}', &fields, |writer, (key, value)| {
                    writer.string(key);
                    writer.text.push_str(writer.key);
                    writer.value(value);
                });
            }
        }
    }

    fn within<T>(&mut self, open: char, close: char, items: &[T], each: impl Fn(&mut Self, &T)) {
        self.text.push(open);
        self.level += 1;
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.text.push_str(self.item);
            }
            self.line();
            each(self, item);
        }
        self.level -= 1;
        if !items.is_empty() {
            self.line();
        }
        self.text.push(close);
    }

    fn line(&mut self) {
        if let Some(indent) = &self.style.indent {
            self.text.push('\n');
            self.text.push_str(&indent.repeat(self.level));
        }
    }

    fn string(&mut self, string: &str) {
        self.text.push('"');
        for character in string.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                character if character < ' ' || self.style.ensure_ascii && character > '~' => {
                    self.escape(character);
                }
                character => self.text.push(character),
            }
        }
        self.text.push('"');
    }

    fn escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            let written = write!(self.text, "\\u{unit:04x}");
            written.expect("writing to a string does not fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What `json.dumps` of Python 3.11 writes.
    #[test]
    fn it_is_what_python_writes() {
        let value = json!({"b": [1, 2.5, {}], "a": "é\u{1f600}\"\u{1}\u{7f}", "c": [], "d": null});
        let plain = to_json(&value, &Style::default());
        assert_eq!(
            plain,
            "{\"b\": [1, 2.5, {}], \"a\": \"é\u{1f600}\\\"\\u0001\u{7f}\", \"c\": [], \"d\": null}"
        );
        let ascii = Style {
            ensure_ascii: true,
            sort_keys: true,
            ..Style::default()
        };
        let compact = Style {
            separators: Some([",".into(), ":".into()]),
            ..ascii
        };
        assert_eq!(
            to_json(&value, &compact),
            r#"{"a":"\u00e9\ud83d\ude00\"\u0001\u007f","b":[1,2.5,{}],"c":[],"d":null}"#
        );
        let indented = Style {
            indent: Some("  ".into()),
            ..Style::default()
        };
        insta::assert_snapshot!(to_json(&json!({"b": [1, {}], "c": []}), &indented), @r#"
        {
          "b": [
            1,
            {}
          ],
          "c": []
        }
        "#);
    }
}
