//! One replica and its requests, without an autoscaler: a measured run again, in virtual time.
//!
//! A fit looks for the step times under which a simulation does what was measured. It runs hundreds
//! of these, so there is nothing here but the replica, its clock, and who sends next:
//!
//! ```text
//! due ── request overhead ──> Replica: scheduler, step times, leaps ──> first token ── end
//!  ^                                                                                    │
//!  └──────── in a closed loop, the client that has its answer sends the next ───────────┘
//! ```
//!
//! At equal times requests come before the ends of steps, as in [`simulate`](crate::simulate), and under
//! recorded traffic without overhead the records are the same, to the nanosecond. A request that a client sends
//! because another has just ended comes after the step that ended it: the next step has begun without it.

use std::collections::VecDeque;

use foresail_core::batching::{Config, ConfigError, Reject};
use foresail_core::step_time::StepTime;
use foresail_core::time::Nanos;
use foresail_reports::records::{Change, Gaps, RecordSink, RequestRecord};
use foresail_scenarios::workload::Request;

use crate::passage::Passage;
use crate::replica::Replica;

/// Who sends which request when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Each request is sent when it is due, whatever becomes of the others; in order of when that is.
    Recorded(Vec<Request>),
    /// So many clients send at once; each sends the next request when its last has ended.
    ClosedLoop {
        /// Clients.
        concurrency: u32,
        /// In the order in which they are sent; when they are due is not asked.
        requests: Vec<Request>,
    },
}

impl Traffic {
    /// All requests, in order.
    #[must_use]
    pub fn requests(&self) -> &[Request] {
        match self {
            Self::Recorded(requests) | Self::ClosedLoop { requests, .. } => requests,
        }
    }
}

/// What became of a request. Times are nanoseconds since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// When it was sent.
    pub due_ns: Nanos,
    /// When its first token came.
    pub first_token_ns: Nanos,
    /// When its last token came.
    pub end_ns: Nanos,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Of those, found in the prefix cache.
    pub cached_tokens: u32,
    /// Tokens that it got.
    pub output_tokens: u32,
}

/// What became of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// In the order of the traffic.
    pub requests: Vec<Replayed>,
    /// Steps computed.
    pub steps: u64,
    /// Time with a step in flight (ns).
    pub busy_ns: Nanos,
}

/// Why there is nothing to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The limits of the batches leave no room to work.
    #[error("the batching limits cannot be used: {0}")]
    Batching(#[from] ConfigError),
    /// A replica with these limits would never serve it.
    #[error("request {request} is refused: {reject}; leave it out, or raise the limit")]
    Refused {
        /// Its position in the traffic, from 0.
        request: usize,
        /// Why.
        reject: Reject,
    },
    /// A replay is about one engine's own step times.
    #[error(
        "request {request} asks for an adapter; only requests of the model itself can be replayed"
    )]
    Adapter {
        /// Its position in the traffic, from 0.
        request: usize,
    },
    /// Recorded requests are read as they were sent.
    #[error(
        "request {request} is due before the one that comes before it; sort them by when they are due"
    )]
    Unsorted {
        /// Its position in the traffic, from 0.
        request: usize,
    },
    /// Nobody sends.
    #[error("a closed loop has no clients; give it a concurrency of at least 1")]
    NoClients,
    /// Times are 64 bits of nanoseconds.
    #[error("the run would last longer than 292 years; check the times of requests and steps")]
    TooLong,
}

