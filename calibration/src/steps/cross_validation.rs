//! How far the fit is off where it has not looked, and which form of it is least so.
//!
//! Whole steps are left out, never single repeats, and in two ways: all steps of some numbers of
//! tokens, so that a load between the measured ones is predicted; and single steps
//! among others of their number of tokens, so that a context is.

use super::bends::{self, Bends};
use super::design::{Column, Row};
use super::observation::Load;
use crate::least_squares::LeastSquaresError;
use crate::statistics::{deviation, mean};

/// Parts of the steps, each of which is predicted from the others.
const FOLDS: usize = 5;

/// How far factors may be expected from 1.
const EXPECTED: [f64; 3] = [0.03, 0.1, 0.3];

/// A bend must lower the error by this share of it,
const GAIN_MIN: f64 = 0.1;

/// and by so many standard deviations of the mean gain.
const GAIN_DEVIATIONS: f64 = 2.5;

/// The factors that lower the error of prediction by more than noise, and that error of each row
/// in each way of leaving out, as shares of what was measured.
pub(super) fn choose(
    rows: &[Row<'_>],
    columns: &[Column],
) -> Result<(Bends, Vec<f64>), LeastSquaresError> {
    let mut chosen = (Bends::default(), errors(rows, columns, Bends::default())?);
    let with_token = |expected, bends| Bends {
        token: Some(expected),
        ..bends
    };
    let with_kv = |expected, bends| Bends {
        kv: Some(expected),
        ..bends
    };
    let forms: [&dyn Fn(f64, Bends) -> Bends; 2] = [&with_token, &with_kv];
    for form in forms {
        let (simpler, simpler_errors) = chosen.clone();
        for expected in EXPECTED {
            let bends = form(expected, simpler);
            let errors = errors(rows, columns, bends)?;
            let is_best = mean_magnitude(&errors) < mean_magnitude(&chosen.1);
            if is_best && is_gain(&simpler_errors, &errors) {
                chosen = (bends, errors);
            }
        }
    }
    Ok(chosen)
}

/// The error of each row as predicted without it, for each way of leaving out.
fn errors(
    rows: &[Row<'_>],
    columns: &[Column],
    bends: Bends,
) -> Result<Vec<f64>, LeastSquaresError> {
    let mut errors = Vec::with_capacity(2 * rows.len());
    for folds in partitions(rows) {
        let mut of_rows = vec![0.0; rows.len()];
        for fold in 0..FOLDS {
            let known: Vec<Row<'_>> = (0..rows.len())
                .filter(|&row| folds[row] != fold)
                .map(|row| rows[row])
                .collect();
            if known.len() == rows.len() {
                continue;
            }
            let model = bends::fit(&known, columns, bends)?;
            for row in (0..rows.len()).filter(|&row| folds[row] == fold) {
                of_rows[row] = model.error(rows[row].observation);
            }
        }
        errors.extend(of_rows);
    }
    Ok(errors)
}

/// For each way of leaving out, the fold of every row.
fn partitions(rows: &[Row<'_>]) -> [Vec<usize>; 2] {
    fn load<'a>(row: &Row<'a>) -> &'a Load {
        &row.observation.load
    }
    let mut tokens: Vec<u64> = rows.iter().map(|row| load(row).tokens).collect();
    tokens.sort_unstable();
    tokens.dedup();
    let group = |row: &Row<'_>| tokens.partition_point(|&t| t < load(row).tokens);
    let place_in_group = |row: &Row<'_>| {
        let mut pasts: Vec<u64> = rows
            .iter()
            .filter(|other| load(other).tokens == load(row).tokens)
            .map(|other| load(other).past())
            .collect();
        pasts.sort_unstable();
        pasts.dedup();
        pasts.partition_point(|&past| past < load(row).past())
    };
    let scattered = |row: &Row<'_>| (group(row) + place_in_group(row)) % FOLDS;
    [
        rows.iter().map(|row| group(row) % FOLDS).collect(),
        rows.iter().map(scattered).collect(),
    ]
}

fn is_gain(before: &[f64], after: &[f64]) -> bool {
    let gains: Vec<f64> = before
        .iter()
        .zip(after)
        .map(|(before, after)| before.abs() - after.abs())
        .collect();
    // A row is predicted twice, and its two errors have the same noise.
    let independent = (gains.len() / 2).max(1) as f64;
    let noise = GAIN_DEVIATIONS * deviation(&gains) / independent.sqrt();
    mean(&gains) > noise && mean(&gains) > GAIN_MIN * mean_magnitude(before)
}

pub(super) fn mean_magnitude(errors: &[f64]) -> f64 {
    mean(&errors.iter().map(|error| error.abs()).collect::<Vec<_>>())
}
