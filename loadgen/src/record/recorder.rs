//! Puts what the workers tell in order, and hands it on once it is known what counts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foresail_core::time::Nanos;
use foresail_reports::histogram::Histogram;
use foresail_reports::records::{Outcome, TokensFrom};
use foresail_reports::summary::Steadiness;

use super::steady::Trend;
use super::window::{Found, WarmUp, WindowSettings};
use super::{Ended, Sink};

/// What a worker has seen since its last batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Which worker.
    pub worker: usize,
    /// It tells of everything up to here.
    pub until_ns: Nanos,
    /// When requests were sent for the first time.
    pub sent_ns: Vec<Nanos>,
    /// Requests that ended.
    pub ended: Vec<Ended>,
}

/// Counts of a run, whatever counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Requests that ended, those that were not sent among them.
    pub offered: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that completed.
    pub completed: u64,
    /// Requests that were not sent.
    pub unsent: u64,
    /// Most requests in flight at once.
    pub in_flight_max: u64,
    /// Chunks that carried output, of last attempts.
    pub chunks: u64,
    /// Tokens of completed requests.
    pub output_tokens: u64,
    /// Completed requests whose tokens the server counted.
    pub tokens_from_usage: u64,
    /// Completed requests whose tokens nobody counted.
    pub tokens_assumed: u64,
    /// When the last request ended that was sent.
    pub end_ns: Nanos,
    /// TTFT of completed requests that count.
    pub ttft: Histogram,
    /// Requests that count.
    pub in_window: u64,
    /// Of these, those that were sent.
    pub in_window_sent: u64,
}

/// What has come of a run when everything is recorded.
#[derive(Debug)]
pub struct Recorded<S> {
    /// What took the records.
    pub sink: S,
    /// What counts.
    pub window: Found,
    /// Whether the system had settled in it; `None` if that cannot be told.
    pub steadiness: Option<Steadiness>,
    /// Counts.
    pub tally: Tally,
}

/// Puts sends and ends of all workers in order. Until it is known when the warm-up is over,
/// requests that have ended wait: fewer than are in flight, by the
/// rule of [`WarmUp`].
#[derive(Debug)]
pub struct Recorder<S> {
    sink: S,
    /// Up to when each worker has told everything.
    told_ns: Vec<Nanos>,
    events: BinaryHeap<Reverse<Event>>,
    sequence: u64,
    /// When the last event was that was released.
    released_ns: Nanos,
    warm_up: WarmUp,
    window: Option<Found>,
    planned_last_due: Option<Nanos>,
    waiting: Vec<Ended>,
    trend: Trend,
    in_flight: u64,
    tally: Tally,
}

/// Something that happened, in the order of when, and then of when it was told.
#[derive(Debug)]
struct Event {
    at_ns: Nanos,
    sequence: u64,
    /// The request that ended; `None` if one was sent.
    ended: Option<Box<Ended>>,
}

impl<S: Sink> Recorder<S> {
    /// Records what so many workers tell of a plan whose last request is due then
    /// (`None` in a closed loop, where nobody knows).
    #[must_use]
    pub fn new(
        sink: S,
        settings: WindowSettings,
        planned_last_due: Option<Nanos>,
        workers: usize,
    ) -> Self {
        let mut recorder = Self {
            sink,
            told_ns: vec![0; workers],
            events: BinaryHeap::new(),
            sequence: 0,
            released_ns: 0,
            warm_up: WarmUp::new(settings, planned_last_due),
            window: None,
            planned_last_due,
            waiting: Vec::new(),
            trend: Trend::default(),
            in_flight: 0,
            tally: Tally::default(),
        };
        recorder.look_for_window();
        recorder
    }

    /// Takes what a worker tells.
    pub fn batch(&mut self, batch: Batch) {
        for at_ns in batch.sent_ns {
            self.add(at_ns, None);
        }
        for ended in batch.ended {
            self.add(ended.end_ns, Some(Box::new(ended)));
        }
        if let Some(told) = self.told_ns.get_mut(batch.worker) {
            *told = (*told).max(batch.until_ns);
        }
        self.release(self.told_ns.iter().copied().min().unwrap_or(0));
    }

    /// Requests that will not be sent. Found after others had ended that are recorded already, they
    /// end with those.
    pub fn unsent(&mut self, requests: impl IntoIterator<Item = Ended>) {
        for mut ended in requests {
            ended.end_ns = ended.end_ns.max(self.released_ns);
            self.add(ended.end_ns, Some(Box::new(ended)));
        }
    }

