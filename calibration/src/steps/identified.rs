//! What the measured steps say of each term, and what they leave open.

use foresail_core::step_time::calibrated::{TermEstimate, Terms};

use super::design::{COLUMNS, Column, Model, Shape};
use super::observation::Observation;
use super::words::duration;
use crate::least_squares::{LeastSquaresError, Matrix, dependence};
use crate::statistics::{deviation, mean, quantile, sorted};

/// A term that no step has more of than this share of its time need not be known better.
const SHARE_MIN: f64 = 0.05;

/// An interval whose lower end is below this share of its upper one spans about everything down to nothing.
const LOW_BY_HIGH: f64 = 0.2;

/// That of the term that has what another lacks: it is as little known if it is as wide.
const LOW_BY_HIGH_PARTNER: f64 = 0.5;

/// What less than this share of a column adds to others is rounding.
const DEPENDENT: f64 = 1e-6;

/// From this correlation on, one term is more where the other is less.
const CORRELATION_MAX: f64 = -0.5;

/// Which columns steps have, and can be told apart.
pub(super) struct Columns {
    /// Those that are fitted.
    pub(super) fitted: Vec<Column>,
    /// Those that are the same as others, in the steps that there are.
    dependent: Vec<(Column, Vec<Column>)>,
    /// Those that no step has anything of.
    absent: Vec<Column>,
}

impl Columns {
    /// Of some steps. The knee is not known yet: it is taken in the middle of their tokens.
    pub(super) fn of(observations: &[Observation]) -> Result<Self, LeastSquaresError> {
        let logs = observations
            .iter()
            .map(|step| libm::log(step.load.tokens as f64));
        let shape = Shape {
            knee: libm::exp(mean(&logs.collect::<Vec<_>>())),
            ..Shape::default()
        };
        let matrix = Matrix::of(observations.len(), COLUMNS.len(), |row, column| {
            let step = &observations[row];
            COLUMNS[column].of(&step.load, &shape) / step.measured_s
        });
        let mut columns = Self {
            fitted: Vec::new(),
            dependent: Vec::new(),
            absent: Vec::new(),
        };
        for (column, parts) in COLUMNS.into_iter().zip(dependence(&matrix, DEPENDENT)?) {
            match parts {
                None => columns.fitted.push(column),
                Some(parts) if parts.is_empty() => columns.absent.push(column),
                Some(parts) => {
                    let parts = parts.into_iter().map(|part| COLUMNS[part]).collect();
                    columns.dependent.push((column, parts));
                }
            }
        }
        Ok(columns)
    }

    /// Terms that steps determine: the matrices have two.
    pub(super) fn terms(&self) -> usize {
        self.fitted.len() + usize::from(self.fitted.contains(&Column::Matrices))
    }

    /// Whether a term is fitted.
    fn fits(&self, name: &str) -> bool {
        let has = |column: Column| self.fitted.contains(&column);
        self.fitted.iter().any(|column| column.term() == name)
            || (name == "weights_s" && has(Column::Matrices))
    }

    /// Whether a term is fitted together with another that steps do not tell from it.
    fn is_shared(&self, name: &str) -> bool {
        let mut parts = self.dependent.iter().flat_map(|(_, parts)| parts);
        parts.any(|column| column.term() == name)
    }
}

/// The terms with their intervals, and a sentence for everything that is not known.
pub(super) struct Identified {
    pub(super) estimates: Vec<TermEstimate>,
    pub(super) draws: Vec<Vec<f64>>,
    pub(super) not_identified: Vec<String>,
}

/// Judges a model by its draws. What no step shows is as assumed, in every draw.
pub(super) fn judge(
    columns: &Columns,
    model: &Model,
    draws: &[Terms],
    assumed: &Terms,
    observations: &[Observation],
) -> Identified {
    let is_assumed = |name: &str| {
        !columns.fits(name)
            && columns
                .dependent
                .iter()
                .all(|(column, _)| column.term() != name)
    };
    let with_assumed = |terms: &Terms| {
        let mut terms = *terms;
        for name in Terms::names().filter(|name| is_assumed(name)) {
            terms.set(name, assumed.get(name).unwrap_or(0.0));
        }
        terms
    };
    let terms = with_assumed(&model.terms);
    let draws: Vec<Vec<f64>> = draws
        .iter()
        .map(|draw| with_assumed(draw).to_vec())
        .collect();
    let spread = |(index, name): (usize, &'static str)| {
        let values = draws.iter().map(|draw| draw[index]).collect();
        Spread::of(name, terms.get(name).unwrap_or(0.0), values)
    };
    let spreads: Vec<Spread> = Terms::names().enumerate().map(spread).collect();
    let open = open(&spreads, columns, observations);
    let is_identified = |spread: &Spread| {
        columns.fits(spread.name)
            && !columns.is_shared(spread.name)
            && open.iter().all(|(open, _)| open.name != spread.name)
    };
    let estimate = |spread: &Spread| TermEstimate {
        name: spread.name.to_owned(),
        value: spread.value,
        low: spread.low,
        high: spread.high,
        is_identified: is_identified(spread),
    };
    Identified {
        estimates: spreads.iter().map(estimate).collect(),
        not_identified: [
            of_absent(columns, assumed),
            of_dependent(columns),
            open.iter().map(of_open).collect(),
        ]
        .concat(),
        draws,
    }
}

