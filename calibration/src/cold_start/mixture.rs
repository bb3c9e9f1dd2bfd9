//! From the times of one stage to how it can go.

use foresail_scenarios::distribution::Distribution;
use serde::Serialize;

use crate::statistics::{deviation, mean};

/// A stage that takes less than this share of a start has no spread that a start shows.
const SHARE_MIN: f64 = 0.01;

/// Times whose standard deviation is less than this share of their mean are all the same.
const SPREAD_MIN: f64 = 0.02;

/// A time is far from the others if its modified z-score is beyond this (Iglewicz and Hoaglin, "How
/// to Detect and Handle Outliers", 1993).
const Z_SCORE_MAX: f64 = 3.5;

/// Median of the magnitudes of deviations, over the standard deviation, where they are normal.
const MEDIAN_DEVIATION: f64 = 0.6745;

/// Times that differ by this share count as the usual distance, if the others differ by less: else, of
/// times that are all but the same, any other would be far.
const ALIKE: f64 = 0.05;

/// If more than this share is far from the others, it is not far, but another way to go.
const OUTLIERS_MAX: f64 = 0.2;

/// So many times are needed to see that they are not log-normal: of fewer, the test below finds too
/// few of those that are not.
const SHAPE_MIN: usize = 20;

/// The Anderson-Darling statistic that 1 % of normal samples exceed, mean and variance being
/// estimated (Stephens, "EDF Statistics for Goodness of Fit and Some Comparisons", 1974).
const ANDERSON_DARLING_MAX: f64 = 1.035;

/// A log-normal whose logarithm deviates by more than this, a factor of two either way, has a tail far
/// beyond anything that a few starts have shown.
const SPREAD_MAX: f64 = core::f64::consts::LN_2;

/// What a stage was taken to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Its mean, as it takes too little of a start for its spread to show.
    Short,
    /// Its mean, as it always takes as long.
    Same,
    /// Log-normal.
    LogNormal,
    /// Log-normal, and what took far from as long beside it.
    LogNormalAndOutliers,
    /// The times that were measured, each as likely as the others.
    Measured,
}

/// One way that a stage can go.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// How often.
    pub probability: f64,
    /// How long it takes (s).
    pub seconds: Distribution,
}

/// What a stage of these times is, in starts that take `start_s`, and which times are far from the others.
pub(super) fn choose(seconds: &[f64], start_s: f64) -> (Choice, Vec<Outcome>, Vec<usize>) {
    let mean_s = mean(seconds);
    let fixed = |choice| (choice, vec![certain(mean_s)], Vec::new());
    if mean_s < SHARE_MIN * start_s || mean_s == 0.0 {
        return fixed(Choice::Short);
    }
    if deviation(seconds) < SPREAD_MIN * mean_s {
        return fixed(Choice::Same);
    }
    // A stage that sometimes takes no time at all is nothing that multiplies.
    if seconds.contains(&0.0) {
        return (Choice::Measured, vec![as_measured(seconds)], Vec::new());
    }
    let logs: Vec<f64> = seconds.iter().map(|value| libm::log(*value)).collect();
    let far = far(&logs);
    let near: Vec<f64> = (0..logs.len())
        .filter(|index| !far.contains(index))
        .map(|index| logs[index])
        .collect();
    let is_other = near.len() >= SHAPE_MIN && anderson_darling(&near) > ANDERSON_DARLING_MAX;
    if is_other || deviation(&near) > SPREAD_MAX {
        return (Choice::Measured, vec![as_measured(seconds)], far);
    }
    let share = near.len() as f64 / logs.len() as f64;
    let mut outcomes = vec![Outcome {
        probability: share,
        seconds: log_normal(&near),
    }];
    if far.is_empty() {
        return (Choice::LogNormal, outcomes, far);
    }
    let each = 1.0 / logs.len() as f64;
    outcomes.extend(far.iter().map(|index| Outcome {
        probability: each,
        ..certain(seconds[*index])
    }));
    (Choice::LogNormalAndOutliers, outcomes, far)
}

