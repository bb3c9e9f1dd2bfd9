//! What a run looked like over time, for its charts: at most
//! [`BUCKETS_MAX`] buckets of equal width, however long the run is. When the
//! run outgrows them, neighbours are merged and the width doubles, so totals
//! stay exact and memory flat.

use crate::records::ReplicaCounts;
use serde::{Deserialize, Serialize};

/// Most buckets that a series has.
pub const BUCKETS_MAX: usize = 240;

/// The width to begin with: 1/64 s, so that widths are whole powers of two of
/// a second from the seventh merge on.
const BASE_NS: u64 = 1_000_000_000 / 64;

/// Totals over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series {
    /// The width is `BASE_NS << doublings`.
    doublings: u32,
    buckets: Vec<Bucket>,
    replicas: ReplicaCounts,
    /// Replica counts are integrated up to here.
    integrated_ns: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bucket {
    arrivals: u64,
    completed: u64,
    output_tokens: u64,
    first_tokens: u64,
    ttft_ns_sum: u128,
    ttft_ns_max: u64,
    target_ns: u128,
    ready_ns: u128,
    starting_ns: u128,
}

impl Bucket {
    fn add(&mut self, other: &Bucket) {
        self.arrivals += other.arrivals;
        self.completed += other.completed;
        self.output_tokens += other.output_tokens;
        self.first_tokens += other.first_tokens;
        self.ttft_ns_sum += other.ttft_ns_sum;
        self.ttft_ns_max = self.ttft_ns_max.max(other.ttft_ns_max);
        self.target_ns += other.target_ns;
        self.ready_ns += other.ready_ns;
        self.starting_ns += other.starting_ns;
    }
}

impl Series {
    /// A request was sent.
    #[inline]
    pub(crate) fn arrival(&mut self, due_ns: u64) {
        self.bucket(due_ns).arrivals += 1;
    }

    /// The request sent at `due_ns` waited so long for its first token.
    #[inline]
    pub(crate) fn first_token(&mut self, due_ns: u64, ttft_ns: u64) {
        let bucket = self.bucket(due_ns);
        bucket.first_tokens += 1;
        bucket.ttft_ns_sum += u128::from(ttft_ns);
        bucket.ttft_ns_max = bucket.ttft_ns_max.max(ttft_ns);
    }

    /// A request was completed.
    #[inline]
    pub(crate) fn completion(&mut self, end_ns: u64, output_tokens: u32) {
        let bucket = self.bucket(end_ns);
        bucket.completed += 1;
        bucket.output_tokens += u64::from(output_tokens);
    }

    /// The deployment has other replica counts from now on.
    pub(crate) fn replicas(&mut self, at_ns: u64, replicas: ReplicaCounts) {
        self.integrate_until(at_ns);
        self.replicas = replicas;
    }

    fn integrate_until(&mut self, until_ns: u64) {
        while self.integrated_ns < until_ns {
            let from_ns = self.integrated_ns;
            let replicas = self.replicas;
            // Taking the last bucket first lets the width grow before it is used.
            self.bucket(until_ns - 1);
            let next_ns = (from_ns - from_ns % self.width_ns()).saturating_add(self.width_ns());
            let to_ns = next_ns.min(until_ns);
            let held_ns = u128::from(to_ns - from_ns);
            let bucket = self.bucket(from_ns);
            bucket.target_ns += held_ns * u128::from(replicas.target);
            bucket.ready_ns += held_ns * u128::from(replicas.ready);
            bucket.starting_ns += held_ns * u128::from(replicas.starting);
            self.integrated_ns = to_ns;
        }
    }

    fn width_ns(&self) -> u64 {
        BASE_NS << self.doublings
    }

    #[inline]
    fn bucket(&mut self, at_ns: u64) -> &mut Bucket {
        // A division by a constant and a shift, not a division by the width.
        let mut index = ((at_ns / BASE_NS) >> self.doublings) as usize;
        if index >= self.buckets.len() {
            index = self.grow(at_ns);
        }
        &mut self.buckets[index]
    }

