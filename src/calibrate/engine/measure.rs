//! Engines, one after the other: started, measured, fitted.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use foresail_calibration::steps::{self, FitError};
use foresail_core::step_time::calibrated::{CalibratedAllReduce, Cell, HowMeasured, WorldSizeFit};
use foresail_engine::bench::{
    self, BenchError, MeasuredCells, Precision, RoundProgress, measure_cells,
};
use foresail_engine::sampling::Sampling;
use foresail_engine::startup::{self, StartError, Started};

use super::exchanges;
use super::plan::{Exchanges, Plan, World};
use crate::exit_code::ExitCode;
use crate::failure::{self, Failure};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::terminal::Terminal;

/// Where all step times together vary by more from run to run, something else had the machine, and what was
/// measured is not the engine alone.
const RUN_TO_RUN_MAX: f64 = 0.1;

/// All that was measured.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) worlds: Vec<MeasuredWorld>,
    pub(super) gpu_name: Option<String>,
}

/// What was measured of one world size.
#[derive(Debug)]
pub(super) struct MeasuredWorld {
    pub(super) world_size: usize,
    pub(super) cells: MeasuredCells,
    pub(super) fit: WorldSizeFit,
    /// What the fit leaves open, a sentence each.
    pub(super) not_identified: Vec<String>,
    /// What was left out or held up, a sentence each.
    pub(super) outliers: Vec<String>,
    /// Starting the engine (s).
    pub(super) start_s: f64,
    /// Fitting (s).
    pub(super) fit_s: f64,
}

impl Measured {
    /// Steps that no smooth function has, or rounds that differ, make a result that is not to be relied on as others
    /// are. That steps are not known to 1 % does not: their intervals say so, and the fit is of all of them.
    pub(super) fn exit_code(&self) -> ExitCode {
        let is_poor =
            |world: &MeasuredWorld| world.fit.residuals.left_out > 0 || world.is_unsteady();
        match self.worlds.iter().any(is_poor) {
            true => ExitCode::Degraded,
            false => ExitCode::Success,
        }
    }
}

impl MeasuredWorld {
    /// Whether one run would differ from another by more than predictions are to be off.
    pub(super) fn is_unsteady(&self) -> bool {
        self.fit.run_to_run > RUN_TO_RUN_MAX
    }
}

