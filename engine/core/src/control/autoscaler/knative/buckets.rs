//! The metric windows of Knative: what was in flight, by second, and its mean over a window.
//!
//! A record goes into the bucket of its second, of which there are as many as the window
//! has seconds, in a ring (`pkg/autoscaler/aggregation/bucketing.go`). Sums are made in the
//! order in which Knative makes them, so that they are the same to the last bit.

use super::config::MetricAggregation;
use crate::time::{Nanos, SECOND};

/// What fell into each of the last seconds.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    /// By second, modulo their number.
    ring: Vec<f64>,
    /// The sum of the ring, kept up as it changes.
    total: f64,
    /// The seconds of the first and of the last write since there was none for a whole window.
    written: Option<(u64, u64)>,
    /// How fast weights fall with age; `None` for a plain mean.
    smoothing: Option<f64>,
}

impl Buckets {
    /// A window of whole seconds, at least one.
    pub(super) fn new(window: Nanos, aggregation: MetricAggregation) -> Self {
        let count = (window / SECOND).max(1);
        let smoothing = match aggregation {
            MetricAggregation::Linear => None,
            MetricAggregation::WeightedExponential => Some(smoothing_coefficient(count)),
        };
        Buckets {
            ring: vec![0.0; count as usize],
            total: 0.0,
            written: None,
            smoothing,
        }
    }

    /// Adds a value to the second of `now`. Seconds without a record count as 0;
    /// after a whole window of them, the window begins anew.
    pub(super) fn record(&mut self, now: Nanos, value: f64) {
        let second = now / SECOND;
        match self.written {
            Some((first, last)) if second - last < self.len() => {
                for skipped in last + 1..=second {
                    let index = self.index(skipped);
                    self.total -= self.ring[index];
                    self.ring[index] = 0.0;
                }
                self.written = Some((first, second));
            }
            _ => {
                self.ring.fill(0.0);
                self.total = 0.0;
                self.written = Some((second, second));
            }
        }
        let index = self.index(second);
        self.ring[index] += value;
        self.total += value;
    }

    /// Whether nothing was recorded for longer than the window.
    pub(super) fn is_empty(&self, now: Nanos) -> bool {
        self.written
            .is_none_or(|(_, last)| now / SECOND - last > self.len())
    }

    /// The mean of the seconds that the window has seen, 0 when it has seen none.
    pub(super) fn average(&self, now: Nanos) -> f64 {
        match (self.written, self.smoothing) {
            (None, _) => 0.0,
            (Some((first, last)), None) => self.plain(now / SECOND, first, last),
            (Some((_, last)), Some(coefficient)) => self.weighted(now / SECOND, last, coefficient),
        }
    }

    /// `TimedFloat64Buckets.WindowAverage`: over what is left of the window
    /// since the last write, or over less if the first write was recent.
    fn plain(&self, second: u64, first: u64, last: u64) -> f64 {
        let unseen = second - last;
        if unseen >= self.len() {
            return 0.0;
        }
        let mut sum = self.total;
        for outdated in last + 1..=second {
            sum -= self.ring[self.index(outdated)];
        }
        let seen = (last - first + 1).min(self.len() - unseen);
        round_to_six_digits(sum / seen as f64)
    }

    /// `WeightedFloat64Buckets.WindowAverage`: the newest second weighs most.
    /// It is not rounded.
    fn weighted(&self, second: u64, last: u64, coefficient: f64) -> f64 {
        let unseen = second - last;
        if unseen > self.len() {
            return 0.0;
        }
        let mut multiplier = coefficient;
        if unseen > 0 {
            multiplier *= whole_power(1.0 - coefficient, unseen);
        }
        let mut mean = 0.0;
        for age in 0..self.len() - unseen {
            let index = self.index(last + self.len() - age);
            mean += self.ring[index] * multiplier;
            multiplier *= 1.0 - coefficient;
        }
        mean
    }

    fn len(&self) -> u64 {
        self.ring.len() as u64
    }

    fn index(&self, second: u64) -> usize {
        (second % self.len()) as usize
    }
}

