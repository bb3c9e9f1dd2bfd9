//! A page, asked for once over a connection of its own: metrics, or the list of models. Nothing of it is measured.

use std::cell::Cell;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use thiserror::Error;

use super::connect;
use super::target::Target;
use crate::clock::RunClock;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The HTTP status.
    pub status: u16,
    /// The body, whole.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FetchError {
    /// No connection: refused, unreachable, TLS failed.
    #[error("{0}")]
    NotConnected(String),
    /// The connection broke, or what came is not HTTP.
    #[error("{0}")]
    Broken(String),
    /// The answer is longer than was allowed.
    #[error("the answer has more than {bytes_max} bytes")]
    TooLong {
        /// What was allowed.
        bytes_max: usize,
    },
}

/// Asks for a target's path with GET over HTTP/1.1, whatever version the target is for. It waits
/// for as long as the server takes: set a limit around it.
///
/// # Errors
/// If no whole answer came. Any status is an answer.
pub async fn fetch(
    target: &Target,
    clock: RunClock,
    body_bytes_max: usize,
) -> Result<Fetched, FetchError> {
    let opened = connect::open(target, clock, &Cell::new(0)).await;
    let (stream, _) = opened.map_err(|error| FetchError::NotConnected(error.message))?;
    let handshake = Builder::new().handshake(TokioIo::new(stream)).await;
    let (sender, mut connection) = handshake.map_err(broken)?;
    let answer = answer(sender, target, body_bytes_max);
    tokio::pin!(answer);
    let mut is_open = true;
    loop {
        tokio::select! {
            answered = &mut answer => return answered,
            // Why it ended is told to whoever waits for the answer.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

async fn answer(
    mut sender: SendRequest<Empty<Bytes>>,
    target: &Target,
    body_bytes_max: usize,
) -> Result<Fetched, FetchError> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = target.uri().clone();
    *request.headers_mut() = target.headers(false).clone();
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), body_bytes_max)
        .collect()
        .await;
    let body = body.map_err(
        |error| match error.is::<http_body_util::LengthLimitError>() {
            true => FetchError::TooLong {
                bytes_max: body_bytes_max,
            },
            false => FetchError::Broken(error.to_string()),
        },
    )?;
    Ok(Fetched {
        status,
        body: body.to_bytes(),
    })
}

fn broken(error: hyper::Error) -> FetchError {
    FetchError::Broken(error.to_string())
}
