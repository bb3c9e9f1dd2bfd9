//! Statistics of samples as numpy has them, which the tools written in Python use.

use crate::histogram::Histogram;

/// Samples, smallest first.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    sorted: Vec<f64>,
}

impl Samples {
    pub(super) fn new(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        Self { sorted }
    }

    pub(super) fn count(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn sum(&self) -> f64 {
        self.sorted.iter().sum()
    }

    pub(super) fn min(&self) -> Option<f64> {
        self.sorted.first().copied()
    }

    pub(super) fn max(&self) -> Option<f64> {
        self.sorted.last().copied()
    }

    pub(super) fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum() / self.count() as f64)
    }

    /// Of the population: `numpy.std` divides by the number of samples.
    pub(super) fn std(&self) -> Option<f64> {
        let mean = self.mean()?;
        let squares = self.sorted.iter().map(|value| (value - mean).powi(2));
        Some((squares.sum::<f64>() / self.count() as f64).sqrt())
    }

    /// Between the two nearest ranks: `numpy.percentile` with its default method `linear`.
    pub(super) fn percentile(&self, percentile: f64) -> Option<f64> {
        let last = self.sorted.len().checked_sub(1)?;
        let rank = (percentile / 100.0).clamp(0.0, 1.0) * last as f64;
        let below = rank.floor() as usize;
        let above = (below + 1).min(last);
        let fraction = rank - below as f64;
        Some(self.sorted[below] + fraction * (self.sorted[above] - self.sorted[below]))
    }
}

/// The standard deviation of a histogram's durations (ms), each taken as the longest of its bucket.
pub(super) fn std_ms(histogram: &Histogram) -> Option<f64> {
    let mean_ms = histogram.mean_s()? * 1e3;
    let max_ns = histogram.max_ns()?;
    let squares = histogram.buckets().map(|bucket| {
        let off = bucket.highest_ns.min(max_ns) as f64 / 1e6 - mean_ms;
        off * off * bucket.count as f64
    });
    Some((squares.sum::<f64>() / histogram.count() as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_numpy() {
        // numpy.mean, numpy.std and numpy.percentile of [15, 20, 35, 40, 50].
        let samples = Samples::new([50.0, 15.0, 40.0, 20.0, 35.0].into_iter());
        assert_eq!(samples.mean(), Some(32.0));
        let std = samples.std().expect("there are samples");
        assert!((std - 12.884_098_726_725_126).abs() < 1e-12, "{std}");
        assert_eq!(samples.percentile(50.0), Some(35.0));
        let p40 = samples.percentile(40.0).expect("there are samples");
        assert!((p40 - 29.0).abs() < 1e-12, "{p40}");
        assert_eq!(samples.percentile(100.0), Some(50.0));
        assert_eq!((samples.min(), samples.max()), (Some(15.0), Some(50.0)));
        let none = Samples::new(std::iter::empty());
        assert_eq!(
            (none.mean(), none.std(), none.percentile(99.0)),
            (None, None, None)
        );
    }

    #[test]
    fn the_spread_of_a_histogram_is_near_that_of_its_durations() {
        let mut histogram = Histogram::new();
        for ms in [10, 20, 30, 40] {
            histogram.record(ms * 1_000_000);
        }
        // numpy.std([10, 20, 30, 40])
        let std = std_ms(&histogram).expect("there are durations");
        assert!((std / 11.180_339_887 - 1.0).abs() < 2e-3, "{std}");
        assert_eq!(std_ms(&Histogram::new()), None);
    }
}
