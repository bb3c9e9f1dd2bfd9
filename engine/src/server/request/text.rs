//! Text into tokens, away from the threads that answer, where there is much of it.

use std::sync::Arc;

use tokio::task;

use crate::server::app::Engine;
use crate::server::error::ApiError;
use crate::server::request::chat::Conversation;
use crate::text::{ChatError, Tokenizer};

/// Up to here, encoding takes less time than handing it over is worth (bytes).
const AT_ONCE_MAX: usize = 4 * 1024;

/// Does something with text: at once if it is short, else on a thread for that.
pub(crate) async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if bytes <= AT_ONCE_MAX {
        return work();
    }
    let done = task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::internal("the text could not be processed; please report it"))?
}

/// The tokens of a prompt.
pub(crate) fn encode(
    tokenizer: &Tokenizer,
    text: &str,
    add_special_tokens: bool,
) -> Result<Arc<[u32]>, ApiError> {
    let tokens = tokenizer.encode(text, add_special_tokens);
    let tokens = tokens.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(tokens.into())
}

/// The tokens of a conversation, by way of the chat template.
pub(crate) async fn render_and_encode(
    engine: &Engine,
    conversation: Conversation,
    bytes: usize,
) -> Result<Arc<[u32]>, ApiError> {
    let tokenizer = Arc::clone(&engine.tokenizer);
    off_thread(bytes, move || {
        let text = tokenizer.render_chat(&conversation.input())?;
        encode(&tokenizer, &text, conversation.add_special_tokens)
    })
    .await
}

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> Self {
        let message = error.to_string();
        if !error.is_of_request() {
            return Self::internal(message).with_code("chat_template_failed");
        }
        let refused = Self::invalid_param("messages", message);
        match error {
            ChatError::NoTemplate => refused.with_code("no_chat_template"),
            _ => refused,
        }
    }
}
