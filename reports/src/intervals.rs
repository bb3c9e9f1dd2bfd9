//! A measured run second by second: what `intervals.csv` holds, and what people plot.
//!
//! Everything but the server's own figures follows from the records of the
//! requests, so that the intervals of a run that several machines shared are
//! those of its merged records. A run has at most [`INTERVALS_MAX`] intervals:
//! one that outgrows them has neighbours merged and the width doubled.

use crate::records::{Outcome, RequestRecord};

/// Most intervals that a run has: a day of seconds.
pub const INTERVALS_MAX: u64 = 86_400;

const SECOND_NS: u64 = 1_000_000_000;

/// What happened in an interval: a row of `intervals.csv`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interval {
    /// From here (ns).
    pub from_ns: u64,
    /// Up to here, exclusive (ns).
    pub until_ns: u64,
    /// Requests that were due, sent or not.
    pub asked: u64,
    /// Requests that were handed to a connection, tried again or not: the last time counts.
    pub sent: u64,
    /// Requests that completed.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that were refused.
    pub rejected: u64,
    /// Requests that had been sent and had not ended, at its end.
    pub in_flight: u64,
    /// Output tokens. Those of a request are spread evenly from its first to its last.
    pub output_tokens: u64,
    /// Median TTFT of the completed requests that were due (ns), exact.
    pub ttft_ns_p50: Option<u64>,
    /// 99th percentile of the same (ns), exact, by nearest rank.
    pub ttft_ns_p99: Option<u64>,
    /// What the server said of itself, mean over its answers.
    pub server: ServerLoad,
}

/// What a server says of itself at one time; of several replicas together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerLoad {
    /// Sequences in the batches.
    pub running: Option<f64>,
    /// Requests that wait.
    pub waiting: Option<f64>,
    /// Share of KV blocks in use, mean over replicas.
    pub kv_usage: Option<f64>,
    /// Replicas that are ready.
    pub ready_replicas: Option<f64>,
}

/// Gathers the intervals of a run.
#[derive(Clone, Debug, Default)]
pub struct Intervals {
    /// The width is a second doubled so many times.
    doublings: u32,
    slots: Vec<Slot>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    interval: Interval,
    /// Requests that ended of those that had been sent.
    ended: u64,
    ttfts_ns: Vec<u64>,
    running: Mean,
    waiting: Mean,
    kv_usage: Mean,
    ready_replicas: Mean,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    fn record(&mut self, value: Option<f64>) {
        self.sum += value.unwrap_or(0.0);
        self.count += u64::from(value.is_some());
    }