/// A term in all draws.
struct Spread {
    name: &'static str,
    value: f64,
    low: f64,
    high: f64,
    values: Vec<f64>,
}

impl Spread {
    fn of(name: &'static str, value: f64, values: Vec<f64>) -> Self {
        let sorted = sorted(&values);
        let (low, high) = match sorted.is_empty() {
            true => (value, value),
            false => (quantile(&sorted, 0.025), quantile(&sorted, 0.975)),
        };
        Self {
            name,
            value,
            // Where no value is negative, the best may be beyond nearly all draws.
            low: low.min(value),
            high: high.max(value),
            values,
        }
    }

    /// Whether it may be less than this share of what it may be, and that matters.
    fn is_open(&self, low_by_high: f64, observations: &[Observation]) -> bool {
        let share = |step: &Observation| {
            let column = COLUMNS.iter().find(|column| column.term() == self.name);
            let straight = Shape::default();
            // The weights are read once a step.
            let amount = column.map_or(1.0, |column| column.of(&step.load, &straight));
            self.high * amount / step.measured_s
        };
        let share = observations.iter().map(share).fold(0.0, f64::max);
        self.low <= low_by_high * self.high && share > SHARE_MIN
    }

    fn correlation(&self, other: &Self) -> f64 {
        let (a, b) = (mean(&self.values), mean(&other.values));
        let pairs = self.values.iter().zip(&other.values);
        let products: Vec<f64> = pairs.map(|(x, y)| (x - a) * (y - b)).collect();
        let deviations = deviation(&self.values) * deviation(&other.values);
        if deviations > 0.0 {
            mean(&products) / deviations
        } else {
            0.0
        }
    }
}

/// Fitted terms that the draws leave open, each with what has what it lacks.
fn open<'a>(
    spreads: &'a [Spread],
    columns: &Columns,
    observations: &[Observation],
) -> Vec<(&'a Spread, Option<&'a Spread>)> {
    let fitted: Vec<&Spread> = spreads
        .iter()
        .filter(|spread| columns.fits(spread.name))
        .collect();
    let partner = |spread: &Spread| {
        let others = fitted.iter().filter(|other| other.name != spread.name);
        others
            .map(|other| (spread.correlation(other), *other))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(correlation, _)| *correlation < CORRELATION_MAX)
            .map(|(_, other)| other)
    };
    let is_open = |spread: &Spread| {
        let is_wide = spread.is_open(LOW_BY_HIGH, observations);
        let shares = |other: &Spread| {
            other.is_open(LOW_BY_HIGH, observations)
                && spread.is_open(LOW_BY_HIGH_PARTNER, observations)
        };
        is_wide || partner(spread).is_some_and(shares)
    };
    let open = fitted.iter().filter(|spread| is_open(spread));
    open.map(|spread| (*spread, partner(spread))).collect()
}

fn of_absent(columns: &Columns, assumed: &Terms) -> Vec<String> {
    let outside = ["request_s", "prompt_token_s"];
    let absent = columns.absent.iter().map(|column| column.term());
    let sentence = |name: &'static str| {
        let value = assumed.get(name).unwrap_or(0.0);
        let taken = if value > 0.0 {
            format!("taken as {}", duration(value))
        } else {
            "taken as nothing".to_owned()
        };
        let measure = remedy(name);
        format!(
            "no measured step shows `{name}` ({}), {taken}: {measure}",
            meaning(name)
        )
    };
    absent.chain(outside).map(sentence).collect()
}

fn of_dependent(columns: &Columns) -> Vec<String> {
    let sentence = |(column, parts): &(Column, Vec<Column>)| {
        let name = column.term();
        let parts = parts.iter().map(|part| format!("`{}`", part.term()));
        let parts = parts.collect::<Vec<_>>().join(" and ");
        let (meaning, measure) = (meaning(name), remedy(name));
        format!("`{name}` ({meaning}) cannot be told from {parts}, which holds both: {measure}")
    };
    columns.dependent.iter().map(sentence).collect()
}

fn of_open((spread, partner): &(&Spread, Option<&Spread>)) -> String {
    let why = match partner {
        Some(other) => format!("where it is less, `{}` is more", other.name),
        None => "the steps do not show it apart from noise".to_owned(),
    };
    format!(
        "`{}` ({}) may be anything from {} to {}, as {why}: {}",
        spread.name,
        meaning(spread.name),
        duration(spread.low),
        duration(spread.high),
        remedy(spread.name)
    )
}

fn meaning(name: &str) -> &'static str {
    Terms::meaning(name).unwrap_or("")
}

/// What would show a term.
fn remedy(name: &str) -> &'static str {
    match name {
        "request_s" | "prompt_token_s" => "measure requests at an endpoint",
        "launch_s" | "weights_s" => "measure steps of few and of many tokens, with more repeats",
        "token_s" => "measure steps of more tokens",
        "sequence_s" => "measure more batch sizes at short contexts",
        "kv_token_s" => "measure longer contexts, at several batch sizes",
        "pair_s" => "measure longer pieces of prompts, after several contexts",
        "chunk_kv_token_s" => {
            "measure pieces of prompts of several lengths, each after several contexts"
        }
        "chunk_s" | "mixed_s" => {
            "measure steps with several pieces of prompts beside steps with one"
        }
        "adapter_step_s" | "adapter_s" => "measure steps with one adapter, and with several",
        _ => "measure more steps",
    }
}