    #[cold]
    fn grow(&mut self, at_ns: u64) -> usize {
        while (at_ns / BASE_NS) >> self.doublings >= BUCKETS_MAX as u64 {
            self.merge_neighbours();
        }
        let index = ((at_ns / BASE_NS) >> self.doublings) as usize;
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, Bucket::default());
        }
        index
    }

    fn merge_neighbours(&mut self) {
        let halved = self.buckets.len().div_ceil(2);
        for index in 0..halved {
            let mut merged = self.buckets[2 * index];
            if let Some(right) = self.buckets.get(2 * index + 1) {
                merged.add(right);
            }
            self.buckets[index] = merged;
        }
        self.buckets.truncate(halved);
        self.doublings += 1;
    }

    /// The series of a run that ended at `end_ns`.
    pub(crate) fn finish(mut self, end_ns: u64) -> TimeSeries {
        self.integrate_until(end_ns);
        let width_ns = self.width_ns();
        let covered_ns = |index: usize| {
            let from_ns = index as u64 * width_ns;
            end_ns.saturating_sub(from_ns).clamp(1, width_ns) as f64
        };
        let buckets = || self.buckets.iter().enumerate();
        TimeSeries {
            bucket_s: width_ns as f64 / 1e9,
            arrivals: buckets().map(|(_, b)| b.arrivals).collect(),
            completed: buckets().map(|(_, b)| b.completed).collect(),
            output_tokens: buckets().map(|(_, b)| b.output_tokens).collect(),
            ttft_s_mean: buckets()
                .map(|(_, b)| {
                    (b.first_tokens > 0).then(|| b.ttft_ns_sum as f64 / b.first_tokens as f64 / 1e9)
                })
                .collect(),
            ttft_s_max: buckets()
                .map(|(_, b)| (b.first_tokens > 0).then(|| b.ttft_ns_max as f64 / 1e9))
                .collect(),
            target: buckets()
                .map(|(i, b)| b.target_ns as f64 / covered_ns(i))
                .collect(),
            ready: buckets()
                .map(|(i, b)| b.ready_ns as f64 / covered_ns(i))
                .collect(),
            starting: buckets()
                .map(|(i, b)| b.starting_ns as f64 / covered_ns(i))
                .collect(),
        }
    }
}

/// A run over time, in buckets of equal width; the last one ends with the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeSeries {
    /// Width of a bucket (s).
    pub bucket_s: f64,
    /// Requests sent in each bucket.
    pub arrivals: Vec<u64>,
    /// Requests completed in each bucket.
    pub completed: Vec<u64>,
    /// Output tokens of the requests completed in each bucket.
    pub output_tokens: Vec<u64>,
    /// Mean TTFT of the completed requests that were sent in each bucket (s).
    pub ttft_s_mean: Vec<Option<f64>>,
    /// Largest TTFT of the completed requests that were sent in each bucket (s).
    pub ttft_s_max: Vec<Option<f64>>,
    /// Target of the autoscaler, averaged over time.
    pub target: Vec<f64>,
    /// Replicas that are ready, averaged over time.
    pub ready: Vec<f64>,
    /// Replicas that are starting, averaged over time.
    pub starting: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn counts(target: u32, ready: u32, starting: u32) -> ReplicaCounts {
        ReplicaCounts {
            target,
            starting,
            ready,
            draining: 0,
        }
    }

    #[test]
    fn replicas_are_averaged_over_time() {
        let mut series = Series::default();
        series.replicas(0, counts(1, 1, 0));
        series.replicas(1000 * SECOND, counts(3, 1, 2));
        series.replicas(1010 * SECOND, counts(3, 3, 0));
        let series = series.finish(2000 * SECOND);
        assert_eq!(series.bucket_s, 16.0);
        assert_eq!(series.ready[0], 1.0);
        assert_eq!(series.ready[124], 3.0);
        // 992 s to 1008 s: 8 s of 16 with two replicas starting.
        assert_eq!(series.starting[62], 1.0);
        assert_eq!(series.target.len(), 125);
    }

    #[test]
    fn a_run_without_records_is_empty() {
        assert!(Series::default().finish(0).arrivals.is_empty());
    }

    #[test]
    fn the_end_of_time_fits() {
        let mut series = Series::default();
        series.arrival(0);
        series.arrival(u64::MAX);
        assert!(series.buckets.len() <= BUCKETS_MAX);
        assert_eq!(series.buckets.iter().map(|b| b.arrivals).sum::<u64>(), 2);
    }

    proptest! {
        #[test]
        fn totals_survive_merging(
            requests in prop::collection::vec((0..100_000 * SECOND, 0..100 * SECOND, 0..9_u32), 1..200),
            changes in prop::collection::vec((0..10_000 * SECOND, 0..9_u32), 0..50),
        ) {
            let mut series = Series::default();
            for &(due_ns, ttft_ns, tokens) in &requests {
                series.arrival(due_ns);
                series.first_token(due_ns, ttft_ns);
                series.completion(due_ns + ttft_ns, tokens);
            }
            let (mut at_ns, mut target, mut expected) = (0, 0, 0_u128);
            for &(later_ns, next) in &changes {
                expected += u128::from(later_ns) * u128::from(target);
                at_ns += later_ns;
                target = next;
                series.replicas(at_ns, counts(next, next, 0));
            }
            let total = |f: fn(&Bucket) -> u128| series.buckets.iter().map(f).sum::<u128>();
            prop_assert!(series.buckets.len() <= BUCKETS_MAX);
            prop_assert_eq!(total(|b| b.arrivals.into()), requests.len() as u128);
            prop_assert_eq!(total(|b| b.completed.into()), requests.len() as u128);
            let tokens: u128 = requests.iter().map(|r| u128::from(r.2)).sum();
            prop_assert_eq!(total(|b| b.output_tokens.into()), tokens);
            let ttft: u128 = requests.iter().map(|r| u128::from(r.1)).sum();
            prop_assert_eq!(total(|b| b.ttft_ns_sum), ttft);
            let slowest = series.buckets.iter().map(|b| b.ttft_ns_max).max();
            prop_assert_eq!(slowest, requests.iter().map(|r| r.1).max());
            prop_assert_eq!(total(|b| b.target_ns), expected);
        }
    }
}
