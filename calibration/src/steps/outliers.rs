//! Steps that took what no smooth function of their size says: a machine that stalled.
//!
//! A step at the edge of the grid pulls the fit towards itself. So each is judged by how far it is
//! from a fit without it, in standard deviations of that distance: the externally studentised
//! residual (Cook and Weisberg, "Residuals and Influence in Regression", 1982, section 2.2.1), with
//! a scale that a few outliers do not move. The worst is left out, and the others are judged again.
//!
//! A formula that is off for a whole kind of steps is not a stalled machine: a step whose
//! neighbours are as far off in the same direction stays.

use super::FitError;
use super::design::Shape;
use super::design::{Column, Model, Row, equations};
use super::knee;
use super::observation::{Load, Observation};
use super::weights::{MISFIT_FIRST, weigh};
use crate::least_squares::{Cholesky, LeastSquaresError, least_squares};
use crate::statistics::{median, robust_deviation};

/// Standard deviations from which on a step is an outlier. Of normal ones, one in 15 million is.
const DEVIATIONS: f64 = 5.5;

/// The least distance of an outlier: what is nearer, moves no prediction by much.
const DISTANCE_MIN: f64 = 0.05;

/// Of a step that alone determines a term, no fit without it says what it should take.
const LEVERAGE_MAX: f64 = 0.95;

/// Steps that are looked at beside one.
const NEIGHBOURS: usize = 4;

/// How many may be outliers: a quarter.
const SHARE_MAX: f64 = 0.25;

/// Takes the outliers out, and returns those that it took.
pub(super) fn take(
    observations: &mut Vec<Observation>,
    columns: &[Column],
    describe: impl Fn(usize) -> String,
) -> Result<Vec<Observation>, FitError> {
    let all = observations.len();
    let mut taken: Vec<Observation> = Vec::new();
    while let Some(worst) = worst(observations, columns)? {
        taken.push(observations.remove(worst));
        if taken.len() as f64 > SHARE_MAX * all as f64 {
            return Err(FitError::TooManyOutliers {
                left_out: taken.len(),
                cells: all,
                worst: describe(taken[0].cell),
            });
        }
    }
    Ok(taken)
}

/// The step that is most off, if one is an outlier.
fn worst(observations: &[Observation], columns: &[Column]) -> Result<Option<usize>, FitError> {
    let rows = weigh(observations, MISFIT_FIRST);
    let model = knee::search(&rows, columns, &Shape::default())?;
    let leverages = leverages(&rows, columns, &model)?;
    // Of the formula, as a share of what was measured.
    let errors: Vec<f64> = observations.iter().map(|step| -model.error(step)).collect();
    let scale = scale(&errors, columns.len());
    let off = |index: usize| {
        let apart = (1.0 - leverages[index]).max(0.0);
        if apart < 1.0 - LEVERAGE_MAX {
            return None;
        }
        let distance = errors[index] / apart;
        let beside = neighbours(observations, index).map(|near| errors[near]);
        let beyond = distance - median(&beside.collect::<Vec<_>>()).unwrap_or(0.0);
        let nearest = distance.abs().min(beyond.abs());
        // The noise of the step's own median is no reason either.
        let noise = scale.max(observations[index].deviation) / apart.sqrt();
        let deviations = nearest / noise.max(f64::MIN_POSITIVE);
        (deviations > DEVIATIONS && nearest > DISTANCE_MIN).then_some((deviations, index))
    };
    let worst = (0..observations.len())
        .filter_map(off)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Ok(worst.map(|(_, index)| index))
}

/// The standard deviation of errors, by their median, and as much more as the fit has taken of them.
fn scale(errors: &[f64], terms: usize) -> f64 {
    let count = errors.len() as f64;
    let free = (count - terms as f64).max(1.0);
    robust_deviation(errors, 0.0) * (count / free).sqrt()
}

/// How much of each step's own deviation the fit follows: the diagonal of the hat matrix, of the terms that are not zero.
fn leverages(
    rows: &[Row<'_>],
    columns: &[Column],
    model: &Model,
) -> Result<Vec<f64>, LeastSquaresError> {
    let positive = |column: &Column| {
        model
            .terms
            .get(column.term())
            .is_some_and(|term| term > 0.0)
    };
    let columns: Vec<Column> = columns.iter().copied().filter(positive).collect();
    let (matrix, _) = equations(rows, &columns, &model.shape);
    let lengths: Vec<f64> = (0..columns.len())
        .map(|column| {
            let values = matrix.column(column);
            values.iter().map(|value| value * value).sum::<f64>().sqrt()
        })
        .collect();
    let unit = |row: usize| -> Vec<f64> {
        let values = matrix.row(row).iter().zip(&lengths);
        values.map(|(value, length)| value / length).collect()
    };
    let units: Vec<Vec<f64>> = (0..rows.len()).map(unit).collect();
    let scaled = crate::least_squares::Matrix::of(rows.len(), columns.len(), |r, c| units[r][c]);
    let Some(triangle) = Cholesky::of(&scaled.gram()) else {
        // This says which column it is.
        let column = columns.len() - 1;
        let found = least_squares(&scaled, &vec![0.0; rows.len()]).err();
        return Err(found.unwrap_or(LeastSquaresError::Dependent { column }));
    };
    let leverage = |unit: &Vec<f64>| {
        let solved = triangle.solve(unit);
        unit.iter().zip(solved).map(|(a, b)| a * b).sum::<f64>()
    };
    Ok(units.iter().map(leverage).collect())
}

/// The steps most like one: of its kind, near in tokens and in context.
fn neighbours(observations: &[Observation], index: usize) -> impl Iterator<Item = usize> {
    let load = &observations[index].load;
    let mut others: Vec<usize> = (0..observations.len())
        .filter(|&other| other != index)
        .collect();
    others.sort_by(|&a, &b| {
        let a = apart(load, &observations[a].load);
        a.total_cmp(&apart(load, &observations[b].load))
    });
    others.into_iter().take(NEIGHBOURS)
}

/// How far apart two steps are, in factors of e.
fn apart(one: &Load, other: &Load) -> f64 {
    let ratio = |one: f64, other: f64| libm::log(one / other).abs();
    let tokens = |load: &Load| load.tokens as f64;
    let context = |load: &Load| 1.0 + tokens(load) + load.past() as f64;
    let same_kind = (one.chunks > 0.0) == (other.chunks > 0.0);
    ratio(tokens(one), tokens(other))
        + ratio(context(one), context(other))
        + if same_kind { 0.0 } else { 3.0 }
}
