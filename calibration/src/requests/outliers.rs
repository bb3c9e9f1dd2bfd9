//! Runs that no terms explain beside the others, and how well each run is predicted by the others.

use super::marquardt::{Point, Search, Slopes};
use super::problem::Row;
use super::{FitError, ITERATIONS_MAX};
use crate::least_squares::Cholesky;

/// A run is looked at twice if it is off by so many times what runs are off by, and by this share at least.
const TIMES_MAX: f64 = 5.0;
const SHARE_MIN: f64 = 0.05;
/// With fewer runs, none can be told from the others.
const RUNS_MIN: usize = 4;

/// How many of so many runs may be left out before it is the fit that is wrong.
pub(super) fn left_out_max(runs: usize) -> usize {
    runs / 4
}

/// Goes to the best terms; leaves runs out, the worst first, as long as one stands out.
pub(super) fn without(search: &mut Search<'_>, start: Point) -> Result<(Point, Slopes), FitError> {
    let mut best = search.descend(start, ITERATIONS_MAX)?;
    while let Some(run) = outlier(search, &best.0) {
        search.left_out[run] = true;
        let left_out = search.left_out.iter().filter(|each| **each).count();
        let restart = search.at(best.0.ln_terms.clone())?;
        best = search.descend(restart, ITERATIONS_MAX)?;
        if left_out > left_out_max(search.left_out.len()) {
            break;
        }
    }
    Ok(best)
}

/// The run that is furthest off, if that is too far.
fn outlier(search: &Search<'_>, point: &Point) -> Option<usize> {
    let runs = search.problem.runs.len();
    let counted = (0..runs).filter(|run| !search.left_out[*run]);
    let counted: Vec<Off> = counted.filter_map(|run| off(search, point, run)).collect();
    if counted.len() < RUNS_MIN {
        return None;
    }
    let mut deviations: Vec<f64> = counted.iter().map(|off| off.deviations).collect();
    deviations.sort_by(f64::total_cmp);
    let usual = f64::max(deviations[deviations.len() / 2], 1.0);
    let worst = counted
        .into_iter()
        .max_by(|a, b| a.deviations.total_cmp(&b.deviations))?;
    let stands_out = worst.deviations > TIMES_MAX * usual && worst.share > SHARE_MIN;
    stands_out.then_some(worst.run)
}

/// How far a run is off: root mean square over its figures.
struct Off {
    run: usize,
    /// In standard deviations.
    deviations: f64,
    /// As a share.
    share: f64,
}

fn off(search: &Search<'_>, point: &Point, run: usize) -> Option<Off> {
    let residuals = search.residuals(point);
    let of_run = search.rows.iter().zip(&residuals);
    let of_run: Vec<(&Row, &f64)> = of_run.filter(|(row, _)| row.run == run).collect();
    if of_run.is_empty() {
        return None;
    }
    let mean = |value: &dyn Fn(&Row, f64) -> f64| {
        let squares = of_run.iter().map(|(row, residual)| {
            let value = value(row, **residual);
            value * value
        });
        (squares.sum::<f64>() / of_run.len() as f64).sqrt()
    };
    Some(Off {
        run,
        deviations: mean(&|row, residual| residual / row.deviation),
        share: mean(&|_, residual| residual),
    })
}

/// Mean of the magnitudes of the errors where each run is predicted from the others; `None` of too few runs.
///
/// The terms without a run are one step away from those with it, along the slopes of all (Pregibon, "Logistic
/// Regression Diagnostics", 1981): a search for each run would take as many times as long.
pub(super) fn cross_validated(
    search: &Search<'_>,
    point: &Point,
    slopes: &Slopes,
) -> Result<Option<f64>, FitError> {
    let counted: Vec<usize> = (0..search.left_out.len())
        .filter(|run| !search.left_out[*run])
        .collect();
    if counted.len() < RUNS_MIN {
        return Ok(None);
    }
    let (mut sum, mut count) = (0.0, 0.0);
    for run in counted {
        let mut others = Search {
            problem: search.problem,
            rows: search.rows.clone(),
            left_out: search.left_out.clone(),
        };
        others.left_out[run] = true;
        let curvature = others.curvature(point, slopes, 1.0);
        let Some(cholesky) = Cholesky::of(&curvature) else {
            continue;
        };
        let change = cholesky.solve(&others.gradient(point, slopes));
        let ln_terms = point
            .ln_terms
            .iter()
            .zip(change)
            .map(|(ln, by)| ln + by.clamp(-1.0, 1.0));
        let moved = others.at(ln_terms.collect())?;
        for (row, predicted) in search.rows.iter().zip(&moved.predicted) {
            if row.run == run {
                sum += libm::expm1(predicted - row.ln_observed).abs();
                count += 1.0;
            }
        }
    }
    Ok((count > 0.0).then(|| sum / count))
}
