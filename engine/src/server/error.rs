//! What a client is told when it does not get what it asked for: the error
//! object of the OpenAI API, with a status that says whose move is next.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::generation::{GenerationError, Refusal};
use crate::sampling::SampleError;

/// When a client may ask again, after a refusal that is about load.
const RETRY_AFTER_S: u32 = 1;

/// The name of an error, beside the response that tells of it, for the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorName(pub(crate) &'static str);

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The status, if no answer has begun yet.
    pub status: StatusCode,
    /// What went wrong and what to change, in a sentence.
    pub message: String,
    /// The parameter that is to be changed.
    pub param: Option<String>,
    /// A name for programs.
    pub code: Option<&'static str>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// The body of an error: <https://platform.openai.com/docs/guides/error-codes>.
#[derive(Debug, Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Debug, Serialize)]
struct Inner<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

impl ApiError {
    /// An error with a status and a sentence.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
            retry_after: None,
        }
    }

    /// The request is at fault (400).
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// One parameter of the request is at fault (400).
    pub fn invalid_param(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(message).with_param(param)
    }

    /// The server cannot take the request now, and will later (503).
    pub fn unavailable(message: impl Into<String>) -> Self {
        let retry_after = Some(Duration::from_secs(RETRY_AFTER_S.into()));
        Self {
            retry_after,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }

    /// The server is at fault (500).
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// Names the parameter.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Names the error for programs.
    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// The error object, as an answer or an event of a stream has it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let body = Body {
            error: Inner {
                message: &self.message,
                kind: self.kind(),
                param: self.param.as_deref(),
                code: self.code,
            },
        };
        // Strings and options of them always have a JSON form.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// The class of the error, in OpenAI's words.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (self.status, json, self.to_json()).into_response();
        let name = ErrorName(self.code.unwrap_or(self.kind()));
        response.extensions_mut().insert(name);
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110, section 11.6.1: a 401 names the scheme.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Empty => Self::invalid(message),
            Refusal::TooLong { .. } => Self::invalid(format!(
                "{message}; shorten the prompt, or ask for fewer tokens"
            ))
            .with_code("context_length_exceeded"),
            Refusal::NeverFits { .. } => {
                Self::invalid(message).with_code("context_length_exceeded")
            }
            Refusal::UnknownToken { .. } => Self::invalid_param("prompt", message),
            Refusal::UnknownAdapter(_) => {
                Self::new(StatusCode::NOT_FOUND, message).with_code("model_not_found")
            }
            Refusal::QueueFull { .. } => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                code: Some("queue_full"),
                ..Self::unavailable(message)
            },
            Refusal::Draining => Self::unavailable(message).with_code("draining"),
        }
    }
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        let message = error.to_string();
        match error {
            GenerationError::Step(_) => Self::internal(message).with_code("step_failed"),
            GenerationError::Sample(SampleError::NothingLeft) => Self::invalid(format!(
                "{message}; ban fewer tokens, or ask for fewer `min_tokens`"
            )),
            GenerationError::Sample(_) => Self::internal(message).with_code("sample_failed"),
            GenerationError::Adapter { .. } => Self::internal(message).with_code("adapter_failed"),
            GenerationError::ShutDown => Self::unavailable(message).with_code("shut_down"),
        }
    }
}

/// The JSON of an answer that went well.
pub(crate) fn json(value: impl Serialize) -> Response {
    Json(value).into_response()
}
