//! From an answer's head and the pieces of its body to an [`Exchange`]: no I/O, no clock.

use std::time::SystemTime;

use foresail_core::time::Nanos;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION};
use serde_json::Value;

use super::chunk::{self, Chunk};
use super::events::{EVENT_BYTES_MAX, Event, EventStream};
use super::retry_after;
use crate::exchange::{Connection, Ending, Exchange};

/// The longest answer without streaming that is taken in.
const WHOLE_BYTES_MAX: usize = EVENT_BYTES_MAX;

/// How much of an unexpected body is kept, to find its message in.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// How much of an unexpected body is shown if it has no message.
const SHOWN_CHARS_MAX: usize = 300;

/// Why no more of an answer will come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is over, as HTTP has it.
    End,
    /// The connection ended within it.
    Truncated,
    Reset(String),
    /// It is not HTTP, or not as HTTP should be.
    Garbage(String),
    Stalled,
    TimedOut,
    Cancelled,
}

/// An answer as far as it has come.
pub(super) struct Answer {
    exchange: Exchange,
    is_streamed: bool,
    body: Body,
    /// When the head or the last piece of the body arrived.
    last_ns: Nanos,
    /// What was heard in a stream.
    has_choices: bool,
    is_finished: bool,
    is_done: bool,
    error: Option<String>,
    garbage: Option<String>,
}

/// What the body is taken to be.
enum Body {
    /// The head is still to come.
    Unknown,
    Events(EventStream),
    Whole(Vec<u8>),
    /// It came with another status than 200.
    Refusal(Vec<u8>),
    /// It is nothing that was asked for.
    Unexpected {
        what: String,
        begin: Vec<u8>,
    },
}

impl Answer {
    /// Nothing has come yet, to a request that was sent then.
    pub(super) fn to(is_streamed: bool, connection: Connection, sent_ns: Nanos) -> Self {
        Self {
            exchange: Exchange {
                sent_ns,
                connection: Some(connection),
                status: None,
                head_ns: None,
                retry_after_ns: None,
                output_ns: Vec::new(),
                usage: None,
                end_ns: sent_ns,
                body_bytes: 0,
                ending: Ending::Complete,
            },
            is_streamed,
            body: Body::Unknown,
            last_ns: sent_ns,
            has_choices: false,
            is_finished: false,
            is_done: false,
            error: None,
            garbage: None,
        }
    }

    /// When the last bytes came, once the head is there.
    pub(super) fn last_ns(&self) -> Option<Nanos> {
        self.exchange.head_ns.map(|_| self.last_ns)
    }

    pub(super) fn sent_ns(&self) -> Nanos {
        self.exchange.sent_ns
    }

    pub(super) fn has_output(&self) -> bool {
        !self.exchange.output_ns.is_empty()
    }

    /// Whether all there is to know has come: `[DONE]`.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether it is clear that what comes is of no use.
    pub(super) fn is_hopeless(&self) -> bool {
        self.garbage.is_some()
    }

    /// Takes the head. `today` is what `Retry-After` counts from if it tells a date.
    pub(super) fn take_head(
        &mut self,
        status: u16,
        headers: &HeaderMap,
        at: Nanos,
        today: impl FnOnce() -> SystemTime,
    ) {
        self.last_ns = at;
        self.exchange.head_ns = Some(at);
        self.exchange.status = Some(status);
        self.exchange.retry_after_ns = retry_after::of(headers, today);
        self.body = match unexpected(headers, self.is_streamed) {
            _ if status != 200 => Body::Refusal(redirection(status, headers)),
            Some(what) => Body::Unexpected {
                what,
                begin: Vec::new(),
            },
            None if self.is_streamed => Body::Events(EventStream::default()),
            None => Body::Whole(Vec::new()),
        };
    }

