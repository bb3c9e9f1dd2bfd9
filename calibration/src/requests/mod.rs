//! The formula of step times, fitted to what requests took.
//!
//! Nothing of an engine is seen but what its clients see. So its runs are simulated, request by
//! request, under step times that are looked for, until the figures are those that were measured:
//!
//! ```text
//! prior of the terms ──> Terms ──> replay of each run ──> figures ──┐
//!                          ^                                        ├─ difference ──> better terms
//!                          └────────── Levenberg-Marquardt <────────┘
//!                                                measured figures ──┘
//! ```
//!
//! A run may be recorded at an endpoint of one's own or be a line of a published table: traffic, and a few
//! figures. What the figures leave open stays what was assumed of it, and is told in
//! words; a run that no terms explain is told and left out; and if too many are, or what remains
//! is far off, there is no fit.

mod draws;
mod figures;
mod identified;
mod limits;
mod marquardt;
mod outliers;
mod prior;
mod problem;
#[cfg(test)]
mod tests;

use foresail_core::batching::Config;
use foresail_core::step_time::calibrated::{
    BatchingLimits, HowMeasured, Residuals, TermEstimate, Terms, WorldSizeFit,
};
use foresail_simulator::replay::{ReplayError, Traffic};

pub use figures::{Figure, Statistic};
pub use prior::Prior;

use figures::percentile;
use limits::Tried;
use marquardt::{Point, Search};
use problem::Problem;

/// A measured run: who sent what when, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What a person calls it.
    pub name: String,
    /// The requests.
    pub traffic: Traffic,
    /// What was measured.
    pub observed: Vec<Observed>,
}

/// A measured figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// Which.
    pub figure: Figure,
    /// Its value (s, or 1/s).
    pub value: f64,
    /// Standard deviation of that, as a share of it: of the measurement, not of the model.
    pub relative_deviation: f64,
}

/// What to fit, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The batches of the engine.
    pub batching: Config,
    /// Batch limits to try, if it is not known and one of these; none if it is that of `batching`.
    pub max_num_seqs: Vec<u32>,
    /// Tokens of a step to try, if they are not known; none if they are those of `batching`. They are
    /// found if one of these explains the figures, and less and more of them do not.
    pub max_batched_tokens: Vec<u32>,
    /// What is assumed of the terms.
    pub prior: Prior,
    /// GPUs of the replica.
    pub world_size: u32,
    /// Whether the runs are ours.
    pub how: HowMeasured,
    /// What the formula itself is off, as a share of each figure.
    pub model_deviation: f64,
    /// Standard deviation of the natural logarithm of all times, from run to run.
    pub run_to_run: f64,
    /// A fit whose figures are off by more on average is none.
    pub residual_max: f64,
    /// Draws to make.
    pub draws: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Options {
    /// For an engine whose batches are known.
    #[must_use]
    pub fn new(batching: Config, prior: Prior) -> Self {
        Self {
            batching,
            max_num_seqs: Vec::new(),
            max_batched_tokens: Vec::new(),
            prior,
            world_size: 1,
            how: HowMeasured::Requests,
            model_deviation: 0.01,
            run_to_run: 0.0,
            residual_max: 0.25,
            draws: 64,
            seed: 1,
        }
    }
}

/// What came of a fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The terms.
    pub fit: WorldSizeFit,
    /// The batches that were simulated in the end.
    pub batching: Config,
    /// Of the limits that were tried, those that the figures tell.
    pub limits: BatchingLimits,
    /// What the figures leave open: one sentence each.
    pub not_identified: Vec<String>,
    /// The runs, beside what was fitted.
    pub runs: Vec<FittedRun>,
}

/// A run, beside what was fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct FittedRun {
    /// Its name.
    pub name: String,
    /// Whether it was left out, because no terms explain it beside the others.
    pub is_left_out: bool,
    /// Its figures.
    pub figures: Vec<FittedFigure>,
}

/// A figure, beside what was fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FittedFigure {
    /// Which.
    pub figure: Figure,
    /// As it was measured.
    pub observed: f64,
    /// Standard deviation of that, as a share of it.
    pub relative_deviation: f64,
    /// As it is predicted.
    pub predicted: f64,
}

impl FittedFigure {
    /// How far the prediction is off, as a share of what was measured.
    #[must_use]
    pub fn relative_error(&self) -> f64 {
        self.predicted / self.observed - 1.0
    }
}

/// A figure that no terms explain.
#[derive(Clone, Debug, PartialEq)]
pub struct Unexplained {
    /// Its run.
    pub run: String,
    /// The figure, as it was measured and as it is predicted.
    pub figure: FittedFigure,
}