/// Runs one replica under this traffic until every request has ended. `request_overhead` is what
/// a request with so many tokens of prompt takes before the scheduler sees it (ns).
///
/// # Errors
/// If the limits make no sense, recorded requests are out of order, or one can never be served.
pub fn replay(
    traffic: &Traffic,
    batching: Config,
    model: &impl StepTime,
    request_overhead: impl Fn(u32) -> Nanos,
) -> Result<Replay, ReplayError> {
    let requests = traffic.requests();
    if let Some(request) = requests.iter().position(|each| each.adapter.is_some()) {
        return Err(ReplayError::Adapter { request });
    }
    batching.validate()?;
    let mut senders = Senders::new(traffic, request_overhead)?;
    let mut replica = Replica::new(0, batching, None, true)?;
    let mut ended = Ended::of(requests.len());
    let mut boundary: Option<Nanos> = None;
    let mut last_boundary = None;
    loop {
        let arrival = senders.next_at();
        let Some(now) = arrival.into_iter().chain(boundary).min() else {
            break;
        };
        if now > crate::TIME_MAX {
            return Err(ReplayError::TooLong);
        }
        if let Some(request) = senders.take(now) {
            // What was sent because a step has ended comes too late for the one that has begun with that.
            let joins_from = now + Nanos::from(last_boundary == Some(now));
            let mut sent = requests[request].clone();
            sent.due = now;
            let passage = Passage::new(request as u64, sent);
            let taken = replica.receive(now, joins_from, passage, model);
            let (_, end) = taken.map_err(|(reject, _)| ReplayError::Refused { request, reject })?;
            boundary = end.or(boundary);
            continue;
        }
        boundary = replica.advance(model, &mut ended);
        last_boundary = Some(now);
        for _ in ended.news.drain(..) {
            senders.answered(now);
        }
    }
    let mut replayed = ended.requests;
    for (request, due) in replayed.iter_mut().zip(senders.due) {
        request.due_ns = due;
    }
    Ok(Replay {
        requests: replayed,
        steps: replica.tally.steps,
        busy_ns: replica.tally.busy_ns,
    })
}

/// Requests on their way to the replica.
struct Senders<'a, F> {
    requests: &'a [Request],
    request_overhead: F,
    /// When each gets there: in the order in which they were sent, as a server reads them.
    under_way: VecDeque<(Nanos, usize)>,
    /// When the last one gets there, or got.
    last_at: Nanos,
    /// When each was sent.
    due: Vec<Nanos>,
    /// The first that nobody has sent yet.
    unsent: usize,
}

impl<'a, F: Fn(u32) -> Nanos> Senders<'a, F> {
    fn new(traffic: &'a Traffic, request_overhead: F) -> Result<Self, ReplayError> {
        let requests = traffic.requests();
        let mut senders = Self {
            requests,
            request_overhead,
            under_way: VecDeque::new(),
            last_at: 0,
            due: vec![0; requests.len()],
            unsent: 0,
        };
        match traffic {
            Traffic::Recorded(requests) => {
                let falls = |pair: &[Request]| pair[1].due < pair[0].due;
                if let Some(place) = requests.windows(2).position(falls) {
                    return Err(ReplayError::Unsorted { request: place + 1 });
                }
                for request in requests {
                    senders.answered(request.due);
                }
            }
            Traffic::ClosedLoop { concurrency: 0, .. } => return Err(ReplayError::NoClients),
            Traffic::ClosedLoop { concurrency, .. } => {
                for _ in 0..*concurrency {
                    senders.answered(0);
                }
            }
        }
        Ok(senders)
    }

    /// Somebody sends the next request, if there is one, at `now`.
    fn answered(&mut self, now: Nanos) {
        let Some(request) = self.requests.get(self.unsent) else {
            return;
        };
        self.due[self.unsent] = now;
        let overhead = (self.request_overhead)(request.prompt_tokens);
        // A long prompt takes longer, and those after it get there no earlier.
        self.last_at = self.last_at.max(now.saturating_add(overhead));
        self.under_way.push_back((self.last_at, self.unsent));
        self.unsent += 1;
    }

    fn next_at(&self) -> Option<Nanos> {
        self.under_way.front().map(|(at, _)| *at)
    }

    /// The request that gets there at `now`, if there is one.
    fn take(&mut self, now: Nanos) -> Option<usize> {
        if self.next_at() != Some(now) {
            return None;
        }
        self.under_way.pop_front().map(|(_, request)| request)
    }
}

/// Keeps what became of each request.
struct Ended {
    requests: Vec<Replayed>,
    /// Those that have ended since somebody asked.
    news: Vec<u64>,
}

impl Ended {
    fn of(requests: usize) -> Self {
        Self {
            requests: vec![Replayed::default(); requests],
            news: Vec::new(),
        }
    }
}

impl RecordSink for Ended {
    fn request(&mut self, record: &RequestRecord) {
        self.requests[record.id as usize] = Replayed {
            due_ns: record.due_ns,
            first_token_ns: record.first_token_ns.unwrap_or(record.end_ns),
            end_ns: record.end_ns,
            prompt_tokens: record.prompt_tokens,
            cached_tokens: record.cached_tokens,
            output_tokens: record.output_tokens,
        };
        self.news.push(record.id);
    }

    fn gaps(&mut self, _: Gaps) {}

    fn change(&mut self, _: &Change) {}
}
