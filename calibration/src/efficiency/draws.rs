//! Other figures that explain the results about as well.

use foresail_core::step_time::Gpu;
use foresail_scenarios::random::stream;

use super::{Curvature, EfficiencyError, Point, Problem, figures};
use crate::around::Best;
use crate::least_squares::Cholesky;
use crate::normal::standard_normal;

/// Which draws to make of a fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draws {
    /// How many.
    pub count: u32,
    /// Their seed.
    pub seed: u64,
}

impl Draws {
    /// GPUs, each with a request's time outside its steps (s).
    pub(super) fn around<P: FnMut(&Gpu, f64) -> Vec<f64>>(
        &self,
        problem: &mut Problem<'_, P>,
        point: &Point,
        curvature: &Curvature,
        variances: f64,
    ) -> Result<Vec<(Gpu, f64)>, EfficiencyError> {
        let whole = Cholesky::of(&curvature.with(variances)).ok_or(EfficiencyError::Unsolvable)?;
        let covariance = Cholesky::of(&whole.inverse()).ok_or(EfficiencyError::Unsolvable)?;
        let weights = curvature.weights.iter();
        let best = Best {
            parameters: &point.moved,
            predicted: &point.residuals,
            jacobian: &curvature.slopes,
            weights: weights.map(|weight| weight / variances).collect(),
            curvature: Some(whole),
        };
        let misfit = |moved: &[f64], residuals: &[f64]| {
            let of_results = residuals.iter().zip(&best.weights);
            let of_results = of_results.map(|(residual, weight)| residual * residual * weight);
            let of_figures = moved.iter().map(|moved| moved * moved);
            of_results.sum::<f64>() + of_figures.sum::<f64>()
        };
        let mut random = stream(self.seed, "calibration.efficiency");
        let mut draws = Vec::new();
        for _ in 0..self.count {
            let normal: Vec<f64> = (0..point.moved.len())
                .map(|_| standard_normal(&mut random))
                .collect();
            let away = covariance.lower_times(&normal);
            let moved = best.drawn(away, |moved| problem.residuals(moved), misfit)?;
            draws.push(figures(problem.start, &problem.free, &moved));
        }
        Ok(draws)
    }
}
