//! The formula of step times, fitted to measured steps.
//!
//! ```text
//! cells ─> medians ─> outliers out ─> equations ─> for each knee: non-negative least squares
//!                                                        │ cross-validation: bent by factors or not
//!                                                        v
//!                       terms ── again under other weights of rounds and steps ──> draws ──> intervals,
//!                                                                                            what is not known
//! ```
//!
//! Relative errors count: a decode step of 5 ms matters as much as a prompt of 500 ms. What steps do not
//! show is said in words, never made into a number.

mod bends;
mod check;
mod cross_validation;
mod design;
mod draws;
mod error;
mod identified;
mod knee;
mod misfit;
mod monotone;
mod observation;
mod outliers;
mod rounds;
mod stalled;
mod summary;
#[cfg(test)]
mod tests;
mod weights;
mod words;

use foresail_core::step_time::calibrated::{
    CalibratedAllReduce, Cell, HowMeasured, Residuals, Terms, WorldSizeFit,
};

pub use crate::statistics::MedianInterval;
pub use error::FitError;
pub use summary::{CellSummary, summary};
pub use words::name;

use bends::Bends;
use design::{Model, Row};
use draws::Fitted;
use identified::Columns;
use misfit::Misfit;
use observation::Observation;

/// What a fit needs beside what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Of the draws.
    pub seed: u64,
    /// How many draws to make, 40 or more. Intervals are between the third and fourth from either end of 96.
    pub draws: u32,
    /// Values of terms that no measured step shows; those of others are not looked at.
    pub assumed: Terms,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            draws: 96,
            assumed: Terms::default(),
        }
    }
}

/// A fit, and what is to be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StepsFit {
    /// The fit, with the cells that it leaves out marked.
    pub fit: WorldSizeFit,
    /// What the steps leave open, in words: one sentence each.
    pub not_identified: Vec<String>,
    /// What was left out or looked odd, in words: one sentence each.
    pub outliers: Vec<String>,
}

/// With fewer draws, the ends of a 95 % interval are beyond all of them.
const DRAWS_MIN: u32 = 40;

/// The mean magnitude of errors from which on the formula says nothing of the engine.
const ERROR_MAX: f64 = 0.25;

/// Fits the formula to measured steps of one world size.
///
/// `all_reduce` is modelled beside the terms: cells of ranks that exchange hold it, and it is
/// subtracted from them; those of a shard alone ([`HowMeasured::ShardAlone`]) do not.
///
/// # Errors
/// If the cells are too few, too alike, off from any smooth fit, or not sound: see [`FitError`].
pub fn fit(
    cells: &[Cell],
    world_size: u32,
    how: HowMeasured,
    all_reduce: Option<CalibratedAllReduce>,
    options: &Options,
) -> Result<StepsFit, FitError> {
    if options.draws < DRAWS_MIN {
        return Err(FitError::Draws {
            draws: options.draws,
        });
    }
    check::check_cells(cells)?;
    let mut cells = cells.to_vec();
    check::check_variety(cells.iter().filter(|cell| !cell.is_left_out))?;
    let exchanges = observation::modelled_exchanges(how, all_reduce.as_ref());
    let mut observations = observation::observations(&cells, exchanges.as_ref())?;
    let mut outliers = stalled::told(&cells);
    let taken = leave_out(&mut observations, &mut cells)?;
    check::check_variety(cells.iter().filter(|cell| !cell.is_left_out))?;

    let columns = enough(&observations)?;
    let misfit = misfit(&observations, &columns)?;
    let rows = weights::weigh(&observations, misfit);
    let (bends, unseen) = cross_validation::choose(&rows, &columns.fitted)?;
    let model = bends::fit(&rows, &columns.fitted, bends)?;
    let tell = |step: &Observation| told(step, &model, &cells[step.cell]);
    outliers.extend(taken.iter().map(tell));
    let errors = errors(&model, &observations);
    check_errors(&errors, &observations, &cells)?;

    let (run_to_run, rounds_unknown) = run_to_run(&cells)?;
    let is_bent = bends != Bends::default();
    let misfit = Misfit::of(
        &observations,
        &errors,
        columns.terms(),
        is_bent.then_some(&unseen),
    );
    let around = Fitted {
        rows: &rows,
        cells: &cells,
        columns: &columns.fitted,
        model: &model,
        misfit,
        run_to_run,
    };
    let draws = around.draws(options.seed, options.draws)?;
    let judged = identified::judge(&columns, &model, &draws, &options.assumed, &observations);
    let not_identified = [judged.not_identified, rounds_unknown].concat();
    let left_out = cells.iter().filter(|cell| cell.is_left_out).count();
    let fit = WorldSizeFit {
        world_size,
        how,
        terms: judged.estimates,
        token_factor: model.shape.token_factor,
        kv_factor: model.shape.kv_factor,
        all_reduce,
        draws: judged.draws,
        run_to_run,
        residuals: Residuals {
            fitted: observations.len() as u32,
            left_out: left_out as u32,
            mean: cross_validation::mean_magnitude(&errors),
            max: errors.iter().fold(0.0, |max, error| error.abs().max(max)),
            cross_validated_mean: Some(cross_validation::mean_magnitude(&unseen)),
            model_deviation: Some(misfit.of_other_steps()),
        },
        cells,
    };
    // What is written must be read again: also a table of exchanges that makes no sense.
    fit.formula()?;
    fit.draws()?;
    Ok(StepsFit {
        fit,
        not_identified,
        outliers,
    })
}

