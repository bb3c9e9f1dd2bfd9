//! The JSON of a request: everything around the prompt is written once, before the run.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::tokens::Form;
use super::{BodiesError, LimitField, Settings};

/// Fields that are written for each request and so cannot be given for all.
const RESERVED: [&str; 8] = [
    "model",
    "prompt",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "stream",
    "stream_options",
];

/// The parts of a body between which prompt and lengths stand.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// `{"model":…,` for the model itself, then for each adapter.
    heads: Vec<Box<[u8]>>,
    form: Form,
    limit: LimitField,
    is_min_tokens_set: bool,
    /// From behind the lengths to the end.
    tail: Box<[u8]>,
}

/// What stands for the prompt.
pub(super) enum Text<'a> {
    /// Writes the inside of a JSON string.
    Plain(&'a dyn Fn(&mut Vec<u8>)),
    /// A JSON array of messages.
    Messages(&'a str),
}

impl Template {
    pub(super) fn new(settings: &Settings, adapters: &[String]) -> Result<Self, BodiesError> {
        let names = std::iter::once(&settings.model).chain(adapters);
        let head = |name: &String| {
            let name = Value::from(name.as_str());
            format!("{{\"model\":{name},").into_bytes().into()
        };
        Ok(Self {
            heads: names.map(head).collect(),
            form: settings.form,
            limit: settings.limit,
            is_min_tokens_set: settings.is_min_tokens_set,
            tail: tail(settings)?,
        })
    }

    /// A body, or `None` if there is no such adapter.
    pub(super) fn fill(
        &self,
        adapter: Option<u32>,
        text: &Text<'_>,
        output_tokens: u32,
        room: usize,
    ) -> Option<Bytes> {
        let place = adapter.map_or(0, |adapter| adapter as usize + 1);
        let head = self.heads.get(place)?;
        let mut body = Vec::with_capacity(head.len() + room + self.tail.len() + 128);
        body.extend_from_slice(head);
        self.write_text(text, &mut body);
        let limit = match self.limit {
            LimitField::MaxTokens => "max_tokens",
            LimitField::MaxCompletionTokens => "max_completion_tokens",
        };
        let lengths = match self.is_min_tokens_set {
            true => format!(",\"{limit}\":{output_tokens},\"min_tokens\":{output_tokens}"),
            false => format!(",\"{limit}\":{output_tokens}"),
        };
        body.extend_from_slice(lengths.as_bytes());
        body.extend_from_slice(&self.tail);
        Some(Bytes::from(body))
    }

    fn write_text(&self, text: &Text<'_>, body: &mut Vec<u8>) {
        match (text, self.form) {
            (Text::Messages(messages), _) => {
                body.extend_from_slice(b"\"messages\":");
                body.extend_from_slice(messages.as_bytes());
            }
            (Text::Plain(write), Form::Completions) => {
                body.extend_from_slice(b"\"prompt\":\"");
                write(body);
                body.push(b'"');
            }
            (Text::Plain(write), Form::Chat) => {
                body.extend_from_slice(b"\"messages\":[{\"role\":\"user\",\"content\":\"");
                write(body);
                body.extend_from_slice(b"\"}]");
            }
        }
    }
}

/// What is the same for all requests; what the user gave wins over what else is set.
fn tail(settings: &Settings) -> Result<Box<[u8]>, BodiesError> {
    let mut fields = Map::new();
    if settings.is_streamed {
        fields.insert("stream".to_owned(), true.into());
        let usage = serde_json::json!({ "include_usage": true });
        fields.insert("stream_options".to_owned(), usage);
    }
    if settings.is_eos_ignored {
        fields.insert("ignore_eos".to_owned(), true.into());
    }
    if let Some(temperature) = settings.temperature {
        fields.insert("temperature".to_owned(), temperature.into());
    }
    if let Some(seed) = settings.sampling_seed {
        fields.insert("seed".to_owned(), seed.into());
    }
    for (name, value) in &settings.extra {
        if RESERVED.contains(&name.as_str()) {
            let field = name.clone();
            return Err(BodiesError::Reserved { field });
        }
        fields.insert(name.clone(), value.clone());
    }
    let text = Value::Object(fields).to_string();
    // Behind the lengths, so without its opening brace.
    Ok(match text.as_str() {
        "{}" => Box::from(*b"}"),
        fields => format!(",{}", &fields[1..]).into_bytes().into(),
    })
}
