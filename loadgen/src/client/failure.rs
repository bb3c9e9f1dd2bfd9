//! What a failure of HTTP means to the one who sent.

use std::error::Error;
use std::io;

use super::answer::Stop;

/// Whether the head of the answer had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum During {
    Head,
    Body,
}

/// Sorts a failure: was it cut short, cut off, or never HTTP?
pub(super) fn stop(error: &hyper::Error, during: During) -> Stop {
    let ended = |error: &dyn Error| match during {
        During::Body => Stop::Truncated,
        During::Head => Stop::Reset(said(error)),
    };
    if error.is_incomplete_message() {
        return ended(error);
    }
    if error.is_parse() {
        return Stop::Garbage(said(error));
    }
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return stop_of_http2(h2, error, during);
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return stop_of_io(io.kind(), error, during);
        }
        source = cause.source();
    }
    Stop::Reset(said(error))
}

fn stop_of_io(kind: io::ErrorKind, error: &hyper::Error, during: During) -> Stop {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match (kind, during) {
        (UnexpectedEof, During::Body) => Stop::Truncated,
        // Sizes of chunks that are none, records of TLS that are none.
        (InvalidData | InvalidInput, _) => Stop::Garbage(said(error)),
        _ => Stop::Reset(said(error)),
    }
}

fn stop_of_http2(h2: &h2::Error, error: &hyper::Error, during: During) -> Stop {
    if let Some(io) = h2.get_io() {
        return stop_of_io(io.kind(), error, during);
    }
    // Found here, and not told by the other side: it broke the protocol.
    match h2.is_library() {
        true => Stop::Garbage(said(error)),
        false => Stop::Reset(said(error)),
    }
}

/// The error and its causes, each once.
fn said(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
