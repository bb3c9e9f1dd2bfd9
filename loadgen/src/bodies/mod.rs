//! The bodies of requests: prompts of a given number of tokens, and the JSON around them.
//!
//! With the model's tokenizer, a made-up prompt has exactly the tokens that its
//! request says; see `pieces.rs`. Without, it has so many words, and
//! [`Bodies::is_exact`] says so. What the endpoint adds around a text (a chat
//! template, the beginning of a sequence) counts as part of the prompt as far as
//! [`TokenCounter::frame`] knows of it, so that the endpoint's own count is the request's; where
//! the frame is not known, the count is that of the text alone, and the endpoint's is
//! higher by the frame. In chat, a whole history is one message of a user.
//!
//! Prompts are distinct from the first token on, so that no prefix cache makes an
//! endpoint look faster than it is, and shared exactly where the workload says
//! so; see `content.rs`. The same seed and salt give the same texts: whoever runs the same
//! plan again on an endpoint that has kept its cache wants another salt.

mod content;
mod pieces;
mod template;
mod tokens;
mod words;

use bytes::Bytes;
use serde_json::{Map, Value};

pub use tokens::{BYTES_PER_TOKEN, Counting, Form, Frame, TokenCounter};

use crate::plan::{Planned, Prompt};
use content::{Origins, Segment};
use pieces::{PIECES_MIN, Pieces};
use template::{Template, Text};
use words::Words;

/// How requests are written.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The model's name; a request for an adapter has the adapter's name in its place.
    pub model: String,
    /// As completions or chat.
    pub form: Form,
    /// Whether answers come as a stream (`stream`, with `stream_options.include_usage`).
    pub is_streamed: bool,
    /// Which field tells how long an answer may be.
    pub limit: LimitField,
    /// Whether an answer goes on to its planned length (`ignore_eos`, of vLLM, SGLang and foresail).
    pub is_eos_ignored: bool,
    /// Whether the planned length is also the least (`min_tokens`, of vLLM).
    pub is_min_tokens_set: bool,
    /// `temperature`, if any.
    pub temperature: Option<f64>,
    /// `seed` of the endpoint's own sampling, if any.
    pub sampling_seed: Option<u64>,
    /// Other fields of every body (`--extra-body`). They replace those above that
    /// are the same for all requests.
    pub extra: Map<String, Value>,
    /// The seed of the run.
    pub seed: u64,
    /// What makes the texts differ from those of other runs with the same seed.
    pub salt: u64,
}

impl Default for Settings {
    /// Streamed completions of planned length.
    fn default() -> Self {
        Self {
            model: "default".to_owned(),
            form: Form::Completions,
            is_streamed: true,
            limit: LimitField::MaxTokens,
            is_eos_ignored: true,
            is_min_tokens_set: false,
            temperature: None,
            sampling_seed: None,
            extra: Map::new(),
            seed: 0,
            salt: 0,
        }
    }
}

/// The field that tells how long an answer may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitField {
    /// `max_tokens`, which every engine knows.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`, which OpenAI's own newer models ask for in chat.
    MaxCompletionTokens,
}

/// Why no bodies can be made at all.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BodiesError {
    /// A field that each request has its own value of was given for all.
    #[error(
        "--extra-body: `{field}` is set for each request; leave it out, and use the flags for model, lengths and streaming"
    )]
    Reserved {
        /// The field.
        field: String,
    },
    /// The tokenizer has too few pieces of text that stay one token each beside others.
    #[error(
        "cannot make prompts of an exact length: this tokenizer has {found} pieces of text that are one token beside each other, and {PIECES_MIN} are needed; load without it, or use a dataset"
    )]
    TooFewPieces {
        /// How many it has.
        found: usize,
    },
    /// A number of bytes a token that cannot be.
    #[error("expected 2 to 64 bytes a token, found {found}")]
    BytesPerToken {
        /// What was given.
        found: f64,
    },
}

/// Why there is no body for a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// What the endpoint adds leaves no room for any text.
    #[error(
        "request {id}: a prompt of {prompt_tokens} tokens has no room for text: the endpoint itself adds {frame_tokens}"
    )]
    NoRoom {
        /// The request.
        id: u64,
        /// Tokens of its prompt.
        prompt_tokens: u32,
        /// Tokens that the endpoint adds.
        frame_tokens: u32,
    },
    /// Messages are for the chat endpoint.
    #[error("request {id}: the dataset gives messages: send them to the chat endpoint")]
    MessagesAsText {
        /// The request.
        id: u64,
    },
    /// It asks for an adapter that has no name.
    #[error("request {id}: adapter {adapter} has no name; name the adapters that are deployed")]
    UnknownAdapter {
        /// The request.
        id: u64,
        /// The adapter.
        adapter: u32,
    },
}

