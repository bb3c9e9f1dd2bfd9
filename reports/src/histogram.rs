//! Latency histograms: exact counts in buckets that are at most 1/1024 wide
//! of what they hold, over the whole range of `u64` nanoseconds, so that
//! recording never fails and hardly ever allocates.
//!
//! The layout is that of HDR histograms with three significant digits
//! (<http://hdrhistogram.org>), and percentiles agree with those of the
//! `hdrhistogram` crate bucket for bucket (a test holds them there). The table
//! is our own because a run of gaps is added bucket by bucket rather than gap
//! by gap, and because count, sum, minimum and maximum are kept exactly beside
//! it: the mean does not inherit the buckets' rounding.

mod compact;
mod plain;

pub use compact::CompactHistogram;
pub use plain::{Bucket, HistogramError, PlainHistogram};

use crate::records::Gaps;
use serde::{Deserialize, Serialize};

/// Values below `2 * SUB_BUCKETS` have a bucket each; above, every octave has
/// `SUB_BUCKETS`. 1024 is what three significant digits need.
const SUB_BUCKETS: u64 = 1 << SUB_BUCKET_BITS;
const SUB_BUCKET_BITS: u32 = 10;

const PICOS_PER_NANO: u64 = 1_000;

/// A histogram of durations in nanoseconds.
///
/// Its JSON is [`PlainHistogram`]: nothing of it is lost, so that histograms
/// that were written apart add up as if they had been one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PlainHistogram", into = "PlainHistogram")]
pub struct Histogram {
    /// Whole octaves, up to that of the longest duration: 290 kB for an hour,
    /// 450 kB at most. Growing is rare: durations double in few steps.
    counts: Vec<u64>,
    count: u64,
    /// In picoseconds, so that the sum of a run of gaps has a closed form.
    sum_ps: u128,
    min_ns: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self {
            counts: Vec::new(),
            count: 0,
            sum_ps: 0,
            min_ns: u64::MAX,
            max_ns: 0,
        }
    }

    /// Adds one duration (ns).
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.add_to_bucket(bucket_of(ns), 1);
        self.count += 1;
        self.sum_ps += u128::from(ns) * u128::from(PICOS_PER_NANO);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds a run of gaps: the same counts as recording every gap of every
    /// token, rounded down to nanoseconds, one by one. The sum is that of the
    /// gaps before rounding, in picoseconds.
    ///
    /// # Panics
    /// If a gap of the run is 2^64 picoseconds (213 days) or longer.
    #[inline]
    pub fn record_gaps(&mut self, gaps: Gaps) {
        if gaps.steps == 0 || gaps.tokens == 0 {
            return;
        }
        let last_ps = (gaps.growth_ps.checked_mul(u64::from(gaps.steps - 1)))
            .and_then(|growth_ps| growth_ps.checked_add(gaps.first_ps))
            .expect("a gap between two tokens is shorter than 213 days");
        let first_ns = gaps.first_ps / PICOS_PER_NANO;
        let last_ns = last_ps / PICOS_PER_NANO;
        let added = u64::from(gaps.steps) * u64::from(gaps.tokens);
        self.count += added;
        // An arithmetic series: (first + last) * steps is even.
        let both_ends_ps = u128::from(gaps.first_ps) + u128::from(last_ps);
        self.sum_ps += both_ends_ps * u128::from(added) / 2;
        self.min_ns = self.min_ns.min(first_ns);
        self.max_ns = self.max_ns.max(last_ns);

        let (first_bucket, last_bucket) = (bucket_of(first_ns), bucket_of(last_ns));
        if first_bucket == last_bucket {
            self.add_to_bucket(first_bucket, added);
        } else if gaps.steps as usize <= STEPS_PER_DIVISION * (last_bucket - first_bucket + 1) {
            self.count_gaps_by_step(gaps);
        } else {
            self.count_gaps_by_bucket(gaps, last_ps);
        }
    }

    /// Adds what the other histogram holds, as if it had been recorded here.
    pub fn add(&mut self, other: &Histogram) {
        if let Some(last) = other.counts.len().checked_sub(1) {
            self.add_to_bucket(last, 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum_ps += other.sum_ps;
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many durations it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The exact sum (ps).
    #[must_use]
    pub fn sum_ps(&self) -> u128 {
        self.sum_ps
    }

    /// The exact mean (s); `None` if it is empty.
    #[must_use]
    pub fn mean_s(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_ps as f64 / self.count as f64 / 1e12)
    }

    /// The exact smallest duration (ns); `None` if it is empty.
    #[must_use]
    pub fn min_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min_ns)
    }

    /// The exact largest duration (ns); `None` if it is empty.
    #[must_use]
    pub fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_ns)
    }

    /// The percentile (0 to 100) by nearest rank (ns): the upper end of the
    /// bucket that holds the duration of rank `ceil(percentile / 100 * count)`,
    /// and never more than the maximum. `None` if it is empty.
    #[must_use]
    pub fn percentile_ns(&self, percentile: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        // Multiply first: 7 / 100 * 100 is more than 7 in floating point.
        let rank = ((percentile * self.count as f64 / 100.0).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        for bucket in bucket_of(self.min_ns)..=bucket_of(self.max_ns) {
            seen += self.counts[bucket];
            if seen >= rank {
                return Some(highest_ns(bucket).min(self.max_ns));
            }
        }
        Some(self.max_ns)
    }

    /// What it holds, shortest first; no bucket of it is empty.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let held = self.counts.iter().enumerate();
        held.filter(|(_, count)| **count > 0)
            .map(|(bucket, &count)| Bucket {
                highest_ns: highest_ns(bucket),
                count,
            })
    }

    #[inline]
    fn add_to_bucket(&mut self, bucket: usize, added: u64) {
        match self.counts.get_mut(bucket) {
            Some(count) => *count += added,
            None => self.grow_to(bucket, added),
        }
    }

    #[cold]
    fn grow_to(&mut self, bucket: usize, added: u64) {
        let octave_end = (bucket / SUB_BUCKETS as usize + 1) * SUB_BUCKETS as usize;
        self.counts.resize(octave_end, 0);
        self.counts[bucket] = added;
    }

    fn count_gaps_by_step(&mut self, gaps: Gaps) {
        let tokens = u64::from(gaps.tokens);
        for step in 0..u64::from(gaps.steps) {
            let ns = (gaps.first_ps + gaps.growth_ps * step) / PICOS_PER_NANO;
            self.add_to_bucket(bucket_of(ns), tokens);
        }
    }

    fn count_gaps_by_bucket(&mut self, gaps: Gaps, last_ps: u64) {
        let (tokens, steps) = (u64::from(gaps.tokens), u64::from(gaps.steps));
        let mut step = 0;
        while step < steps {
            let ns = (gaps.first_ps + gaps.growth_ps * step) / PICOS_PER_NANO;
            let bucket = bucket_of(ns);
            // The longest gap that still rounds down into this bucket. Where
            // that is beyond `u64`, so is every gap of the run short of it.
            let highest_ps = highest_ns(bucket)
                .saturating_mul(PICOS_PER_NANO)
                .saturating_add(PICOS_PER_NANO - 1);
            let next_step = if highest_ps >= last_ps {
                steps
            } else {
                (highest_ps - gaps.first_ps) / gaps.growth_ps + 1
            };
            self.add_to_bucket(bucket, (next_step - step) * tokens);
            step = next_step;
        }
    }
}