/// The columns of the steps, if those are as many as it takes.
fn enough(observations: &[Observation]) -> Result<Columns, FitError> {
    let columns = Columns::of(observations)?;
    let is_new = |index: &usize| {
        let load = &observations[*index].load;
        observations[..*index].iter().all(|step| step.load != *load)
    };
    let different = (0..observations.len()).filter(is_new).count();
    if different <= columns.terms() {
        return Err(FitError::TooFewCells {
            cells: different,
            terms: columns.terms(),
        });
    }
    Ok(columns)
}

/// Takes the outliers out, and marks them among the cells.
fn leave_out(
    observations: &mut Vec<Observation>,
    cells: &mut [Cell],
) -> Result<Vec<Observation>, FitError> {
    let columns = enough(observations)?;
    let describe = |cell: usize| name(&cells[cell]);
    let taken = outliers::take(observations, &columns.fitted, describe)?;
    for step in &taken {
        cells[step.cell].is_left_out = true;
    }
    Ok(taken)
}

/// How far what is left out is from the fit of all others.
fn told(left_out: &Observation, model: &Model, cell: &Cell) -> String {
    let fitted_s = model.seconds(&left_out.load);
    let longer = (left_out.seconds - fitted_s) / fitted_s;
    let direction = if longer > 0.0 { "more" } else { "less" };
    format!(
        "cell {} ({}) took {:.0} % {direction} than the fit of all others says, and is left out",
        left_out.cell + 1,
        name(cell),
        100.0 * longer.abs(),
    )
}

/// How far the formula is from true medians, by a first fit.
fn misfit(observations: &[Observation], columns: &Columns) -> Result<f64, FitError> {
    let rows: Vec<Row<'_>> = weights::weigh(observations, weights::MISFIT_FIRST);
    let model = knee::search(&rows, &columns.fitted, &design::Shape::default())?;
    let errors = errors(&model, observations);
    Ok(weights::misfit(observations, &errors, columns.terms()))
}

fn errors(model: &Model, observations: &[Observation]) -> Vec<f64> {
    observations.iter().map(|step| model.error(step)).collect()
}

fn check_errors(
    errors: &[f64],
    observations: &[Observation],
    cells: &[Cell],
) -> Result<(), FitError> {
    let mean = cross_validation::mean_magnitude(errors);
    let worst = (0..errors.len()).max_by(|&a, &b| errors[a].abs().total_cmp(&errors[b].abs()));
    match worst {
        Some(worst) if mean > ERROR_MAX => Err(FitError::DoesNotFit {
            percent: 100.0 * mean,
            worst_percent: 100.0 * errors[worst].abs(),
            worst: name(&cells[observations[worst].cell]),
        }),
        _ => Ok(()),
    }
}

/// How much rounds differ, or a sentence that it is not known.
fn run_to_run(cells: &[Cell]) -> Result<(f64, Vec<String>), FitError> {
    match rounds::run_to_run(cells) {
        Some(deviation) if deviation >= 1.0 => Err(FitError::Unsteady {
            factor: libm::exp(deviation),
        }),
        Some(deviation) => Ok((deviation, Vec::new())),
        None => {
            let unknown = "how much another run differs as a whole is not known, taken as nothing: measure three \
                           rounds or more";
            Ok((0.0, vec![unknown.to_owned()]))
        }
    }
}