pub(super) fn all(
    plan: &Plan,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<Measured, Failure> {
    let mut measured = Measured {
        worlds: Vec::new(),
        gpu_name: None,
    };
    let mut budget = plan.budget;
    for (index, world) in plan.worlds.iter().enumerate() {
        let share = budget / (plan.worlds.len() - index) as u32;
        let (one, gpu_name, spent) = one(plan, world, share, terminal, interrupt)?;
        budget = budget.saturating_sub(spent);
        measured.worlds.push(one);
        measured.gpu_name = measured.gpu_name.or(gpu_name);
    }
    Ok(measured)
}

fn one(
    plan: &Plan,
    world: &World,
    budget: Duration,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(MeasuredWorld, Option<String>, Duration), Failure> {
    let began = Instant::now();
    let started = startup::start(&world.settings).map_err(not_started)?;
    let start_s = began.elapsed().as_secs_f64();
    interrupt.check()?;
    let gpu_name = started.gpu_name.clone();
    let began = Instant::now();
    let cells = measure(plan, world, started, budget, terminal, interrupt)?;
    let all_reduce = all_reduce(plan, world, interrupt)?;
    let spent = began.elapsed();
    let began = Instant::now();
    let how = match world.exchanges {
        Some(_) => HowMeasured::ShardAlone,
        None => HowMeasured::Ranks,
    };
    let of_fit: Vec<Cell> = cells.cells.iter().map(|one| one.cell.clone()).collect();
    let options = steps::Options {
        seed: plan.seed,
        ..steps::Options::default()
    };
    let fitted = steps::fit(&of_fit, world.world_size as u32, how, all_reduce, &options)
        .map_err(|error| not_fitted(world, &error))?;
    let measured = MeasuredWorld {
        world_size: world.world_size,
        cells,
        fit: fitted.fit,
        not_identified: fitted.not_identified,
        outliers: fitted.outliers,
        start_s,
        fit_s: began.elapsed().as_secs_f64(),
    };
    Ok((measured, gpu_name, spent))
}

fn not_fitted(world: &World, error: &FitError) -> Failure {
    let text = format!("world size {}: {error}", world.world_size);
    match error {
        // What was measured is at fault, not what was asked for.
        FitError::Seconds { .. }
        | FitError::TooManyOutliers { .. }
        | FitError::DoesNotFit { .. }
        | FitError::Unsteady { .. } => Failure::Degraded(text),
        FitError::LeastSquares(_) | FitError::Profile(_) => Failure::Defect(text),
        _ => Failure::Input(text),
    }
}

fn not_started(error: StartError) -> Failure {
    match error {
        StartError::Memory(error) => Failure::Input(format!(
            "{error}; of a calibration: smaller --kv-tokens, --max-num-seqs or --max-batched-tokens"
        )),
        StartError::Rank { .. } | StartError::WarmUp(_) => Failure::Device(error.to_string()),
        error => Failure::Input(failure::of_start_with_remedy(&error)),
    }
}

fn measure(
    plan: &Plan,
    world: &World,
    started: Started,
    budget: Duration,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<MeasuredCells, Failure> {
    let Started {
        backend,
        config,
        limits,
        ..
    } = started;
    let progress = Progress::of("per mille", Some(1000), !terminal.quiet);
    let mut shown = 0;
    let mut watch = |at: RoundProgress| {
        let spent = (at.spent_share * 1000.0) as u64;
        progress.advance(spent.saturating_sub(shown), message(world, at));
        shown = shown.max(spent);
        match interrupt.is_requested() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let engine = bench::Engine {
        config: &config,
        limits,
    };
    let cells = bench::Plan {
        design: &plan.design,
        precision: Precision::default(),
        seed: plan.seed,
        budget,
        sampling: Sampling {
            temperature: plan.temperature,
            ..Sampling::default()
        },
        adapters: plan.adapters.clone(),
    };
    measure_cells(backend, engine, cells, &mut watch).map_err(not_measured)
}

fn message(world: &World, at: RoundProgress) -> String {
    let RoundProgress {
        round, done, steps, ..
    } = at;
    let size = world.world_size;
    match (round, steps) {
        (0, steps) => format!("world size {size}: warming up, {done} of {steps} steps"),
        (round, steps) => {
            format!("world size {size}: round {round}, {done} of {steps} steps known")
        }
    }
}

fn not_measured(error: BenchError) -> Failure {
    match error {
        BenchError::Stopped => Failure::Interrupted,
        BenchError::Budget { .. } => Failure::Input(format!(
            "{error}; raise --budget, or lower --max-batched-tokens, --max-model-len or --kv-tokens"
        )),
        BenchError::Step(error) => Failure::Device(format!("the engine failed: {error}")),
        error => Failure::Defect(error.to_string()),
    }
}

/// What the ranks of a shard that was alone would exchange.
fn all_reduce(
    plan: &Plan,
    world: &World,
    interrupt: &Interrupt,
) -> Result<Option<CalibratedAllReduce>, Failure> {
    let model = &plan.model;
    // One for the embedding, and two a layer: after the attention and after the MLP.
    let per_step = (2 * model.num_hidden_layers + 1) as f64;
    let hidden = model.hidden_size as u64;
    let all_reduce = match &world.exchanges {
        None => return Ok(None),
        Some(Exchanges::Gpu { table, .. }) => {
            let (_, ranges) = table
                .by_world_size
                .iter()
                .find(|(size, _)| *size as usize == world.world_size)
                .expect("it was looked up when the plan was made");
            CalibratedAllReduce {
                per_step,
                // bf16, as the roofline has it.
                bytes_per_token: 2 * hidden,
                ranges: ranges.clone(),
            }
        }
        Some(Exchanges::Threads) => CalibratedAllReduce {
            per_step,
            // Threads exchange f32.
            bytes_per_token: 4 * hidden,
            ranges: exchanges::between_threads(plan, world.world_size, interrupt)?,
        },
    };
    Ok(Some(all_reduce))
}
