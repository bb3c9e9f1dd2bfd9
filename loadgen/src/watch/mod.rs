//! The client watches itself, so that a report never shows the client's limits as
//! the server's.
//!
//! [`Watch`] is fed with what happens (a request is sent, a tick comes, a second is
//! over) and decides nothing until it is asked: [`Watch::verdict`] compares what it
//! saw with [thresholds](verdict) that each have a reason. It reads no clock and
//! asks the system nothing; [`system`] does that, and [`limits`] sees before the
//! run to the descriptors that it may need.

pub mod limits;
pub mod system;
pub mod verdict;

use foresail_core::time::{MILLISECOND, Nanos, SECOND};
use foresail_reports::histogram::Histogram;

pub use verdict::{Context, Note, Reason, ReasonCode, Verdict};

/// How often the event loop of a worker is looked at.
pub const TICK: Nanos = 10 * MILLISECOND;

/// A tick that is so late means that nothing ran at all: the process was stopped, or
/// the machine was.
pub const PAUSE_MIN: Nanos = SECOND;

/// How far wall clock and monotonic clock may drift apart between two samples before
/// it is a jump. NTP slews by at most 500 ppm, which is 0.5 ms a second (RFC 5905,
/// section 11.3); a step is what it does beyond 128 ms.
pub const CLOCK_JUMP_MIN: Nanos = 100 * MILLISECOND;

/// What the client saw of itself. Those of several threads [add up](Watch::add).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watch {
    lateness: Histogram,
    loop_lag: Histogram,
    held_back: Histogram,
    span: Option<SendSpan>,
    pauses: Vec<Nanos>,
    feeder_behind: Behind,
    recorder_backlog_max: u64,
    local_errors: u64,
    processor: Processor,
    previous: Option<Sample>,
    resident_bytes_max: u64,
    descriptors_max: u64,
    clock_jumps: Vec<i64>,
    suspended_ns: Nanos,
}

/// When sends were due and when they were made, of the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SendSpan {
    due_first: Nanos,
    due_last: Nanos,
    made_last: Nanos,
}

/// Requests whose bodies were not ready when they were due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// How many.
    pub requests: u64,
    /// By how much, of the one that waited longest.
    pub late_ns_max: Nanos,
}

/// What the processors did for this process between the first sample and the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Processor {
    elapsed_ns: Nanos,
    process_ns: Nanos,
    workers_ns: Vec<Nanos>,
}

/// What the system says of this process at one instant; [`system::sample`] asks it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The monotonic clock.
    pub monotonic_ns: Nanos,
    /// The time of day, since 1970.
    pub wall_ns: Nanos,
    /// The monotonic clock with the time that the machine was suspended, if there is one.
    pub boot_ns: Option<Nanos>,
    /// CPU time of the whole process so far.
    pub process_cpu_ns: Nanos,
    /// CPU time of each worker so far.
    pub worker_cpu_ns: Vec<Nanos>,
    /// Memory that the process holds, if the system says.
    pub resident_bytes: Option<u64>,
    /// Descriptors in use, as far as the client knows.
    pub descriptors: u64,
}

impl Watch {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request that was due then was handed to the client now. It had no cap of
    /// concurrency to wait for.
    pub fn sent(&mut self, due: Nanos, now: Nanos) {
        self.lateness.record(now.saturating_sub(due));
        let span = self.span.get_or_insert(SendSpan {
            due_first: due,
            due_last: due,
            made_last: now,
        });
        span.due_first = span.due_first.min(due);
        span.due_last = span.due_last.max(due);
        span.made_last = span.made_last.max(now);
    }

    /// A request waited so long for another to end, because only so many may be in
    /// flight. The user asked for that; it is not the client's lateness.
    pub fn held_back(&mut self, waited: Nanos) {
        self.held_back.record(waited);
    }

