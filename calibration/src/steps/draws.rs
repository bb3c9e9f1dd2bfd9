//! What else the terms may be: the fit again, to steps as another calibration might have measured them.
//!
//! ```text
//! a step, measured again = what the fit says of it
//!                        + noise:  its repeats, with every round weighted anew
//!                        + misfit: how far the formula is from steps like it, whoever measures them
//! ```
//!
//! Noise: each round gets a random weight with mean 1, from the exponential distribution (the Bayesian bootstrap: Rubin,
//! "The Bayesian Bootstrap", 1981), which shows what slow phases of the machine do, which all steps of a round share.
//!
//! Misfit: no repeat averages out that a tile is padded or a cache too small. So it is drawn for every step as a normal number of
//! the deviation that the residuals have, a part of it for all steps of as many tokens together, as far as
//! those are off together (the parametric bootstrap: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, sections
//! 6.2 and 7.2). Steps that are weighted anew or drawn with replacement would show too little of it, since the fit has
//! followed the very steps that there are, and nothing of a term that is fitted as 0.

use std::collections::{BTreeMap, BTreeSet};

use foresail_core::step_time::calibrated::{Cell, Terms};
use foresail_scenarios::random::{Stream, numbered_stream};
use rand::Rng as _;

use super::design::{Column, Model, Row, solve};
use super::knee;
use super::misfit::Misfit;
use super::monotone::is_monotone;
use super::observation::Observation;
use super::stalled;
use crate::least_squares::LeastSquaresError;
use crate::normal::{deviation_scale, standard_normal};
use crate::statistics::weighted_median;

/// With fewer repeats, their weighted medians differ less than medians of as many others would.
const REPEATS_MIN: usize = 6;

/// What a fit is drawn around.
pub(super) struct Fitted<'a> {
    pub(super) rows: &'a [Row<'a>],
    pub(super) cells: &'a [Cell],
    pub(super) columns: &'a [Column],
    pub(super) model: &'a Model,
    pub(super) misfit: Misfit,
    /// How much rounds differ as a whole.
    pub(super) run_to_run: f64,
}

impl Fitted<'_> {
    /// So many draws around the model.
    pub(super) fn draws(&self, seed: u64, count: u32) -> Result<Vec<Terms>, LeastSquaresError> {
        let draw = |number: u32| {
            let mut random = numbered_stream(seed, "calibration.steps.draw", number.into());
            self.draw(&mut random)
        };
        (0..count).map(draw).collect()
    }

    fn draw(&self, random: &mut Stream) -> Result<Terms, LeastSquaresError> {
        let rounds = round_weights(self.cells, random);
        let drift = self.drift(random);
        let misfits = self.misfits(random);
        let mut measured_again = Vec::with_capacity(self.rows.len());
        for (row, misfit) in self.rows.iter().zip(misfits) {
            let step = row.observation;
            let noise = self.noise(step, &rounds, drift, random);
            measured_again.push(Observation {
                seconds: self.model.seconds(&step.load)
                    + step.measured_s * libm::expm1(noise + misfit),
                ..step.clone()
            });
        }
        let again: Vec<Row<'_>> = self
            .rows
            .iter()
            .zip(&measured_again)
            .map(|(row, observation)| Row {
                observation,
                weight: row.weight,
            })
            .collect();
        let drawn = knee::search(&again, self.columns, &self.model.shape)?;
        if is_monotone(&drawn.shape) {
            return Ok(drawn.terms);
        }
        Ok(solve(&again, self.columns, &self.model.shape)?.0)
    }

    /// How far the formula is from each step, as a share.
    fn misfits(&self, random: &mut Stream) -> Vec<f64> {
        let Misfit {
            deviation,
            together,
            freedom,
        } = self.misfit;
        let deviation = deviation * deviation_scale(random, freedom);
        let mut of_tokens: BTreeMap<u64, f64> = BTreeMap::new();
        let own = |row: &Row<'_>| {
            let tokens = row.observation.load.tokens;
            let shared = *of_tokens
                .entry(tokens)
                .or_insert_with(|| standard_normal(random));
            let alone = standard_normal(random);
            deviation * (together.sqrt() * shared + (1.0 - together).sqrt() * alone)
        };
        self.rows.iter().map(own).collect()
    }

    /// How far the mean of all rounds is from that of all others that there might have been, as a share.
    fn drift(&self, random: &mut Stream) -> f64 {
        let rounds: BTreeSet<u32> = self
            .cells
            .iter()
            .flat_map(|cell| &cell.rounds)
            .copied()
            .collect();
        self.run_to_run / (rounds.len().max(1) as f64).sqrt() * standard_normal(random)
    }

    /// How far another median of the step's repeats would be from the true one, as a share.
    fn noise(
        &self,
        step: &Observation,
        rounds: &BTreeMap<u32, f64>,
        drift: f64,
        random: &mut Stream,
    ) -> f64 {
        if step.repeats < REPEATS_MIN {
            return drift + step.deviation * standard_normal(random);
        }
        let cell = &self.cells[step.cell];
        let limit_s = stalled::limit_s(cell);
        let weighted: Vec<(f64, f64)> = cell
            .seconds
            .iter()
            .zip(&cell.rounds)
            .filter(|(seconds, _)| **seconds <= limit_s)
            .map(|(seconds, round)| (*seconds, rounds[round]))
            .collect();
        let median_s = weighted_median(&weighted).unwrap_or(step.measured_s);
        // Of n values, the mean under such weights has (n - 1) / (n + 1) of the variance that the mean of n
        // others would have (Rubin, section 3).
        let repeats = step.repeats as f64;
        let lost = ((repeats + 1.0) / (repeats - 1.0)).sqrt();
        lost * (median_s / step.measured_s - 1.0)
    }
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

/// From the exponential distribution with mean 1, by inversion.
fn exponential(random: &mut Stream) -> f64 {
    // 53 bits, the digits of a number, and never 0.
    let uniform = ((random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -libm::log(uniform)
}
