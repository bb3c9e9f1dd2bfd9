//! How many runs would decide.

use super::{Estimate, student};

/// With this probability the runs that are asked for do decide.
const POWER: f64 = 0.8;

/// More runs than that are not worth telling: the change is at the limit.
pub(super) const RUNS_MAX: u64 = 1_000;

/// How many pairs of runs, all together, would tell a mean like this from
/// `limit` at the level, in four of five attempts; `None` if it would take more
/// than a thousand.
///
/// `N >= ((t(1 - level, N - 1) + t(power, N - 1)) * s / difference)^2`, with the
/// smallest N that is true of: NIST/SEMATECH e-Handbook of Statistical Methods,
/// 7.2.2.2, iterated as it says, since t depends on N.
#[must_use]
pub fn pairs_needed(estimate: &Estimate, limit: f64, level: f64) -> Option<u64> {
    needed(estimate, limit, level, estimate.freedom + 1.0, 1.0)
}

/// How many runs on each side, where runs are not paired.
///
/// As [`pairs_needed`], with the variances of both sides put together and the
/// degrees of freedom of both.
#[must_use]
pub fn runs_needed(estimate: &Estimate, runs: f64, limit: f64, level: f64) -> Option<u64> {
    needed(estimate, limit, level, runs, 2.0)
}

fn needed(estimate: &Estimate, limit: f64, level: f64, runs: f64, sides: f64) -> Option<u64> {
    let difference = (estimate.mean - limit).abs();
    let deviation = estimate.standard_error * runs.sqrt();
    let is_enough = |count: u64| {
        let count = count as f64;
        let freedom = sides * (count - 1.0);
        let both =
            student::exceeded_with(level, freedom) + student::exceeded_with(1.0 - POWER, freedom);
        difference * count.sqrt() >= both * deviation
    };
    if !is_enough(RUNS_MAX) {
        return None;
    }
    // More are enough wherever fewer are, so it can be found by halves.
    let (mut few, mut enough) = (1, RUNS_MAX);
    while enough - few > 1 {
        let middle = u64::midpoint(few, enough);
        if is_enough(middle) {
            enough = middle;
        } else {
            few = middle;
        }
    }
    Some(enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(mean: f64, deviation: f64, pairs: f64) -> Estimate {
        Estimate {
            mean,
            standard_error: deviation / pairs.sqrt(),
            freedom: pairs - 1.0,
        }
    }

    /// The handbook's own example: one deviation of difference, 5 % and 20 %
    /// one-sided, starts at 7 by the normal distribution and ends at 8.
    #[test]
    fn as_many_as_the_handbook_says() {
        assert_eq!(pairs_needed(&estimate(1.0, 1.0, 5.0), 0.0, 0.05), Some(8));
    }

    #[test]
    fn what_is_at_the_limit_is_never_decided() {
        assert_eq!(pairs_needed(&estimate(0.05, 0.02, 5.0), 0.05, 0.05), None);
        assert_eq!(pairs_needed(&estimate(0.05, 0.02, 5.0), 0.0499, 0.05), None);
    }

    #[test]
    fn less_noise_needs_fewer_and_two_sides_have_more_freedom() {
        let quiet = pairs_needed(&estimate(0.05, 0.01, 5.0), 0.0, 0.05);
        let loud = pairs_needed(&estimate(0.05, 0.1, 5.0), 0.0, 0.05);
        assert!(quiet < loud, "{quiet:?} {loud:?}");
        assert_eq!(pairs_needed(&estimate(0.05, 0.0, 5.0), 0.0, 0.05), Some(2));
        let unpaired = runs_needed(&estimate(0.05, 0.1, 5.0), 5.0, 0.0, 0.05);
        assert!(unpaired < loud, "{unpaired:?} {loud:?}");
    }
}