    /// Counts so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Everything has been told; `last_due` is when the last request that was sent was due.
    #[must_use]
    pub fn finish(mut self, last_due: Nanos) -> Recorded<S> {
        self.release(Nanos::MAX);
        let window = self.warm_up.window(last_due);
        if self.window.is_none() {
            self.found(window.clone());
        }
        Recorded {
            sink: self.sink,
            steadiness: self.trend.steadiness(window.from_ns, window.until_ns),
            window,
            tally: self.tally,
        }
    }

    fn add(&mut self, at_ns: Nanos, ended: Option<Box<Ended>>) {
        self.sequence += 1;
        self.events.push(Reverse(Event {
            at_ns,
            sequence: self.sequence,
            ended,
        }));
    }

    fn release(&mut self, until_ns: Nanos) {
        while self
            .events
            .peek()
            .is_some_and(|event| event.0.at_ns <= until_ns)
        {
            let Some(Reverse(event)) = self.events.pop() else {
                return;
            };
            self.released_ns = self.released_ns.max(event.at_ns);
            match event.ended {
                None => self.was_sent(event.at_ns),
                Some(ended) => self.has_ended(*ended),
            }
        }
    }

    fn was_sent(&mut self, at_ns: Nanos) {
        self.in_flight += 1;
        self.tally.in_flight_max = self.tally.in_flight_max.max(self.in_flight);
        self.tally.sent += 1;
        self.warm_up.sent();
        self.trend.sent(at_ns);
    }

    fn has_ended(&mut self, ended: Ended) {
        if !ended.attempts.is_empty() {
            self.in_flight = self.in_flight.saturating_sub(1);
            self.warm_up.ended(ended.end_ns);
            let completed = ended.outcome() == Outcome::Completed;
            let first = ended.first_token_ns().filter(|_| completed);
            let ttft = first.map(|first| first.saturating_sub(ended.asked.due_ns));
            self.trend.ended(ended.end_ns, ended.asked.due_ns, ttft);
        }
        self.waiting.push(ended);
        self.look_for_window();
        if let Some(window) = self.window.take() {
            self.hand_on(&window);
            self.window = Some(window);
        }
    }

    fn look_for_window(&mut self) {
        if self.window.is_none() && self.warm_up.is_over() {
            let last_due = self.planned_last_due.unwrap_or(Nanos::MAX);
            self.found(self.warm_up.window(last_due));
        }
    }

    fn found(&mut self, window: Found) {
        self.sink.window(window.from_ns, window.until_ns);
        self.hand_on(&window);
        self.window = Some(window);
    }

    fn hand_on(&mut self, window: &Found) {
        for ended in std::mem::take(&mut self.waiting) {
            let is_in_window = window.holds(ended.asked.due_ns);
            let record = ended.record(is_in_window);
            self.sink.request(&record);
            ended
                .attempts()
                .for_each(|attempt| self.sink.attempt(&attempt));
            if is_in_window {
                ended.gaps().for_each(|gaps| self.sink.gaps(gaps));
            }
            self.tally.add(&ended, is_in_window);
        }
    }
}

impl Tally {
    fn add(&mut self, ended: &Ended, is_in_window: bool) {
        let is_sent = !ended.attempts.is_empty();
        self.offered += 1;
        self.unsent += u64::from(!is_sent);
        if is_sent {
            self.end_ns = self.end_ns.max(ended.end_ns);
        }
        self.in_window += u64::from(is_in_window);
        self.in_window_sent += u64::from(is_in_window && is_sent);
        self.chunks += ended.attempts.last().map_or(0, |last| last.output_ns.len()) as u64;
        if ended.outcome() == Outcome::Completed {
            self.completed(ended, is_in_window);
        }
    }

    fn completed(&mut self, ended: &Ended, is_in_window: bool) {
        let (tokens, from) = ended.output_tokens();
        self.completed += 1;
        self.output_tokens += u64::from(tokens);
        match from {
            TokensFrom::Usage => self.tokens_from_usage += 1,
            TokensFrom::Chunks | TokensFrom::Asked => self.tokens_assumed += 1,
        }
        if let Some(first) = ended.first_token_ns().filter(|_| is_in_window) {
            self.ttft.record(first.saturating_sub(ended.asked.due_ns));
        }
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.sequence).cmp(&(other.at_ns, other.sequence))
    }
}

#[cfg(test)]
mod tests;
