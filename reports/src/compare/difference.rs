//! A figure of one variant less the same figure of another, with its interval.
//!
//! Under common random numbers both variants meet the same requests, so the
//! luck of a seed cancels in the difference of its two runs. The interval is
//! that of those differences, and mostly much narrower than the two intervals
//! side by side (Law, Simulation Modeling and Analysis, 5th ed., 10.2.1 and 11.2).

use crate::seeds::{IntervalOf, mean, student_t};
use serde::{Deserialize, Serialize};

/// How a figure differs from that of another variant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Mean difference, in the unit of the figure.
    pub mean: f64,
    /// The true difference is within this of [`Difference::mean`] with 95 %
    /// confidence (Student's t); `null` without two seeds.
    pub half_width: Option<f64>,
    /// [`Difference::mean`] as a share of the other variant's mean; `null` if
    /// that is 0.
    pub relative: Option<f64>,
    /// [`Difference::half_width`] as a share of the other variant's mean.
    pub relative_half_width: Option<f64>,
    /// What may be said about it.
    pub verdict: Verdict,
}

/// What may be said about a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is below 0.
    Lower,
    /// The whole interval is above 0.
    Higher,
    /// There is no difference under any seed.
    Equal,
    /// The interval holds 0: the seeds do not tell the two apart.
    Unclear,
    /// There is a difference, and too few seeds for an interval.
    Unknown,
}

/// The difference of what the same seeds gave, seed by seed; a seed under which
/// one of the two has no figure says nothing. `None` if there is no pair.
pub(super) fn paired(values: &[Option<f64>], others: &[Option<f64>]) -> Option<Difference> {
    let pairs: Vec<(f64, f64)> = values
        .iter()
        .zip(others)
        .filter_map(|(value, other)| Some(((*value)?, (*other)?)))
        .collect();
    let differences: Vec<f64> = pairs.iter().map(|(value, other)| value - other).collect();
    let others: Vec<f64> = pairs.iter().map(|(_, other)| *other).collect();
    let is_equal = differences.iter().all(|difference| *difference == 0.0);
    Some(Difference::new(
        mean(&differences)?,
        IntervalOf::Mean.half_width(&differences),
        mean(&others)?,
        is_equal,
    ))
}

/// The difference of two means over seeds that are not the same. `None` if
/// there is nothing on one side.
pub(super) fn unpaired(values: &[Option<f64>], others: &[Option<f64>]) -> Option<Difference> {
    let [values, others] = [values, others].map(|side| side.iter().flatten().copied().collect());
    let (values, others): (Vec<f64>, Vec<f64>) = (values, others);
    let other = mean(&others)?;
    let all = || values.iter().chain(&others);
    let is_equal = all().all(|value| *value == other);
    Some(Difference::new(
        mean(&values)? - other,
        welch_half_width(&values, &others),
        other,
        is_equal,
    ))
}

/// Half the width of the 95 % interval of the difference of two means whose
/// variances need not be equal (NIST/SEMATECH e-Handbook of Statistical Methods,
/// 1.3.5.3). The degrees of freedom are rounded down, so it is never too narrow.
fn welch_half_width(values: &[f64], others: &[f64]) -> Option<f64> {
    let (one, one_freedom) = IntervalOf::Mean.variance(values)?;
    let (two, two_freedom) = IntervalOf::Mean.variance(others)?;
    let both = one + two;
    if both == 0.0 {
        return Some(0.0);
    }
    let freedom = both * both / (one * one / one_freedom + two * two / two_freedom);
    Some(student_t((freedom as usize).max(1)) * both.sqrt())
}

impl Difference {
    fn new(mean: f64, half_width: Option<f64>, other: f64, is_equal: bool) -> Self {
        let share = |value: f64| (other != 0.0).then(|| value / other.abs());
        Self {
            mean,
            half_width,
            relative: share(mean),
            relative_half_width: half_width.and_then(share),
            verdict: verdict(mean, half_width, is_equal),
        }
    }

    /// Whether the interval leaves 0 out.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        matches!(self.verdict, Verdict::Lower | Verdict::Higher)
    }
}

