//! Repeats in which the machine did something else.

use foresail_core::step_time::calibrated::Cell;

use crate::statistics::{median, robust_deviation};

/// A repeat that took so many times the median stalled,
const RATIO: f64 = 1.5;

/// if it is also so many standard deviations of the others above it.
const DEVIATIONS: f64 = 8.0;

/// From how many seconds on a repeat of a cell stalled. A median hardly moves for one, but a draw in which the
/// stalled round weighs more than all others would be of the stall.
pub(super) fn limit_s(cell: &Cell) -> f64 {
    let usual = median(&cell.seconds).unwrap_or(f64::INFINITY);
    let deviation = robust_deviation(&cell.seconds, usual);
    (RATIO * usual).max(usual + DEVIATIONS * deviation)
}

/// How many repeats of a cell stalled.
pub(super) fn count(cell: &Cell) -> usize {
    let limit_s = limit_s(cell);
    let stalled = cell.seconds.iter().filter(|seconds| **seconds > limit_s);
    stalled.count()
}

/// A sentence, if any did.
pub(super) fn told(cells: &[Cell]) -> Vec<String> {
    let stalled: usize = cells.iter().map(count).sum();
    let repeats: usize = cells.iter().map(|cell| cell.seconds.len()).sum();
    if stalled == 0 {
        return Vec::new();
    }
    vec![format!(
        "{stalled} of {repeats} repeats stalled, above {RATIO} times the median of their cell, which they hardly move"
    )]
}
