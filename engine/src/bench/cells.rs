//! Measures the steps of a design: round after round, until they are known or the time is up.
//!
//! ```text
//! each step once, untimed ── round ── round ── round …      until all are tight, or the budget is spent
//! how many in a row,         every open step once,
//! and what a round takes     in an order of its own
//! ```

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use foresail_core::step_time::calibrated::Cell;

use super::design::{Design, Planned, RUN_STEPS_MAX};
use super::rounds::{Precision, Rounds, Spread};
use super::service::{Service, Timed};
use super::steps::BenchError;
use crate::backend::{Backend, Limits};
use crate::config::ModelConfig;
use crate::sampling::Sampling;
use crate::weights::Adapter;

/// Steps in a row take at least so long, as far as there may be so many: clocks and interrupts then do not matter.
const RUN_SECONDS: f64 = 0.05;

/// What is measured, and how well.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The steps.
    pub design: &'a Design,
    /// How well each is to be known.
    pub precision: Precision,
    /// What the order of the steps is drawn from.
    pub seed: u64,
    /// How long it may take.
    pub budget: Duration,
    /// How sequences choose their tokens.
    pub sampling: Sampling,
    /// As many as the design has.
    pub adapters: Vec<Adapter>,
}

/// The engine's side of it. The memory of its KV cache has been written once, as it has been in a run: where an operating
/// system hands memory out when it is written, untouched pages are all the same page of zeros, in the
/// fastest cache.
#[derive(Clone, Copy, Debug)]
pub struct Engine<'a> {
    /// The model.
    pub config: &'a ModelConfig,
    /// Its memory.
    pub limits: Limits,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundProgress {
    /// The round, from 1; 0 while steps are computed for the first time.
    pub round: u32,
    /// Steps that are known well enough.
    pub done: usize,
    /// Steps of the design.
    pub steps: usize,
    /// The share of the budget that is spent.
    pub spent_share: f64,
}

/// What a step was measured as.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredCell {
    /// Its repeats.
    pub cell: Cell,
    /// Their median, and its interval.
    pub spread: Spread,
    /// Whether it is known as well as it was to be.
    pub is_tight: bool,
    /// Steps in a row that each repeat is the mean of.
    pub steps_in_a_row: usize,
}

/// What a design was measured as.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredCells {
    /// The steps, in the order of the design.
    pub cells: Vec<MeasuredCell>,
    /// Rounds that were begun.
    pub rounds: u32,
    /// Where the time went.
    pub spent: Spent,
}

/// Where the time of a measurement went (s).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Computing each step for the first time.
    pub warm_up_s: f64,
    /// In steps that were timed.
    pub timed_s: f64,
    /// Bringing batches to where steps are timed.
    pub between_s: f64,
}

/// Measures a design on an engine with room for it, which is gone afterwards. `watch` is told before every repeat, and can stop
/// the measurement.
///
/// # Errors
/// If the engine fails, the budget is too small for every step to be measured once, or `watch` says so.
pub fn measure_cells(
    backend: Box<dyn Backend>,
    engine: Engine<'_>,
    plan: Plan<'_>,
    watch: &mut dyn FnMut(RoundProgress) -> ControlFlow<()>,
) -> Result<MeasuredCells, BenchError> {
    let began = Instant::now();
    let warm_ups = backend.warm_up_steps();
    let Plan {
        design,
        precision,
        seed,
        budget,
        sampling,
        adapters,
        ..
    } = plan;
    let vocab_size = engine.config.vocab_size;
    let mut measurement = Measurement {
        service: Service::new(backend, engine.limits, vocab_size, sampling, adapters)?,
        design,
        began,
        budget,
        watch,
        steps: Vec::new(),
        expected: Vec::new(),
        pasts: vec![0; design.cells().len()],
        rounds: Rounds::new(design.cells().len(), precision, seed),
        spent: Spent::default(),
    };
    measurement.warm_up(warm_ups)?;
    measurement.measure()?;
    Ok(measurement.result())
}

fn tell(
    watch: &mut dyn FnMut(RoundProgress) -> ControlFlow<()>,
    at: RoundProgress,
) -> Result<(), BenchError> {
    match watch(at) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(BenchError::Stopped),
    }
}

/// A measurement that is under way.
struct Measurement<'a> {
    service: Service,
    design: &'a Design,
    began: Instant,
    budget: Duration,
    watch: &'a mut dyn FnMut(RoundProgress) -> ControlFlow<()>,
    /// Of each step, how many are timed in a row.
    steps: Vec<usize>,
    /// What a repeat of each takes, with all that is around it (s).
    expected: Vec<f64>,
    /// The mean of what each step's sequences have in the KV cache.
    pasts: Vec<u64>,
    rounds: Rounds,
    spent: Spent,
}