/// Why there is no fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// A value is no measurement, or a setting no number.
    #[error(
        "{run}: {figure} is {value}, and {relative_deviation} its deviation; both must be positive numbers"
    )]
    NotANumber {
        /// The run.
        run: String,
        /// The figure.
        figure: Figure,
        /// Its value.
        value: f64,
        /// Its deviation.
        relative_deviation: f64,
    },
    /// The prior or an option cannot be used.
    #[error("the fit's {what} must be a number from 0")]
    Option {
        /// What cannot be used.
        what: &'static str,
    },
    /// A run cannot be simulated.
    #[error("{run}: {error}")]
    Replay {
        /// The run.
        run: String,
        /// Why.
        error: ReplayError,
    },
    /// No request of the run has it.
    #[error(
        "{run}: no request has a {figure}; leave the figure out, or ask for two tokens at least"
    )]
    NoSuchFigure {
        /// The run.
        run: String,
        /// The figure.
        figure: Figure,
    },
    /// Fewer figures than terms that matter.
    #[error(
        "{figures} figures for {terms:.1} terms that they depend on leave nothing to check the fit with; measure \
         TTFT at several prompt lengths and TPOT at several concurrencies, {needed} figures or more"
    )]
    TooFew {
        /// Figures there are.
        figures: usize,
        /// How many terms they have to tell.
        terms: f64,
        /// How many figures would do.
        needed: usize,
    },
    /// What matters is still open.
    #[error(
        "the runs tell none of {terms}; measure TTFT of single requests at several prompt lengths, and TPOT at \
         several concurrencies"
    )]
    NotIdentified {
        /// The terms without which nothing can be predicted.
        terms: String,
    },
    /// No terms make the figures.
    #[error(
        "no step times explain what was measured: figures are off by {:.0} % on average, and {} of {} runs had to be \
         left out; the worst are {}. Check that nothing else used the engine, and that it is one replica with the \
         batch limits that were given", mean * 100.0, left_out, runs, worst_text(worst)
    )]
    Unexplained {
        /// Mean of the magnitudes of the relative errors.
        mean: f64,
        /// Runs that were left out.
        left_out: usize,
        /// Runs in all.
        runs: usize,
        /// The figures that are furthest off.
        worst: Vec<Unexplained>,
    },
}

fn worst_text(worst: &[Unexplained]) -> String {
    let each = worst.iter().map(|Unexplained { run, figure }| {
        let FittedFigure {
            figure,
            observed,
            predicted,
            ..
        } = figure;
        format!("{run}: {figure} {observed:.4} measured, {predicted:.4} predicted")
    });
    each.collect::<Vec<_>>().join("; ")
}

/// The most iterations of a search, and of one that begins near its end.
const ITERATIONS_MAX: usize = 30;
const ITERATIONS_NEAR: usize = 8;

/// Fits the terms to the runs.
///
/// # Errors
/// If a run cannot be simulated, if there are too few figures or they leave open what matters, or
/// if no terms explain them.
pub fn fit(runs: &[Run], options: &Options) -> Result<Fit, FitError> {
    check(runs, options)?;
    let free = options.prior.free();
    let problem = Problem {
        runs,
        prior: &options.prior,
        free: &free,
        batching: options.batching,
        model_deviation: options.model_deviation,
    };
    let tried = limits::search(problem, options)?;
    let mut search = Search::new(Problem {
        batching: tried.batching,
        ..problem
    });
    let (point, slopes) = outliers::without(&mut search, tried.point.clone())?;
    explained(&search, &point, options.residual_max)?;
    let found = identified::of(&search, &point, &slopes)?;
    let draws = draws::of(&search, &point, &slopes, &found, options)?;
    let cross_validated_mean = outliers::cross_validated(&search, &point, &slopes)?;
    Ok(Fit {
        fit: WorldSizeFit {
            world_size: options.world_size,
            how: options.how,
            terms: estimates(&search, &point, &found, &draws),
            token_factor: options.prior.formula().token_factor.clone(),
            kv_factor: options.prior.formula().kv_factor.clone(),
            all_reduce: options.prior.formula().all_reduce.clone(),
            draws,
            run_to_run: options.run_to_run,
            residuals: Residuals {
                cross_validated_mean,
                model_deviation: Some(found.model_deviation),
                ..residuals(&search, &point)
            },
            cells: Vec::new(),
        },
        batching: tried.batching,
        not_identified: not_identified(&tried, &found, options),
        limits: tried.limits(),
        runs: fitted_runs(&search, &point),
    })
}

