//! Fits what may be seen, predicts what may not, and compares.

use foresail_calibration::efficiency::{Draws, EfficiencyFit, Observed, Start, fit};
use foresail_core::step_time::{EfficiencySpread, Gpu};
use foresail_scenarios::random;
use rand::Rng as _;

use crate::Result;
use crate::case::{Case, Figure, percentile_of_sorted};
use crate::studies::{Fold, Study};

/// Draws of a prediction.
const DRAWS: u32 = 40;

/// A study with its errors.
pub(crate) struct Judged {
    pub(crate) study: Study,
    /// Without a fit.
    pub(crate) built_in: Vec<Error>,
    /// Of each fold.
    pub(crate) held_out: Vec<(Fitted, Vec<Error>)>,
}

/// What a fold was fitted to, and what came of it.
pub(crate) struct Fitted {
    pub(crate) name: String,
    pub(crate) cases: usize,
    pub(crate) fit: EfficiencyFit,
}

/// A prediction beside what was measured.
#[derive(Clone, Debug)]
pub(crate) struct Error {
    pub(crate) case: usize,
    pub(crate) figure: Figure,
    pub(crate) measured: f64,
    pub(crate) predicted: f64,
    /// The interval that holds 95 % of the draws.
    pub(crate) interval: (f64, f64),
}

impl Error {
    /// Predicted over measured, less 1.
    pub(crate) fn relative(&self) -> f64 {
        self.predicted / self.measured - 1.0
    }

    pub(crate) fn is_inside(&self) -> bool {
        (self.interval.0..=self.interval.1).contains(&self.measured)
    }
}

pub(crate) fn judge(mut study: Study) -> Result<Judged> {
    let all: Vec<usize> = (0..study.cases.len()).collect();
    let gpu = study.start.gpu.clone();
    let drawn: Vec<(Gpu, f64)> = (0..DRAWS.into())
        .map(|seed| (gpu.drawn(normal(seed)), 0.0))
        .collect();
    let built_in = errors(&study.cases, &all, &(gpu.clone(), 0.0), &drawn, 0.0)?;
    let mut held_out = Vec::new();
    for fold in std::mem::take(&mut study.folds) {
        let fit = fit_fold(&unaware(&study.start), &study.cases, &fold)?;
        let best = (fit.gpu.clone(), fit.request_s);
        let scatter = fit.unseen_deviations;
        let errors = errors(&study.cases, &fold.held_out, &best, &fit.draws, scatter)?;
        let fitted = Fitted {
            name: fold.name,
            cases: fold.fitted.len(),
            fit,
        };
        held_out.push((fitted, errors));
    }
    Ok(Judged {
        study,
        built_in,
        held_out,
    })
}

/// How unsure a fit begins of the overheads that only whole engines show: within a factor of 7, two times in
/// three.
const UNSURE: f64 = 2.0;

/// The same without what the built-in overheads know of the sources that they were fitted to: a fit is not to see
/// what it predicts by way of where it begins.
pub(crate) fn unaware(start: &Start) -> Start {
    let mut start = start.clone();
    start.gpu.spread = EfficiencySpread {
        step_overhead: UNSURE,
        sequence_overhead: UNSURE,
        layer_overhead: UNSURE,
        ..start.gpu.spread
    };
    start
}

/// The fit of what a fold may see.
fn fit_fold(start: &Start, cases: &[Case], fold: &Fold) -> Result<EfficiencyFit> {
    assert!(
        fold.fitted
            .iter()
            .all(|index| !fold.held_out.contains(index))
    );
    let cases: Vec<&Case> = fold.fitted.iter().map(|index| &cases[*index]).collect();
    fit_cases(start, &cases)
}

/// The fit of these cases.
pub(crate) fn fit_cases(start: &Start, cases: &[&Case]) -> Result<EfficiencyFit> {
    let mut observed: Vec<Observed> = Vec::new();
    for (case, group) in cases.iter().zip(groups(cases)) {
        observed.extend(case.observed().map(|(value, deviation)| Observed {
            value,
            deviation,
            group,
        }));
    }
    let mut trouble = None;
    let draws = Draws {
        count: DRAWS,
        seed: 1,
    };
    let fit = fit(start, &observed, &draws, |gpu, request_s| {
        let mut all = Vec::with_capacity(observed.len());
        for case in cases {
            match case.predict(gpu, request_s) {
                Ok(figures) => all.extend(case.usable(&figures)),
                Err(error) => trouble = Some(error),
            }
        }
        all
    });
    match trouble {
        Some(error) => Err(error),
        None => Ok(fit?),
    }
}

/// What is likely to be off together: cases of as many GPUs, as splitting a model costs what one world size alone
/// shows; and where all are of one, the figures of each case.
fn groups(cases: &[&Case]) -> Vec<u32> {
    let size = |case: &&Case| case.engine.world_size;
    let is_of_one = cases
        .windows(2)
        .all(|pair| size(&pair[0]) == size(&pair[1]));
    match is_of_one {
        true => (0..cases.len() as u32).collect(),
        false => cases.iter().map(size).collect(),
    }
}

fn errors(
    cases: &[Case],
    indices: &[usize],
    (gpu, request_s): &(Gpu, f64),
    drawn: &[(Gpu, f64)],
    scatter: f64,
) -> Result<Vec<Error>> {
    let mut errors = Vec::new();
    for index in indices {
        let case = &cases[*index];
        let best = case.predict(gpu, *request_s)?;
        let others = drawn
            .iter()
            .map(|(gpu, request_s)| case.predict(gpu, *request_s));
        let others: Vec<Vec<f64>> = others.collect::<Result<_>>()?;
        for (place, (figure, measured, _)) in case.measured.iter().enumerate() {
            // A prediction is as far off as the fit is where it was not fitted, besides.
            let scatter = scatter * case.deviation(*figure);
            let mut beside = normal(1_000_000 + (index * 100 + place) as u64);
            let of = |figures: &Vec<f64>| figures[place] * libm::exp(scatter * beside());
            let mut values: Vec<f64> = others.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            errors.push(Error {
                case: *index,
                figure: *figure,
                measured: *measured,
                predicted: best[place],
                interval: (
                    percentile_of_sorted(&values, 0.025),
                    percentile_of_sorted(&values, 0.975),
                ),
            });
        }
    }
    Ok(errors)
}

/// Standard normal numbers by Box's and Muller's method.
fn normal(seed: u64) -> impl FnMut() -> f64 {
    let mut random = random::stream(seed, "accuracy.draw");
    move || {
        let mut uniform = || ((random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let radius = (-2.0 * libm::log(uniform())).sqrt();
        radius * libm::cos(2.0 * std::f64::consts::PI * uniform())
    }
}
