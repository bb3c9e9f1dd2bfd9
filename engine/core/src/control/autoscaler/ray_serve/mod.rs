//! Ray Serve's autoscaler, as of Ray 2.60.0 (`ray-serve`), and its decision before
//! delays were measured by a clock (`ray-serve-legacy`).
//!
//! ```text
//! handle ─record─> gauges ─report─> total ─0.1 s─> decision ─delay─> target
//!        (handle.rs)       (total.rs)      (decision.rs)
//! ```
//!
//! One handle counts requests: those that wait for a replica, and those that each
//! replica has. It records five times in a look-back period, and reports once in a
//! metrics interval. The controller looks every 0.1 s at what was reported last.
//!
//! Between two reports, a look depends on nothing but time and on which replicas
//! run. So looks are done in advance until one would change something, and only
//! that one is asked for as a deadline. A change of the replicas that run
//! ([`Policy::replicas_changed`]) calls for the next look again.
//!
//! Two things differ from a cluster: a control loop takes no time here, and where a
//! record and a report fall together, the record is first, as it is started first.

mod config;
mod decision;
mod handle;
mod total;
mod words;

pub use config::{AggregationFunction, Delays, RayServeConfig};

use super::policy::Policy;
use super::reason::Reason;
use super::trace::{Column, Row, Verdict};
use super::{Decision, Observation, ReplicaLoad};
use crate::time::{MILLISECOND, Nanos, SECOND, seconds};
use decision::{Outcome, State};
use handle::{Counted, Gauges};
use total::Total;

/// What a row of a trace says; a row is one pass of the control loop.
pub(super) const COLUMNS: &[Column] = &[
    Column::required(
        "load",
        "total_num_requests: requests running and queued, aggregated over the look-back period",
    ),
    Column::required("ready", "current_num_replicas: replicas that run"),
];

/// Time between two looks (`CONTROL_LOOP_INTERVAL_S`).
const LOOK: Nanos = 100 * MILLISECOND;

/// Most looks that are done in advance, so that no deadline takes long to find.
const LOOKS_IN_ADVANCE_MAX: u64 = 1 << 12;

/// The state of Ray Serve's handle, controller and policy.
#[derive(Clone, Debug)]
pub(super) struct RayServe {
    config: RayServeConfig,
    state: State,
    /// When the state was looked at; `None` before the first look.
    looked: Option<Nanos>,
    /// Whether looks like that one count towards a delay.
    counts_looks: bool,
    gauges: Gauges,
    reported: Gauges,
    /// Whether nothing was looked at since it was reported.
    is_news: bool,
    /// What was reported of the replicas that run.
    total: Total,
    /// The replicas that run, by id.
    running: Vec<u32>,
    records: Timer,
    reports: Timer,
    /// The look that may change something.
    look: Nanos,
}

/// Something that is done again and again, the first time at 0.
#[derive(Clone, Copy, Debug)]
struct Timer {
    next: Nanos,
    interval: Nanos,
}

impl Timer {
    fn every(interval_s: f64) -> Self {
        // Intervals are at least a millisecond. One that is longer than 64 bits of
        // nanoseconds saturates, which is later than any end.
        let interval = (interval_s * SECOND as f64) as Nanos;
        Timer { next: 0, interval }
    }

    /// Whether it is time; then, when the next time is.
    fn is_due(&mut self, now: Nanos) -> bool {
        let is_due = self.next <= now;
        if is_due {
            let missed = (now - self.next) / self.interval;
            let ahead = self.interval.saturating_mul(missed + 1);
            self.next = self.next.saturating_add(ahead);
        }
        is_due
    }
}

impl Policy for RayServe {
    fn target(&self) -> u32 {
        self.state.target
    }

    fn wants_each_replica(&self) -> bool {
        true
    }

    fn next_deadline(&self) -> Option<Nanos> {
        Some(self.records.next.min(self.reports.next).min(self.look))
    }

    /// A handle that knows no replica reports at once when a request comes
    /// (`should_send_scaled_to_zero_optimized_push`). It reports what it has recorded
    /// so far, which seldom includes this request.
    #[inline]
    fn on_request(&mut self, now: Nanos) -> Option<Decision> {
        if self.running.is_empty() && self.looked.is_some() {
            self.report_without_replicas(now);
        }
        None
    }

    fn replicas_changed(&mut self, now: Nanos) {
        // What a look itself changes is for the next one to see.
        let earliest = self.looked.map_or(0, |looked| looked + LOOK);
        let next = now.next_multiple_of(LOOK).max(earliest);
        self.look = self.look.min(next);
    }

    fn observe(
        &mut self,
        now: Nanos,
        deployment: &Observation,
        replicas: &[ReplicaLoad],
    ) -> Option<Decision> {
        self.count(now, deployment, replicas);
        if self.look > now {
            return None;
        }
        self.take_report(replicas);
        let before = self.state.target;
        let ongoing = self.total.at(seconds(now));
        let running = self.running.len() as u32;
        let outcome = self.decide(now, ongoing, running);
        self.look = self.next_look(now);
        (self.state.target != before).then(|| Decision {
            target: self.state.target,
            reason: self.reason(outcome, ongoing, running),
        })
    }

