//! The answers of `/v1/completions`.

use serde::Serialize;

use crate::server::answer::logprobs::CompletionLogprobs;
use crate::server::answer::{
    Head, StopReasonField, UsageField, finish_reason, stop_reason, to_json,
};
use crate::server::generate::Piece;

/// Of a whole answer and of a chunk: they are the same.
const OBJECT: &str = "text_completion";

#[derive(Debug, Serialize)]
struct Choice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReasonField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

impl Head {
    /// A chunk with one piece, or the whole answer with all of them.
    pub(super) fn completion(
        &self,
        pieces: &[Piece],
        offsets: &mut [Offset],
        usage: UsageField,
    ) -> Vec<u8> {
        let choices: Vec<_> = pieces
            .iter()
            .map(|piece| self.completion_choice(piece, &mut offsets[piece.index]))
            .collect();
        to_json(&self.frame(OBJECT, &choices, usage))
    }

    fn completion_choice<'a>(&'a self, piece: &'a Piece, offset: &mut Offset) -> Choice<'a> {
        let is_first = !std::mem::replace(&mut offset.has_begun, true);
        let prompt = is_first.then(|| self.prompt_token_ids(piece.index));
        let finish = piece.finish.as_ref();
        Choice {
            index: piece.index,
            text: &piece.text,
            logprobs: self.completion_logprobs(&piece.places, &mut offset.characters),
            finish_reason: finish_reason(finish),
            stop_reason: stop_reason(finish),
            prompt_token_ids: prompt.flatten(),
            token_ids: self.token_ids(&piece.tokens),
        }
    }
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offset {
    pub(super) has_begun: bool,
    /// Where its next token begins.
    pub(super) characters: usize,
}
