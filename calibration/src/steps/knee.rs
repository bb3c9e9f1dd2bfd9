//! The knee of the matrices' time, by trying them all.

use super::design::{Column, Model, Row, Shape, solve};
use crate::least_squares::LeastSquaresError;

/// Knees on the grid, an octave of tokens.
const KNEES_AN_OCTAVE: f64 = 1.0;

/// The largest knee, in the tokens of the largest step: beyond it, the curve that the steps show
/// is as flat as a constant, and less of it could not be told from none.
const KNEE_MAX_BY_TOKENS: f64 = 4.0;

/// Narrowings of the interval around the best knee, each to 0.618 of it: to less than 0.5 %.
const NARROWINGS: u32 = 12;

/// The golden section: (sqrt(5) - 1) / 2.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// The model with the best knee and terms for the factors of a shape.
///
/// The error may have several minima along the knee, for instance at none and at many tokens:
/// so a grid first, then the golden section (Kiefer, "Sequential minimax search for a maximum", 1953) around its best.
pub(super) fn search(
    rows: &[Row<'_>],
    columns: &[Column],
    shape: &Shape,
) -> Result<Model, LeastSquaresError> {
    let at = |knee: f64| {
        let shape = Shape {
            knee,
            ..shape.clone()
        };
        let (terms, squares) = solve(rows, columns, &shape)?;
        Ok((squares, Model { shape, terms }))
    };
    let knees = knees(rows);
    let mut tried = Vec::with_capacity(knees.len());
    for &knee in &knees {
        tried.push(at(knee)?);
    }
    let best = (0..tried.len()).min_by(|&a, &b| tried[a].0.total_cmp(&tried[b].0));
    let best = best.unwrap_or(0);
    let mut low = knees[best.saturating_sub(1)];
    let mut high = knees[(best + 1).min(knees.len() - 1)];
    let mut lower = at(high - GOLDEN * (high - low))?;
    let mut upper = at(low + GOLDEN * (high - low))?;
    for _ in 0..NARROWINGS {
        // The golden section: the point that stays is where the next one would be.
        if lower.0 <= upper.0 {
            high = upper.1.shape.knee;
            tried.push(std::mem::replace(&mut upper, lower));
            lower = at(high - GOLDEN * (high - low))?;
        } else {
            low = lower.1.shape.knee;
            tried.push(std::mem::replace(&mut lower, upper));
            upper = at(low + GOLDEN * (high - low))?;
        }
    }
    tried.extend([lower, upper]);
    let best = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, model)| model)
        .ok_or(LeastSquaresError::NotFinite)
}

/// None, and evenly by octaves from half the smallest step to beyond the largest.
fn knees(rows: &[Row<'_>]) -> Vec<f64> {
    let tokens = || rows.iter().map(|row| row.observation.load.tokens as f64);
    let smallest = tokens().fold(f64::INFINITY, f64::min);
    let largest = tokens().fold(1.0, f64::max);
    let (first, last) = (0.5 * smallest.min(largest), KNEE_MAX_BY_TOKENS * largest);
    let steps = (KNEES_AN_OCTAVE * libm::log2(last / first)).ceil();
    let knee = |step: u32| first * libm::exp2(f64::from(step) / KNEES_AN_OCTAVE);
    std::iter::once(0.0)
        .chain((0..=steps as u32).map(knee))
        .collect()
}
