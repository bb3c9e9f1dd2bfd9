//! What can be asked: the base model under its names, and adapters.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;

use crate::server::app::{App, Engine};
use crate::server::error::{self, ApiError};

/// A model, as OpenAI's API describes one, with what vLLM adds.
#[derive(Debug, Serialize)]
struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// The base model, in its first name.
    root: String,
    /// What an adapter is of.
    parent: Option<String>,
    max_model_len: usize,
}

#[derive(Debug, Serialize)]
struct List {
    object: &'static str,
    data: Vec<Model>,
}

pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let engine = app.engine()?;
    let bases = engine
        .names
        .iter()
        .map(|name| model(&app, engine, name, None));
    let adapters = engine.replica.adapters();
    let adapters = adapters
        .iter()
        .map(|name| model(&app, engine, name, engine.names.first()));
    let data = bases.chain(adapters).collect();
    Ok(error::json(List {
        object: "list",
        data,
    }))
}

pub(crate) async fn one(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    // What axum would say by itself is not in the shape that clients read.
    let Path(name) = name.map_err(|_| {
        let message = "the name of the model is not UTF-8 once its %-escapes are read";
        ApiError::invalid_param("model", message)
    })?;
    let engine = app.engine()?;
    let adapter = engine.resolve(&name)?;
    let parent = adapter.and(engine.names.first());
    Ok(error::json(model(&app, engine, &name, parent)))
}

fn model(app: &App, engine: &Engine, name: &str, parent: Option<&String>) -> Model {
    Model {
        id: name.to_owned(),
        object: "model",
        created: app.created_at(name),
        owned_by: "foresail",
        root: engine.names.first().cloned().unwrap_or_default(),
        parent: parent.cloned(),
        max_model_len: engine.max_model_len(),
    }
}