    /// A worker's event loop was to look at the clock at `due` and did so `now`. Ticks
    /// that were missed meanwhile count with what each was late by (a loop that stood
    /// still for a second was late for every tick of it, not for one). Returns when
    /// the next is due.
    pub fn tick(&mut self, due: Nanos, now: Nanos) -> Nanos {
        let late = now.saturating_sub(due);
        if late >= PAUSE_MIN {
            self.pauses.push(late);
        }
        let mut next = due;
        while next <= now {
            self.loop_lag.record(now - next);
            next += TICK;
        }
        next.max(due + TICK)
    }

    /// A body was not ready when its request was due, but so much later.
    pub fn feeder_behind(&mut self, late: Nanos) {
        self.feeder_behind.requests += 1;
        self.feeder_behind.late_ns_max = self.feeder_behind.late_ns_max.max(late);
    }

    /// So many requests had ended and were not recorded yet.
    pub fn recorder_backlog(&mut self, requests: u64) {
        self.recorder_backlog_max = self.recorder_backlog_max.max(requests);
    }

    /// So many connections could not be opened because this machine had no descriptors, ports
    /// or memory left.
    pub fn local_errors(&mut self, connections: u64) {
        self.local_errors += connections;
    }

    /// Some time has passed, about a second. The first sample is what the later ones are compared with.
    pub fn sample(&mut self, sample: Sample) {
        let resident_bytes = sample.resident_bytes.unwrap_or(0);
        self.resident_bytes_max = self.resident_bytes_max.max(resident_bytes);
        self.descriptors_max = self.descriptors_max.max(sample.descriptors);
        if let Some(previous) = self.previous.take() {
            self.processor.add(&previous, &sample);
            self.compare_clocks(&previous, &sample);
        }
        self.previous = Some(sample);
    }

    fn compare_clocks(&mut self, previous: &Sample, sample: &Sample) {
        let elapsed = |from: Nanos, to: Nanos| to as i64 - from as i64;
        let monotonic = elapsed(previous.monotonic_ns, sample.monotonic_ns);
        let suspended = match (previous.boot_ns, sample.boot_ns) {
            (Some(from), Some(to)) => elapsed(from, to) - monotonic,
            _ => 0,
        };
        // Two clocks are read one after the other: what is below a jump is that.
        if suspended >= CLOCK_JUMP_MIN as i64 {
            self.suspended_ns += suspended as Nanos;
        }
        let jump = elapsed(previous.wall_ns, sample.wall_ns) - monotonic - suspended;
        if jump.unsigned_abs() >= CLOCK_JUMP_MIN {
            self.clock_jumps.push(jump);
        }
    }

    /// Adds what another thread saw.
    pub fn add(&mut self, other: &Watch) {
        self.lateness.add(&other.lateness);
        self.loop_lag.add(&other.loop_lag);
        self.held_back.add(&other.held_back);
        self.span = match (self.span, other.span) {
            (Some(one), Some(two)) => Some(one.hull(two)),
            (one, two) => one.or(two),
        };
        self.pauses.extend_from_slice(&other.pauses);
        self.feeder_behind.requests += other.feeder_behind.requests;
        let late_max = self.feeder_behind.late_ns_max;
        self.feeder_behind.late_ns_max = late_max.max(other.feeder_behind.late_ns_max);
        self.recorder_backlog(other.recorder_backlog_max);
        self.local_errors(other.local_errors);
        self.processor.merge(&other.processor);
        self.resident_bytes_max = self.resident_bytes_max.max(other.resident_bytes_max);
        self.descriptors_max = self.descriptors_max.max(other.descriptors_max);
        self.clock_jumps.extend_from_slice(&other.clock_jumps);
        self.suspended_ns += other.suspended_ns;
    }

    /// From when requests were due to when they were handed to the client; without
    /// those that a cap of concurrency held back.
    #[must_use]
    pub fn lateness(&self) -> &Histogram {
        &self.lateness
    }