fn check(runs: &[Run], options: &Options) -> Result<(), FitError> {
    for run in runs {
        for observed in &run.observed {
            let Observed {
                figure,
                value,
                relative_deviation,
            } = *observed;
            let sound = value.is_finite()
                && value > 0.0
                && relative_deviation.is_finite()
                && relative_deviation >= 0.0;
            if !sound {
                return Err(FitError::NotANumber {
                    run: run.name.clone(),
                    figure,
                    value,
                    relative_deviation,
                });
            }
        }
    }
    let numbers = [
        ("model_deviation", options.model_deviation),
        ("run_to_run", options.run_to_run),
        ("residual_max", options.residual_max),
    ];
    let unsound = |(_, number): &&(&str, f64)| !number.is_finite() || *number < 0.0;
    if let Some((what, _)) = numbers.iter().find(unsound) {
        return Err(FitError::Option { what });
    }
    // Without any deviation a single figure would outweigh everything.
    if options.model_deviation <= 0.0 || !options.prior.is_sound() {
        let what = "prior, and its model_deviation above it,";
        return Err(FitError::Option { what });
    }
    let figures: usize = runs.iter().map(|run| run.observed.len()).sum();
    if figures < identified::FIGURES_MIN {
        return Err(FitError::TooFew {
            figures,
            terms: identified::FIGURES_MIN as f64 - 1.0,
            needed: identified::FIGURES_MIN,
        });
    }
    Ok(())
}

/// Whether what is left is small enough to call it a fit.
fn explained(search: &Search<'_>, point: &Point, residual_max: f64) -> Result<(), FitError> {
    let left_out = search.left_out.iter().filter(|left_out| **left_out).count();
    let mean = residuals(search, point).mean;
    let too_many = left_out > outliers::left_out_max(search.left_out.len());
    if mean <= residual_max && !too_many {
        return Ok(());
    }
    let runs = fitted_runs(search, point);
    let mut worst: Vec<Unexplained> = (runs.iter())
        .flat_map(|run| {
            run.figures.iter().map(|figure| Unexplained {
                run: run.name.clone(),
                figure: *figure,
            })
        })
        .collect();
    let off = |each: &Unexplained| each.figure.relative_error().abs();
    worst.sort_by(|a, b| off(b).total_cmp(&off(a)));
    worst.truncate(4);
    Err(FitError::Unexplained {
        mean,
        left_out,
        runs: runs.len(),
        worst,
    })
}

fn residuals(search: &Search<'_>, point: &Point) -> Residuals {
    let counts = |row: &problem::Row| !search.left_out[row.run];
    let rows = search.rows.iter().zip(&point.predicted);
    let errors: Vec<f64> = rows
        .filter(|(row, _)| counts(row))
        .map(|(row, predicted)| libm::expm1(predicted - row.ln_observed).abs())
        .collect();
    Residuals {
        fitted: errors.len() as u32,
        left_out: (search.rows.len() - errors.len()) as u32,
        mean: errors.iter().sum::<f64>() / errors.len().max(1) as f64,
        max: errors.iter().copied().fold(0.0, f64::max),
        cross_validated_mean: None,
        model_deviation: None,
    }
}

fn fitted_runs(search: &Search<'_>, point: &Point) -> Vec<FittedRun> {
    let mut predicted = point.predicted.iter();
    let runs = search.problem.runs.iter().zip(&search.left_out);
    runs.map(|(run, left_out)| {
        let figures = run.observed.iter().zip(predicted.by_ref());
        let figures = figures.map(|(observed, ln_predicted)| FittedFigure {
            figure: observed.figure,
            observed: observed.value,
            relative_deviation: observed.relative_deviation,
            predicted: libm::exp(*ln_predicted),
        });
        FittedRun {
            name: run.name.clone(),
            is_left_out: *left_out,
            figures: figures.collect(),
        }
    })
    .collect()
}

/// Every term, with its interval: what 95 % of the draws are in.
fn estimates(
    search: &Search<'_>,
    point: &Point,
    found: &identified::Identified,
    draws: &[Vec<f64>],
) -> Vec<TermEstimate> {
    let values = search.problem.terms(&point.ln_terms).to_vec();
    let mut estimates: Vec<TermEstimate> = (Terms::names().zip(values).enumerate())
        .map(|(place, (name, value))| {
            let drawn: Vec<f64> = draws.iter().map(|draw| draw[place]).collect();
            let (low, high) = (percentile(2.5, &drawn), percentile(97.5, &drawn));
            TermEstimate {
                name: name.to_owned(),
                value,
                low: low.map_or(value, |low| low.min(value)),
                high: high.map_or(value, |high| high.max(value)),
                is_identified: false,
            }
        })
        .collect();
    for (free, term) in search.problem.free.iter().zip(&found.terms) {
        estimates[free.term].is_identified = term.is_identified;
    }
    estimates
}

fn not_identified(tried: &Tried, found: &identified::Identified, options: &Options) -> Vec<String> {
    let mut sentences = tried.sentences();
    sentences.extend(found.sentences());
    let medians = options.prior.formula().terms.to_vec();
    let held = Terms::names().zip(&medians).filter(|(name, _)| {
        let is_free = found.terms.iter().any(|term| term.name == *name);
        !is_free
    });
    sentences.extend(held.map(|(name, median)| {
        let meaning = Terms::meaning(name).unwrap_or_default();
        format!("`{name}` ({meaning}) was not looked for: it is taken to be {median} s.")
    }));
    sentences
}
