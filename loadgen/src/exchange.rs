//! One attempt at a request, and what came of it: what the client tells the run.
//!
//! All times are of the [`RunClock`](crate::clock::RunClock), taken where bytes
//! arrive or leave, before they are parsed.

use bytes::Bytes;
use foresail_core::time::Nanos;

/// What is sent.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The JSON of the request, whole.
    pub body: Bytes,
    /// Whether the answer is to come as a stream of events.
    pub is_streamed: bool,
    /// When to give up.
    pub patience: Patience,
}

/// How long to wait for what. `None` waits for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// For a connection: name, TCP and TLS.
    pub connect_ns: Option<Nanos>,
    /// For the first output, from the send.
    pub first_output_ns: Option<Nanos>,
    /// Between one read and the next once the answer has begun.
    pub stall_ns: Option<Nanos>,
    /// For the last byte, from the send.
    pub total_ns: Option<Nanos>,
}

/// What came of an attempt. Whatever was received before it failed is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// When the request was handed to a connection that was open. If none came to be
    /// had, when one was first asked for.
    pub sent_ns: Nanos,
    /// How the connection was come by; `None` if there was none to be had.
    pub connection: Option<Connection>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// When the head of the answer arrived.
    pub head_ns: Option<Nanos>,
    /// What `Retry-After` asked for.
    pub retry_after_ns: Option<Nanos>,
    /// When each chunk that carried output arrived, in order: content, reasoning or
    /// a tool call. A first event that only tells the role carries none. Without
    /// streaming there is one, when the whole answer was there.
    pub output_ns: Vec<Nanos>,
    /// The tokens, as the server counts them.
    pub usage: Option<Usage>,
    /// When the last byte arrived, or the attempt failed.
    pub end_ns: Nanos,
    /// Bytes of the answer's body.
    pub body_bytes: u64,
    /// How it ended.
    pub ending: Ending,
}

/// How a connection was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It had carried requests before, or carries others meanwhile (HTTP/2).
    Reused,
    /// Opened for this attempt.
    Opened {
        /// How long that took: name, TCP and TLS.
        took_ns: Nanos,
    },
}

/// Tokens as the server counts them (`usage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub completion_tokens: u32,
    /// Tokens of the prompt that were found in the prefix cache, if it says.
    pub cached_tokens: Option<u32>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The answer came, whole.
    Complete,
    /// Refused with a status other than 200; the beginning of what the server said is kept.
    Refused {
        /// The message of the error, or the beginning of the body.
        message: String,
    },
    /// No connection: refused, unreachable, no such name, TLS failed.
    NotConnected {
        /// What the system said.
        message: String,
    },
    /// The connection was reset, or closed before any of the answer.
    Reset {
        /// What the system said.
        message: String,
    },
    /// The answer ended before its end: without `[DONE]`, or short of its length.
    Truncated,
    /// Nothing arrived for longer than [`Patience::stall_ns`].
    Stalled,
    /// [`Patience::connect_ns`], [`Patience::first_output_ns`] or [`Patience::total_ns`] ran out.
    TimedOut,
    /// What arrived is not HTTP, no stream of events, or no answer in OpenAI's form.
    Garbage {
        /// What was expected, and what came.
        message: String,
    },
    /// The stream began, and then told of an error.
    Error {
        /// What it said.
        message: String,
    },
    /// Given up by the client because the run was ended.
    Cancelled,
}
