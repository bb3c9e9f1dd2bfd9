//! The routes, and what is said where there is none.

mod adapters;
mod generation;
mod models;
mod status;
mod tokens;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::server::app::App;
use crate::server::error::ApiError;
use crate::server::observe::observe;

/// What there is to ask for.
const ROUTES: &str = "/v1/completions, /v1/chat/completions, /v1/models, /tokenize, /detokenize, \
    /health, /ready, /version, /metrics";

pub(crate) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/v1/completions", post(generation::completions))
        .route("/v1/chat/completions", post(generation::chat))
        .route("/v1/models", get(models::list))
        // Names have slashes: `accounts/A/models/M`.
        .route("/v1/models/{*name}", get(models::one))
        .route("/v1/load_lora_adapter", post(adapters::load))
        .route("/v1/unload_lora_adapter", post(adapters::unload))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/version", get(status::version))
        .route("/metrics", get(status::metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(app), observe))
        .with_state(Arc::clone(app))
}

async fn not_found(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(128).collect();
    let message = format!("there is no {path} here; there are: {ROUTES}");
    ApiError::new(StatusCode::NOT_FOUND, message).with_code("route_not_found")
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).with_code("method_not_allowed")
}

/// A defect of the server costs the request that met it. What the panic says goes to standard error by its hook.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    ApiError::internal("the server failed while answering this; please report it")
        .with_code("panic")
        .into_response()
}
