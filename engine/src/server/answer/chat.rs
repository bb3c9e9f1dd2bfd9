//! The answers of `/v1/chat/completions`.

use serde::Serialize;

use crate::server::answer::logprobs::ChatLogprobs;
use crate::server::answer::{
    Head, StopReasonField, UsageField, finish_reason, stop_reason, to_json,
};
use crate::server::generate::Piece;

/// Who speaks in every answer.
const ROLE: &str = "assistant";

#[derive(Debug, Serialize)]
struct Choice<'a> {
    index: usize,
    message: Message<'a>,
    #[serde(flatten)]
    rest: Rest<'a>,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<()>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    #[serde(flatten)]
    rest: Rest<'a>,
}

#[derive(Debug, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    content: &'a str,
}

/// What whole answers and chunks have alike.
#[derive(Debug, Default, Serialize)]
struct Rest<'a> {
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReasonField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

impl Head {
    /// The whole answer.
    pub(super) fn chat(&self, pieces: &[Piece], usage: UsageField) -> Vec<u8> {
        let choices: Vec<_> = pieces
            .iter()
            .map(|piece| Choice {
                index: piece.index,
                message: Message {
                    role: ROLE,
                    content: &piece.text,
                    refusal: None,
                },
                rest: Rest {
                    prompt_token_ids: self.prompt_token_ids(piece.index),
                    ..self.rest(piece)
                },
            })
            .collect();
        to_json(&self.frame("chat.completion", &choices, usage))
    }

    /// The chunk that says who speaks, before the first token of an answer.
    pub(super) fn chat_role_chunk(&self, index: usize, usage: UsageField) -> Vec<u8> {
        let rest = Rest {
            prompt_token_ids: self.prompt_token_ids(index),
            ..Rest::default()
        };
        self.chat_delta(index, Some(ROLE), "", rest, usage)
    }

    /// A chunk with one piece.
    pub(super) fn chat_chunk(&self, piece: &Piece, usage: UsageField) -> Vec<u8> {
        self.chat_delta(piece.index, None, &piece.text, self.rest(piece), usage)
    }

    fn chat_delta(
        &self,
        index: usize,
        role: Option<&'static str>,
        content: &str,
        rest: Rest<'_>,
        usage: UsageField,
    ) -> Vec<u8> {
        let delta = Delta { role, content };
        let choice = ChunkChoice { index, delta, rest };
        to_json(&self.frame("chat.completion.chunk", &[choice], usage))
    }

    /// The last chunk, without a choice.
    pub(super) fn chat_usage_chunk(&self, usage: UsageField) -> Vec<u8> {
        to_json(&self.frame::<()>("chat.completion.chunk", &[], usage))
    }

    fn rest<'a>(&self, piece: &'a Piece) -> Rest<'a> {
        let finish = piece.finish.as_ref();
        Rest {
            logprobs: self.chat_logprobs(&piece.places),
            finish_reason: finish_reason(finish),
            stop_reason: stop_reason(finish),
            prompt_token_ids: None,
            token_ids: self.token_ids(&piece.tokens),
        }
    }
}