    /// Takes the next piece of the body, which arrived then.
    pub(super) fn take(&mut self, bytes: &[u8], at: Nanos) {
        self.last_ns = at;
        self.exchange.body_bytes += bytes.len() as u64;
        match &mut self.body {
            Body::Unknown => {}
            Body::Refusal(begin) | Body::Unexpected { begin, .. } => {
                let room = PROBLEM_BYTES_MAX.saturating_sub(begin.len());
                begin.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Body::Whole(whole) if whole.len() + bytes.len() > WHOLE_BYTES_MAX => {
                self.garbage = Some(format!("an answer of more than {WHOLE_BYTES_MAX} bytes"));
            }
            Body::Whole(whole) => whole.extend_from_slice(bytes),
            Body::Events(_) => self.take_events(bytes, at),
        }
    }

    fn take_events(&mut self, bytes: &[u8], at: Nanos) {
        let Body::Events(mut events) = std::mem::replace(&mut self.body, Body::Unknown) else {
            return;
        };
        let fed = events.feed(bytes, |event| self.take_event(&event, at));
        self.body = Body::Events(events);
        if fed.is_err() {
            let message = format!("an event of more than {EVENT_BYTES_MAX} bytes");
            self.garbage.get_or_insert(message);
        }
    }

    #[inline]
    fn take_event(&mut self, event: &Event<'_>, at: Nanos) {
        if event.data == b"[DONE]" {
            self.is_done = true;
            return;
        }
        match chunk::scan(event.data).or_else(|| chunk::read(event.data)) {
            Some(chunk) => self.take_chunk(event, chunk, at),
            None if event.is_error => self.take_error(event.data),
            None => {
                let shown = shown(event.data);
                let message = format!("an event that is no JSON object: {shown}");
                self.garbage.get_or_insert(message);
            }
        }
    }

    #[inline]
    fn take_chunk(&mut self, event: &Event<'_>, chunk: Chunk, at: Nanos) {
        if chunk.is_error || event.is_error {
            self.take_error(event.data);
        }
        if chunk.has_output {
            self.exchange.output_ns.push(at);
        }
        self.has_choices |= chunk.has_choices;
        self.is_finished |= chunk.is_finished;
        self.exchange.usage = chunk.usage.or(self.exchange.usage);
    }

    fn take_error(&mut self, data: &[u8]) {
        self.error.get_or_insert_with(|| message(data));
    }

    /// What came of it. A failure is of `now`; an end is of the last bytes.
    pub(super) fn finish(mut self, stop: Stop, now: Nanos) -> Exchange {
        let ending = self.ending(stop);
        self.exchange.end_ns = match ending {
            Ending::Complete | Ending::Refused { .. } | Ending::Error { .. } => self.last_ns,
            _ => now,
        };
        self.exchange.ending = ending;
        self.exchange
    }

    fn ending(&mut self, stop: Stop) -> Ending {
        if let Some(message) = self.garbage.take() {
            return Ending::Garbage { message };
        }
        match std::mem::replace(&mut self.body, Body::Unknown) {
            Body::Unknown => failure(stop),
            // Whatever became of its body: it was refused.
            Body::Refusal(begin) if stop != Stop::Cancelled => Ending::Refused {
                message: message(&begin),
            },
            Body::Unexpected { what, begin } if stop == Stop::End => unasked(&what, &begin),
            Body::Whole(whole) if stop == Stop::End => self.whole(&whole),
            Body::Events(_) => self.end_of_events(stop),
            _ => failure(stop),
        }
    }

    /// A stream is complete with `[DONE]`, whatever happens to the connection then,
    /// and with a reason to finish if its end was in good order: OpenAI's
    /// own clients stop at the one, and take the other for an end without a word.
    fn end_of_events(&mut self, stop: Stop) -> Ending {
        if let Some(message) = self.error.take() {
            return Ending::Error { message };
        }
        let is_whole = self.is_done || (self.is_finished && stop == Stop::End);
        match stop {
            _ if is_whole && self.has_choices => Ending::Complete,
            _ if is_whole => Ending::Garbage {
                message: "a stream in which no event has `choices`".into(),
            },
            Stop::End if self.exchange.body_bytes > 0 && !self.has_choices => Ending::Garbage {
                message: "what was to be a stream of events has none with `choices`".into(),
            },
            stop => failure(stop),
        }
    }

    fn whole(&mut self, whole: &[u8]) -> Ending {
        let Ok(value) = serde_json::from_slice::<Value>(whole) else {
            return Ending::Garbage {
                message: format!("an answer that is not JSON: {}", shown(whole)),
            };
        };
        if !value["error"].is_null() || value["object"] == "error" {
            return Ending::Error {
                message: message(whole),
            };
        }
        if !value["choices"].is_array() {
            return Ending::Garbage {
                message: format!("an answer without `choices`: {}", shown(whole)),
            };
        }
        self.exchange.usage = chunk::usage(&value["usage"]);
        self.exchange.output_ns.push(self.last_ns);
        Ending::Complete
    }
}

/// The ending of an answer of which nothing more is known.
fn failure(stop: Stop) -> Ending {
    match stop {
        Stop::End | Stop::Truncated => Ending::Truncated,
        Stop::Reset(message) => Ending::Reset { message },
        Stop::Garbage(message) => Ending::Garbage { message },
        Stop::Stalled => Ending::Stalled,
        Stop::TimedOut => Ending::TimedOut,
        Stop::Cancelled => Ending::Cancelled,
    }
}

/// What the headers tell, if it is not what was asked for.
fn unexpected(headers: &HeaderMap, is_streamed: bool) -> Option<String> {
    let text = |value: Option<&hyper::header::HeaderValue>| {
        let text = String::from_utf8_lossy(value?.as_bytes()).into_owned();
        Some(text.trim().to_ascii_lowercase())
    };
    let encoding = text(headers.get(CONTENT_ENCODING));
    if let Some(encoding) = encoding.filter(|encoding| encoding != "identity") {
        return Some(format!("a body in the encoding {encoding}"));
    }
    // What is not named is taken for what was asked for, and shows itself.
    let kind = text(headers.get(CONTENT_TYPE))?;
    let is_unexpected = kind.starts_with("text/html")
        || (is_streamed && kind.starts_with("application/json"))
        || (!is_streamed && kind.starts_with("text/event-stream"));
    is_unexpected.then_some(kind)
}

/// A body that was not asked for; it may still say what is wrong.
fn unasked(what: &str, begin: &[u8]) -> Ending {
    let has_error = chunk::read(begin).is_some_and(|chunk| chunk.is_error);
    if has_error {
        return Ending::Error {
            message: message(begin),
        };
    }
    Ending::Garbage {
        message: format!("{what}, which was not asked for: {}", shown(begin)),
    }
}

/// What is said first of an answer that points elsewhere.
fn redirection(status: u16, headers: &HeaderMap) -> Vec<u8> {
    let location = headers
        .get(LOCATION)
        .filter(|_| (300..400).contains(&status));
    let Some(location) = location else {
        return Vec::new();
    };
    let location = String::from_utf8_lossy(location.as_bytes());
    format!(
        "points to {location}, which is not followed: set the base URL to where the endpoint is\n"
    )
    .into_bytes()
}

/// The message of an error in JSON, as OpenAI, vLLM, SGLang and FastAPI write it, or
/// else the beginning of the text.
fn message(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return shown(body);
    };
    let places = [
        &value["error"]["message"],
        &value["error"],
        &value["message"],
        &value["detail"],
    ];
    let found = places.iter().find_map(|place| place.as_str());
    found.map_or_else(|| shown(body), |text| shown(text.as_bytes()))
}

fn shown(bytes: &[u8]) -> String {
    // A character has at most four bytes; more than that is not looked at.
    let bytes = &bytes[..bytes.len().min(SHOWN_CHARS_MAX * 4)];
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
