//! What every request goes through: it gets an id, is let in or not, is
//! counted, and is logged when it is over.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::server::app::App;
use crate::server::error::{ApiError, ErrorName};
use crate::server::record::{Record, Watch};
use crate::server::request_id;

/// What is open to everybody: what load balancers and collectors ask, who have no keys.
const OPEN: [&str; 4] = ["/health", "/metrics", "/ready", "/version"];

/// What the log calls a path that is no route. The path itself is the client's own text.
const NO_ROUTE: &str = "none";

pub(crate) async fn observe(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let (id, admitted) = match request_id::of(request.headers()) {
        Ok(id) => (id, admit(&app, &request)),
        Err(error) => (request_id::random().unwrap_or_default(), Err(error)),
    };
    let record = Arc::new(Record::new(
        id,
        request.method().to_string(),
        route(&request),
    ));
    let watch = Watch::begin(Arc::clone(&app), Arc::clone(&record));
    let mut response = match admitted {
        Ok(()) => {
            request.extensions_mut().insert(record);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    note(&watch, &response);
    mark(&app, watch.record(), &mut response);
    response.map(|body| watch.over(body))
}

fn admit(app: &App, request: &Request) -> Result<(), ApiError> {
    match &app.keys {
        Some(keys) if !OPEN.contains(&request.uri().path()) => keys.check(request.headers()),
        _ => Ok(()),
    }
}

fn route(request: &Request) -> String {
    let path = request.extensions().get::<MatchedPath>();
    path.map_or(NO_ROUTE, MatchedPath::as_str).to_owned()
}

fn note(watch: &Watch, response: &Response) {
    let mut notes = watch.record().notes();
    notes.status = Some(response.status().as_u16());
    if let Some(ErrorName(name)) = response.extensions().get() {
        notes.error = Some(name);
    }
}

fn mark(app: &App, record: &Record, response: &mut Response) {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&record.id) {
        headers.insert(request_id::HEADER, id);
    }
    if app.is_draining() {
        // Whoever comes again should come to another server.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}
