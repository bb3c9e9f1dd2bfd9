//! `/tokenize` and `/detokenize`, as vLLM has them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use crate::server::app::{App, Engine};
use crate::server::error::{self, ApiError};
use crate::server::request::body;
use crate::server::request::chat::Conversation;
use crate::server::request::fields::{Fields, missing};
use crate::server::request::text::{encode, off_thread, render_and_encode};

#[derive(Debug, Serialize)]
struct Tokens {
    count: usize,
    max_model_len: usize,
    tokens: Vec<u32>,
    token_strs: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct Text {
    prompt: String,
}

pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let engine = app.engine()?;
    let body = body::read(request, &app.settings).await?;
    let bytes = body.len();
    let mut fields = off_thread(bytes, move || Fields::parse(&body)).await?;
    check_model(engine, &mut fields)?;
    let with_strings = fields.take_or("return_token_strs", false)?;
    let tokens = if fields.has("messages") {
        let conversation = Conversation::take(&mut fields)?;
        fields.finish()?;
        render_and_encode(engine, conversation, bytes).await?
    } else {
        let text: String = fields.take("prompt")?.ok_or_else(|| missing("prompt"))?;
        let add_special_tokens = fields.take_or("add_special_tokens", true)?;
        fields.finish()?;
        let tokenizer = Arc::clone(&engine.tokenizer);
        off_thread(bytes, move || encode(&tokenizer, &text, add_special_tokens)).await?
    };
    let text_of = |token: &u32| engine.tokenizer.token_text(*token);
    Ok(error::json(Tokens {
        count: tokens.len(),
        max_model_len: engine.max_model_len(),
        token_strs: with_strings.then(|| tokens.iter().map(text_of).collect()),
        tokens: tokens.to_vec(),
    }))
}

pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let engine = app.engine()?;
    let body = body::read(request, &app.settings).await?;
    let bytes = body.len();
    let mut fields = off_thread(bytes, move || Fields::parse(&body)).await?;
    check_model(engine, &mut fields)?;
    let tokens: Vec<u32> = fields.require("tokens")?;
    fields.finish()?;
    let vocab_size = engine.vocab_size();
    if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab_size) {
        let message = format!("token {token} is not in the vocabulary of {vocab_size}");
        return Err(ApiError::invalid_param("tokens", message));
    }
    let tokenizer = Arc::clone(&engine.tokenizer);
    let decode = move || Ok(tokenizer.decode(&tokens, false));
    let prompt = off_thread(bytes, decode).await?;
    Ok(error::json(Text { prompt }))
}

/// All models here have one tokenizer, so the name only has to be right.
fn check_model(engine: &Engine, fields: &mut Fields) -> Result<(), ApiError> {
    let model: Option<String> = fields.take("model")?;
    model.map_or(Ok(()), |model| engine.resolve(&model).map(|_| ()))
}
