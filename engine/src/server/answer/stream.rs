//! An answer as server-sent events, a chunk for each token as it comes.
//!
//! A chunk is made when the connection can take it, so a client that reads
//! slowly has its tokens waiting in the queue of its own request, which holds
//! no more than the request asked for. The last chunk of an answer says why it
//! ended. After an error comes an event that tells of it, and nothing else: no
//! `[DONE]`, which would say that the answer is whole.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;

use crate::server::answer::completion::Offset;
use crate::server::answer::{Head, Kind, UsageField};
use crate::server::error::ApiError;
use crate::server::generate::{Piece, Run};
use crate::server::record::Record;
use crate::server::request::options::StreamOptions;

/// Answers with a stream. Where the client goes away, it is dropped, and the run with it.
pub(crate) fn stream(
    run: Run,
    head: Head,
    answers: usize,
    options: StreamOptions,
    record: Arc<Record>,
) -> Response {
    let state = Stream {
        run: Some(run),
        head,
        options,
        offsets: vec![Offset::default(); answers],
        ready: VecDeque::new(),
        record,
    };
    let events = stream::unfold(state, |mut state| async {
        let event = state.next().await?;
        Some((Ok::<_, Infallible>(event), state))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Body::from_stream(events)).into_response()
}

struct Stream {
    /// `None` once everything was made.
    run: Option<Run>,
    head: Head,
    options: StreamOptions,
    offsets: Vec<Offset>,
    /// Events that were made and not taken yet.
    ready: VecDeque<Bytes>,
    record: Arc<Record>,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let run = self.run.as_mut()?;
            match run.next().await {
                Some(Ok(piece)) => self.add(&piece),
                Some(Err(error)) => self.add_failure(&error),
                None => self.add_end(),
            }
        }
    }

    fn add(&mut self, piece: &Piece) {
        let usage = self.usage_so_far();
        match self.head.kind {
            Kind::Completion => {
                let pieces = std::slice::from_ref(piece);
                let chunk = self.head.completion(pieces, &mut self.offsets, usage);
                self.push(&chunk);
            }
            Kind::Chat => {
                let offset = &mut self.offsets[piece.index];
                if !std::mem::replace(&mut offset.has_begun, true) {
                    self.push(&self.head.chat_role_chunk(piece.index, usage));
                }
                self.push(&self.head.chat_chunk(piece, usage));
            }
        }
    }

    /// What a chunk before the last says of tokens.
    fn usage_so_far(&self) -> UsageField {
        match &self.run {
            Some(run) if self.options.continuous_usage_stats => UsageField::Given(run.usage()),
            _ if self.options.include_usage => UsageField::NULL,
            _ => UsageField::Absent,
        }
    }

    fn add_failure(&mut self, error: &ApiError) {
        self.run = None;
        self.record.notes().error = Some(error.code.unwrap_or("failed"));
        self.push(&error.to_json());
    }

    fn add_end(&mut self) {
        if let Some(run) = self.run.take()
            && self.options.include_usage
        {
            let usage = UsageField::Given(run.usage());
            let chunk = match self.head.kind {
                Kind::Completion => self.head.completion(&[], &mut [], usage),
                Kind::Chat => self.head.chat_usage_chunk(usage),
            };
            self.push(&chunk);
        }
        self.push(b"[DONE]");
    }

    /// Text of JSON has no line ends, so an event is a line.
    fn push(&mut self, data: &[u8]) {
        let event = [b"data: ", data, b"\n\n"].concat();
        self.ready.push_back(event.into());
    }
}
