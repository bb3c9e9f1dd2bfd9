//! Sends one request and says what came of it, whatever came of it.
//!
//! ```text
//! Settings ─> Target ─┐
//!  RunClock, Cancellation ─> Client: exchange(Attempt) ─> Exchange
//!                               │                            ^
//!            pool ─> connect ─> http1, http2 ─> drive ─> answer: events ─> chunk
//!                       └ stamped: when bytes arrive
//! ```
//!
//! Each worker thread has a [`Client`], with connections of its own. What decides what an answer is
//! (`answer`, `events`, `chunk`, `deadlines`) does no I/O; `drive` brings it the bytes.
//!
//! What it counts as what:
//! - Bytes arrive at the read from the socket that returns them, before TLS and HTTP. A read that
//!   holds several events gives them all one time.
//! - Output is an event with text, reasoning, a refusal, or a call of a tool. One that tells
//!   a role, or is empty, is none.
//! - An answer is over with the last bytes of its body. What ends the body itself, an
//!   empty chunk or an empty frame, is not waited for in that time.
//! - A stream is complete with `[DONE]`, or if a choice told why it is finished and the body
//!   then ended in good order, as for OpenAI's own clients. Any other end is [`Ending::Truncated`].
//! - After an error within a stream the rest is read, so that its connection can be used again; the
//!   error stays its ending.
//! - Redirects are not followed and bodies are not decompressed: both would be measured.
//! - A request whose connection was closed before any of it left is sent on another one, and counted
//!   ([`ConnectionCounts::resent`]). If some may have left, it is [`Ending::Reset`].

use bytes::Bytes;
use foresail_core::time::Nanos;
use http_body_util::Full;
use hyper::{Method, Request};
use thiserror::Error;

use crate::clock::RunClock;
use crate::exchange::{Attempt, Connection, Ending, Exchange};

mod answer;
mod cancellation;
mod chunk;
mod connect;
mod counts;
mod deadlines;
mod drive;
mod events;
mod failure;
mod fetch;
mod http1;
mod http2;
mod pool;
mod retry_after;
mod settings;
mod stamped;
mod target;
mod tls;

pub use cancellation::Cancellation;
pub use counts::ConnectionCounts;
pub use fetch::{FetchError, Fetched, fetch};
pub use settings::{HttpVersion, Settings};
pub use target::{Target, TargetError};

use answer::{Answer, Stop};
use drive::{Driven, Means, drive};
use pool::{NoConnection, Pool};

/// Bodies are there, whole, before they are sent.
type RequestBody = Full<Bytes>;

/// How long [`Client::warm`] tries to open a connection.
const WARM_CONNECT_NS: Nanos = 10_000_000_000;

/// How many connections [`Client::warm`] opens at once: as many as a
/// server's queue of new connections commonly holds.
const WARM_AT_ONCE: usize = 64;

/// Sends requests to a target, on connections of its own. One for each worker thread; it runs
/// on that thread's tokio runtime, which has to have I/O and time enabled.
pub struct Client {
    target: Target,
    clock: RunClock,
    cancellation: Cancellation,
    pool: Pool,
}

/// Not all connections could be opened ahead.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("only {opened} of {asked} connections could be opened: {message}")]
pub struct NotWarmed {
    /// How many could.
    pub opened: usize,
    /// How many were asked for.
    pub asked: usize,
    /// What the system said of the first that could not.
    pub message: String,
}

impl Client {
    /// A client without connections. `cancellation` ends what it has under way.
    #[must_use]
    pub fn new(target: Target, clock: RunClock, cancellation: Cancellation) -> Self {
        Self {
            pool: Pool::new(target.clone(), clock),
            target,
            clock,
            cancellation,
        }
    }

    /// Sends a request and follows its answer to the end. Never fails: what goes wrong is
    /// the [`Ending`]. Dropped, it aborts the request: the connection (HTTP/1.1) or
    /// the stream (HTTP/2) is closed.
    pub async fn exchange(&self, attempt: Attempt) -> Exchange {
        let asked_ns = self.clock.now();
        let exchanged = match self.target.http() {
            HttpVersion::Http1 => self.over_http1(&attempt).await,
            HttpVersion::Http2 => self.over_http2(&attempt).await,
        };
        exchanged.unwrap_or_else(|ending| self.unsent(asked_ns, ending))
    }

    /// What became of the connections so far.
    #[must_use]
    pub fn counts(&self) -> ConnectionCounts {
        self.pool.counters.get()
    }