/// Makes the bodies of planned requests. It remembers nothing: any thread can make any body at any time.
#[derive(Clone, Debug)]
pub struct Bodies {
    template: Template,
    form: Form,
    frame: Frame,
    origins: Origins,
    text: TextSource,
}

/// What made-up prompts are made of.
#[derive(Clone, Debug)]
enum TextSource {
    Pieces(Pieces),
    Words(Words),
}

impl Bodies {
    /// Bodies as these settings say. `adapters` are the names of a plan's adapters.
    ///
    /// With a tokenizer this looks for pieces of text, which takes a fraction of a second.
    ///
    /// # Errors
    /// See [`BodiesError`].
    pub fn new(
        settings: &Settings,
        adapters: &[String],
        counting: &Counting,
    ) -> Result<Self, BodiesError> {
        Ok(Self {
            template: Template::new(settings, adapters)?,
            form: settings.form,
            frame: counting.frame(settings.form),
            origins: Origins::new(settings.seed, settings.salt),
            text: TextSource::new(counting)?,
        })
    }

    /// Whether prompts have exactly the planned tokens.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self.text, TextSource::Pieces(_))
    }

    /// The body of a request.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub fn body(&self, planned: &Planned) -> Result<Bytes, BodyError> {
        let Planned { id, request, .. } = planned;
        let fill = |text: Text<'_>, room: usize| {
            let body = self
                .template
                .fill(request.adapter, &text, request.output_tokens, room);
            body.ok_or(BodyError::UnknownAdapter {
                id: *id,
                adapter: request.adapter.unwrap_or_default(),
            })
        };
        match &planned.prompt {
            Prompt::Synthetic => {
                let segments = self.segments(planned)?;
                let write = |body: &mut Vec<u8>| self.text.write(&segments, body);
                fill(Text::Plain(&write), self.text.room(&segments))
            }
            Prompt::Given(text) => {
                let json = Value::from(&**text).to_string();
                let inside = &json.as_bytes()[1..json.len() - 1];
                let write = |body: &mut Vec<u8>| body.extend_from_slice(inside);
                fill(Text::Plain(&write), inside.len())
            }
            Prompt::Messages(_) if self.form != Form::Chat => {
                Err(BodyError::MessagesAsText { id: *id })
            }
            Prompt::Messages(messages) => fill(Text::Messages(messages), messages.len()),
        }
    }

    /// The text of a made-up prompt, without what the endpoint adds.
    fn segments(&self, planned: &Planned) -> Result<Vec<Segment>, BodyError> {
        let Frame { before, after } = self.frame;
        let prompt_tokens = planned.request.prompt_tokens;
        let end = prompt_tokens.saturating_sub(after);
        if end <= before {
            return Err(BodyError::NoRoom {
                id: planned.id,
                prompt_tokens,
                frame_tokens: before.saturating_add(after),
            });
        }
        let segments = self
            .origins
            .segments(planned.id, &planned.request, before..end);
        Ok(segments)
    }
}

impl TextSource {
    fn new(counting: &Counting) -> Result<Self, BodiesError> {
        match counting {
            Counting::Exact(counter) => {
                let pieces = Pieces::find(counter.as_ref());
                let pieces = pieces.map_err(|found| BodiesError::TooFewPieces { found })?;
                Ok(Self::Pieces(pieces))
            }
            Counting::Bytes { bytes_per_token } => {
                let found = *bytes_per_token;
                let words = Words::new(found).ok_or(BodiesError::BytesPerToken { found })?;
                Ok(Self::Words(words))
            }
        }
    }

    /// About how many bytes the text has.
    fn room(&self, segments: &[Segment]) -> usize {
        let tokens = segments.last().map_or(0, |last| last.end) as usize;
        match self {
            Self::Pieces(_) => 6 * tokens,
            Self::Words(words) => words.bytes(tokens),
        }
    }

    /// Writes the text of a prompt as the inside of a JSON string.
    fn write(&self, segments: &[Segment], body: &mut Vec<u8>) {
        match self {
            Self::Pieces(pieces) => {
                let draws = segments.iter().flat_map(|s| s.draws(pieces.count()));
                let mut is_first = true;
                for number in draws {
                    body.extend_from_slice(pieces.json(number, is_first));
                    is_first = false;
                }
            }
            Self::Words(words) => words.write(segments, body),
        }
    }
}

#[cfg(test)]
mod tests;
