//! What else the terms may be: the fit again, as if other rounds and other steps had been measured.
//!
//! Each draw gives every round and every step a random weight with mean 1, from the
//! exponential distribution: the Bayesian bootstrap (Rubin, "The Bayesian Bootstrap", 1981). Weighting rounds shows
//! what noise and slow phases of the machine do, which all steps of a round share; weighting steps, what the formula's
//! misfit does. Unlike drawing with replacement, no step is ever without any weight, so that what
//! only a few steps determine stays determined.

use std::collections::BTreeMap;

use foresail_core::step_time::calibrated::{Cell, Terms};
use foresail_scenarios::random::{Stream, numbered_stream};
use rand::Rng as _;

use super::design::{Column, Model, Row, solve};
use super::knee;
use super::monotone::is_monotone;
use super::observation::Observation;
use super::stalled;
use super::statistics::weighted_median;
use crate::least_squares::LeastSquaresError;

/// With fewer repeats, their weighted medians differ less than medians of as many others would.
const REPEATS_MIN: usize = 6;

/// So many draws around a model.
pub(super) fn draws(
    rows: &[Row<'_>],
    cells: &[Cell],
    columns: &[Column],
    model: &Model,
    misfit: f64,
    seed: u64,
    count: u32,
) -> Result<Vec<Terms>, LeastSquaresError> {
    let draw = |number: u32| {
        let mut random = numbered_stream(seed, "calibration.steps.draw", number.into());
        draw(rows, cells, columns, model, misfit, &mut random)
    };
    (0..count).map(draw).collect()
}

fn draw(
    rows: &[Row<'_>],
    cells: &[Cell],
    columns: &[Column],
    model: &Model,
    misfit: f64,
    random: &mut Stream,
) -> Result<Terms, LeastSquaresError> {
    let rounds = round_weights(cells, random);
    let remeasured: Vec<Observation> = rows
        .iter()
        .map(|row| remeasured(row.observation, cells, &rounds))
        .collect();
    let reweighted: Vec<Row<'_>> = rows
        .iter()
        .zip(&remeasured)
        .map(|(row, observation)| Row {
            observation,
            weight: row.weight * step_weight(observation, misfit, random).sqrt(),
        })
        .collect();
    let drawn = knee::search(&reweighted, columns, &model.shape)?;
    if is_monotone(&drawn.shape) {
        return Ok(drawn.terms);
    }
    Ok(solve(&reweighted, columns, &model.shape)?.0)
}

/// A step's weight varies by as much as of its deviation from the formula is misfit: noise between repeats is in the
/// weights of rounds already, unless there are too few of them to show it.
fn step_weight(step: &Observation, misfit: f64, random: &mut Stream) -> f64 {
    let share = if step.repeats < REPEATS_MIN {
        1.0
    } else {
        misfit / (misfit * misfit + step.deviation * step.deviation).sqrt()
    };
    1.0 + share * (exponential(random) - 1.0)
}

fn round_weights(cells: &[Cell], random: &mut Stream) -> BTreeMap<u32, f64> {
    let mut rounds: BTreeMap<u32, f64> = BTreeMap::new();
    for round in cells.iter().flat_map(|cell| &cell.rounds) {
        rounds.insert(*round, 0.0);
    }
    for weight in rounds.values_mut() {
        *weight = exponential(random);
    }
    rounds
}

/// The same step with its rounds weighted.
fn remeasured(
    observation: &Observation,
    cells: &[Cell],
    rounds: &BTreeMap<u32, f64>,
) -> Observation {
    let cell = &cells[observation.cell];
    let limit_s = stalled::limit_s(cell);
    let weighted: Vec<(f64, f64)> = cell
        .seconds
        .iter()
        .zip(&cell.rounds)
        .filter(|(seconds, _)| **seconds <= limit_s)
        .map(|(seconds, round)| (*seconds, rounds[round]))
        .collect();
    let median_s = weighted_median(&weighted).unwrap_or(observation.measured_s);
    Observation {
        seconds: median_s - (observation.measured_s - observation.seconds),
        ..observation.clone()
    }
}

/// From the exponential distribution with mean 1, by inversion.
fn exponential(random: &mut Stream) -> f64 {
    // 53 bits, the digits of a number, and never 0.
    let uniform = ((random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -libm::log(uniform)
}