    /// Opens this many connections ahead, as far as the target's limit allows, so that the first
    /// requests need not. They are idle until used; a server may close them after a time.
    ///
    /// # Errors
    ///
    /// [`NotWarmed`] if one cannot be opened within ten seconds. Those opened stay.
    pub async fn warm(&self, connections: usize) -> Result<(), NotWarmed> {
        let max = self.target.connections_max().unwrap_or(usize::MAX);
        let asked = connections.min(max);
        let mut opened = 0;
        while opened < asked {
            let batch = (asked - opened).min(WARM_AT_ONCE);
            let results = self.open_ahead(batch).await;
            opened += results.iter().filter(|result| result.is_ok()).count();
            if let Some(failure) = results.into_iter().find_map(Result::err) {
                return Err(NotWarmed {
                    opened,
                    asked,
                    message: failure.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Closes the connections that nobody uses.
    pub fn close_idle(&self) {
        self.pool.close_idle();
    }

    async fn over_http1(&self, attempt: &Attempt) -> Result<Exchange, Ending> {
        let _permit = self.unless_cancelled(self.pool.permit()).await?;
        loop {
            let found = self.pool.http1(attempt.patience.connect_ns);
            let (mut line, how) = self.unless_cancelled(found).await??;
            let mut answer = self.answer(attempt, how);
            let head = line.sender.try_send_request(self.request(attempt));
            let means = Means {
                clock: self.clock,
                stamp: &line.stamp,
                cancellation: &self.cancellation,
                patience: &attempt.patience,
            };
            let driven = drive(&means, Some(line.connection.as_mut()), head, &mut answer).await;
            if self.is_to_resend(&driven, how) {
                continue;
            }
            let exchange = self.finish(answer, driven);
            // Whether it can be used again, it knows best itself.
            self.pool.keep(line);
            return Ok(exchange);
        }
    }

    async fn over_http2(&self, attempt: &Attempt) -> Result<Exchange, Ending> {
        loop {
            let found = self.pool.http2(attempt.patience.connect_ns);
            let (mut place, how) = self.unless_cancelled(found).await??;
            let mut answer = self.answer(attempt, how);
            let head = place.sender.try_send_request(self.request(attempt));
            let means = Means {
                clock: self.clock,
                stamp: &place.connection.stamp,
                cancellation: &self.cancellation,
                patience: &attempt.patience,
            };
            // Its own task polls the connection.
            let nothing = None::<std::pin::Pin<&mut std::future::Pending<_>>>;
            let driven = drive(&means, nothing, head, &mut answer).await;
            if !self.is_to_resend(&driven, how) {
                return Ok(self.finish(answer, driven));
            }
        }
    }

    /// On a connection that was opened for it, a request is not tried again: a
    /// server that closes each at once would be asked for ever.
    fn is_to_resend(&self, driven: &Driven, how: Connection) -> bool {
        let is_to_resend = matches!(driven, Driven::NotSent(_)) && how == Connection::Reused;
        let again = u64::from(is_to_resend);
        self.pool.counters.update(|counts| {
            counts.resent += again;
            // That use came to nothing.
            counts.reused -= again;
        });
        is_to_resend
    }

    fn answer(&self, attempt: &Attempt, how: Connection) -> Answer {
        Answer::to(attempt.is_streamed, how, self.clock.now())
    }

    fn finish(&self, answer: Answer, driven: Driven) -> Exchange {
        let stop = match driven {
            Driven::Stopped(stop) => stop,
            Driven::NotSent(message) => Stop::Reset(message),
        };
        answer.finish(stop, self.clock.now())
    }

    fn request(&self, attempt: &Attempt) -> Request<RequestBody> {
        let mut request = Request::new(Full::new(attempt.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.uri().clone();
        *request.headers_mut() = self.target.headers(attempt.is_streamed).clone();
        request
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, Ending> {
        tokio::select! {
            biased;
            () = self.cancellation.cancelled() => Err(Ending::Cancelled),
            done = work => Ok(done),
        }
    }

    fn unsent(&self, asked_ns: Nanos, ending: Ending) -> Exchange {
        Exchange {
            sent_ns: asked_ns,
            connection: None,
            status: None,
            head_ns: None,
            retry_after_ns: None,
            output_ns: Vec::new(),
            usage: None,
            end_ns: self.clock.now(),
            body_bytes: 0,
            ending,
        }
    }

    async fn open_ahead(&self, batch: usize) -> Vec<Result<(), NoConnection>> {
        let mut results = Vec::with_capacity(batch);
        match self.target.http() {
            HttpVersion::Http1 => {
                let opening: Vec<_> = (0..batch)
                    .map(|_| self.pool.open_http1(Some(WARM_CONNECT_NS)))
                    .collect();
                for line in all(opening).await {
                    results.push(line.map(|line| self.pool.add(line)));
                }
            }
            HttpVersion::Http2 => {
                for _ in 0..batch {
                    let opened = self.pool.open_http2(Some(WARM_CONNECT_NS)).await;
                    results.push(opened.map(drop));
                }
            }
        }
        results
    }
}

/// Waits for all of them at once.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures
        .into_iter()
        .map(|future| (Box::pin(future), None))
        .collect();
    std::future::poll_fn(|context| {
        let mut is_pending = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(done) => *output = Some(done),
                    std::task::Poll::Pending => is_pending = true,
                }
            }
        }
        if is_pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    futures
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

impl From<NoConnection> for Ending {
    fn from(failure: NoConnection) -> Self {
        match failure {
            NoConnection::TimedOut => Self::TimedOut,
            NoConnection::Failed(failed) => Self::NotConnected {
                message: failed.message,
            },
        }
    }
}
