//! A request from its first byte to its last: counted while it is there, and
//! logged when it is over, however that comes about.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use crate::server::access_log::{self, Line};
use crate::server::app::App;

/// What is noted of a request while it is answered.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) began: Instant,
    pub(crate) id: String,
    method: String,
    route: String,
    output_tokens: AtomicU64,
    notes: Mutex<Notes>,
}

/// What becomes known of a request, bit by bit.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) status: Option<u16>,
    pub(crate) model: Option<String>,
    pub(crate) stream: bool,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) queue: Option<Duration>,
    pub(crate) first_token: Option<Duration>,
    pub(crate) error: Option<&'static str>,
    /// The client was given all there is.
    whole: bool,
}

impl Record {
    pub(crate) fn new(id: String, method: String, route: String) -> Self {
        Self {
            began: Instant::now(),
            id,
            method,
            route,
            output_tokens: AtomicU64::new(0),
            notes: Mutex::default(),
        }
    }

    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        // Each note is whole, so a panic between them spoils nothing.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_output_token(&self) {
        self.output_tokens.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&self, app: &App) {
        let notes = self.notes();
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        app.log.write(&Line {
            time: access_log::now(),
            event: "request",
            id: &self.id,
            method: &self.method,
            route: &self.route,
            status: notes.status,
            model: notes.model.as_deref(),
            stream: notes.stream,
            prompt_tokens: notes.prompt_tokens,
            cached_tokens: notes.cached_tokens,
            output_tokens: self.output_tokens.load(Ordering::Relaxed),
            queue_ms: notes.queue.map(ms),
            ttft_ms: notes.first_token.map(ms),
            duration_ms: ms(self.began.elapsed()),
            client_gone: !notes.whole,
            error: notes.error,
        });
    }
}

/// Held as long as a request is answered.
#[derive(Debug)]
pub(crate) struct Watch {
    app: Arc<App>,
    record: Arc<Record>,
}

impl Watch {
    pub(crate) fn begin(app: Arc<App>, record: Arc<Record>) -> Self {
        app.in_flight.send_modify(|count| *count += 1);
        Self { app, record }
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// A body that keeps the request in flight until it is sent, or dropped.
    pub(crate) fn over(self, body: Body) -> Body {
        Body::new(Watched { body, watch: self })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(status) = self.record.notes().status {
            self.app.metrics.answered(status);
        }
        self.record.write(&self.app);
        self.app.in_flight.send_modify(|count| *count -= 1);
    }
}

struct Watched {
    body: Body,
    watch: Watch,
}

impl Watched {
    fn note_end(&self) {
        self.watch.record.notes().whole = true;
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) {
            self.note_end();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        // A body of known length is not asked again after its last frame.
        let at_end = self.body.is_end_stream();
        if at_end {
            self.note_end();
        }
        at_end
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