fn verdict(mean: f64, half_width: Option<f64>, is_equal: bool) -> Verdict {
    match half_width {
        _ if is_equal => Verdict::Equal,
        None => Verdict::Unknown,
        Some(half_width) if mean.abs() <= half_width => Verdict::Unclear,
        Some(_) if mean < 0.0 => Verdict::Lower,
        Some(_) => Verdict::Higher,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some<const N: usize>(values: [f64; N]) -> [Option<f64>; N] {
        values.map(Some)
    }

    #[test]
    fn pairs_tell_apart_what_side_by_side_looks_alike() {
        let (values, others) = (some([1.0, 11.0, 21.0]), some([2.0, 12.5, 22.5]));
        let difference = paired(&values, &others).unwrap();
        // Of -1, -1.5, -1.5: mean -4/3, s / sqrt(3) = 1/6, t(2) = 4.303.
        assert!((difference.mean + 4.0 / 3.0).abs() < 1e-12);
        assert!((difference.half_width.unwrap() - 4.303 / 6.0).abs() < 1e-12);
        assert_eq!(difference.verdict, Verdict::Lower);
        assert!((difference.relative.unwrap() + 4.0 / 37.0).abs() < 1e-12);
        assert_eq!(
            unpaired(&values, &others).unwrap().verdict,
            Verdict::Unclear
        );
    }

    #[test]
    fn a_difference_that_straddles_zero_is_none() {
        let difference = paired(&some([1.0, 2.0, 3.0]), &some([2.0, 2.0, 2.0])).unwrap();
        assert_eq!(difference.verdict, Verdict::Unclear);
        // Of 1 and 3 the mean is 2 and the half width 12.706: far from clear.
        let difference = paired(&some([3.0, 6.0]), &some([2.0, 3.0])).unwrap();
        assert_eq!(difference.verdict, Verdict::Unclear);
    }

    #[test]
    fn one_seed_has_no_interval() {
        let difference = paired(&some([3.0]), &some([2.0])).unwrap();
        assert_eq!(
            (difference.mean, difference.half_width, difference.verdict),
            (1.0, None, Verdict::Unknown)
        );
        let same = paired(&some([2.0]), &some([2.0])).unwrap();
        assert_eq!(same.verdict, Verdict::Equal);
    }

    #[test]
    fn what_is_not_there_makes_no_pair() {
        let difference = paired(&[None, Some(2.0)], &[Some(5.0), Some(1.0)]).unwrap();
        assert_eq!((difference.mean, difference.half_width), (1.0, None));
        assert_eq!(paired(&[None, Some(2.0)], &[Some(5.0), None]), None);
        assert_eq!(unpaired(&[None], &some([1.0])), None);
    }

    #[test]
    fn a_share_of_nothing_is_not_told() {
        let difference = paired(&some([3.0, 3.0]), &some([0.0, 0.0])).unwrap();
        assert_eq!(
            (difference.relative, difference.relative_half_width),
            (None, None)
        );
        // The same difference under every seed is as clear as can be.
        assert_eq!(
            (difference.half_width, difference.verdict),
            (Some(0.0), Verdict::Higher)
        );
    }

    /// Welch's own case of equal sizes and variances is the pooled test.
    #[test]
    fn welch_of_equal_variances_is_the_pooled_interval() {
        let (values, others) = (some([1.0, 2.0, 3.0]), some([11.0, 12.0, 13.0]));
        let difference = unpaired(&values, &others).unwrap();
        // t(4) * sqrt(1/3 + 1/3).
        let expected = 2.776 * (2.0_f64 / 3.0).sqrt();
        assert!((difference.half_width.unwrap() - expected).abs() < 1e-12);
        assert_eq!(
            (difference.mean, difference.verdict),
            (-10.0, Verdict::Lower)
        );
        assert_eq!(unpaired(&values, &some([2.0])).unwrap().half_width, None);
    }

    proptest! {
        /// What is true of two variants is true of them the other way round.
        #[test]
        fn the_other_way_round_is_the_opposite(
            pairs in prop::collection::vec((-1e3..1e3_f64, -1e3..1e3_f64), 1..8),
        ) {
            let (values, others): (Vec<_>, Vec<_>) =
                pairs.into_iter().map(|(value, other)| (Some(value), Some(other))).unzip();
            for compare in [paired, unpaired] {
                let there = compare(&values, &others).unwrap();
                let back = compare(&others, &values).unwrap();
                prop_assert!((there.mean + back.mean).abs() < 1e-9);
                let opposite = match there.verdict {
                    Verdict::Lower => Verdict::Higher,
                    Verdict::Higher => Verdict::Lower,
                    same => same,
                };
                // On the border itself rounding may fall either way.
                let margin = there.half_width.map_or(1.0, |half| (there.mean.abs() - half).abs());
                prop_assert!(back.verdict == opposite || margin < 1e-9);
            }
        }

        /// What all seeds share, such as a burst, does not blur a paired difference.
        #[test]
        fn what_a_seed_does_to_both_cancels(
            pairs in prop::collection::vec((0_i32..1_000, 0_i32..1_000, 0_i32..1_000), 2..8),
        ) {
            let of = |part: fn(&(i32, i32, i32)) -> i32| -> Vec<_> {
                pairs.iter().map(|pair| Some(f64::from(part(pair)))).collect()
            };
            let apart = paired(&of(|p| p.0), &of(|p| p.1)).unwrap();
            let together = paired(&of(|p| p.0 + p.2), &of(|p| p.1 + p.2)).unwrap();
            prop_assert_eq!(apart.mean, together.mean);
            prop_assert_eq!(apart.half_width, together.half_width);
        }
    }
}
