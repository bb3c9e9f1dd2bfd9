//! The bytes of a body, as many as are allowed and within the time for them.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::server::app::ServerSettings;
use crate::server::error::ApiError;

/// Reads the body of a request that should be JSON.
pub(crate) async fn read(request: Request, settings: &ServerSettings) -> Result<Bytes, ApiError> {
    check_content_type(request.headers())?;
    check_content_encoding(request.headers())?;
    check_length(request.headers(), settings.body_bytes_max)?;
    let collected = collect(request.into_body(), settings.body_bytes_max);
    let patience = settings.body_read_timeout;
    timeout(patience, collected).await.unwrap_or_else(|_| {
        let seconds = patience.as_secs();
        let message = format!("the body did not arrive within {seconds} s");
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
    })
}

/// A body without a type is taken for JSON. `curl --data` says that it sends a form.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_json = essence.eq_ignore_ascii_case("application/json")
        || essence.to_ascii_lowercase().ends_with("+json");
    if is_json {
        return Ok(());
    }
    let message = "the body has to be JSON; send the header `Content-Type: application/json`";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// A compressed body would be read as broken JSON, which helps nobody.
fn check_content_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let encodings = headers.get_all(header::CONTENT_ENCODING);
    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if encodings.iter().all(is_plain) {
        return Ok(());
    }
    let message = "compressed bodies are not supported by this server; \
        leave out the header `Content-Encoding`";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// Refuses a body that says how long it is, before it is sent.
fn check_length(headers: &HeaderMap, bytes_max: usize) -> Result<(), ApiError> {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > bytes_max as u64 => Err(too_large(bytes_max)),
        _ => Ok(()),
    }
}

async fn collect(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let mut bytes = Vec::new();
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece
            .map_err(|error| ApiError::invalid(format!("the body could not be read: {error}")))?;
        if bytes.len() + piece.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

fn too_large(bytes_max: usize) -> ApiError {
    let message = format!("the body may have {bytes_max} bytes at most");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}
