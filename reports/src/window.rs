//! The window of a measured run: what is left out of it, and what all requests
//! together come to, so that both can be shown beside what counts.

use crate::histogram::Histogram;
use crate::measurements::{Measurements, latency_summary};
use crate::objectives::Latency;
use crate::records::{Outcome, RecordSink, RequestRecord};
use crate::summary::{Counters, Excluded, Window};

/// Counts all requests of a run, by whether they were due before the window, in it, or after it.
#[derive(Clone, Debug)]
pub struct WindowTally {
    from_ns: u64,
    until_ns: u64,
    warm_up: Outside,
    cool_down: Outside,
    whole_run: Measurements,
}

#[derive(Clone, Debug, Default)]
struct Outside {
    requests: u64,
    ttft: Histogram,
}

impl WindowTally {
    /// Of a window from one time up to another, exclusive (ns).
    #[must_use]
    pub fn new(from_ns: u64, until_ns: u64) -> Self {
        Self {
            from_ns,
            until_ns,
            warm_up: Outside::default(),
            cool_down: Outside::default(),
            whole_run: Measurements::new(&[]),
        }
    }

    /// Whether a request that was due then counts.
    #[must_use]
    pub fn holds(&self, due_ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&due_ns)
    }

    /// A request of the run, in the window or not.
    pub fn request(&mut self, record: &RequestRecord) {
        self.whole_run.request(record);
        let outside = match record.due_ns {
            due_ns if due_ns < self.from_ns => &mut self.warm_up,
            due_ns if due_ns >= self.until_ns => &mut self.cool_down,
            _ => return,
        };
        outside.requests += 1;
        if let (Outcome::Completed, Some(first_ns)) = (record.outcome, record.first_token_ns) {
            outside.ttft.record(first_ns - record.due_ns);
        }
    }

    /// What a summary says of the window of a run that ended at `end_ns`; the
    /// rule says in words how it was chosen.
    #[must_use]
    pub fn window(&self, rule: String, end_ns: u64) -> Window {
        let seconds = |ns: u64| ns as f64 / 1e9;
        Window {
            from_s: seconds(self.from_ns),
            until_s: seconds(self.until_ns),
            rule,
            warm_up: self.warm_up.excluded(seconds(self.from_ns.min(end_ns))),
            cool_down: self
                .cool_down
                .excluded(seconds(end_ns.saturating_sub(self.until_ns))),
            whole_run: self.counters(),
        }
    }

    fn counters(&self) -> Counters {
        let all = &self.whole_run;
        let throughput = all.throughput();
        let latency = |latency| latency_summary(all.histogram(latency));
        Counters {
            requests: all.ended(),
            completed: all.count(Outcome::Completed),
            requests_per_s: throughput.requests_per_s,
            output_tokens_per_s: throughput.output_tokens_per_s,
            ttft_s: latency(Latency::Ttft),
            tpot_s: latency(Latency::Tpot),
            e2e_s: latency(Latency::E2e),
        }
    }
}

impl Outside {
    fn excluded(&self, duration_s: f64) -> Excluded {
        Excluded {
            requests: self.requests,
            duration_s,
            ttft_s: latency_summary(&self.ttft),
        }
    }
}