    fn add(&mut self, other: Mean) {
        self.sum += other.sum;
        self.count += other.count;
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl Slot {
    fn add(&mut self, other: Slot) {
        let (into, from) = (&mut self.interval, other.interval);
        into.asked += from.asked;
        into.sent += from.sent;
        into.completed += from.completed;
        into.failed += from.failed;
        into.rejected += from.rejected;
        into.output_tokens += from.output_tokens;
        self.ended += other.ended;
        self.ttfts_ns.extend(other.ttfts_ns);
        self.running.add(other.running);
        self.waiting.add(other.waiting);
        self.kv_usage.add(other.kv_usage);
        self.ready_replicas.add(other.ready_replicas);
    }

    fn finish(mut self) -> Interval {
        self.ttfts_ns.sort_unstable();
        let nearest_rank = |percent: usize| {
            let rank = (self.ttfts_ns.len() * percent).div_ceil(100);
            rank.checked_sub(1).map(|index| self.ttfts_ns[index])
        };
        Interval {
            ttft_ns_p50: nearest_rank(50),
            ttft_ns_p99: nearest_rank(99),
            server: ServerLoad {
                running: self.running.value(),
                waiting: self.waiting.value(),
                kv_usage: self.kv_usage.value(),
                ready_replicas: self.ready_replicas.value(),
            },
            ..self.interval
        }
    }
}

impl Intervals {
    /// A request ended, in the window or not; the order does not matter.
    pub fn request(&mut self, record: &RequestRecord) {
        self.at(record.due_ns).interval.asked += 1;
        if record.outcome == Outcome::Unsent {
            return;
        }
        if let Some(sent_ns) = record.wire.and_then(|wire| wire.sent_ns) {
            self.at(sent_ns).interval.sent += 1;
            self.at(record.end_ns.max(sent_ns)).ended += 1;
        }
        let ended = &mut self.at(record.end_ns).interval;
        match record.outcome {
            Outcome::Completed => ended.completed += 1,
            outcome if outcome.is_rejected() => ended.rejected += 1,
            _ => ended.failed += 1,
        }
        let Some(first_ns) = record.first_token_ns else {
            return;
        };
        if record.outcome == Outcome::Completed {
            let ttft_ns = first_ns.saturating_sub(record.due_ns);
            self.at(record.due_ns).ttfts_ns.push(ttft_ns);
        }
        self.spread(
            record.output_tokens,
            first_ns,
            record.last_token_ns().max(first_ns),
        );
    }

    /// The server said this of itself.
    pub fn server(&mut self, at_ns: u64, load: &ServerLoad) {
        let slot = self.at(at_ns);
        slot.running.record(load.running);
        slot.waiting.record(load.waiting);
        slot.kv_usage.record(load.kv_usage);
        slot.ready_replicas.record(load.ready_replicas);
    }

    /// All intervals from the start of the run to the last thing that happened, without a hole.
    #[must_use]
    pub fn finish(self) -> Vec<Interval> {
        let width_ns = self.width_ns();
        let mut in_flight = 0;
        let finished = self.slots.into_iter().zip(0..).map(|(slot, index)| {
            in_flight += slot.interval.sent;
            in_flight -= slot.ended;
            let from_ns = width_ns * index;
            Interval {
                from_ns,
                until_ns: from_ns.saturating_add(width_ns),
                in_flight,
                ..slot.finish()
            }
        });
        finished.collect()
    }

    /// Counts each of the tokens where it would be if they came at equal gaps.
    fn spread(&mut self, tokens: u32, first_ns: u64, last_ns: u64) {
        self.at(last_ns);
        let width_ns = self.width_ns();
        let gaps = u128::from(tokens.saturating_sub(1));
        let span_ns = u128::from(last_ns - first_ns);
        let tokens_before = |at_ns: u64| match at_ns.checked_sub(first_ns) {
            None | Some(0) => 0,
            Some(_) if at_ns > last_ns || span_ns == 0 => u64::from(tokens),
            Some(into_ns) => {
                // Token k of n comes at first + k * span / (n - 1).
                let before = (u128::from(into_ns) * gaps).div_ceil(span_ns).max(1);
                before.min(u128::from(tokens)) as u64
            }
        };
        let (first, last) = (first_ns / width_ns, last_ns / width_ns);
        let mut counted = 0;
        for index in first..=last {
            let before = match index == last {
                true => u64::from(tokens),
                false => tokens_before(width_ns * (index + 1)),
            };
            self.slots[index as usize].interval.output_tokens += before - counted;
            counted = before;
        }
    }

    fn width_ns(&self) -> u64 {
        SECOND_NS << self.doublings
    }

    fn at(&mut self, at_ns: u64) -> &mut Slot {
        while at_ns / self.width_ns() >= INTERVALS_MAX {
            self.merge_neighbours();
        }
        let index = (at_ns / self.width_ns()) as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        &mut self.slots[index]
    }

    fn merge_neighbours(&mut self) {
        let mut slots = std::mem::take(&mut self.slots).into_iter();
        while let Some(mut slot) = slots.next() {
            if let Some(next) = slots.next() {
                slot.add(next);
            }
            self.slots.push(slot);
        }
        self.doublings += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{TokensFrom, Wire};
    use proptest::prelude::*;

    fn record(due_ns: u64, sent_ns: u64, first_ns: u64, end_ns: u64, tokens: u32) -> RequestRecord {
        RequestRecord {
            id: 0,
            due_ns,
            prompt_tokens: 1,
            output_tokens: tokens,
            session: None,
            adapter: None,
            attempts: 1,
            replica: None,
            cached_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Completed,
            first_token_ns: Some(first_ns),
            end_ns,
            parts: None,
            wire: Some(Wire {
                sent_ns: Some(sent_ns),
                last_output_ns: None,
                status: Some(200),
                chunks: tokens,
                tokens_from: TokensFrom::Usage,
                is_connection_reused: false,
                body_bytes: 0,
                is_in_window: true,
            }),
        }
    }

    #[test]
    fn a_request_is_counted_where_each_thing_happened() {
        let half = SECOND_NS / 2;
        let mut intervals = Intervals::default();
        intervals.request(&record(half, half + 1, 3 * half, 7 * half, 5));
        let unsent = RequestRecord {
            outcome: Outcome::Unsent,
            wire: None,
            ..record(3 * half, 0, 0, 0, 0)
        };
        intervals.request(&unsent);
        let load = |running| ServerLoad {
            running: Some(running),
            ..ServerLoad::default()
        };
        intervals.server(0, &load(1.0));
        intervals.server(half, &load(2.0));
        let rows = intervals.finish();
        let column = |of: fn(&Interval) -> u64| rows.iter().map(of).collect::<Vec<_>>();
        assert_eq!(column(|row| row.asked), [1, 1, 0, 0]);
        assert_eq!(column(|row| row.sent), [1, 0, 0, 0]);
        assert_eq!(column(|row| row.completed), [0, 0, 0, 1]);
        assert_eq!(column(|row| row.in_flight), [1, 1, 1, 0]);
        // At 1.5, 2, 2.5, 3 and 3.5 s.
        assert_eq!(column(|row| row.output_tokens), [0, 1, 2, 2]);
        assert_eq!(rows[0].ttft_ns_p50, Some(2 * half));
        assert_eq!(rows[1].ttft_ns_p99, None);
        assert_eq!(rows[0].server.running, Some(1.5));
        assert_eq!(rows[1].server.running, None);
        assert_eq!((rows[3].from_ns, rows[3].until_ns), (6 * half, 8 * half));
    }

    #[test]
    fn a_run_of_any_length_has_so_many_intervals() {
        let mut intervals = Intervals::default();
        intervals.request(&record(0, 0, 1, u64::MAX, u32::MAX));
        intervals.request(&record(u64::MAX, u64::MAX, u64::MAX, u64::MAX, 1));
        let rows = intervals.finish();
        assert!(rows.len() as u64 <= INTERVALS_MAX);
        let tokens: u64 = rows.iter().map(|row| row.output_tokens).sum();
        assert_eq!(tokens, u64::from(u32::MAX) + 1);
        assert_eq!(rows.iter().map(|row| row.asked).sum::<u64>(), 2);
    }

    proptest! {
        #[test]
        fn totals_are_those_of_the_records_in_any_order(
            requests in prop::collection::vec(
                (0..200_000 * SECOND_NS, 0..9 * SECOND_NS, 0..9 * SECOND_NS, 0..500 * SECOND_NS, 1..900_u32),
                1..12,
            ),
        ) {
            let records: Vec<_> = requests.iter().map(|&(due, late, wait, decode, tokens)| {
                record(due, due + late, due + late + wait, due + late + wait + decode, tokens)
            }).collect();
            let (mut forwards, mut backwards) = (Intervals::default(), Intervals::default());
            records.iter().for_each(|record| forwards.request(record));
            records.iter().rev().for_each(|record| backwards.request(record));
            let rows = forwards.finish();
            prop_assert_eq!(&rows, &backwards.finish());
            let total = |of: fn(&Interval) -> u64| rows.iter().map(of).sum::<u64>();
            let tokens: u64 = records.iter().map(|record| u64::from(record.output_tokens)).sum();
            prop_assert_eq!(total(|row| row.output_tokens), tokens);
            prop_assert_eq!(total(|row| row.asked), records.len() as u64);
            prop_assert_eq!(total(|row| row.sent), records.len() as u64);
            prop_assert_eq!(total(|row| row.completed), records.len() as u64);
            prop_assert_eq!(rows.last().map(|row| row.in_flight), Some(0));
        }
    }
}
