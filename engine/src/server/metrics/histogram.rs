//! Counts of values by size, that any thread adds to without waiting.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A histogram with fixed bounds, as Prometheus has them.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds, ascending; a value that is a bound is below it.
    bounds: &'static [f64],
    /// Values in each bucket, and those above all bounds.
    counts: Vec<AtomicU64>,
    /// The sum of all values, in thousand-millionths of the unit, so that it can be added to atomically.
    sum_nano: AtomicU64,
}

impl Histogram {
    /// One without values.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        let sum_nano = AtomicU64::new(0);
        Self {
            bounds,
            counts,
            sum_nano,
        }
    }

    /// Adds a value, which is not negative.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        // A cast saturates, and what is not a number is 0.
        let nano = (value * 1e9).round() as u64;
        self.sum_nano.fetch_add(nano, Ordering::Relaxed);
    }

    /// Adds all samples of it to a text in Prometheus' format.
    pub(super) fn write(&self, text: &mut String, name: &str, labels: &str) {
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let sum = self.sum_nano.load(Ordering::Relaxed) as f64 / 1e9;
        write_samples(text, name, labels, self.bounds, counts, sum);
    }
}

/// Adds the samples of a histogram: `counts` are per bucket, those above all bounds last.
pub(super) fn write_samples(
    text: &mut String,
    name: &str,
    labels: &str,
    bounds: &[f64],
    counts: impl Iterator<Item = u64>,
    sum: f64,
) {
    let mut total = 0;
    let bounds = bounds.iter().map(f64::to_string);
    for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(counts) {
        total += count;
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
    }
    let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}");
    let _ = writeln!(text, "{name}_count{{{labels}}} {total}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_up_to_their_bounds() {
        let histogram = Histogram::new(&[0.1, 1.0, 10.0]);
        for value in [0.05, 0.1, 0.5, 100.0] {
            histogram.observe(value);
        }
        let mut text = String::new();
        histogram.write(&mut text, "wait_seconds", "model=\"m\"");
        insta::assert_snapshot!(text, @r#"
        wait_seconds_bucket{model="m",le="0.1"} 2
        wait_seconds_bucket{model="m",le="1"} 3
        wait_seconds_bucket{model="m",le="10"} 3
        wait_seconds_bucket{model="m",le="+Inf"} 4
        wait_seconds_sum{model="m"} 100.65
        wait_seconds_count{model="m"} 4
        "#);
    }
}
