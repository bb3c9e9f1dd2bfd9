//! Other terms that are as likely as the best: their logarithms are nearly normal around it ([`around`](crate::around)).

use foresail_scenarios::random::stream;

use super::identified::Identified;
use super::marquardt::{Point, Search, Slopes};
use super::{FitError, Options};
use crate::around::Best;
use crate::least_squares::Cholesky;
use crate::normal::standard_normal;

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
    let weights = search.weights(point).into_iter();
    let best = Best {
        parameters: &point.ln_terms,
        predicted: &point.predicted,
        jacobian: &slopes.jacobian,
        weights: weights.map(|weight| weight / found.variances).collect(),
        curvature: Cholesky::of(&search.curvature(point, slopes, found.variances)),
    };
    let misfit =
        |ln_terms: &[f64], predicted: &[f64]| misfit(search, &best.weights, ln_terms, predicted);
    let mut draws = Vec::with_capacity(options.draws);
    for _ in 0..options.draws {
        let normal: Vec<f64> = point
            .ln_terms
            .iter()
            .map(|_| standard_normal(&mut random))
            .collect();
        let away = covariance.lower_times(&normal);
        let drawn = best.drawn(away, |ln_terms| search.problem.predict(ln_terms), misfit)?;
        draws.push(search.problem.terms(&drawn).to_vec());
    }
    Ok(draws)
}

/// The weighted sum of squares.
fn misfit(search: &Search<'_>, weights: &[f64], ln_terms: &[f64], predicted: &[f64]) -> f64 {
    let rows = search.rows.iter().zip(predicted).zip(weights);
    let figures = rows.map(|((row, predicted), weight)| {
        let off = row.ln_observed - predicted;
        off * off * weight
    });
    let terms = search.problem.free.iter().zip(ln_terms);
    let prior = terms.map(|(free, ln_term)| {
        let off = (ln_term - free.ln_median) / free.ln_deviation;
        off * off
    });
    figures.sum::<f64>() + prior.sum::<f64>()
}
