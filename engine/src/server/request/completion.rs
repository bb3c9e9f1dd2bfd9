//! The body of `/v1/completions`.

use crate::server::error::ApiError;
use crate::server::request::fields::{Fields, missing};
use crate::server::request::options::Options;
use crate::server::request::prompt::Prompts;

/// Tokens to generate where a request does not say, as OpenAI has it.
const MAX_TOKENS_DEFAULT: u32 = 16;

/// Most tokens to report beside each one. OpenAI has 5, vLLM 20 by default.
pub(crate) const LOGPROBS_MAX: u32 = 20;

/// A request of `/v1/completions`.
#[derive(Clone, Debug)]
pub(crate) struct CompletionRequest {
    pub(crate) options: Options,
    pub(crate) prompts: Prompts,
    pub(crate) max_tokens: u32,
    /// The answer begins with the prompt.
    pub(crate) echo: bool,
    /// Whether tokens such as the beginning of a text are put before the prompt.
    pub(crate) add_special_tokens: bool,
}

impl CompletionRequest {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let prompt = fields.take_value("prompt");
        let mut options = Options::take(&mut fields)?;
        options.sampling.logprobs = take_logprobs(&mut fields)?;
        let request = Self {
            options,
            prompts: Prompts::parse(prompt.ok_or_else(|| missing("prompt"))?)?,
            max_tokens: fields.take_or("max_tokens", MAX_TOKENS_DEFAULT)?,
            echo: fields.take_or("echo", false)?,
            add_special_tokens: fields.take_or("add_special_tokens", true)?,
        };
        fields.finish()?;
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), ApiError> {
        if self.max_tokens == 0 && !self.echo {
            let message = "`max_tokens` of 0 is only for requests with `echo` true";
            return Err(ApiError::invalid_param("max_tokens", message));
        }
        check_min_tokens(self.options.min_tokens, self.max_tokens.max(1))
    }
}

fn take_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let logprobs: Option<u32> = fields.take("logprobs")?;
    check_logprobs("logprobs", logprobs)?;
    Ok(logprobs)
}

pub(crate) fn check_logprobs(name: &'static str, logprobs: Option<u32>) -> Result<(), ApiError> {
    match logprobs {
        Some(logprobs) if logprobs > LOGPROBS_MAX => {
            let message = format!("`{name}` is {logprobs} and may be {LOGPROBS_MAX} at most");
            Err(ApiError::invalid_param(name, message))
        }
        _ => Ok(()),
    }
}

pub(crate) fn check_min_tokens(min_tokens: u32, max_tokens: u32) -> Result<(), ApiError> {
    if min_tokens > max_tokens {
        let message = format!("`min_tokens` is {min_tokens}, more than `max_tokens`: {max_tokens}");
        return Err(ApiError::invalid_param("min_tokens", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vllm_bench_serve_sends_is_understood() {
        // vllm/benchmarks/lib/endpoint_request_func.py, `async_request_openai_completions`,
        // with --ignore-eos and --extra-body.
        let body = br#"{"model": "m", "prompt": "Hello", "repetition_penalty": 1.0,
            "max_tokens": 128, "logprobs": null, "stream": true,
            "stream_options": {"include_usage": true}, "ignore_eos": true,
            "temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0,
            "frequency_penalty": 0.0, "presence_penalty": 0.0, "min_tokens": 128}"#;
        let request = CompletionRequest::parse(body).expect("it is right");
        assert!(request.options.ignore_eos);
        assert_eq!(request.max_tokens, 128);
        assert!(request.options.stream.expect("it streams").include_usage);
    }

    #[test]
    fn nothing_to_do_is_refused() {
        let refused = |text: &str| {
            let error = CompletionRequest::parse(text.as_bytes()).expect_err("it is refused");
            error.param.expect("it names the parameter")
        };
        assert_eq!(refused(r#"{"model": "m"}"#), "prompt");
        let text = r#"{"model": "m", "prompt": "a", "max_tokens": 0}"#;
        assert_eq!(refused(text), "max_tokens");
        let text = r#"{"model": "m", "prompt": "a", "min_tokens": 17}"#;
        assert_eq!(refused(text), "min_tokens");
        let text = r#"{"model": "m", "prompt": "a", "logprobs": 21}"#;
        assert_eq!(refused(text), "logprobs");
        let text = r#"{"model": "m", "prompt": "a", "suffix": "b"}"#;
        assert_eq!(refused(text), "suffix");
    }
}
