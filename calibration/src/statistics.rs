//! Means, medians and quantiles, and how well they are known.

/// A median with an interval that holds the true one with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MedianInterval {
    /// The median of what was measured (s).
    pub median_s: f64,
    /// Lower end (s).
    pub low_s: f64,
    /// Upper end (s).
    pub high_s: f64,
}

/// The confidence that intervals have.
const CONFIDENCE: f64 = 0.95;

/// The standard deviation of normal numbers, by their median absolute deviation.
const NORMAL_BY_MAD: f64 = 1.4826;

impl MedianInterval {
    /// Of repeats, none of which may be NaN; none if there are none.
    ///
    /// The interval is between two of them, whatever their distribution: as many are below the
    /// true median as heads in as many throws of a coin (Conover, "Practical Nonparametric
    /// Statistics", 3rd edition, section 3.2). Fewer than six cannot be that sure: their interval is
    /// from the smallest to the largest, and one has none: it is its own.
    #[must_use]
    pub fn of(seconds: &[f64]) -> Option<Self> {
        let sorted = sorted(seconds);
        let outside = outside(sorted.len()).saturating_sub(1);
        Some(Self {
            median_s: median_of_sorted(&sorted)?,
            low_s: sorted[outside],
            high_s: sorted[sorted.len() - 1 - outside],
        })
    }

    /// Half the width of the interval, as a share of the median.
    #[must_use]
    pub fn relative_half_width(&self) -> f64 {
        0.5 * (self.high_s - self.low_s) / self.median_s
    }
}

/// The rank, from 1, of the lower end of the interval of so many repeats; 0 if they are too few.
fn outside(count: usize) -> usize {
    // Half to the power of the count underflows beyond a thousand, where the
    // normal approximation is as good.
    if count > 1000 {
        let count = count as f64;
        return (0.5 * count - 0.98 * count.sqrt()) as usize;
    }
    let mut probability = libm::ldexp(1.0, -(count as i32));
    let mut below = 0.0;
    for rank in 0..count {
        below += probability;
        if 2.0 * below > 1.0 - CONFIDENCE {
            return rank;
        }
        probability *= (count - rank) as f64 / (rank + 1) as f64;
    }
    0
}

/// The median; none of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    median_of_sorted(&sorted(values))
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len().checked_sub(1)? / 2;
    Some(if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        0.5 * (sorted[middle] + sorted[middle + 1])
    })
}

/// The value below which half the weight is.
pub(crate) fn weighted_median(values: &[(f64, f64)]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = 0.5 * sorted.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut below = 0.0;
    let reached = sorted.iter().find(|(_, weight)| {
        below += weight;
        below >= half
    });
    reached.or(sorted.last()).map(|(value, _)| *value)
}

/// The standard deviation that normal numbers around a centre would have,
/// by the median of their distances from it, which a few wild ones do not move.
pub(crate) fn robust_deviation(values: &[f64], centre: f64) -> f64 {
    let distances: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    NORMAL_BY_MAD * median(&distances).unwrap_or(0.0)
}

/// The mean; 0 of none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Standard deviation of a sample; 0 of fewer than two.
pub(crate) fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let centre = mean(values);
    let squares: f64 = values.iter().map(|v| (v - centre) * (v - centre)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// The value below which this share of the values is, straight between two of them. There has to be one.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

pub(crate) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_medians_are_those_of_the_table() {
        // Ranks of the 95 % interval: Hollander, Wolfe and Chicken, "Nonparametric
        // Statistical Methods", by the binomial distribution.
        for (count, rank) in [
            (5, 0),
            (6, 1),
            (8, 1),
            (9, 2),
            (10, 2),
            (20, 6),
            (30, 10),
            (100, 40),
        ] {
            assert_eq!(outside(count), rank, "{count}");
        }
        assert_eq!(outside(1001), 469);
        assert_eq!(outside(0), 0);
    }

    #[test]
    fn a_median_is_between_its_neighbours() {
        let nine: Vec<f64> = (1..=9).map(f64::from).collect();
        let interval = MedianInterval::of(&nine).unwrap();
        assert_eq!(
            (interval.low_s, interval.median_s, interval.high_s),
            (2.0, 5.0, 8.0)
        );
        assert_eq!(MedianInterval::of(&[]), None);
        let one = MedianInterval::of(&[2.0]).unwrap();
        assert_eq!((one.low_s, one.median_s, one.high_s), (2.0, 2.0, 2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn weight_moves_a_median() {
        assert_eq!(
            weighted_median(&[(1.0, 1.0), (2.0, 1.0), (3.0, 1.0)]),
            Some(2.0)
        );
        assert_eq!(
            weighted_median(&[(1.0, 1.0), (2.0, 1.0), (3.0, 5.0)]),
            Some(3.0)
        );
        assert_eq!(weighted_median(&[]), None);
    }

    #[test]
    fn a_wild_value_does_not_move_a_robust_deviation() {
        let values = [1.0, -1.0, 1.0, -1.0, 1e9];
        assert!((robust_deviation(&values, 0.0) - 1.4826).abs() < 1e-12);
        assert!(deviation(&values) > 1e8);
        assert!((quantile(&[0.0, 10.0], 0.25) - 2.5).abs() < 1e-12);
    }
}
