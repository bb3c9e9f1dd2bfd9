//! The window of a measured run: what is left out of it, what all requests
//! together come to, so that both can be shown beside what counts, and what of
//! the client's own figures follows from the records.

use crate::histogram::Histogram;
use crate::measurements::{Measurements, latency_summary};
use crate::objectives::Latency;
use crate::records::{Outcome, RecordSink, RequestRecord, TokensFrom, Wire};
use crate::summary::{Client, Counters, Excluded, Rates, Window};

/// Counts all requests of a run, by whether they were due before the window, in it, or after it.
#[derive(Clone, Debug)]
pub struct WindowTally {
    from_ns: u64,
    until_ns: u64,
    warm_up: Outside,
    cool_down: Outside,
    whole_run: Measurements,
    due: u64,
    sent: u64,
    send_late: Histogram,
    chunks: u64,
    tokens_from_usage: u64,
    tokens_assumed: u64,
    /// From send to end, of every request that was sent (ns): what is in flight
    /// at once is known only when all are.
    flights: Vec<(u64, u64)>,
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
            due: 0,
            sent: 0,
            send_late: Histogram::new(),
            chunks: 0,
            tokens_from_usage: 0,
            tokens_assumed: 0,
            flights: Vec::new(),
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
        if let Some(sent_ns) = record.wire.and_then(|wire| wire.sent_ns) {
            self.sent += u64::from(self.holds(sent_ns));
            self.flights.push((sent_ns, record.end_ns.max(sent_ns)));
        }
        let outside = match record.due_ns {
            due_ns if due_ns < self.from_ns => &mut self.warm_up,
            due_ns if due_ns >= self.until_ns => &mut self.cool_down,
            _ => return self.inside(record),
        };
        outside.requests += 1;
        if let (Outcome::Completed, Some(first_ns)) = (record.outcome, record.first_token_ns) {
            outside.ttft.record(first_ns - record.due_ns);
        }
    }

    fn inside(&mut self, record: &RequestRecord) {
        self.due += 1;
        let Some(wire) = &record.wire else {
            return;
        };
        // Waiting to try again is no lateness.
        if let (1, Some(sent_ns)) = (record.attempts, wire.sent_ns) {
            self.send_late.record(sent_ns.saturating_sub(record.due_ns));
        }
        if record.outcome == Outcome::Completed {
            self.completed(wire);
        }
    }

    fn completed(&mut self, wire: &Wire) {
        self.chunks += u64::from(wire.chunks);
        match wire.tokens_from {
            TokensFrom::Usage => self.tokens_from_usage += 1,
            TokensFrom::Chunks | TokensFrom::Asked => self.tokens_assumed += 1,
        }
    }

    /// How late the requests that were due in the window were sent; those that
    /// were sent more than once are not among them.
    #[must_use]
    pub fn send_late(&self) -> &Histogram {
        &self.send_late
    }

    /// What was asked of the client in the window, and what came of it. In a
    /// closed loop nothing is asked for: `asked_per_s` is to be taken away.
    #[must_use]
    pub fn rates(&self) -> Rates {
        let window_s = self.until_ns.saturating_sub(self.from_ns) as f64 / 1e9;
        let per_s = |count: u64| match window_s {
            0.0 => 0.0,
            window_s => count as f64 / window_s,
        };
        Rates {
            asked_per_s: Some(per_s(self.due)),
            sent_per_s: per_s(self.sent),
            in_flight_max: self.in_flight_max(),
        }
    }

    /// Where a request ends as another is sent, they are not in flight at once.
    fn in_flight_max(&self) -> u64 {
        let sends = self.flights.iter().map(|(sent_ns, _)| (*sent_ns, true));
        let ends = self.flights.iter().map(|(_, end_ns)| (*end_ns, false));
        let mut events: Vec<_> = sends.chain(ends).collect();
        events.sort_unstable();
        let (mut in_flight, mut most) = (0_i64, 0);
        for (_, is_send) in events {
            in_flight += if is_send { 1 } else { -1 };
            most = most.max(in_flight);
        }
        most as u64
    }

    /// The figures of a client that follow from the records of the window; the
    /// others are left as they are.
    #[must_use]
    pub fn client(&self, client: Client) -> Client {
        Client {
            send_late_s: latency_summary(&self.send_late),
            chunks: self.chunks,
            tokens_from_usage: self.tokens_from_usage,
            tokens_assumed: self.tokens_assumed,
            ..client
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
            output_tokens: all.output_tokens(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(due_ns: u64, late_ns: u64, took_ns: u64) -> RequestRecord {
        RequestRecord {
            id: due_ns,
            due_ns,
            prompt_tokens: 10,
            output_tokens: 4,
            session: None,
            adapter: None,
            attempts: 1,
            replica: None,
            cached_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Completed,
            first_token_ns: Some(due_ns + late_ns + took_ns / 2),
            end_ns: due_ns + late_ns + took_ns,
            parts: None,
            wire: Some(Wire {
                sent_ns: Some(due_ns + late_ns),
                last_output_ns: None,
                status: Some(200),
                chunks: 2,
                tokens_from: TokensFrom::Usage,
                is_connection_reused: false,
                body_bytes: 0,
                is_in_window: false,
            }),
        }
    }

    fn tally(records: &[RequestRecord]) -> WindowTally {
        let mut tally = WindowTally::new(1_000, 2_000);
        records.iter().for_each(|record| tally.request(record));
        tally
    }

    #[test]
    fn what_is_left_out_is_counted_beside_the_whole() {
        let due = [0, 999, 1_000, 1_999, 2_000];
        let tally = tally(&due.map(|due_ns| record(due_ns, 0, 100)));
        let window = tally.window("by hand".into(), 5_000);
        assert_eq!((window.from_s, window.until_s), (1e-6, 2e-6));
        assert_eq!(window.warm_up.requests, 2);
        assert_eq!(window.warm_up.duration_s, 1e-6);
        assert_eq!(window.cool_down.requests, 1);
        assert_eq!(window.cool_down.duration_s, 3e-6);
        assert_eq!(window.warm_up.ttft_s.map(|ttft| ttft.max), Some(50e-9));
        assert_eq!(window.whole_run.requests, 5);
        assert_eq!(window.whole_run.completed, 5);
    }

    #[test]
    fn rates_are_those_of_the_window() {
        // Due before it and sent in it; due and sent in it; due in it and sent after it.
        let records = [
            record(900, 200, 50),
            record(1_500, 0, 700),
            record(1_900, 150, 1),
        ];
        let rates = tally(&records).rates();
        assert_eq!(rates.asked_per_s, Some(2e6));
        assert_eq!(rates.sent_per_s, 2e6);
        assert_eq!(rates.in_flight_max, 2);
    }

    #[test]
    fn an_end_comes_before_a_send_at_the_same_time() {
        let rates = tally(&[record(0, 0, 100), record(100, 0, 100)]).rates();
        assert_eq!(rates.in_flight_max, 1);
    }

    #[test]
    fn a_client_is_judged_by_what_counts() {
        let retried = RequestRecord {
            attempts: 2,
            ..record(1_200, 700, 1)
        };
        let unfinished = RequestRecord {
            outcome: Outcome::FailedReset,
            ..record(1_300, 3, 1)
        };
        let tally = tally(&[record(0, 900, 1), record(1_100, 5, 1), retried, unfinished]);
        let client = tally.client(Client {
            threads: 3,
            ..Client::default()
        });
        assert_eq!(client.send_late_s.map(|late| late.max), Some(5e-9));
        assert_eq!(tally.send_late().count(), 2);
        assert_eq!((client.chunks, client.tokens_from_usage), (4, 2));
        assert_eq!(client.threads, 3);
    }
}