/// A division to find where a bucket ends costs about as much as counting
/// this many gaps one by one.
const STEPS_PER_DIVISION: usize = 4;

/// The bucket of a duration.
#[inline]
const fn bucket_of(ns: u64) -> usize {
    let shift = (63 - SUB_BUCKET_BITS) - (ns | SUB_BUCKETS).leading_zeros();
    (((shift as u64) << SUB_BUCKET_BITS) + (ns >> shift)) as usize
}

/// The longest duration of a bucket (ns).
const fn highest_ns(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * SUB_BUCKETS {
        return bucket;
    }
    let shift = (bucket >> SUB_BUCKET_BITS) - 1;
    let sub_bucket = bucket - (shift << SUB_BUCKET_BITS);
    // Shifting what is left of the last bucket rather than its successor keeps
    // the very last bucket inside `u64`.
    (sub_bucket << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_cover_every_duration_in_order() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(2047), 2047);
        assert_eq!(bucket_of(2048), 2048);
        assert_eq!(bucket_of(2049), 2048);
        assert_eq!(highest_ns(bucket_of(u64::MAX)), u64::MAX);
        for bucket in 1..=bucket_of(u64::MAX) {
            assert_eq!(bucket_of(highest_ns(bucket)), bucket);
            assert_eq!(bucket_of(highest_ns(bucket - 1) + 1), bucket);
        }
    }

    #[test]
    fn an_empty_histogram_has_no_statistics() {
        let empty = Histogram::new();
        assert_eq!(empty.percentile_ns(50.0), None);
        assert_eq!(empty.mean_s(), None);
        assert_eq!(empty.max_ns(), None);
        assert_eq!(empty.min_ns(), None);
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut histogram = Histogram::new();
        (1..=100).for_each(|ns| histogram.record(ns));
        assert_eq!(histogram.percentile_ns(0.0), Some(1));
        assert_eq!(histogram.percentile_ns(7.0), Some(7));
        assert_eq!(histogram.percentile_ns(95.0), Some(95));
        assert_eq!(histogram.percentile_ns(99.1), Some(100));
        assert_eq!(histogram.percentile_ns(100.0), Some(100));
        assert_eq!(histogram.mean_s(), Some(50.5e-9));
    }

    #[test]
    fn a_percentile_never_exceeds_the_maximum() {
        let mut histogram = Histogram::new();
        histogram.record(1_000_001);
        assert_eq!(histogram.percentile_ns(50.0), Some(1_000_001));
    }

    fn one_by_one(gaps: Gaps) -> (Histogram, u128) {
        let mut histogram = Histogram::new();
        let mut sum_ps = 0;
        for step in 0..u64::from(gaps.steps) {
            let ps = gaps.first_ps + gaps.growth_ps * step;
            for _ in 0..gaps.tokens {
                histogram.record(ps / PICOS_PER_NANO);
                sum_ps += u128::from(ps);
            }
        }
        (histogram, sum_ps)
    }

    fn any_gaps() -> impl Strategy<Value = Gaps> {
        let first = prop_oneof![0..5_000_u64, 0..50_000_000_000_u64, 0..u64::MAX / 2];
        let growth = prop_oneof![Just(0_u64), 1..2_000_u64, 0..100_000_000_u64];
        (first, growth, 0..2_000_u32, 0..5_u32).prop_map(|(first_ps, growth_ps, steps, tokens)| {
            Gaps {
                first_ps,
                growth_ps,
                steps,
                tokens,
            }
        })
    }

    proptest! {
        #[test]
        fn a_run_of_gaps_counts_as_its_gaps_one_by_one(gaps in any_gaps()) {
            let mut by_run = Histogram::new();
            by_run.record_gaps(gaps);
            let (mut single, sum_ps) = one_by_one(gaps);
            prop_assert_eq!(by_run.sum_ps(), sum_ps);
            // One by one, each gap was rounded before it was added.
            single.sum_ps = sum_ps;
            prop_assert_eq!(by_run, single);
        }

        #[test]
        fn both_ways_of_counting_a_run_agree(gaps in any_gaps()) {
            prop_assume!(gaps.steps > 0 && gaps.growth_ps > 0);
            let (mut by_step, mut by_bucket) = (Histogram::new(), Histogram::new());
            by_step.count_gaps_by_step(gaps);
            let last_ps = gaps.first_ps + gaps.growth_ps * u64::from(gaps.steps - 1);
            by_bucket.count_gaps_by_bucket(gaps, last_ps);
            prop_assert_eq!(by_step, by_bucket);
        }

        #[test]
        fn two_added_are_one(
            left in prop::collection::vec(any::<u64>(), 0..50),
            right in prop::collection::vec(0..10_000_000_000_u64, 0..50),
        ) {
            let (mut a, mut b, mut both) = (Histogram::new(), Histogram::new(), Histogram::new());
            left.iter().for_each(|&ns| { a.record(ns); both.record(ns); });
            right.iter().for_each(|&ns| { b.record(ns); both.record(ns); });
            a.add(&b);
            prop_assert_eq!(a, both);
        }

        #[test]
        fn nothing_is_lost_in_json(
            durations in prop::collection::vec(any::<u64>(), 0..50),
            gaps in any_gaps(),
        ) {
            let mut histogram = Histogram::new();
            durations.iter().for_each(|&ns| histogram.record(ns));
            histogram.record_gaps(gaps);
            let json = serde_json::to_string(&histogram).unwrap();
            prop_assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), histogram);
        }

        #[test]
        fn percentiles_are_those_of_hdrhistogram(
            durations in prop::collection::vec(1..100_000_000_000_000_u64, 1..200),
            percentile in 0..=1000_u32,
        ) {
            let mut ours = Histogram::new();
            let mut theirs = hdrhistogram::Histogram::<u64>::new_with_bounds(1, u64::MAX, 3).unwrap();
            for &ns in &durations {
                ours.record(ns);
                theirs.record(ns).unwrap();
            }
            // Ranks are compared where both round them alike.
            let rank = (u64::from(percentile) * durations.len() as u64).div_ceil(1000).max(1);
            let quantile = (rank as f64 - 0.5) / durations.len() as f64;
            let expected = theirs.value_at_quantile(quantile).min(*durations.iter().max().unwrap());
            prop_assert_eq!(ours.percentile_ns(quantile * 100.0), Some(expected));
        }
    }
}
