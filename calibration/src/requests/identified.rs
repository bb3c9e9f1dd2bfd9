//! What the figures tell of each term, and what they leave open.

use foresail_core::step_time::calibrated::{Formula, Terms};
use foresail_core::step_time::{Chunk, StepLoad};

use super::FitError;
use super::marquardt::{Point, Search, Slopes};
use crate::clusters::Clusters;
use crate::least_squares::{Cholesky, Matrix};
use crate::normal::student_by_normal;

/// Fewer figures are no fit, whatever they are of.
pub(super) const FIGURES_MIN: usize = 4;
/// A term is told if at most this share of what was assumed of its logarithm is still open,
const SHARE_MAX: f64 = 0.5;
/// and it is known within a factor of two: 1.96 standard deviations are its logarithm.
const LN_DEVIATION_MAX: f64 = 0.35;
/// Two terms whose errors go together like this are only known together.
const CORRELATION_MIN: f64 = 0.7;
/// A term that moves no figure by this share of its own change is too small to be seen.
const SLOPE_MIN: f64 = 0.02;
/// A step is known if the standard deviation of its logarithm is at most this.
const STEP_LN_DEVIATION_MAX: f64 = 0.25;

/// What is known of the terms that were fitted.
#[derive(Clone, Debug)]
pub(super) struct Identified {
    /// In the order of the terms that are fitted.
    pub(super) terms: Vec<Known>,
    /// The covariance of their logarithms.
    pub(super) covariance: Matrix,
    /// How many times the variances of the figures are as large as was said, for what they know of terms: figures of a run
    /// are of the same requests, and off together, and few figures say little of variances.
    pub(super) variances: f64,
    /// What the formula itself is off, as a share of other figures: what is left beyond the noise of the measured ones.
    pub(super) model_deviation: f64,
    /// Steps that are open although terms are known, in words.
    open_steps: Vec<String>,
}

/// What is known of a term.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) is_identified: bool,
    /// Why not, if not.
    reason: Reason,
}