impl Measurement<'_> {
    fn elapsed_s(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn tell(&mut self, round: u32, done: usize) -> Result<(), BenchError> {
        let at = RoundProgress {
            round,
            done,
            steps: self.design.cells().len(),
            spent_share: self.elapsed_s() / self.budget.as_secs_f64(),
        };
        tell(self.watch, at)
    }

    /// Computes every step as often as it takes to bring pages, caches and recordings to where they are in a
    /// run, and learns how long each takes.
    fn warm_up(&mut self, times: usize) -> Result<(), BenchError> {
        let began = Instant::now();
        let cells = self.design.cells();
        for (index, cell) in cells.iter().enumerate() {
            let mut timed = None;
            let mut took_s = 0.0;
            for _ in 0..times.max(1) {
                self.tell(0, index)?;
                let began = Instant::now();
                timed = Some(self.service.time(cell, 1)?);
                took_s = began.elapsed().as_secs_f64();
            }
            let step_s = timed.map_or(0.0, |timed: Timed| timed.seconds);
            let steps = steps_in_a_row(cell, step_s);
            self.steps.push(steps);
            self.expected.push(took_s + (steps - 1) as f64 * step_s);
            if self.elapsed_s() > self.budget.as_secs_f64() {
                let share = (index + 1) as f64 / cells.len() as f64;
                return Err(self.too_small(self.expected.iter().sum::<f64>() / share));
            }
        }
        self.spent.warm_up_s = began.elapsed().as_secs_f64();
        let round_s = self.expected.iter().sum();
        if self.elapsed_s() + round_s > self.budget.as_secs_f64() {
            return Err(self.too_small(round_s));
        }
        Ok(())
    }

    fn too_small(&self, round_s: f64) -> BenchError {
        BenchError::Budget {
            budget_s: self.budget.as_secs_f64(),
            round_s,
            before_s: self.elapsed_s().max(round_s),
        }
    }

    fn measure(&mut self) -> Result<(), BenchError> {
        loop {
            let order = self.rounds.order();
            let done = self.rounds.done();
            let mut measured = 0;
            for step in order {
                // A step for which there is no time left may be followed by a shorter one.
                let left = self.budget.as_secs_f64() - self.elapsed_s();
                if self.expected[step] > left {
                    continue;
                }
                self.tell(self.rounds.count() + 1, done)?;
                self.repeat(step)?;
                measured += 1;
            }
            if measured == 0 {
                return Ok(());
            }
            self.rounds.end_round();
        }
    }

    fn repeat(&mut self, step: usize) -> Result<(), BenchError> {
        let began = Instant::now();
        let (cell, steps) = (&self.design.cells()[step], self.steps[step]);
        let timed = self.service.time(cell, steps)?;
        let timed_s = timed.seconds * steps as f64;
        self.spent.timed_s += timed_s;
        self.spent.between_s += began.elapsed().as_secs_f64() - timed_s;
        self.pasts[step] = timed.decode_past;
        self.rounds.add(step, timed.seconds, timed.device_seconds);
        Ok(())
    }

    fn result(self) -> MeasuredCells {
        let cells = self.design.cells().iter().enumerate();
        MeasuredCells {
            cells: cells
                .filter_map(|(index, planned)| self.cell(index, planned))
                .collect(),
            rounds: self.rounds.count(),
            spent: self.spent,
        }
    }

    /// The step with its repeats, of which the first round has one of each.
    fn cell(&self, index: usize, planned: &Planned) -> Option<MeasuredCell> {
        let repeats = self.rounds.repeats(index);
        let seconds: Vec<f64> = repeats.iter().map(|one| one.seconds).collect();
        let spread = Spread::of(&seconds)?;
        Some(MeasuredCell {
            spread,
            is_tight: self.rounds.is_tight(index),
            steps_in_a_row: self.steps[index],
            cell: Cell {
                decodes: planned.decodes() as u32,
                decode_past: self.pasts[index],
                chunks: planned.chunks.clone(),
                adapters: planned.adapters as u32,
                rounds: repeats.iter().map(|one| one.round).collect(),
                device_seconds: repeats
                    .iter()
                    .filter_map(|one| one.device_seconds)
                    .collect(),
                seconds,
                is_left_out: false,
            },
        })
    }
}

/// How many steps are timed in a row: an odd number, so that the mean of what is in the KV cache is whole.
fn steps_in_a_row(cell: &Planned, step_s: f64) -> usize {
    if !cell.chunks.is_empty() {
        return 1;
    }
    // At least one, as a step takes time; a fake device's may not.
    let steps = (RUN_SECONDS / step_s.max(1e-9)).ceil() as usize;
    steps.clamp(1, RUN_STEPS_MAX - 1) | 1
}
