//! The fit with factors that bend it: where measured steps show what the terms cannot.
//!
//! A kernel that is another for one token than for two, or tiles that a batch does not
//! fill, are in no term. A factor at each measured number of tokens follows them, drawn towards 1 as
//! strongly as it is told: how strongly, and whether at all, cross-validation decides.

use foresail_core::step_time::calibrated::{Factor, Knot};

use super::design::{Column, Model, Row, Shape, solve};
use super::knee;
use super::monotone::monotone;
use super::observation::Load;
use crate::least_squares::{LeastSquaresError, Matrix, least_squares};

/// How far factors are expected from 1, as a standard deviation; none if they are 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bends {
    pub(super) token: Option<f64>,
    pub(super) kv: Option<f64>,
}

/// The terms move the factors and the factors the terms: so many times in turn.
const TURNS: u32 = 4;

/// The least ratio of a knot's place to that before it, so that noise between neighbours is not followed.
const SPACING_MIN: f64 = 1.1;

/// The least factor: a step of any size reads its weights.
const FACTOR_MIN: f64 = 0.1;

/// The best model with such factors.
pub(super) fn fit(
    rows: &[Row<'_>],
    columns: &[Column],
    bends: Bends,
) -> Result<Model, LeastSquaresError> {
    let mut model = knee::search(rows, columns, &Shape::default())?;
    if bends == Bends::default() {
        return Ok(model);
    }
    for _ in 0..TURNS {
        let mut shape = model.shape.clone();
        if let Some(expected) = bends.token {
            let factor = factor(rows, &model, Column::Matrices, expected)?;
            shape.token_factor = monotone(&factor, shape.knee);
        }
        if let Some(expected) = bends.kv {
            shape.kv_factor = factor(rows, &model, Column::KvToken, expected)?;
        }
        model = knee::search(rows, columns, &shape)?;
    }
    // The last search may have moved the knee to where the factor would fall too fast.
    let shape = Shape {
        token_factor: monotone(&model.shape.token_factor, model.shape.knee),
        ..model.shape
    };
    let (terms, _) = solve(rows, columns, &shape)?;
    Ok(Model { shape, terms })
}

/// Where a column's factor is at.
fn place(column: Column, load: &Load) -> u64 {
    match column {
        Column::KvToken => load.decodes.into(),
        _ => load.tokens,
    }
}

/// The factor on a column that leaves least, with every knot drawn towards 1.
fn factor(
    rows: &[Row<'_>],
    model: &Model,
    column: Column,
    expected: f64,
) -> Result<Factor, LeastSquaresError> {
    let places = places(rows, column);
    let straight = Shape {
        knee: model.shape.knee,
        ..Shape::default()
    };
    let coefficient = model.terms.get(column.term()).unwrap_or(0.0);
    // What of a knot's factor there is at a place: 1 there, falling to 0 at its neighbours.
    let share = |knot: usize, at: u64| {
        let unit = |index: usize| f64::from(index == knot);
        let knots = places.iter().enumerate().map(|(index, &at)| Knot {
            at,
            factor: unit(index),
        });
        let knots = knots.collect();
        Factor { knots }.at(at)
    };
    let (equations, knots) = (rows.len(), places.len());
    let part = |row: &Row<'_>| coefficient * column.of(&row.observation.load, &straight);
    let matrix = Matrix::of(equations + knots, knots, |equation, knot| {
        match rows.get(equation) {
            Some(row) => {
                let at = place(column, &row.observation.load);
                row.weight * part(row) * share(knot, at)
            }
            None => f64::from(equation - equations == knot) / expected,
        }
    });
    let unexplained = rows.iter().map(|row| {
        let load = &row.observation.load;
        let bent = coefficient * column.of(load, &model.shape);
        let rest = row.observation.seconds - (model.seconds(load) - bent);
        row.weight * (rest - part(row))
    });
    let target: Vec<f64> = unexplained.chain(vec![0.0; knots]).collect();
    let beyond_one = least_squares(&matrix, &target)?.values;
    let knots = places.iter().zip(beyond_one).map(|(&at, beyond)| Knot {
        at,
        factor: (1.0 + beyond).max(FACTOR_MIN),
    });
    Ok(Factor {
        knots: knots.collect(),
    })
}

/// Measured places that are not too near one another.
fn places(rows: &[Row<'_>], column: Column) -> Vec<u64> {
    let has_it =
        |row: &&Row<'_>| column != Column::KvToken || row.observation.load.decode_past > 0.0;
    let mut measured: Vec<u64> = rows
        .iter()
        .filter(has_it)
        .map(|row| place(column, &row.observation.load))
        .collect();
    measured.sort_unstable();
    let mut places: Vec<u64> = Vec::new();
    for at in measured {
        if places
            .last()
            .is_none_or(|&last| at as f64 >= SPACING_MIN * last as f64)
        {
            places.push(at);
        }
    }
    places
}
