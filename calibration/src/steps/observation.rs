//! A measured step as the fit sees it: how much of everything it computed, and how long that took.

use foresail_core::step_time::calibrated::{
    CalibratedAllReduce, Cell, CellChunk, Factor, Formula, HowMeasured, Terms, pairs,
};
use foresail_core::step_time::{Chunk, StepLoad};

use super::FitError;
use crate::statistics::{median, robust_deviation};

/// How much of everything a step computes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Load {
    pub(super) tokens: u64,
    pub(super) decodes: u32,
    pub(super) decode_past: f64,
    pub(super) chunks: f64,
    pub(super) pairs: f64,
    pub(super) chunk_kv_tokens: f64,
    pub(super) adapters: f64,
    /// All tokens in the KV cache before the step.
    past: u64,
}

/// A step and what it took.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observation {
    /// Its place among the cells.
    pub(super) cell: usize,
    pub(super) load: Load,
    /// The median of its repeats, without modelled exchanges (s).
    pub(super) seconds: f64,
    /// The median of its repeats (s).
    pub(super) measured_s: f64,
    pub(super) repeats: usize,
    /// Standard deviation of that median, as a share of it.
    pub(super) deviation: f64,
}

/// The standard deviation of the median of many normal numbers, in those of their mean: sqrt(pi / 2).
const MEDIAN_BY_MEAN: f64 = 1.2533;

/// With fewer repeats, how far they are apart says less than how far those of other cells are.
const REPEATS_MIN: usize = 4;

impl Load {
    pub(super) fn of(cell: &Cell) -> Self {
        let chunks = chunks(cell);
        let tokens = |chunk: &Chunk| u64::from(chunk.len);
        let past = |chunk: &Chunk| u64::from(chunk.past);
        let chunk_past: u64 = chunks.iter().map(past).sum();
        let chunk_tokens: u64 = chunks.iter().map(tokens).sum();
        Self {
            tokens: u64::from(cell.decodes) + chunk_tokens,
            decodes: cell.decodes,
            decode_past: cell.decode_past as f64,
            chunks: chunks.len() as f64,
            pairs: chunks.iter().map(pairs).sum(),
            chunk_kv_tokens: (chunk_past + chunk_tokens) as f64,
            adapters: f64::from(cell.adapters),
            past: cell.decode_past + chunk_past,
        }
    }

    /// Sequences that sample a token.
    pub(super) fn sampled(&self) -> f64 {
        f64::from(self.decodes) + self.chunks
    }

    pub(super) fn past(&self) -> u64 {
        self.past
    }
}

fn chunks(cell: &Cell) -> Vec<Chunk> {
    let chunk = |chunk: &CellChunk| Chunk {
        past: chunk.past,
        len: chunk.len,
        sample: true,
    };
    cell.chunks.iter().map(chunk).collect()
}

/// What the formula says a cell takes, with its adapters (s).
pub(super) fn formula_s(formula: &Formula, cell: &Cell) -> f64 {
    let chunks = chunks(cell);
    let step_s = formula.seconds(&StepLoad {
        decodes: cell.decodes,
        decode_past: cell.decode_past,
        chunks: &chunks,
    });
    let terms = &formula.terms;
    let adapters_s = match cell.adapters {
        0 => 0.0,
        adapters => terms.adapter_step_s + f64::from(adapters) * terms.adapter_s,
    };
    step_s + adapters_s
}

/// The exchanges that are in what a cell took, and that the terms are not to hold: none of a
/// shard that was alone.
pub(super) fn modelled_exchanges(
    how: HowMeasured,
    all_reduce: Option<&CalibratedAllReduce>,
) -> Option<Formula> {
    let all_reduce = all_reduce.filter(|_| how != HowMeasured::ShardAlone)?;
    Some(Formula {
        terms: Terms::default(),
        token_factor: Factor::default(),
        kv_factor: Factor::default(),
        all_reduce: Some(all_reduce.clone()),
    })
}

/// The cells that are not left out already, which must be sound.
pub(super) fn observations(
    cells: &[Cell],
    exchanges: Option<&Formula>,
) -> Result<Vec<Observation>, FitError> {
    let usual = usual_deviation(cells);
    let fitted = cells
        .iter()
        .enumerate()
        .filter(|(_, cell)| !cell.is_left_out);
    let observation = |(index, cell): (usize, &Cell)| {
        let measured_s = median(&cell.seconds).unwrap_or(0.0);
        let exchanges_s = exchanges.map_or(0.0, |formula| formula_s(formula, cell));
        if exchanges_s >= measured_s {
            return Err(FitError::Exchanges {
                cell: index + 1,
                step: super::name(cell),
                seconds: measured_s,
                exchanges_s,
            });
        }
        let repeats = cell.seconds.len();
        let repeat_deviation = match repeat_deviation(cell) {
            Some(deviation) => deviation,
            None => usual,
        };
        Ok(Observation {
            cell: index,
            load: Load::of(cell),
            seconds: measured_s - exchanges_s,
            measured_s,
            repeats,
            deviation: MEDIAN_BY_MEAN * repeat_deviation / (repeats as f64).sqrt(),
        })
    };
    fitted.map(observation).collect()
}

/// Standard deviation of a cell's repeats, as a share of their median; none of too few.
fn repeat_deviation(cell: &Cell) -> Option<f64> {
    let centre = median(&cell.seconds)?;
    let enough = cell.seconds.len() >= REPEATS_MIN;
    enough.then(|| robust_deviation(&cell.seconds, centre) / centre)
}

fn usual_deviation(cells: &[Cell]) -> f64 {
    let deviations: Vec<f64> = cells.iter().filter_map(repeat_deviation).collect();
    median(&deviations).unwrap_or(0.0)
}
