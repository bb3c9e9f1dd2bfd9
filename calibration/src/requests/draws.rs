//! Other terms that are as likely as the best.
//!
//! The logarithms of the terms are nearly normal around the best, with the inverse of the curvature as their
//! covariance. Nearly: where the sum of two terms is known and neither of them, a normal draw of both misses the
//! sum. So each draw is led back to the figures that a straight model promises for it, by the same slopes
//! (in the manner of randomised maximum likelihood: Oliver, He and Reynolds, 1996), and one that
//! is still less likely than a hundredth of such draws are is taken closer to the best.

use foresail_scenarios::random::stream;

use super::identified::Identified;
use super::marquardt::{Point, Search, Slopes};
use super::{FitError, Options};
use crate::least_squares::Cholesky;
use crate::normal::standard_normal;

/// How often a draw is led back, and how often it is taken closer.
const LEADS: usize = 3;
const SHRINKS: usize = 6;
const SHRINK: f64 = 0.6;

/// Draws of all terms, in the order of their names.
pub(super) fn of(
    search: &Search<'_>,
    point: &Point,
    slopes: &Slopes,
    found: &Identified,
    options: &Options,
) -> Result<Vec<Vec<f64>>, FitError> {
    let mut random = stream(options.seed, "calibration.requests");
    let Some(covariance) = Cholesky::of(&found.covariance) else {
        return Err(FitError::Option {
            what: "prior has spreads so wide that the covariance is none; each",
        });
    };
    let curvature = search.curvature(point, slopes, found.variances);
    let lead = Lead {
        search,
        point,
        slopes,
        curvature: Cholesky::of(&curvature),
        weights: search
            .weights(point)
            .iter()
            .map(|weight| weight / found.variances)
            .collect(),
    };
    let mut draws = Vec::with_capacity(options.draws);
    for _ in 0..options.draws {
        let normal: Vec<f64> = point
            .ln_terms
            .iter()
            .map(|_| standard_normal(&mut random))
            .collect();
        let moved = lead.likely(covariance.lower_times(&normal))?;
        draws.push(search.problem.terms(&moved).to_vec());
    }
    Ok(draws)
}

/// What leads draws back.
struct Lead<'a> {
    search: &'a Search<'a>,
    point: &'a Point,
    slopes: &'a Slopes,
    curvature: Option<Cholesky>,
    weights: Vec<f64>,
}

impl Lead<'_> {
    /// A draw, so far away from the best at first, that is likely enough.
    fn likely(&self, mut away: Vec<f64>) -> Result<Vec<f64>, FitError> {
        for _ in 0..SHRINKS {
            let (ln_terms, excess) = self.led(&away)?;
            if excess <= self.excess_max() {
                return Ok(ln_terms);
            }
            for by in &mut away {
                *by *= SHRINK;
            }
        }
        Ok(self.point.ln_terms.clone())
    }

    /// The draw, led back, and how much worse than the best it is.
    fn led(&self, away: &[f64]) -> Result<(Vec<f64>, f64), FitError> {
        let promised = self.slopes.jacobian.times(away);
        let promised: Vec<f64> = self
            .point
            .predicted
            .iter()
            .zip(promised)
            .map(|(at, by)| at + by)
            .collect();
        let mut ln_terms: Vec<f64> = self
            .point
            .ln_terms
            .iter()
            .zip(away)
            .map(|(at, by)| at + by)
            .collect();
        let mut best: Option<(f64, Vec<f64>, f64)> = None;
        for _ in 0..LEADS {
            let predicted = self.search.problem.predict(&ln_terms)?;
            let missed: Vec<f64> = promised
                .iter()
                .zip(&predicted)
                .map(|(a, b)| a - b)
                .collect();
            let squares = missed
                .iter()
                .zip(&self.weights)
                .map(|(by, weight)| by * by * weight);
            let miss: f64 = squares.sum();
            if best.as_ref().is_some_and(|(least, ..)| miss >= *least) {
                break;
            }
            let excess = self.excess(&ln_terms, &predicted);
            best = Some((miss, ln_terms.clone(), excess));
            // Less than the noise of one figure is nothing to mend.
            let Some(curvature) = self.curvature.as_ref().filter(|_| miss > 1.0) else {
                break;
            };
            let pulls: Vec<f64> = missed
                .iter()
                .zip(&self.weights)
                .map(|(by, weight)| by * weight)
                .collect();
            let change = curvature.solve(&self.slopes.jacobian.transposed_times(&pulls));
            for (ln_term, by) in ln_terms.iter_mut().zip(change) {
                *ln_term += by.clamp(-1.0, 1.0);
            }
        }
        Ok(best.map_or(
            (self.point.ln_terms.clone(), 0.0),
            |(_, ln_terms, excess)| (ln_terms, excess),
        ))
    }

    /// How much larger the weighted sum of squares is than that of the best.
    fn excess(&self, ln_terms: &[f64], predicted: &[f64]) -> f64 {
        let squares = |ln_terms: &[f64], predicted: &[f64]| {
            let rows = self.search.rows.iter().zip(predicted).zip(&self.weights);
            let figures = rows.map(|((row, predicted), weight)| {
                let off = row.ln_observed - predicted;
                off * off * weight
            });
            let prior = self
                .search
                .problem
                .free
                .iter()
                .zip(ln_terms)
                .map(|(free, ln_term)| {
                    let off = (ln_term - free.ln_median) / free.ln_deviation;
                    off * off
                });
            figures.sum::<f64>() + prior.sum::<f64>()
        };
        squares(ln_terms, predicted) - squares(&self.point.ln_terms, &self.point.predicted)
    }

    /// What 99 % of draws stay below if all is normal: the chi-squared distribution of as many degrees of freedom as
    /// there are terms, by the approximation of Wilson and Hilferty (1931).
    fn excess_max(&self) -> f64 {
        let terms = self.point.ln_terms.len() as f64;
        let ninth = 2.0 / (9.0 * terms);
        let root = 1.0 - ninth + 2.326 * ninth.sqrt();
        terms * root * root * root
    }
}
