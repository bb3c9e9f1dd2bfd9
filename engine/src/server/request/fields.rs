//! The fields of a request body, each taken once, and what is left refused.
//!
//! A field that is `null` is one that is not there, as in OpenAI's API. What no
//! one takes is one of three kinds: noise that changes nothing and is ignored
//! ([`NOISE`]), a feature that is not there and is refused unless its value
//! says "without it" ([`UNSUPPORTED`]), or unknown. Unknown fields are refused,
//! as OpenAI does and vLLM does not: `max_token` for `max_tokens` is a mistake
//! that costs money when nobody tells.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::server::error::ApiError;

/// What clients send for other servers' sake, and no output depends on:
/// bookkeeping of OpenAI's platform, and hints of vLLM about how, not what.
const NOISE: [&str; 11] = [
    "include_reasoning",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "session_id",
    "spaces_between_special_tokens",
    "store",
    "user",
];

/// Features that are not there, with the values that do without them.
fn unsupported() -> [(&'static str, Vec<Value>); 36] {
    [
        ("allowed_token_ids", vec![]),
        ("audio", vec![]),
        ("bad_words", vec![json!([])]),
        ("best_of", vec![]),
        ("chat_template", vec![]),
        ("continue_final_message", vec![json!(false)]),
        ("documents", vec![json!([])]),
        ("echo", vec![json!(false)]),
        ("ec_transfer_params", vec![]),
        ("function_call", vec![json!("none"), json!("auto")]),
        ("functions", vec![json!([])]),
        ("guided_choice", vec![]),
        ("guided_decoding_backend", vec![]),
        ("guided_grammar", vec![]),
        ("guided_json", vec![]),
        ("guided_regex", vec![]),
        ("kv_transfer_params", vec![]),
        ("length_penalty", vec![json!(1.0), json!(1)]),
        ("logprob_token_ids", vec![]),
        ("logits_processors", vec![json!([])]),
        ("mm_processor_kwargs", vec![]),
        ("modalities", vec![json!(["text"])]),
        ("prediction", vec![]),
        ("priority", vec![json!(0)]),
        ("prompt_embeds", vec![]),
        ("prompt_logprobs", vec![]),
        ("reasoning_effort", vec![]),
        ("response_format", vec![json!({"type": "text"})]),
        ("structured_outputs", vec![]),
        ("suffix", vec![json!("")]),
        ("thinking_token_budget", vec![]),
        ("tool_choice", vec![json!("none"), json!("auto")]),
        ("tools", vec![json!([])]),
        ("truncate_prompt_tokens", vec![]),
        ("use_beam_search", vec![json!(false)]),
        ("web_search_options", vec![]),
    ]
}

/// The fields of a request that nobody has taken yet.
#[derive(Debug)]
pub(crate) struct Fields {
    left: Map<String, Value>,
    taken: Vec<&'static str>,
}

impl Fields {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the body is not JSON: {error}")))?;
        let Value::Object(left) = value else {
            let found = kind(&value);
            let message = format!("the body is {found} and has to be a JSON object");
            return Err(ApiError::invalid(message));
        };
        let taken = Vec::new();
        Ok(Self { left, taken })
    }

    /// The value of a field, if it is there.
    pub(crate) fn take<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take_value(name) else {
            return Ok(None);
        };
        let read = serde_json::from_value(value);
        read.map(Some)
            .map_err(|error| ApiError::invalid_param(name, format!("`{name}`: {error}")))
    }

    /// The value of a field, or what stands for its absence.
    pub(crate) fn take_or<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
        default: T,
    ) -> Result<T, ApiError> {
        Ok(self.take(name)?.unwrap_or(default))
    }

    /// The value of a field that has to be there.
    pub(crate) fn require<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
    ) -> Result<T, ApiError> {
        self.take(name)?.ok_or_else(|| missing(name))
    }

    /// Whether a field is there that nobody has taken.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.left.get(name).is_some_and(|value| !value.is_null())
    }

    /// A field as it is.
    pub(crate) fn take_value(&mut self, name: &'static str) -> Option<Value> {
        self.taken.push(name);
        // Which order the rest is in does not matter.
        let value = self.left.swap_remove(name)?;
        (!value.is_null()).then_some(value)
    }

    /// Refuses what is left, unless it is harmless.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.left.is_empty() {
            return Ok(());
        }
        let unsupported = unsupported();
        for (name, value) in &self.left {
            if value.is_null() || NOISE.contains(&name.as_str()) {
                continue;
            }
            match unsupported.iter().find(|(feature, _)| feature == name) {
                Some((_, neutral)) if neutral.contains(value) => {}
                Some(_) => {
                    let message = format!("`{name}` is not supported by this server; leave it out");
                    return Err(
                        ApiError::invalid_param(name, message).with_code("unsupported_parameter")
                    );
                }
                None => return Err(self.unknown(name)),
            }
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> ApiError {
        let name: String = name.chars().take(64).collect();
        let score = |known: &&'static str| (strsim::jaro_winkler(known, &name) * 1e6) as u32;
        let nearest = self.taken.iter().copied().max_by_key(score);
        let nearest = nearest.filter(|known| strsim::jaro_winkler(known, &name) > 0.85);
        let hint = nearest.map_or_else(String::new, |known| format!("; do you mean `{known}`?"));
        let message = format!("there is no parameter `{name}`{hint}");
        ApiError::invalid_param(name, message).with_code("unknown_parameter")
    }
}