#[derive(Clone, Debug)]
enum Reason {
    TooSmall,
    OnlyWith(&'static str),
    /// What was assumed of it: its median (s), and the factor by which it may be more or less.
    Open {
        median_s: f64,
        factor: f64,
    },
}

/// Looks at the curvature around the best terms.
pub(super) fn of(
    search: &Search<'_>,
    point: &Point,
    slopes: &Slopes,
) -> Result<Identified, FitError> {
    let counted = search
        .weights(point)
        .iter()
        .filter(|weight| **weight > 0.0)
        .count();
    let tight = covariance(&search.curvature(point, slopes, 1.0))?;
    let told = told(search, &tight);
    if (counted as f64) < told + 1.0 {
        return Err(FitError::TooFew {
            figures: counted,
            terms: told,
            needed: told as usize + 3,
        });
    }
    let found = variances(search, point, counted as f64 - told);
    let design_effect = runs(search, &search.residuals(point)).design_effect();
    let few = student_by_normal(counted as f64 / design_effect - told);
    let variances = found * design_effect * few * few;
    let covariance = covariance(&search.curvature(point, slopes, variances))?;
    let names: Vec<&'static str> = Terms::names().collect();
    let terms =
        (0..search.problem.free.len()).map(|term| known(search, slopes, &covariance, &names, term));
    let open_steps = open_steps(search, point, &covariance);
    if open_steps.len() == 2 {
        let terms = "the time of a decode step and that of a prompt".to_owned();
        return Err(FitError::NotIdentified { terms });
    }
    Ok(Identified {
        terms: terms.collect(),
        covariance,
        variances,
        model_deviation: model_deviation(search, found) * few,
        open_steps,
    })
}

fn covariance(curvature: &Matrix) -> Result<Matrix, FitError> {
    let cholesky = Cholesky::of(curvature).ok_or(FitError::Option {
        what: "prior has spreads so wide that the curvature is none; each",
    })?;
    Ok(cholesky.inverse())
}

/// How many terms the figures tell: of each, the share of its variance that they have taken away.
fn told(search: &Search<'_>, covariance: &Matrix) -> f64 {
    let free = search.problem.free.iter().enumerate();
    let told = free.map(|(term, free)| {
        let share = covariance.at(term, term) / (free.ln_deviation * free.ln_deviation);
        1.0 - share.min(1.0)
    });
    told.sum()
}

/// How many times the variances of the figures are as large as was said, at the best terms; 1 where there are too few
/// figures to say.
pub(super) fn variances_of(
    search: &Search<'_>,
    point: &Point,
    slopes: &Slopes,
) -> Result<f64, FitError> {
    let weights = search.weights(point);
    let counted = weights.iter().filter(|weight| **weight > 0.0).count();
    let told = told(search, &covariance(&search.curvature(point, slopes, 1.0))?);
    let freedom = counted as f64 - told;
    Ok(match freedom >= 1.0 {
        true => {
            let runs = runs(search, &search.residuals(point));
            variances(search, point, freedom) * runs.design_effect()
        }
        false => 1.0,
    })
}

/// What is left, against what deviations say should be left (Birge, "The Calculation of Errors by the Method of Least
/// Squares", 1932); at least 1, as luck is no precision.
fn variances(search: &Search<'_>, point: &Point, freedom: f64) -> f64 {
    let residuals = search.residuals(point);
    let weighted = search.weights(point);
    let squares = residuals
        .iter()
        .zip(weighted)
        .map(|(residual, weight)| residual * residual * weight);
    f64::max(squares.sum::<f64>() / freedom, 1.0)
}

/// What is left beyond noise, if variances are so many times as large as was said.
fn model_deviation(search: &Search<'_>, variances: f64) -> f64 {
    let assumed = search.problem.model_deviation;
    let counted = search.rows.iter().filter(|row| !search.left_out[row.run]);
    let (mut sum, mut count) = (0.0, 0.0);
    for row in counted {
        let said = row.deviation * row.deviation;
        sum += variances * said - (said - assumed * assumed);
        count += 1.0;
    }
    (sum / f64::max(count, 1.0)).sqrt()
}

/// What is left of each run's figures, in deviations. An engine that is slow has longer times and lower rates.
fn runs(search: &Search<'_>, residuals: &[f64]) -> Clusters {
    let rows = search.rows.iter().zip(residuals);
    let counted = rows.filter(|(row, _)| !search.left_out[row.run]);
    Clusters::of(counted.map(|(row, residual)| {
        let figure = search.problem.runs[row.run].observed[row.figure].figure;
        let slower = if figure.is_rate() { -1.0 } else { 1.0 };
        (row.run as u64, slower * residual / row.deviation)
    }))
}

fn known(
    search: &Search<'_>,
    slopes: &Slopes,
    covariance: &Matrix,
    names: &[&'static str],
    term: usize,
) -> Known {
    let free = search.problem.free[term];
    let ln_deviation = covariance.at(term, term).sqrt();
    let is_identified =
        ln_deviation <= SHARE_MAX * free.ln_deviation && ln_deviation <= LN_DEVIATION_MAX;
    let slope_max = slopes
        .jacobian
        .column(term)
        .iter()
        .fold(0.0, |max: f64, slope| max.max(slope.abs()));
    let correlation = |other: &usize| {
        let both = (covariance.at(term, term) * covariance.at(*other, *other)).sqrt();
        (covariance.at(term, *other) / both).abs()
    };
    let others = (0..search.problem.free.len()).filter(|other| *other != term);
    let partner = others.max_by(|a, b| correlation(a).total_cmp(&correlation(b)));
    let reason = match partner {
        _ if slope_max < SLOPE_MIN => Reason::TooSmall,
        Some(other) if correlation(&other) > CORRELATION_MIN => {
            Reason::OnlyWith(names[search.problem.free[other].term])
        }
        _ => Reason::Open {
            median_s: libm::exp(free.ln_median),
            factor: libm::exp(1.96 * free.ln_deviation),
        },
    };
    Known {
        name: names[free.term],
        is_identified,
        reason,
    }
}

/// The two steps without which nothing can be predicted, as far as they are open.
fn open_steps(search: &Search<'_>, point: &Point, covariance: &Matrix) -> Vec<String> {
    let (prompt, context) = typical(search);
    let prompt_chunk = [Chunk {
        past: 0,
        len: prompt,
        sample: true,
    }];
    let decode = StepLoad {
        decodes: 1,
        decode_past: context,
        chunks: &[],
    };
    let prompt_step = StepLoad {
        decodes: 0,
        decode_past: 0,
        chunks: &prompt_chunk,
    };
    let steps = [
        (
            decode,
            format!("a decode step of one sequence at {context} tokens"),
        ),
        (
            prompt_step,
            format!("a step with a prompt of {prompt} tokens"),
        ),
    ];
    let open = steps.into_iter().filter_map(|(load, what)| {
        let ln_deviation = ln_deviation_of(search, point, covariance, &load);
        (ln_deviation > STEP_LN_DEVIATION_MAX).then(|| {
            let factor = libm::exp(1.96 * ln_deviation);
            format!("How long {what} takes is only known within a factor of {factor:.1}.")
        })
    });
    open.collect()
}

/// Mean prompt, and mean context half through the output.
fn typical(search: &Search<'_>) -> (u32, u64) {
    let requests = || {
        search
            .problem
            .runs
            .iter()
            .flat_map(|run| run.traffic.requests())
    };
    let count = requests().count().max(1) as u64;
    let prompt: u64 = requests().map(|each| u64::from(each.prompt_tokens)).sum();
    let output: u64 = requests().map(|each| u64::from(each.output_tokens)).sum();
    let prompt = (prompt / count).max(1);
    (prompt as u32, prompt + output / count / 2)
}

/// Standard deviation of the logarithm of a step's time.
fn ln_deviation_of(
    search: &Search<'_>,
    point: &Point,
    covariance: &Matrix,
    load: &StepLoad<'_>,
) -> f64 {
    let ln_step = |ln_terms: &[f64]| {
        let formula = Formula {
            terms: search.problem.terms(ln_terms),
            ..search.problem.prior.formula().clone()
        };
        libm::log(formula.seconds(load))
    };
    const WIDTH: f64 = 1e-3;
    let slope = |term: usize| {
        let mut above = point.ln_terms.clone();
        above[term] += WIDTH;
        (ln_step(&above) - ln_step(&point.ln_terms)) / WIDTH
    };
    let slopes: Vec<f64> = (0..point.ln_terms.len()).map(slope).collect();
    let spread = covariance.times(&slopes);
    let variance: f64 = slopes.iter().zip(&spread).map(|(a, b)| a * b).sum();
    variance.max(0.0).sqrt()
}

impl Identified {
    /// What is open, in words.
    pub(super) fn sentences(&self) -> Vec<String> {
        let open = self.terms.iter().filter(|term| !term.is_identified);
        let terms = open.map(|term| {
            let Known { name, reason, .. } = term;
            let meaning = Terms::meaning(name).unwrap_or_default();
            match reason {
                Reason::TooSmall => {
                    format!("`{name}` ({meaning}) is too small to show in any figure.")
                }
                Reason::OnlyWith(other) => {
                    let known = self
                        .terms
                        .iter()
                        .any(|term| term.name == *other && term.is_identified);
                    let why = if known {
                        "hides behind"
                    } else {
                        "cannot be told from"
                    };
                    format!("`{name}` ({meaning}) {why} `{other}`.")
                }
                Reason::Open { median_s, factor } => format!(
                    "`{name}` ({meaning}) is open: what was assumed of it still stands, {median_s:.2e} s within a \
                     factor of {factor:.0}."
                ),
            }
        });
        self.open_steps.iter().cloned().chain(terms).collect()
    }
}
