//! What the threads of a run share: how it goes, and when it is to end.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foresail_core::time::{Nanos, SECOND};
use foresail_reports::histogram::Histogram;
use foresail_reports::records::Outcome;

use crate::client::Cancellation;
use crate::clock::RunClock;
use crate::record::Ended;

/// How a run goes, for whoever watches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Time of the run; 0 before its start.
    pub at_ns: Nanos,
    /// Requests that were due by now; in a closed loop those that were sent.
    pub asked: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that completed.
    pub completed: u64,
    /// Requests that failed or were refused.
    pub failed: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Output tokens of completed requests.
    pub output_tokens: u64,
    /// Median TTFT of those that completed within the last seconds (5 to 10).
    pub ttft_p50_ns: Option<Nanos>,
    /// The 99th percentile of the same.
    pub ttft_p99_ns: Option<Nanos>,
    /// Whether all has been sent, and what is in flight is waited for.
    pub is_draining: bool,
}

/// How long a histogram of the latest TTFTs is filled before the next.
const RECENT: Nanos = 5 * SECOND;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: RunClock,
    /// No more sends.
    pub(super) halt: Cancellation,
    /// No more waiting for answers either.
    pub(super) cancellation: Cancellation,
    /// Until when answers are waited for once nothing more is sent, if someone has said so.
    drain_until_ns: AtomicU64,
    is_interrupted: AtomicBool,
    failure: Mutex<Option<String>>,
    /// Workers that may still send.
    pub(super) sending: AtomicUsize,
    sent: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    output_tokens: AtomicU64,
    last_due_ns: AtomicU64,
    recent: Mutex<Recent>,
    pub(super) workers: Vec<Gauges>,
}

/// What a worker shows of itself.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) cpu_ns: AtomicU64,
    pub(super) connections: AtomicU64,
}

#[derive(Debug, Default)]
struct Recent {
    since: Nanos,
    before: Histogram,
    now: Histogram,
}

impl Shared {
    pub(super) fn new(clock: RunClock, workers: usize) -> Self {
        Self {
            clock,
            halt: Cancellation::new(),
            cancellation: Cancellation::new(),
            drain_until_ns: AtomicU64::new(Nanos::MAX),
            is_interrupted: AtomicBool::new(false),
            failure: Mutex::new(None),
            sending: AtomicUsize::new(workers),
            sent: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            output_tokens: AtomicU64::new(0),
            last_due_ns: AtomicU64::new(0),
            recent: Mutex::default(),
            workers: (0..workers).map(|_| Gauges::default()).collect(),
        }
    }

    /// No more sends; what is in flight has so long to end.
    pub(super) fn stop(&self, drain: Duration) {
        let drain_ns = Nanos::try_from(drain.as_nanos()).unwrap_or(Nanos::MAX);
        let until = self.clock.now().saturating_add(drain_ns);
        self.drain_until_ns.fetch_min(until, Ordering::SeqCst);
        self.is_interrupted.store(true, Ordering::SeqCst);
        self.halt.cancel();
        if drain.is_zero() {
            self.cancellation.cancel();
        }
    }

    /// Something of ours failed: no more sends. The first failure is kept.
    pub(super) fn fail(&self, failure: String) {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(failure);
        drop(first);
        self.stop(Duration::from_nanos(1));
    }

    pub(super) fn failure(&self) -> Option<String> {
        let failure = self.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::SeqCst)
    }

    pub(super) fn drain_until(&self) -> Nanos {
        self.drain_until_ns.load(Ordering::SeqCst)
    }

    pub(super) fn sent(&self, due: Nanos) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.last_due_ns.fetch_max(due, Ordering::Relaxed);
    }

    /// When the last request that was sent was due.
    pub(super) fn last_due(&self) -> Nanos {
        self.last_due_ns.load(Ordering::Relaxed)
    }

    /// Requests ended: for the live view.
    pub(super) fn ended(&self, requests: &[Ended]) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        for ended in requests {
            if ended.outcome() != Outcome::Completed {
                self.failed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.completed.fetch_add(1, Ordering::Relaxed);
            let tokens = ended.output_tokens().0;
            self.output_tokens
                .fetch_add(tokens.into(), Ordering::Relaxed);
            if let Some(first) = ended.first_token_ns() {
                recent.record(ended.end_ns, first.saturating_sub(ended.asked.due_ns));
            }
        }
    }

    pub(super) fn live(&self, asked: u64) -> Live {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let ttft = recent.all();
        drop(recent);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (completed, failed) = (count(&self.completed), count(&self.failed));
        // Read last, so that no more have ended than were sent.
        let sent = count(&self.sent);
        Live {
            at_ns: self.clock.now(),
            asked: asked.max(sent),
            sent,
            completed,
            failed,
            in_flight: sent.saturating_sub(completed + failed),
            output_tokens: count(&self.output_tokens),
            ttft_p50_ns: ttft.percentile_ns(50.0),
            ttft_p99_ns: ttft.percentile_ns(99.0),
            is_draining: self.sending.load(Ordering::SeqCst) == 0,
        }
    }
}

impl Recent {
    fn record(&mut self, at: Nanos, ttft: Nanos) {
        if at >= self.since.saturating_add(RECENT) {
            self.before = std::mem::take(&mut self.now);
            self.since = at;
        }
        self.now.record(ttft);
    }

    fn all(&self) -> Histogram {
        let mut all = self.before.clone();
        all.add(&self.now);
        all
    }
}
