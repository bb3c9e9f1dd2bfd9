//! A made-up engine that takes what a formula says, times noise.

use foresail_core::step_time::calibrated::{Cell, CellChunk, Factor, Formula, HowMeasured, Terms};
use foresail_scenarios::random::stream;

use crate::steps::observation::formula_s;
use crate::steps::{FitError, Options, StepsFit, fit};

/// What is measured of it, and how well.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) formula: Formula,
    pub(super) rounds: u32,
    /// Standard deviation of a repeat, as a share.
    pub(super) noise: f64,
    /// Standard deviation of a round, as a share.
    pub(super) drift: f64,
    pub(super) seed: u64,
}

/// About those of a small model on a processor: each matters somewhere.
pub(super) fn terms() -> Terms {
    Terms {
        launch_s: 2e-3,
        weights_s: 12e-3,
        token_s: 4e-4,
        sequence_s: 1.5e-4,
        kv_token_s: 1.2e-6,
        pair_s: 6e-8,
        chunk_kv_token_s: 1e-6,
        chunk_s: 8e-4,
        mixed_s: 1.5e-3,
        ..Terms::default()
    }
}

pub(super) fn formula(terms: Terms) -> Formula {
    Formula {
        terms,
        token_factor: Factor::default(),
        kv_factor: Factor::default(),
        all_reduce: None,
    }
}

impl Engine {
    pub(super) fn new(terms: Terms, noise: f64, seed: u64) -> Self {
        Self {
            formula: formula(terms),
            rounds: 12,
            noise,
            drift: 0.0,
            seed,
        }
    }

    /// Each of these steps, measured once a round.
    pub(super) fn measure(&self, mut cells: Vec<Cell>) -> Vec<Cell> {
        let mut random = stream(self.seed, "noise");
        let mut normal = || normal(&mut random);
        for round in 0..self.rounds {
            let drift = 1.0 + self.drift * normal();
            for cell in &mut cells {
                let noise = 1.0 + self.noise * normal();
                let seconds = formula_s(&self.formula, cell) * drift * noise;
                cell.seconds.push(seconds);
                cell.rounds.push(round);
            }
        }
        cells
    }

    pub(super) fn fit(&self, cells: Vec<Cell>) -> Result<StepsFit, FitError> {
        let options = Options {
            seed: self.seed,
            draws: 64,
            ..Options::default()
        };
        fit(&self.measure(cells), 1, HowMeasured::Ranks, None, &options)
    }
}

/// About normal: the sum of twelve uniform numbers.
pub(super) fn normal(random: &mut impl rand::Rng) -> f64 {
    let uniform = |random: &mut dyn FnMut() -> u64| (random() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut bits = || random.next_u64();
    (0..12).map(|_| uniform(&mut bits)).sum::<f64>() - 6.0
}

pub(super) fn step(decodes: u32, context: u32, chunks: &[(u32, u32)]) -> Cell {
    Cell {
        decodes,
        decode_past: u64::from(decodes) * u64::from(context),
        chunks: chunks
            .iter()
            .map(|&(past, len)| CellChunk { past, len })
            .collect(),
        adapters: 0,
        seconds: Vec::new(),
        rounds: Vec::new(),
        device_seconds: Vec::new(),
        is_left_out: false,
    }
}

/// Steps that only decode.
pub(super) fn decodes() -> Vec<Cell> {
    let batches = [1, 2, 4, 8, 16, 32, 64];
    let contexts = [32, 256, 1024, 2048];
    let steps = batches.map(|batch| contexts.map(|context| step(batch, context, &[])));
    steps.into_iter().flatten().collect()
}

/// A piece of one prompt each.
pub(super) fn prompts() -> Vec<Cell> {
    let lengths = [16, 64, 128, 256, 512, 1024];
    let pasts = [0, 512, 1536];
    let steps = lengths.map(|len| pasts.map(|past| step(0, 0, &[(past, len)])));
    steps.into_iter().flatten().collect()
}

/// Sequences that decode beside pieces of prompts, and several pieces.
pub(super) fn mixed() -> Vec<Cell> {
    vec![
        step(4, 512, &[(0, 64)]),
        step(16, 512, &[(0, 256)]),
        step(32, 1024, &[(256, 128)]),
        step(8, 256, &[(0, 32), (0, 32)]),
        step(16, 1024, &[(0, 128), (512, 128)]),
        step(8, 256, &[(0, 64), (0, 64), (0, 64), (0, 64)]),
        step(0, 0, &[(0, 16), (0, 16), (0, 16), (0, 16)]),
        step(0, 0, &[(256, 100), (0, 28)]),
    ]
}

pub(super) fn grid() -> Vec<Cell> {
    [decodes(), prompts(), mixed()].concat()
}

/// Steps that no grid here has, within its limits.
pub(super) fn unseen() -> Vec<Cell> {
    vec![
        step(1, 700, &[]),
        step(3, 100, &[]),
        step(12, 1500, &[]),
        step(24, 400, &[]),
        step(48, 1900, &[]),
        step(0, 0, &[(0, 40)]),
        step(0, 0, &[(900, 400)]),
        step(0, 0, &[(0, 800)]),
        step(20, 700, &[(0, 200)]),
        step(10, 300, &[(100, 60), (0, 150)]),
    ]
}

/// The largest error of a fit's prediction of unseen steps, as a share.
pub(super) fn error_unseen(found: &StepsFit, truth: &Formula) -> f64 {
    let formula = found.fit.formula().unwrap();
    let error = |cell: &Cell| (formula_s(&formula, cell) / formula_s(truth, cell) - 1.0).abs();
    unseen().iter().map(error).fold(0.0, f64::max)
}
