//! Draws around the best parameters of a fit that is nearly, but not quite, linear.
//!
//! Around the best, parameters are nearly normal, with the inverse of the curvature as their covariance. Nearly: where the sum
//! of two of them is known and neither alone, a normal draw of both misses the sum. So each draw is led back to
//! the figures that a straight model promises for it, by the same slopes (in the manner of randomised maximum
//! likelihood: Oliver, He and Reynolds, 1996), and one that is still less likely than a hundredth of such draws are
//! is taken closer to the best.

use crate::least_squares::{Cholesky, Matrix};

/// How often a draw is led back, and how often it is taken closer.
const LEADS: usize = 3;
const SHRINKS: usize = 6;
const SHRINK: f64 = 0.6;

/// A fit, where it is best.
pub(crate) struct Best<'a> {
    pub(crate) parameters: &'a [f64],
    /// What they predict.
    pub(crate) predicted: &'a [f64],
    /// Derivatives of the figures (rows) by the parameters (columns).
    pub(crate) jacobian: &'a Matrix,
    /// What each figure counts: one through the variance of its error.
    pub(crate) weights: Vec<f64>,
    /// Of all figures and what was known before; none if it has no inverse.
    pub(crate) curvature: Option<Cholesky>,
}

impl Best<'_> {
    /// Parameters so far `away` from the best at first. `predict` says what parameters make of the figures, and
    /// `misfit` of both how far they are from what was measured and known, in squares.
    pub(crate) fn drawn<E>(
        &self,
        mut away: Vec<f64>,
        mut predict: impl FnMut(&[f64]) -> Result<Vec<f64>, E>,
        misfit: impl Fn(&[f64], &[f64]) -> f64,
    ) -> Result<Vec<f64>, E> {
        let least = misfit(self.parameters, self.predicted);
        for _ in 0..SHRINKS {
            let (parameters, predicted) = self.led(&away, &mut predict)?;
            if misfit(&parameters, &predicted) - least <= self.excess_max() {
                return Ok(parameters);
            }
            for by in &mut away {
                *by *= SHRINK;
            }
        }
        Ok(self.parameters.to_vec())
    }

    /// The draw, led back, and what it predicts.
    fn led<E>(
        &self,
        away: &[f64],
        predict: &mut impl FnMut(&[f64]) -> Result<Vec<f64>, E>,
    ) -> Result<(Vec<f64>, Vec<f64>), E> {
        let promised = sum(self.predicted, &self.jacobian.times(away));
        let mut parameters = sum(self.parameters, away);
        let mut predicted = predict(&parameters)?;
        for lead in 0..LEADS {
            let missed: Vec<f64> = promised
                .iter()
                .zip(&predicted)
                .map(|(promised, predicted)| promised - predicted)
                .collect();
            let miss = self.squares(&missed);
            // Less than the noise of one figure is nothing to mend.
            let Some(curvature) = self.curvature.as_ref().filter(|_| miss > 1.0) else {
                break;
            };
            if lead + 1 == LEADS {
                break;
            }
            let pulls = missed.iter().zip(&self.weights);
            let pulls: Vec<f64> = pulls.map(|(by, weight)| by * weight).collect();
            let change = curvature.solve(&self.jacobian.transposed_times(&pulls));
            let change: Vec<f64> = change.into_iter().map(|by| by.clamp(-1.0, 1.0)).collect();
            let nearer = sum(&parameters, &change);
            let seen = predict(&nearer)?;
            let left: Vec<f64> = promised.iter().zip(&seen).map(|(a, b)| a - b).collect();
            if self.squares(&left) >= miss {
                break;
            }
            (parameters, predicted) = (nearer, seen);
        }
        Ok((parameters, predicted))
    }

    fn squares(&self, missed: &[f64]) -> f64 {
        let weighted = missed.iter().zip(&self.weights);
        weighted.map(|(by, weight)| by * by * weight).sum()
    }

    /// What 99 % of draws stay below if all is normal: the chi-squared distribution of as many degrees of freedom as
    /// there are parameters, by the approximation of Wilson and Hilferty (1931).
    fn excess_max(&self) -> f64 {
        let parameters = self.parameters.len() as f64;
        let ninth = 2.0 / (9.0 * parameters);
        let root = 1.0 - ninth + 2.326 * ninth.sqrt();
        parameters * root * root * root
    }
}

fn sum(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(a, b)| a + b).collect()
}
