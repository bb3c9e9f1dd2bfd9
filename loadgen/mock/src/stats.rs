//! What the endpoint says of itself, and of what it was sent.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::behaviour::Fault;

/// What the endpoint did, and how late it was.
///
/// If `late_p99` or `read_gap_max` is not small beside what was measured against it,
/// the mock was the limit, and the measurement says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections that were accepted.
    pub connections_accepted: u64,
    /// Connections that are open.
    pub connections_open: u64,
    /// Times that no connection could be accepted, for want of file descriptors mostly.
    pub accept_errors: u64,
    /// Requests for completions.
    pub requests: u64,
    /// Of those, the ones on a connection that had carried a request before.
    pub requests_reused: u64,
    /// Answers that went out as they were meant to, good or bad.
    pub answers: u64,
    /// Answers that the client did not wait for.
    pub abandoned: u64,
    /// Answers in progress.
    pub running: u64,
    /// Steps of answers that were written; for streams, one a chunk.
    pub writes: u64,
    /// Tokens that were written.
    pub tokens: u64,
    /// How long after it was due half of the writes were done.
    pub late_p50: Duration,
    /// The same for 99 of 100.
    pub late_p99: Duration,
    /// The latest write.
    pub late_max: Duration,
    /// The longest time between two looks for requests: no request was read later than that after it came.
    pub read_gap_max: Duration,
    /// CPU time of the endpoint's thread.
    pub cpu: Duration,
    /// Time since the endpoint started.
    pub elapsed: Duration,
}

/// A request for completions, as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// When its last byte was read, since the endpoint started.
    pub at: Duration,
    /// Which connection it came on, numbered from 0 as they were accepted.
    pub connection: u64,
    /// Whether that connection had carried a request before.
    pub is_reused: bool,
    /// The path.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// [`prompt_hash`](crate::prompt_hash) of the prompt.
    pub prompt_hash: u64,
    /// Tokens of the prompt, as `usage` will tell them.
    pub prompt_tokens: u32,
    /// `max_tokens` or `max_completion_tokens`.
    pub max_tokens: Option<u32>,
    /// Whether a stream was asked for.
    pub is_streamed: bool,
    /// What went wrong with the answer.
    pub fault: Option<Fault>,
    /// The body, if the behaviour keeps bodies.
    pub body: Option<Vec<u8>>,
}

/// Lateness beyond an hour counts as an hour.
const LATE_NS_MAX: u64 = 3_600_000_000_000;

/// The counts behind [`Stats`].
pub(crate) struct Tally {
    pub(crate) stats: Stats,
    late_ns: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            stats: Stats::default(),
            late_ns: Histogram::new_with_bounds(1, LATE_NS_MAX, 3)
                .expect("the bounds are apart, and three digits are allowed"),
        }
    }

    pub(crate) fn wrote(&mut self, late_ns: u64) {
        self.stats.writes += 1;
        self.late_ns.saturating_record(late_ns);
    }

    /// The counts so far, with the percentiles filled in.
    pub(crate) fn stats(&self) -> Stats {
        let late = |quantile| Duration::from_nanos(self.late_ns.value_at_quantile(quantile));
        Stats {
            late_p50: late(0.5),
            late_p99: late(0.99),
            late_max: Duration::from_nanos(self.late_ns.max()),
            ..self.stats.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_counted_as_it_was() {
        let mut tally = Tally::new();
        for late_us in 1..=100 {
            tally.wrote(late_us * 1000);
        }
        let stats = tally.stats();
        let is_near = |time: Duration, micros: u64| {
            time.abs_diff(Duration::from_micros(micros)) < Duration::from_micros(1)
        };
        assert!(is_near(stats.late_p50, 50), "{:?}", stats.late_p50);
        assert!(is_near(stats.late_p99, 99), "{:?}", stats.late_p99);
        assert!(is_near(stats.late_max, 100), "{:?}", stats.late_max);
        assert_eq!(stats.writes, 100);
    }
}
