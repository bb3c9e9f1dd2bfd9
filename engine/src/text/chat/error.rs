//! What goes wrong with chat templates, and whose fault it is.

use std::error::Error;

use minijinja::ErrorKind;

/// Why messages have no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The model came without a template.
    #[error(
        "this model has no chat template; start the server with --chat-template FILE, \
         or use /v1/completions"
    )]
    NoTemplate,
    /// The template refuses these messages, with its own words (`raise_exception`).
    #[error("{0}")]
    Refused(String),
    /// The template did more than any template does for so many messages.
    #[error("the chat template takes too long for these messages")]
    TooMuchWork,
    /// The template fails on these messages, though not on a plain question: one
    /// has a field that is not what the template expects.
    #[error("the chat template fails on these messages: {0}")]
    Unsuitable(String),
    /// The template is wrong, whatever it is given.
    #[error("the chat template failed: {0}")]
    Failed(String),
}

/// What `raise_exception` was called with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

impl ChatError {
    /// Whether another request could succeed: the client's fault, not the server's.
    #[must_use]
    pub fn is_of_request(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }

    pub(super) fn of(error: &minijinja::Error) -> Self {
        let mut source: Option<&(dyn Error + 'static)> = Some(error);
        let mut innermost = error;
        while let Some(cause) = source {
            if let Some(Raised(message)) = cause.downcast_ref() {
                return Self::Refused(message.clone());
            }
            if let Some(cause) = cause.downcast_ref::<minijinja::Error>() {
                innermost = cause;
            }
            source = cause.source();
        }
        match innermost.kind() {
            ErrorKind::OutOfFuel => Self::TooMuchWork,
            _ => Self::Failed(innermost.to_string()),
        }
    }
}