/// The error of a field that is not there.
pub(crate) fn missing(name: &'static str) -> ApiError {
    let message = format!("`{name}` is missing");
    ApiError::invalid_param(name, message).with_code("missing_parameter")
}

/// What a value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).expect("it is an object")
    }

    fn refused(text: &str) -> ApiError {
        let mut fields = fields(text);
        let taken = fields.take::<u32>("max_tokens");
        taken
            .and_then(|_| fields.finish())
            .expect_err("it is refused")
    }

    #[test]
    fn null_is_absence() {
        let mut fields = fields(r#"{"n": null, "seed": 3}"#);
        assert_eq!(fields.take::<u32>("n"), Ok(None));
        assert_eq!(fields.take_or::<u32>("seed", 0), Ok(3));
        assert_eq!(fields.finish(), Ok(()));
    }

    #[test]
    fn noise_and_features_that_are_switched_off_are_ignored() {
        let fields = fields(
            r#"{"user": "me", "tools": [], "response_format": {"type": "text"},
                "use_beam_search": false, "suffix": null, "metadata": {"a": 1}}"#,
        );
        assert_eq!(fields.finish(), Ok(()));
    }

    #[test]
    fn features_that_are_not_there_are_refused_by_name() {
        let error = refused(r#"{"response_format": {"type": "json_object"}}"#);
        assert_eq!(error.param.as_deref(), Some("response_format"));
        assert_eq!(error.code, Some("unsupported_parameter"));
    }

    #[test]
    fn a_slip_of_the_pen_is_pointed_out() {
        let error = refused(r#"{"max_token": 5}"#);
        assert_eq!(
            error.message,
            "there is no parameter `max_token`; do you mean `max_tokens`?"
        );
    }

    #[test]
    fn a_wrong_type_names_the_field() {
        let error = refused(r#"{"max_tokens": "many"}"#);
        assert_eq!(error.param.as_deref(), Some("max_tokens"));
        assert!(error.message.contains("invalid type: string"), "{error:?}");
    }

    #[test]
    fn bodies_that_are_not_objects() {
        let error = Fields::parse(b"[1]").expect_err("it is a list");
        assert_eq!(
            error.message,
            "the body is a list and has to be a JSON object"
        );
        let error = Fields::parse(b"{\"a\": }").expect_err("it is not JSON");
        assert!(error.message.contains("line 1 column 7"), "{error:?}");
    }
}
