//! Answers in the form of OpenAI's API: pieces become chunks of a stream, or
//! one whole object.

mod chat;
mod completion;
mod logprobs;
mod stream;
mod whole;

use std::sync::Arc;

use serde::Serialize;

use crate::server::app::seconds_since_1970;
use crate::server::generate::{Finish, Piece, StopReason, Usage};
use crate::server::request::options::Options;
use crate::text::Tokenizer;

pub(crate) use stream::stream;
pub(crate) use whole::whole;

/// Which endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Completion,
    Chat,
}

/// What all chunks of an answer have in common.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    tokenizer: Arc<Tokenizer>,
    wants_logprobs: bool,
    return_token_ids: bool,
    tokens_as_ids: bool,
    /// The prompt of each answer, if its tokens are to be shown.
    prompts: Vec<Arc<[u32]>>,
}

impl Head {
    pub(crate) fn new(
        kind: Kind,
        id: &str,
        options: &Options,
        tokenizer: &Arc<Tokenizer>,
        prompts: Vec<Arc<[u32]>>,
    ) -> Self {
        let prefix = match kind {
            Kind::Completion => "cmpl",
            Kind::Chat => "chatcmpl",
        };
        Self {
            kind,
            id: format!("{prefix}-{id}"),
            created: seconds_since_1970(),
            model: options.model.clone(),
            tokenizer: Arc::clone(tokenizer),
            wants_logprobs: options.sampling.logprobs.is_some(),
            return_token_ids: options.return_token_ids,
            tokens_as_ids: options.tokens_as_ids,
            prompts,
        }
    }

    fn frame<'a, C>(
        &'a self,
        object: &'static str,
        choices: &'a [C],
        usage: UsageField,
    ) -> Frame<'a, C> {
        Frame {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            choices,
            usage,
        }
    }

    fn token_ids<'a>(&self, tokens: &'a [u32]) -> Option<&'a [u32]> {
        self.return_token_ids.then_some(tokens)
    }

    fn prompt_token_ids(&self, index: usize) -> Option<&[u32]> {
        let prompt = self.prompts.get(index).map(AsRef::as_ref);
        prompt.filter(|_| self.return_token_ids)
    }
}

/// An answer, or a chunk of one.
#[derive(Debug, Serialize)]
struct Frame<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [C],
    #[serde(skip_serializing_if = "UsageField::is_absent")]
    usage: UsageField,
}

/// Usage is not there, `null`, or given: where a last chunk has it, OpenAI's others have `null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum UsageField {
    Absent,
    Null(Option<()>),
    Given(Usage),
}

impl UsageField {
    const NULL: Self = Self::Null(None);

    fn is_absent(&self) -> bool {
        *self == Self::Absent
    }
}

/// What ended an answer, as vLLM has it beside the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum StopReasonField {
    Text(String),
    Token(u32),
}

fn finish_reason(finish: Option<&Finish>) -> Option<&'static str> {
    finish.map(|finish| match finish {
        Finish::Stop(_) => "stop",
        Finish::Length => "length",
    })
}

fn stop_reason(finish: Option<&Finish>) -> Option<StopReasonField> {
    match finish {
        Some(Finish::Stop(Some(StopReason::Text(text)))) => {
            Some(StopReasonField::Text(text.clone()))
        }
        Some(Finish::Stop(Some(StopReason::Token(token)))) => Some(StopReasonField::Token(*token)),
        _ => None,
    }
}

/// The JSON of an answer.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Numbers, strings and lists of them always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Puts the pieces of an answer together.
fn append(whole: &mut Piece, piece: Piece) {
    whole.text += &piece.text;
    whole.tokens.extend(piece.tokens);
    whole.places.extend(piece.places);
    whole.finish = piece.finish.or(whole.finish.take());
}