    fn look(&mut self, now: Nanos, row: &Row) -> Verdict {
        let (ongoing, running) = (row.required("load"), row.count("ready"));
        // Each row is a look, whatever the time between them.
        let (state, outcome) = self
            .state
            .look(&self.config, seconds(now), ongoing, running);
        self.state = state;
        Verdict {
            desired: state.target,
            reason: self.reason(outcome, ongoing, running),
        }
    }
}

impl RayServe {
    pub(super) fn new(config: &RayServeConfig, initial_replicas: u32) -> Self {
        // `RAY_SERVE_AUTOSCALING_METRIC_RECORD_INTERVAL_FACTOR` is 0.2.
        let record_s = (config.look_back_period_s * 0.2).min(config.metrics_interval_s);
        RayServe {
            state: State {
                target: initial_replicas,
                wish: None,
            },
            looked: None,
            counts_looks: false,
            gauges: Gauges::default(),
            reported: Gauges::default(),
            is_news: false,
            total: Total::default(),
            running: Vec::new(),
            records: Timer::every(record_s),
            reports: Timer::every(config.metrics_interval_s),
            look: 0,
            config: config.clone(),
        }
    }

    /// The handle's part: counts, records and reports, as it is time for.
    fn count(&mut self, now: Nanos, deployment: &Observation, replicas: &[ReplicaLoad]) {
        let counted = Counted {
            now_s: seconds(now),
            queued: deployment.held,
            replicas,
        };
        let look_back_s = self.config.look_back_period_s;
        if self.records.is_due(now) {
            self.gauges.record(&counted, look_back_s);
        }
        if self.reports.is_due(now) {
            self.report(now, &counted);
        }
        if !self.runs(replicas) {
            self.replicas_changed(now);
        }
    }

    #[cold]
    fn report_without_replicas(&mut self, now: Nanos) {
        let counted = Counted {
            now_s: seconds(now),
            queued: 1,
            replicas: &[],
        };
        self.report(now, &counted);
    }

    /// The controller is told of something else, and sees it when it looks next.
    fn report(&mut self, now: Nanos, counted: &Counted<'_>) {
        let look_back_s = self.config.look_back_period_s;
        self.reported = self.gauges.report(counted, look_back_s);
        self.is_news = true;
        self.replicas_changed(now);
    }

    /// Whether these are the replicas that the controller knows to run.
    fn runs(&self, replicas: &[ReplicaLoad]) -> bool {
        let ids = replicas.iter().map(|load| load.replica);
        self.running.iter().copied().eq(ids)
    }

    /// What the controller knows when it looks: what was reported of these replicas.
    fn take_report(&mut self, replicas: &[ReplicaLoad]) {
        let runs = self.runs(replicas);
        if runs && !self.is_news {
            return;
        }
        self.running = replicas.iter().map(|load| load.replica).collect();
        let function = self.config.aggregation_function;
        self.total = self.reported.total(&self.running, function);
        self.is_news = false;
    }

    /// The look at `now`, after those that changed nothing.
    fn decide(&mut self, now: Nanos, ongoing: f64, running: u32) -> Outcome {
        let skipped = self.looked.map_or(0, |looked| looks_between(looked, now));
        let state = self.after_more_looks(skipped);
        let (state, outcome) = state.look(&self.config, seconds(now), ongoing, running);
        self.state = state;
        self.looked = Some(now);
        self.counts_looks = matches!(outcome, Outcome::Waiting(_));
        outcome
    }

    /// The first look after the one at `now` that changes more than a count of
    /// looks, as long as nothing else is reported.
    fn next_look(&self, now: Nanos) -> Nanos {
        let running = self.running.len() as u32;
        // The first that may know of the next report.
        let report = self.reports.next.div_ceil(LOOK);
        let first = now / LOOK + 1;
        let last = report.clamp(first, first + LOOKS_IN_ADVANCE_MAX);
        let changes = |look: &u64| {
            let now_s = seconds(look * LOOK);
            let before = self.after_more_looks(look - first);
            let ongoing = self.total.at(now_s);
            let (after, _) = before.look(&self.config, now_s, ongoing, running);
            !after.is_as_good_as(&before)
        };
        (first..last).find(changes).unwrap_or(last) * LOOK
    }

    /// The state after looks that came to the same as the last.
    fn after_more_looks(&self, looks: u64) -> State {
        let counted = if self.counts_looks { looks } else { 0 };
        self.state.after_more_looks(counted)
    }

    fn reason(&self, outcome: Outcome, ongoing: f64, running: u32) -> Reason {
        Reason::words(words::of(
            &self.config,
            self.state,
            outcome,
            ongoing,
            running,
        ))
    }
}

/// How many looks there were after the one at `looked` and before `now`.
fn looks_between(looked: Nanos, now: Nanos) -> u64 {
    (now / LOOK).saturating_sub(looked / LOOK + 1)
}

#[cfg(test)]
mod tests;