    /// How late the event loops were for their ticks.
    #[must_use]
    pub fn loop_lag(&self) -> &Histogram {
        &self.loop_lag
    }

    /// How long requests waited for others to end, of those that a cap of concurrency held back.
    #[must_use]
    pub fn held_back_by(&self) -> &Histogram {
        &self.held_back
    }

    /// Requests whose bodies were not ready in time.
    #[must_use]
    pub fn behind(&self) -> Behind {
        self.feeder_behind
    }

    /// The most requests that had ended and waited to be recorded.
    #[must_use]
    pub fn recorder_backlog_max(&self) -> u64 {
        self.recorder_backlog_max
    }

    /// Connections that could not be opened because of this machine.
    #[must_use]
    pub fn local_errors_total(&self) -> u64 {
        self.local_errors
    }

    /// The share of its time that the busiest worker computed; `None` before the second sample.
    #[must_use]
    pub fn worker_cpu_share(&self) -> Option<f64> {
        let busiest = self.processor.workers_ns.iter().max()?;
        self.processor.share(*busiest)
    }

    /// Processors that the whole process kept busy on average; `None` before the second sample.
    #[must_use]
    pub fn process_cpus(&self) -> Option<f64> {
        self.processor.share(self.processor.process_ns)
    }

    /// CPU time of the process between the first sample and the last.
    #[must_use]
    pub fn process_cpu_ns(&self) -> Nanos {
        self.processor.process_ns
    }

    /// The most memory that the process held; `None` where the system does not say.
    #[must_use]
    pub fn resident_bytes_max(&self) -> Option<u64> {
        (self.resident_bytes_max > 0).then_some(self.resident_bytes_max)
    }

    /// The most descriptors in use at a sample.
    #[must_use]
    pub fn descriptors_max(&self) -> u64 {
        self.descriptors_max
    }

    /// By how much the time of day jumped, each time (ns; negative is back).
    #[must_use]
    pub fn clock_jumps(&self) -> &[i64] {
        &self.clock_jumps
    }

    /// How fast sends were made, as a share of how fast they were due: below 1 when
    /// the last were made later than they should have been. `None` if all were due at once.
    #[must_use]
    pub fn rate_share(&self) -> Option<f64> {
        let span = self.span?;
        let asked = span.due_last - span.due_first;
        let made = span.made_last.saturating_sub(span.due_first).max(asked);
        (asked > 0).then(|| asked as f64 / made as f64)
    }

    /// What is to be made of it.
    #[must_use]
    pub fn verdict(&self, context: &Context) -> Verdict {
        verdict::judge(self, context)
    }
}

impl SendSpan {
    fn hull(self, other: Self) -> Self {
        Self {
            due_first: self.due_first.min(other.due_first),
            due_last: self.due_last.max(other.due_last),
            made_last: self.made_last.max(other.made_last),
        }
    }
}

impl Processor {
    fn add(&mut self, from: &Sample, to: &Sample) {
        self.elapsed_ns += to.monotonic_ns.saturating_sub(from.monotonic_ns);
        self.process_ns += to.process_cpu_ns.saturating_sub(from.process_cpu_ns);
        let workers = to.worker_cpu_ns.len().max(self.workers_ns.len());
        self.workers_ns.resize(workers, 0);
        for (worker, total) in self.workers_ns.iter_mut().enumerate() {
            let at = |sample: &Sample| sample.worker_cpu_ns.get(worker).copied().unwrap_or(0);
            *total += at(to).saturating_sub(at(from));
        }
    }

    /// Only one of the threads takes samples: the others have none.
    fn merge(&mut self, other: &Self) {
        if self.elapsed_ns == 0 {
            self.clone_from(other);
        }
    }

    fn share(&self, cpu_ns: Nanos) -> Option<f64> {
        (self.elapsed_ns > 0).then(|| cpu_ns as f64 / self.elapsed_ns as f64)
    }
}

#[cfg(test)]
mod tests;
