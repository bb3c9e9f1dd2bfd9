//! One run by itself: what its requests say of their own statistic.
//!
//! The bootstrap draws as many requests as there are, with replacement, and
//! takes the percentile of each draw. Its distribution is known exactly: the
//! k-th of n draws falls on the j-th of the sorted requests or below with the
//! probability that a beta variable of (k, n - k + 1) is at most j / n (Hutson
//! and Ernst, "The Exact Bootstrap Mean and Variance of an L-estimator", Journal
//! of the Royal Statistical Society B 62, 2000). So nothing is drawn, the
//! interval is the same each time, and a histogram is all that it needs.
//!
//! Such an interval knows nothing of what differs between runs.

use crate::histogram::Histogram;
use statrs::distribution::{Beta, ContinuousCDF};

/// An interval that holds the true percentile (0 to 100) with this confidence
/// at each end (s), as far as one run can say; `None` if the histogram is empty.
#[must_use]
pub fn percentile(histogram: &Histogram, percentile: f64, confidence: f64) -> Option<(f64, f64)> {
    let count = histogram.count() as f64;
    if count == 0.0 {
        return None;
    }
    let rank = (percentile * count / 100.0).ceil().clamp(1.0, count);
    let beta = Beta::new(rank, count - rank + 1.0).ok()?;
    let at = |probability: f64| {
        let share = beta.inverse_cdf(probability);
        let place = (share * count).ceil().clamp(1.0, count);
        // Half a place below, so that the rank is that place however it rounds.
        let seconds = histogram.percentile_ns((place - 0.5) / count * 100.0)?;
        Some(seconds as f64 / 1e9)
    };
    Some((at(1.0 - confidence)?, at(confidence)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl Iterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new();
        values.for_each(|ns| histogram.record(ns));
        histogram
    }

    #[test]
    fn a_median_of_a_thousand_is_known_to_26_places() {
        // Of 1000 even values: 500 -+ 1.645 * sqrt(1000) / 2 = 474 and 526.
        let (low, high) = percentile(&histogram(1..=1_000), 50.0, 0.95).unwrap();
        assert!((low * 1e9 - 474.0).abs() <= 1.0, "{low}");
        assert!((high * 1e9 - 526.0).abs() <= 1.0, "{high}");
    }

    #[test]
    fn few_requests_do_not_tell_their_tail() {
        let (low, high) = percentile(&histogram(1..=50), 99.0, 0.95).unwrap();
        // Nothing above the largest was seen, so that is where it ends.
        assert!(
            (high * 1e9 - 50.0).abs() < 1e-9 && low * 1e9 < 49.0,
            "{low} {high}"
        );
        assert_eq!(percentile(&Histogram::new(), 50.0, 0.95), None);
        let one = percentile(&histogram(7..=7), 50.0, 0.95).unwrap();
        assert_eq!(one, (7e-9, 7e-9));
    }
}
