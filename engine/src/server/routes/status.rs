//! How the server is: for load balancers, and for those who collect metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::server::app::App;
use crate::server::error::{self, ApiError};
use crate::server::metrics::{Surroundings, render};

/// The type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether the process should be left alone: it starts, serves, or finishes what it has.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    match app.engine_if_there() {
        Some(engine) if engine.replica.is_ended() && !app.is_draining() => {
            Err(ApiError::unavailable("the replica has ended").with_code("replica_ended"))
        }
        _ => Ok(error::json(json!({"status": "ok"}))),
    }
}

/// Whether requests should be sent here.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    app.engine()?;
    Ok(error::json(json!({"status": "ready"})))
}

pub(crate) async fn version() -> Response {
    error::json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let engine = app.engine_if_there();
    let stats = engine.map(|engine| engine.replica.stats());
    let name = engine.and_then(|engine| engine.names.first());
    let surroundings = Surroundings {
        model: name.map_or("", String::as_str),
        stats: stats.as_ref(),
        in_flight: app.in_flight(),
        log_lines_left_out: app.log.left_out(),
        ready: app.engine().is_ok(),
    };
    let text = render(&app.metrics, surroundings);
    ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response()
}
