//! How much one round differs from another as a whole.

use std::collections::BTreeMap;

use foresail_core::step_time::calibrated::Cell;

use crate::normal::student_by_normal;
use crate::statistics::{deviation, mean, median, robust_deviation};

/// With fewer steps in it, a round says more of its steps than of itself.
const STEPS_MIN: usize = 3;

/// With fewer rounds, nothing is known of how much they differ.
const ROUNDS_MIN: usize = 3;

/// The variance of the median of normal numbers by that of their mean: pi / 2.
const MEDIAN_VARIANCE: f64 = std::f64::consts::FRAC_PI_2;

/// Standard deviation of the natural logarithm of a round's scale: what its steps took by their
/// medians, without what the steps' own noise adds to that; none if there are too few rounds. It is as much more than
/// was found as few rounds leave open: 95 % of normal numbers with it are as far apart as 95 % of the next rounds.
pub(super) fn run_to_run(cells: &[Cell]) -> Option<f64> {
    let mut rounds: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| !cell.is_left_out) {
        // A step's only repeat is its median, whatever the round was like.
        let Some(usual) = median(&cell.seconds).filter(|_| cell.seconds.len() > 1) else {
            continue;
        };
        for (seconds, round) in cell.seconds.iter().zip(&cell.rounds) {
            let log_ratio = libm::log(seconds / usual);
            rounds.entry(*round).or_default().push(log_ratio);
        }
    }
    rounds.retain(|_, ratios| ratios.len() >= STEPS_MIN);
    if rounds.len() < ROUNDS_MIN {
        return None;
    }
    let scales: Vec<f64> = rounds
        .values()
        .filter_map(|ratios| median(ratios))
        .collect();
    let noise = |ratios: &Vec<f64>| {
        let own = robust_deviation(ratios, median(ratios).unwrap_or(0.0));
        MEDIAN_VARIANCE * own * own / ratios.len() as f64
    };
    let noise = mean(&rounds.values().map(noise).collect::<Vec<_>>());
    let found = deviation(&scales);
    let alone = (found * found - noise).max(0.0).sqrt();
    Some(alone * student_by_normal(scales.len() as f64 - 1.0))
}
