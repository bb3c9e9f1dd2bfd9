//! The three size ranges of an all-reduce, fitted to measured ones.
//!
//! ```text
//! seconds │            ╱        a latency and a bandwidth for each range; where
//!         │        ╱            ranges meet is where the relative error is least
//!         │ ___╱
//!         └───┴────┴───── bytes
//! ```

use foresail_core::step_time::AllReduceRange;

/// Ranges, as [`foresail_core::step_time::AllReduce`] has them.
const RANGES_MAX: usize = 3;

/// Sizes that a range is fitted to, at least: with fewer, its two numbers are not overdetermined.
const SIZES_MIN: usize = 3;

/// A bandwidth that no machine has, of ranges in which size does not matter (bytes/s).
const BANDWIDTH_MAX: f64 = 1e18;

/// The time of one all-reduce of a size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredAllReduce {
    /// Of each rank.
    pub bytes: u64,
    /// How long it takes (s).
    pub seconds: f64,
}

/// Why there are no ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangesError {
    /// There is nothing to tell a latency from a bandwidth by.
    #[error(
        "all-reduces of {sizes} sizes were measured; {SIZES_MIN} different ones at least are needed"
    )]
    TooFew {
        /// How many there are.
        sizes: usize,
    },
    /// A time is not positive, or no number.
    #[error("an all-reduce of {bytes} bytes cannot have taken no time, or less")]
    Seconds {
        /// Which.
        bytes: u64,
    },
}

/// Ranges that fit the measured times, in order of size: one, two or three, each with three sizes or more.
///
/// # Errors
/// If there are too few sizes, or times that cannot be.
pub fn fit(measured: &[MeasuredAllReduce]) -> Result<Vec<AllReduceRange>, ExchangesError> {
    let mut points = measured.to_vec();
    points.sort_by_key(|point| point.bytes);
    points.dedup_by_key(|point| point.bytes);
    if points.len() < SIZES_MIN {
        return Err(ExchangesError::TooFew {
            sizes: points.len(),
        });
    }
    let is_wrong = |point: &&MeasuredAllReduce| !(point.seconds > 0.0 && point.seconds.is_finite());
    if let Some(point) = points.iter().find(is_wrong) {
        return Err(ExchangesError::Seconds { bytes: point.bytes });
    }
    Ok(best(&points, RANGES_MAX).ranges)
}

/// Ranges, and how far they are from what was measured.
struct Fitted {
    ranges: Vec<AllReduceRange>,
    /// Sum of the squares of relative errors.
    error: f64,
}

/// The ranges with the least error, at most so many of them.
fn best(points: &[MeasuredAllReduce], ranges_max: usize) -> Fitted {
    let mut best = range(points);
    if ranges_max == 1 {
        return best;
    }
    for first in SIZES_MIN..=points.len().saturating_sub(SIZES_MIN) {
        let (low, high) = points.split_at(first);
        let (mut low, high) = (range(low), self::best(high, ranges_max - 1));
        let error = low.error + high.error;
        if error < best.error {
            low.ranges.extend(high.ranges);
            best = Fitted {
                ranges: low.ranges,
                error,
            };
        }
    }
    best
}

/// One latency and one bandwidth: least squares of relative errors, neither negative.
fn range(points: &[MeasuredAllReduce]) -> Fitted {
    // With y = a + b x and weights 1 / y^2, in units of the largest message so that sums stay small.
    let unit = points.last().map_or(1.0, |point| point.bytes.max(1) as f64);
    let (mut w, mut wx, mut wxx, mut wy, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for point in points {
        let (x, y) = (point.bytes as f64 / unit, point.seconds);
        let weight = 1.0 / (y * y);
        w += weight;
        wx += weight * x;
        wxx += weight * x * x;
        wy += weight * y;
        wxy += weight * x * y;
    }
    let determinant = w * wxx - wx * wx;
    let slope = (w * wxy - wx * wy) / determinant;
    let latency = (wxx * wy - wx * wxy) / determinant;
    let (alpha_s, slope) = match (latency >= 0.0, slope >= 0.0) {
        (true, true) => (latency, slope),
        // On the edge of what is allowed, the other number is fitted alone.
        (false, _) => (0.0, wxy / wxx),
        (true, false) => (wy / w, 0.0),
    };
    let error = points.iter().map(|point| {
        let fitted = alpha_s + slope * point.bytes as f64 / unit;
        let relative = fitted / point.seconds - 1.0;
        relative * relative
    });
    Fitted {
        error: error.sum(),
        ranges: vec![AllReduceRange {
            bytes_last: points.last().map_or(0, |point| point.bytes),
            alpha_s,
            beta_bytes_per_s: (unit / slope).min(BANDWIDTH_MAX),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foresail_core::step_time::AllReduce;
    use proptest::prelude::*;

    fn points(seconds: impl Fn(u64) -> f64) -> Vec<MeasuredAllReduce> {
        let sizes = (8..26).map(|power| 1_u64 << power);
        let point = |bytes| MeasuredAllReduce {
            bytes,
            seconds: seconds(bytes),
        };
        sizes.map(point).collect()
    }

    #[test]
    fn three_ranges_are_found_where_there_are_three() {
        let truth = |bytes: u64| match bytes {
            0..=0x1000 => 2e-6 + bytes as f64 / 1e9,
            0x1001..=0x10_0000 => 8e-6 + bytes as f64 / 4e9,
            _ => 60e-6 + bytes as f64 / 9e9,
        };
        let ranges = fit(&points(truth)).unwrap();
        assert_eq!(
            ranges
                .iter()
                .map(|range| range.bytes_last)
                .collect::<Vec<_>>(),
            [0x1000, 0x10_0000, 1 << 25]
        );
        let table = AllReduce {
            by_world_size: vec![(2, ranges)],
        };
        for point in points(truth) {
            let fitted = table.seconds(2, point.bytes).unwrap();
            assert!((fitted / point.seconds - 1.0).abs() < 1e-9, "{point:?}");
        }
    }

    #[test]
    fn what_cannot_be_fitted_is_refused() {
        let mut few = points(|_| 1e-6);
        few.truncate(2);
        assert_eq!(fit(&few), Err(ExchangesError::TooFew { sizes: 2 }));
        let none = points(|bytes| if bytes == 256 { 0.0 } else { 1e-6 });
        assert_eq!(fit(&none), Err(ExchangesError::Seconds { bytes: 256 }));
    }

    proptest! {
        #[test]
        fn latencies_are_not_negative_and_bandwidths_are_finite(
            seconds in prop::collection::vec(1e-7_f64..1e-2, 18),
        ) {
            let measured: Vec<_> = points(|_| 1.0)
                .into_iter()
                .zip(seconds)
                .map(|(point, seconds)| MeasuredAllReduce { seconds, ..point })
                .collect();
            for range in fit(&measured).unwrap() {
                prop_assert!(range.alpha_s >= 0.0);
                prop_assert!(range.beta_bytes_per_s > 0.0 && range.beta_bytes_per_s.is_finite());
            }
        }
    }
}
