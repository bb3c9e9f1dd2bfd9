//! What one event of a stream tells: whether output came, tokens, an error.
//!
//! A stream of a hundred thousand tokens a second is as many pieces of JSON a
//! second, of which a few bits matter. [`scan`] walks the structure once, skips what
//! does not matter, and allocates nothing. Where it is not sure, [`read`] parses,
//! slowly; a property test holds the two equal.

use serde_json::Value;

use crate::exchange::Usage;

mod scan;

pub(super) use scan::scan;

/// What matters of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// It has `choices`, even if none.
    pub(super) has_choices: bool,
    /// A choice carries output: text, reasoning, a refusal, or a call of a tool. A
    /// field that is there and empty carries none, nor does a role.
    pub(super) has_output: bool,
    /// A choice tells why it is finished.
    pub(super) is_finished: bool,
    /// It tells of an error.
    pub(super) is_error: bool,
    pub(super) usage: Option<Usage>,
}

/// The fields of a `delta` that carry output: OpenAI's, and `reasoning_content` or
/// `reasoning`, as vLLM and others call it.
const OUTPUTS: [&str; 5] = [
    "content",
    "reasoning_content",
    "reasoning",
    "refusal",
    "tool_calls",
];

/// Parses the event; `None` if it is not a JSON object.
pub(super) fn read(json: &[u8]) -> Option<Chunk> {
    let whole: Value = serde_json::from_slice(json).ok()?;
    let whole = whole.as_object()?;
    let field = |name: &str| whole.get(name).unwrap_or(&Value::Null);
    let choices = field("choices").as_array();
    let each = choices.map(Vec::as_slice).unwrap_or_default();
    Some(Chunk {
        has_choices: choices.is_some(),
        has_output: each.iter().any(has_output),
        is_finished: each.iter().any(|choice| !choice["finish_reason"].is_null()),
        is_error: !field("error").is_null() || field("object") == "error",
        usage: usage(field("usage")),
    })
}

/// The tokens that a `usage` tells, if it tells both kinds.
pub(super) fn usage(usage: &Value) -> Option<Usage> {
    let tokens = |value: &Value| u32::try_from(value.as_u64()?).ok();
    Some(Usage {
        prompt_tokens: tokens(&usage["prompt_tokens"])?,
        completion_tokens: tokens(&usage["completion_tokens"])?,
        cached_tokens: tokens(&usage["prompt_tokens_details"]["cached_tokens"]),
    })
}

fn has_output(choice: &Value) -> bool {
    let delta = &choice["delta"];
    is_filled(&choice["text"]) || OUTPUTS.iter().any(|name| is_filled(&delta[*name]))
}

fn is_filled(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(parts) => !parts.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
