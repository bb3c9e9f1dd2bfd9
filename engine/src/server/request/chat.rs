//! The body of `/v1/chat/completions`.

use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::server::error::ApiError;
use crate::server::request::completion::{check_logprobs, check_min_tokens};
use crate::server::request::fields::{Fields, missing};
use crate::server::request::options::Options;
use crate::text::{ChatInput, Message, parse_messages};

/// A request of `/v1/chat/completions`.
#[derive(Clone, Debug)]
pub(crate) struct ChatRequest {
    pub(crate) options: Options,
    pub(crate) conversation: Conversation,
    /// Most tokens of the answer; as many as the context has room for if `None`.
    pub(crate) max_tokens: Option<u32>,
}

/// What was said so far, and how it becomes a prompt.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    messages: Vec<Message>,
    add_generation_prompt: bool,
    /// Templates write the tokens at the beginning of a text themselves.
    pub(crate) add_special_tokens: bool,
    /// Further variables of the template.
    variables: Map<String, Value>,
}

impl Conversation {
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let messages = fields
            .take_value("messages")
            .ok_or_else(|| missing("messages"))?;
        let messages = parse_messages(&messages)
            .map_err(|error| ApiError::invalid_param(&error.parameter, error.to_string()))?;
        Ok(Self {
            messages,
            add_generation_prompt: fields.take_or("add_generation_prompt", true)?,
            add_special_tokens: fields.take_or("add_special_tokens", false)?,
            variables: fields.take_or("chat_template_kwargs", Map::new())?,
        })
    }

    pub(crate) fn input(&self) -> ChatInput<'_> {
        ChatInput {
            messages: &self.messages,
            add_generation_prompt: self.add_generation_prompt,
            variables: &self.variables,
            now: SystemTime::now(),
        }
    }
}

impl ChatRequest {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let conversation = Conversation::take(&mut fields)?;
        let mut options = Options::take(&mut fields)?;
        options.sampling.logprobs = take_logprobs(&mut fields)?;
        let request = Self {
            options,
            conversation,
            max_tokens: take_max_tokens(&mut fields)?,
        };
        fields.finish()?;
        if let Some(max_tokens) = request.max_tokens {
            check_min_tokens(request.options.min_tokens, max_tokens)?;
        }
        Ok(request)
    }
}

/// `logprobs` says whether, `top_logprobs` how many beside each token.
fn take_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = fields.take_or("logprobs", false)?;
    let top: Option<u32> = fields.take("top_logprobs")?;
    check_logprobs("top_logprobs", top)?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::invalid_param(
            "top_logprobs",
            "`top_logprobs` is only for requests with `logprobs` true",
        )),
    }
}

/// `max_tokens` is the older name of `max_completion_tokens`.
fn take_max_tokens(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let newer: Option<u32> = fields.take("max_completion_tokens")?;
    let older: Option<u32> = fields.take("max_tokens")?;
    let name = if newer.is_some() {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    match (newer, older) {
        (Some(newer), Some(older)) if newer != older => {
            let message = "`max_tokens` is the older name of `max_completion_tokens`; \
                they differ, so leave one out";
            Err(ApiError::invalid_param("max_tokens", message))
        }
        _ => match newer.or(older) {
            Some(0) => {
                let message = format!("`{name}` has to be at least 1");
                Err(ApiError::invalid_param(name, message))
            }
            max_tokens => Ok(max_tokens),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(rest: &str) -> Result<ChatRequest, ApiError> {
        let body =
            format!(r#"{{"model": "m", "messages": [{{"role": "user", "content": "a"}}]{rest}}}"#);
        ChatRequest::parse(body.as_bytes())
    }

    fn refused(rest: &str) -> String {
        let error = request(rest).expect_err("it is refused");
        error.param.expect("it names the parameter")
    }

    #[test]
    fn what_vllm_bench_serve_sends_is_understood() {
        // vllm/benchmarks/lib/endpoint_request_func.py, `async_request_openai_chat_completions`.
        let body = br#"{"model": "m",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
            "max_completion_tokens": 128, "stream": true,
            "stream_options": {"include_usage": true}, "ignore_eos": true,
            "temperature": 0.7}"#;
        let request = ChatRequest::parse(body).expect("it is right");
        assert_eq!(request.max_tokens, Some(128));
    }

    #[test]
    fn both_names_of_the_limit() {
        let max = |rest| request(rest).expect("it is right").max_tokens;
        assert_eq!(max(""), None);
        assert_eq!(max(r#", "max_tokens": 3"#), Some(3));
        assert_eq!(max(r#", "max_completion_tokens": 3"#), Some(3));
        assert_eq!(
            max(r#", "max_completion_tokens": 3, "max_tokens": 3"#),
            Some(3)
        );
        assert_eq!(
            refused(r#", "max_completion_tokens": 3, "max_tokens": 4"#),
            "max_tokens"
        );
        assert_eq!(
            refused(r#", "max_completion_tokens": 0"#),
            "max_completion_tokens"
        );
    }

    #[test]
    fn log_probabilities_are_asked_for_twice() {
        let logprobs = |rest| {
            request(rest)
                .expect("it is right")
                .options
                .sampling
                .logprobs
        };
        assert_eq!(logprobs(""), None);
        assert_eq!(logprobs(r#", "logprobs": true"#), Some(0));
        assert_eq!(
            logprobs(r#", "logprobs": true, "top_logprobs": 5"#),
            Some(5)
        );
        assert_eq!(refused(r#", "top_logprobs": 5"#), "top_logprobs");
        assert_eq!(
            refused(r#", "logprobs": true, "top_logprobs": 21"#),
            "top_logprobs"
        );
        assert_eq!(refused(r#", "logprobs": 5"#), "logprobs");
    }

    #[test]
    fn features_that_are_not_there() {
        assert_eq!(refused(r#", "tools": [{"type": "function"}]"#), "tools");
        assert_eq!(refused(r#", "modalities": ["audio"]"#), "modalities");
        assert!(request(r#", "tools": [], "tool_choice": "none", "user": "u""#).is_ok());
    }
}
