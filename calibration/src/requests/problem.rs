//! What the terms would make of the runs.

use foresail_core::batching::Config;
use foresail_core::step_time::Calibrated;
use foresail_core::step_time::calibrated::{Formula, Terms};
use foresail_simulator::replay::{ReplayError, replay};

use super::prior::Free;
use super::{FitError, Prior, Run};

/// The runs, and what is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Problem<'a> {
    pub(super) runs: &'a [Run],
    pub(super) prior: &'a Prior,
    pub(super) free: &'a [Free],
    pub(super) batching: Config,
    /// What the formula itself is off, as a share: added to the deviation of every figure.
    pub(super) model_deviation: f64,
}

/// A figure of a run, as one number of the vectors that the fit works on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    /// Its run.
    pub(super) run: usize,
    /// Which of that.
    pub(super) figure: usize,
    /// Logarithm of the measured value.
    pub(super) ln_observed: f64,
    /// Standard deviation of that.
    pub(super) deviation: f64,
}

impl Problem<'_> {
    /// All figures, run by run.
    pub(super) fn rows(&self) -> Vec<Row> {
        let runs = self.runs.iter().enumerate();
        let rows = runs.flat_map(|(run, of)| {
            let figures = of.observed.iter().enumerate();
            figures.map(move |(figure, observed)| Row {
                run,
                figure,
                ln_observed: libm::log(observed.value),
                deviation: libm::hypot(observed.relative_deviation, self.model_deviation),
            })
        });
        rows.collect()
    }

    /// All terms, from the logarithms of those that are fitted.
    pub(super) fn terms(&self, ln_terms: &[f64]) -> Terms {
        let mut values = self.prior.formula().terms.to_vec();
        for (free, ln_term) in self.free.iter().zip(ln_terms) {
            values[free.term] = libm::exp(*ln_term);
        }
        Terms::of_values(&values)
    }

    /// Logarithms of the figures in the order of [`Problem::rows`], had the engine these terms.
    pub(super) fn predict(&self, ln_terms: &[f64]) -> Result<Vec<f64>, FitError> {
        let formula = Formula {
            terms: self.terms(ln_terms),
            ..self.prior.formula().clone()
        };
        let model = Calibrated::of(formula, self.batching.max_num_seqs);
        let mut figures = Vec::new();
        for run in self.runs {
            let overhead = |prompt_tokens| model.request_overhead(prompt_tokens);
            let replayed = replay(&run.traffic, self.batching, &model, overhead)
                .map_err(|error| in_run(run, error))?;
            for observed in &run.observed {
                let value = observed.figure.of(&replayed.requests);
                let value = value.ok_or_else(|| FitError::NoSuchFigure {
                    run: run.name.clone(),
                    figure: observed.figure,
                })?;
                // A step that takes less than a nanosecond would have no logarithm.
                figures.push(libm::log(f64::max(value, 1e-12)));
            }
        }
        Ok(figures)
    }
}

fn in_run(run: &Run, error: ReplayError) -> FitError {
    FitError::Replay {
        run: run.name.clone(),
        error,
    }
}
