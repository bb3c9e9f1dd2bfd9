//! What must add up at the end of every run, however it was optimised.

use foresail_core::time::Nanos;
use foresail_reports::records::{Change, Gaps, RecordSink, RequestRecord};

/// Two figures that should be the same, counted in two ways, are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {one} by one count, {other} by the other")]
pub struct Violation {
    /// What was counted.
    pub what: &'static str,
    /// As it went in.
    pub one: u128,
    /// As it came out.
    pub other: u128,
}

/// The requests in the system, integrated over time. By Little's law, exact on
/// every finite run that begins and ends empty, this is the sum of their times.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InSystem {
    pub(crate) integral_ns: u128,
    requests: u64,
    since: Nanos,
}

impl InSystem {
    /// The integral up to `now`.
    pub(crate) fn integral_by(&self, now: Nanos) -> u128 {
        self.integral_ns + u128::from(self.requests) * u128::from(now - self.since)
    }

    /// From `now` on there are so many.
    pub(crate) fn set(&mut self, now: Nanos, requests: u64) {
        self.integral_ns = self.integral_by(now);
        self.since = now;
        self.requests = requests;
    }
}

/// A sink that counts what passes through it.
pub(crate) struct Tap<'a, S> {
    sink: &'a mut S,
    /// Requests that ended, whatever the outcome.
    pub(crate) ended: u64,
    /// Tokens of those.
    pub(crate) tokens: u64,
    /// Sum of their times from due to end.
    pub(crate) sojourn_ns: u128,
    /// Sum of the parts of those times.
    pub(crate) parts_ns: u128,
}

impl<'a, S> Tap<'a, S> {
    pub(crate) fn new(sink: &'a mut S) -> Self {
        Self {
            sink,
            ended: 0,
            tokens: 0,
            sojourn_ns: 0,
            parts_ns: 0,
        }
    }
}

impl<S: RecordSink> RecordSink for Tap<'_, S> {
    fn request(&mut self, record: &RequestRecord) {
        self.ended += 1;
        self.tokens += u64::from(record.output_tokens);
        self.sojourn_ns += u128::from(record.end_ns - record.due_ns);
        let parts = record.parts.unwrap_or_default();
        let sum = parts.retry_ns
            + parts.outside_ns
            + parts.cold_start_ns
            + parts.queue_ns
            + parts.adapter_ns
            + parts.prefill_ns
            + parts.preemption_ns
            + parts.decode_ns;
        self.parts_ns += u128::from(sum);
        self.sink.request(record);
    }

    fn gaps(&mut self, gaps: Gaps) {
        self.sink.gaps(gaps);
    }

    fn change(&mut self, change: &Change) {
        self.sink.change(change);
    }
}

/// `Ok` if both counts are the same.
pub(crate) fn same(
    what: &'static str,
    one: impl Into<u128>,
    other: impl Into<u128>,
) -> Result<(), Violation> {
    let (one, other) = (one.into(), other.into());
    if one == other {
        Ok(())
    } else {
        Err(Violation { what, one, other })
    }
}
