//! The formula as equations: a row a measured step, a column a term.
//!
//! `matrices(tokens)` is the only part that is not linear in the terms. At a fixed knee, the
//! tokens `weights_s / token_s` at which reading the weights takes as long as multiplying
//! with them, it is: `token_s * sqrt(knee^2 + tokens^2)`.

use foresail_core::step_time::calibrated::{Factor, Terms};

use super::observation::{Load, Observation};
use crate::least_squares::{LeastSquaresError, Matrix, non_negative};

/// What the steps have different amounts of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Launch,
    Matrices,
    KvToken,
    Pair,
    Sequence,
    Chunk,
    ChunkKvToken,
    Mixed,
    AdapterStep,
    Adapter,
}

/// In the order in which they are kept where steps do not tell them apart: first what no engine is without.
pub(super) const COLUMNS: [Column; 10] = [
    Column::Launch,
    Column::Matrices,
    Column::KvToken,
    Column::Pair,
    Column::Sequence,
    Column::Chunk,
    Column::ChunkKvToken,
    Column::Mixed,
    Column::AdapterStep,
    Column::Adapter,
];

/// What bends the columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shape {
    /// In tokens; 0 if the weights are free to read.
    pub(super) knee: f64,
    pub(super) token_factor: Factor,
    pub(super) kv_factor: Factor,
}

/// A formula, as its equations have it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Model {
    pub(super) shape: Shape,
    pub(super) terms: Terms,
}

impl Column {
    /// The term that is its coefficient.
    pub(super) fn term(self) -> &'static str {
        match self {
            Self::Launch => "launch_s",
            Self::Matrices => "token_s",
            Self::KvToken => "kv_token_s",
            Self::Pair => "pair_s",
            Self::Sequence => "sequence_s",
            Self::Chunk => "chunk_s",
            Self::ChunkKvToken => "chunk_kv_token_s",
            Self::Mixed => "mixed_s",
            Self::AdapterStep => "adapter_step_s",
            Self::Adapter => "adapter_s",
        }
    }

    /// How much of it a step has.
    pub(super) fn of(self, load: &Load, shape: &Shape) -> f64 {
        match self {
            Self::Launch => 1.0,
            Self::Matrices => shape.token_factor.at(load.tokens) * shape.matrices(load.tokens),
            Self::KvToken => shape.kv_factor.at(load.decodes.into()) * load.decode_past,
            Self::Pair => load.pairs,
            Self::Sequence => load.sampled(),
            Self::Chunk => load.chunks,
            Self::ChunkKvToken => load.chunk_kv_tokens,
            Self::Mixed => f64::from(load.chunks > 0.0),
            Self::AdapterStep => f64::from(load.adapters > 0.0),
            Self::Adapter => load.adapters,
        }
    }
}

impl Shape {
    /// The time of the matrices, in `token_s` and before the factor.
    pub(super) fn matrices(&self, tokens: u64) -> f64 {
        let tokens = tokens as f64;
        (self.knee * self.knee + tokens * tokens).sqrt()
    }
}

impl Model {
    /// What a step takes (s).
    pub(super) fn seconds(&self, load: &Load) -> f64 {
        let time = |column: &Column| {
            self.terms.get(column.term()).unwrap_or(0.0) * column.of(load, &self.shape)
        };
        COLUMNS.iter().map(time).sum()
    }

    /// What a step takes beyond what was measured, as a share of that.
    pub(super) fn error(&self, observation: &Observation) -> f64 {
        (self.seconds(&observation.load) - observation.seconds) / observation.measured_s
    }
}

/// A measured step and how much it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) observation: &'a Observation,
    /// One through the standard deviation that what was measured has from the formula (1/s).
    pub(super) weight: f64,
}

impl<'a> Row<'a> {
    /// Relative errors count, by how well the median is known and how far the formula is from true ones.
    pub(super) fn of(observation: &'a Observation, misfit: f64) -> Self {
        let deviation = observation.deviation;
        let relative = (deviation * deviation + misfit * misfit).sqrt();
        Self {
            observation,
            weight: 1.0 / (observation.measured_s * relative),
        }
    }
}

/// The equations of the rows: weighted columns and targets.
pub(super) fn equations(rows: &[Row<'_>], columns: &[Column], shape: &Shape) -> (Matrix, Vec<f64>) {
    let matrix = Matrix::of(rows.len(), columns.len(), |row, column| {
        rows[row].weight * columns[column].of(&rows[row].observation.load, shape)
    });
    let target = rows
        .iter()
        .map(|row| row.weight * row.observation.seconds)
        .collect();
    (matrix, target)
}

/// The best terms of a shape, and the weighted sum of squares that they leave.
pub(super) fn solve(
    rows: &[Row<'_>],
    columns: &[Column],
    shape: &Shape,
) -> Result<(Terms, f64), LeastSquaresError> {
    let (matrix, target) = equations(rows, columns, shape);
    let solution = non_negative(&matrix, &target)?;
    let mut terms = Terms::default();
    for (column, value) in columns.iter().zip(&solution.values) {
        terms.set(column.term(), *value);
    }
    terms.weights_s = terms.token_s * shape.knee;
    Ok((terms, solution.residual_norm * solution.residual_norm))
}
