//! How much each step counts.

use super::design::Row;
use super::observation::Observation;
use crate::statistics::{median, robust_deviation};

/// How far the formula is taken to be from true medians, as a share, before anything is known.
pub(super) const MISFIT_FIRST: f64 = 0.01;

/// It is never taken to be nearer than this, so that no step counts for all.
const MISFIT_MIN: f64 = 0.002;

/// The rows of some steps, with the formula as far from true medians as it is said to be.
pub(super) fn weigh(observations: &[Observation], misfit: f64) -> Vec<Row<'_>> {
    observations
        .iter()
        .map(|observation| Row::of(observation, misfit))
        .collect()
}

/// How far the formula is from true medians, by errors of the fit and the noise that is in them.
pub(super) fn misfit(observations: &[Observation], errors: &[f64], terms: usize) -> f64 {
    let count = errors.len() as f64;
    let free = (count - terms as f64).max(1.0);
    let found = robust_deviation(errors, 0.0);
    let noise: Vec<f64> = observations.iter().map(|step| step.deviation).collect();
    let noise = median(&noise).unwrap_or(0.0);
    let squares = found * found * count / free - noise * noise;
    squares.max(MISFIT_MIN * MISFIT_MIN).sqrt()
}
