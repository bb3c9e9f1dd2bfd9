//! How far off the fit is where it has not looked.

use std::collections::BTreeMap;

use foresail_core::step_time::Gpu;

use super::{Curvature, EfficiencyError, Observed, Point, Problem};
use crate::clusters::Clusters;
use crate::least_squares::{Cholesky, Matrix};

/// What the residuals say of results that the fit has not seen.
pub(super) struct Unseen {
    /// How many times the variances of what was measured are as large as was said, for what the fit knows of its figures.
    pub(super) variances: f64,
    /// How many times its deviation a figure is off.
    pub(super) deviations: f64,
}

impl Unseen {
    pub(super) fn of<P: FnMut(&Gpu, f64) -> Vec<f64>>(
        problem: &mut Problem<'_, P>,
        point: &Point,
        curvature: &Curvature,
    ) -> Result<Self, EfficiencyError> {
        Ok(Self {
            variances: variances(problem.observed, point, curvature)?,
            deviations: quantile_of_magnitudes(left_out(problem, point, curvature)?) / 1.96,
        })
    }

    /// Of the figures, in their deviations before.
    pub(super) fn covariance(&self, curvature: &Curvature) -> Result<Matrix, EfficiencyError> {
        let curvature = curvature.with(self.variances);
        let cholesky = Cholesky::of(&curvature).ok_or(EfficiencyError::Unsolvable)?;
        Ok(cholesky.inverse())
    }
}

impl Curvature {
    /// The curvature, had all that was measured so many times the variance. What was known before stays.
    pub(super) fn with(&self, variances: f64) -> Matrix {
        let free = self.hessian.rows();
        Matrix::of(free, free, |row, column| {
            let before = f64::from(u8::from(row == column));
            (self.hessian.at(row, column) - before) / variances + before
        })
    }
}

/// What is left against what deviations say should be left (Birge, "The Calculation of Errors by the Method of Least
/// Squares", 1932), at least 1, as luck is no precision; times what results that are off together count less than as
/// many that are not.
fn variances(
    observed: &[Observed],
    point: &Point,
    curvature: &Curvature,
) -> Result<f64, EfficiencyError> {
    let cholesky = Cholesky::of(&curvature.hessian).ok_or(EfficiencyError::Unsolvable)?;
    let covariance = cholesky.inverse();
    let told: f64 = (0..covariance.rows())
        .map(|figure| 1.0 - covariance.at(figure, figure).min(1.0))
        .sum();
    let weighted = point.residuals.iter().zip(&curvature.weights);
    let squares: f64 = weighted
        .map(|(residual, weight)| residual * residual * weight)
        .sum();
    let free = (observed.len() as f64 - told).max(1.0);
    let groups = observed.iter().zip(&point.residuals);
    let groups = groups.map(|(of, residual)| (of.group.into(), *residual));
    Ok((squares / free).max(1.0) * Clusters::of(groups).design_effect())
}

/// The residuals of each group as a fit to all others has them: one step away from the fit to all, along the same
/// slopes (Pregibon, "Logistic Regression Diagnostics", 1981). Of one group alone, each result is one.
fn left_out<P: FnMut(&Gpu, f64) -> Vec<f64>>(
    problem: &mut Problem<'_, P>,
    point: &Point,
    curvature: &Curvature,
) -> Result<Vec<f64>, EfficiencyError> {
    let Curvature {
        slopes,
        weights,
        hessian,
        ..
    } = curvature;
    let free = hessian.rows();
    let mut unseen = point.residuals.clone();
    for rows in groups(problem.observed) {
        let of_group = |of: &dyn Fn(usize) -> f64| -> f64 {
            rows.iter().map(|&row| weights[row] * of(row)).sum()
        };
        let others = Matrix::of(free, free, |i, j| {
            hessian.at(i, j) - of_group(&|row| slopes.at(row, i) * slopes.at(row, j))
        });
        let pull: Vec<f64> = (0..free)
            .map(|i| of_group(&|row| slopes.at(row, i) * point.residuals[row]))
            .collect();
        let cholesky = Cholesky::of(&others).ok_or(EfficiencyError::Unsolvable)?;
        let away = cholesky.solve(&pull).into_iter();
        // Slopes say little of what is further away than was thought possible before.
        let moved = point.moved.iter().zip(away);
        let moved: Vec<f64> = moved.map(|(at, by)| at + by.clamp(-1.0, 1.0)).collect();
        let residuals = problem.residuals(&moved)?;
        for row in rows {
            unseen[row] = residuals[row];
        }
    }
    Ok(unseen)
}

/// The results of each group.
fn groups(observed: &[Observed]) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (row, of) in observed.iter().enumerate() {
        groups.entry(of.group).or_default().push(row);
    }
    match groups.len() {
        1 => (0..observed.len()).map(|row| vec![row]).collect(),
        _ => groups.into_values().collect(),
    }
}

/// The magnitude that 95 % of values are within, as few of them have it: the next one where there is none (Barber,
/// Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+", 2021).
fn quantile_of_magnitudes(values: Vec<f64>) -> f64 {
    let mut magnitudes: Vec<f64> = values.into_iter().map(f64::abs).collect();
    magnitudes.sort_by(f64::total_cmp);
    let count = magnitudes.len();
    let place = (0.95 * (count + 1) as f64).ceil() as usize;
    let found = magnitudes.get(place.clamp(1, count.max(1)) - 1);
    found.copied().unwrap_or(0.0)
}