/// `roundToNDigits(6, …)`; halves go away from zero.
fn round_to_six_digits(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// `computeSmoothingCoeff`: so that the weights of the window sum to 0.9999,
/// or 0.2 in windows so long that this would come close to a plain mean.
fn smoothing_coefficient(buckets: u64) -> f64 {
    const REST: f64 = 0.0001;
    // The cases of Go's `math.Pow`. The last bit of its exponential depends on the machine.
    let root = match buckets {
        1 => REST,
        2 => REST.sqrt(),
        _ => libm::exp(1.0 / buckets as f64 * libm::log(REST)),
    };
    f64::max(1.0 - root, 0.2)
}

/// A power by repeated squaring of the mantissa, which is how Go's `math.Pow`
/// rounds a whole exponent.
fn whole_power(base: f64, exponent: u64) -> f64 {
    let (mut square, mut square_exponent) = libm::frexp(base);
    let (mut mantissa, mut binary_exponent) = (1.0, 0);
    let mut rest = exponent;
    while rest > 0 {
        if rest & 1 == 1 {
            mantissa *= square;
            binary_exponent += square_exponent;
        }
        square *= square;
        square_exponent *= 2;
        if square < 0.5 {
            square += square;
            square_exponent -= 1;
        }
        rest >>= 1;
    }
    libm::ldexp(mantissa, binary_exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(seconds: u64) -> Buckets {
        Buckets::new(seconds * SECOND, MetricAggregation::Linear)
    }

    #[test]
    fn the_mean_is_over_the_seconds_seen_so_far() {
        let mut buckets = linear(5);
        assert!(buckets.is_empty(0));
        assert_eq!(buckets.average(0), 0.0);
        for (second, mean) in [(10, 10.0), (11, 10.0), (12, 10.0)] {
            buckets.record(second * SECOND, 10.0);
            assert_eq!(buckets.average(second * SECOND), mean);
        }
        buckets.record(13 * SECOND, 0.0);
        assert_eq!(buckets.average(13 * SECOND), 7.5);
    }

    #[test]
    fn a_gap_within_the_window_counts_as_nothing() {
        let mut buckets = linear(5);
        buckets.record(0, 10.0);
        buckets.record(4 * SECOND, 10.0);
        assert_eq!(buckets.average(4 * SECOND), 4.0);
        // The write of second 0 has left the window.
        buckets.record(5 * SECOND, 5.0);
        assert_eq!(buckets.average(5 * SECOND), 3.0);
    }

    #[test]
    fn without_news_the_mean_is_over_what_is_left_and_then_there_is_none() {
        let mut buckets = linear(4);
        for second in 0..4 {
            buckets.record(second * SECOND, (second + 1) as f64);
        }
        assert_eq!(buckets.average(3 * SECOND), 2.5);
        assert_eq!(buckets.average(5 * SECOND), 3.5);
        assert_eq!(buckets.average(7 * SECOND), 0.0);
        // One second later than the mean, as Knative compares with `>`.
        assert!(!buckets.is_empty(7 * SECOND));
        assert!(buckets.is_empty(8 * SECOND));
        buckets.record(8 * SECOND, 6.0);
        assert_eq!(buckets.average(8 * SECOND), 6.0);
    }

    #[test]
    fn records_of_one_second_add_up() {
        let mut buckets = linear(6);
        buckets.record(SECOND, 1.0);
        buckets.record(SECOND + SECOND / 2, 0.25);
        assert_eq!(buckets.average(SECOND), 1.25);
    }

    #[test]
    fn means_are_rounded_to_six_digits() {
        let mut buckets = linear(6);
        for second in 0..3 {
            buckets.record(second * SECOND, if second == 0 { 1.0 } else { 0.0 });
        }
        assert_eq!(buckets.average(2 * SECOND), 0.333_333);
    }

    #[test]
    fn weights_fall_with_age() {
        // The example in bucketing.go, with its exponent of 0.6.
        let mut buckets = linear(4);
        for (second, value) in [(0, 10.0), (1, 10.0), (2, 5.0), (3, 5.0)] {
            buckets.record(second * SECOND, value);
        }
        buckets.smoothing = Some(0.6);
        assert!((buckets.average(3 * SECOND) - 5.544).abs() < 1e-12);
    }

    #[test]
    fn long_windows_weigh_a_fifth() {
        assert_eq!(smoothing_coefficient(60), 0.2);
        assert!((smoothing_coefficient(6) - 0.784_556_5).abs() < 1e-7);
        assert_eq!(smoothing_coefficient(1), 0.9999);
    }

    #[test]
    fn powers_are_powers() {
        for exponent in 0..60 {
            let expected = libm::pow(0.8, exponent as f64);
            let relative = whole_power(0.8, exponent) / expected - 1.0;
            assert!(relative.abs() < 1e-14, "{exponent}");
        }
    }
}