fn certain(seconds: f64) -> Outcome {
    Outcome {
        probability: 1.0,
        seconds: Distribution::Fixed { value: seconds },
    }
}

fn as_measured(seconds: &[f64]) -> Outcome {
    let count = seconds.len() as f64;
    Outcome {
        probability: 1.0,
        seconds: Distribution::Empirical {
            values: seconds.to_vec(),
            cumulative: (1..=seconds.len())
                .map(|upto| upto as f64 / count)
                .collect(),
        },
    }
}

fn log_normal(logs: &[f64]) -> Distribution {
    Distribution::LogNormal {
        mu: mean(logs),
        sigma: deviation(logs),
    }
}

/// The places of what is far from the others; none if that is too many to be far.
fn far(logs: &[f64]) -> Vec<usize> {
    let middle = super::percentile(logs, 0.5);
    let magnitudes: Vec<f64> = logs.iter().map(|log| (log - middle).abs()).collect();
    let unit = super::percentile(&magnitudes, 0.5).max(ALIKE * MEDIAN_DEVIATION);
    let is_far = |index: &usize| MEDIAN_DEVIATION * magnitudes[*index] / unit > Z_SCORE_MAX;
    let far: Vec<usize> = (0..logs.len()).filter(is_far).collect();
    match far.len() as f64 <= OUTLIERS_MAX * logs.len() as f64 {
        true => far,
        false => Vec::new(),
    }
}

/// The Anderson-Darling statistic of normality, corrected for the size of the sample (D'Agostino and
/// Stephens, "Goodness-of-Fit Techniques", 1986, table 4.7).
fn anderson_darling(values: &[f64]) -> f64 {
    let (mean, deviation) = (mean(values), deviation(values));
    let count = values.len() as f64;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Of the logarithm of 0, which far enough out a probability is, there would be no sum.
    let tail = |z: f64| libm::log((0.5 * libm::erfc(z / core::f64::consts::SQRT_2)).max(1e-300));
    let z = |index: usize| (sorted[index] - mean) / deviation;
    let terms = (0..sorted.len()).map(|index| {
        let weight = 2.0 * index as f64 + 1.0;
        weight * (tail(-z(index)) + tail(z(sorted.len() - 1 - index)))
    });
    let statistic = -count - terms.sum::<f64>() / count;
    statistic * (1.0 + 0.75 / count + 2.25 / (count * count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistic_of_normality_is_the_usual_one() {
        let even = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
        let expected = anderson_darling_directly(&even);
        assert!((anderson_darling(&even) - expected).abs() < 1e-4);
        let two = [1.0, 1.1, 1.2, 1.0, 1.1, 9.0, 9.1, 9.2, 9.0, 9.1];
        assert!(anderson_darling(&two) > ANDERSON_DARLING_MAX);
        assert!(anderson_darling(&even) < ANDERSON_DARLING_MAX);
    }

    /// The integral that the statistic is, over a fine grid: `n ∫ (F_n - F)² / (F (1 - F)) dF`
    /// (Anderson and Darling 1952).
    fn anderson_darling_directly(values: &[f64]) -> f64 {
        let (mean, deviation, count) = (mean(values), deviation(values), values.len() as f64);
        let normal = |x: f64| 0.5 * libm::erfc(-(x - mean) / deviation / core::f64::consts::SQRT_2);
        let steps = 2_000_000;
        let mut sum = 0.0;
        for step in 0..steps {
            let x = mean + deviation * (-8.0 + 16.0 * (f64::from(step) + 0.5) / f64::from(steps));
            let width = 16.0 / f64::from(steps);
            let z = (x - mean) / deviation;
            let density = libm::exp(-z * z / 2.0) / libm::sqrt(2.0 * core::f64::consts::PI);
            let cumulative = normal(x);
            let seen = values.iter().filter(|value| **value <= x).count() as f64 / count;
            let gap = seen - cumulative;
            let spread = cumulative * (1.0 - cumulative);
            if spread > 1e-13 {
                sum += gap * gap / spread * density * width;
            }
        }
        count * sum * (1.0 + 0.75 / count + 2.25 / (count * count))
    }
}
