//! How long each stage of a start takes.
//!
//! ```text
//! starts, each a time a stage ──> fit ──> mixture of distributions a stage ──> scenario_table: TOML
//!                                              └──> drawn: what whole starts come to
//! ```
//!
//! Starts are few, ten or so, so the rule is plain, and says of each stage what it chose:
//!
//! 1. A stage that takes less than a hundredth of a start, or whose times differ by less than 2 %,
//!    is its mean: its spread is nothing that a start shows.
//! 2. Times far from the others (a stalled disk, a cache that had to be filled) are told, and stay:
//!    they are an outcome of their own, as likely as they were often.
//! 3. The others are log-normal, as times of many small causes that multiply are, unless there are
//!    enough of them to see that they are not, or they differ by so much that the tail would be made
//!    up. Then they are drawn again as they were.
//!
//! Stages are fitted, and drawn, each for itself. What that loses shows where [`drawn`] is
//! compared with whole starts.

mod mixture;
mod table;
#[cfg(test)]
mod tests;

use foresail_scenarios::distribution::Distribution;
use foresail_scenarios::random::Stream;
use serde::Serialize;

use crate::statistics::{mean, quantile, sorted};

pub use self::mixture::{Choice, Outcome};
pub use self::table::{TableStage, scenario_table};

/// Fewer starts than this say nothing of a spread.
pub const STARTS_MIN: usize = 5;

/// The stages of one start in order: names, and how long each took (s).
pub type Start = Vec<(String, f64)>;

/// A stage, as it was measured and fitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageFit {
    /// Its name.
    pub name: String,
    /// How long it took in each start, in their order (s).
    pub seconds: Vec<f64>,
    /// The mean (s).
    pub mean_s: f64,
    /// The median (s).
    pub p50_s: f64,
    /// The 90th percentile, interpolated between starts (s).
    pub p90_s: f64,
    /// The longest (s).
    pub max_s: f64,
    /// The starts, from 0, in which it took far from as long as in the others.
    pub outliers: Vec<usize>,
    /// What was chosen, and why.
    pub choice: Choice,
    /// How it can go; the probabilities add up to 1.
    pub outcomes: Vec<Outcome>,
}

/// Why starts cannot be fitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColdStartError {
    /// There are too few.
    #[error("{starts} starts say nothing of a spread; measure at least {STARTS_MIN}")]
    TooFew {
        /// So many there are.
        starts: usize,
    },
    /// The starts do not have the same stages.
    #[error(
        "start {start} has the stages {found}, and start 1 has {expected}; measure starts of one kind"
    )]
    Stages {
        /// Which start, from 1.
        start: usize,
        /// The stages of the first, in words.
        expected: String,
        /// Its stages, in words.
        found: String,
    },
    /// A time is none.
    #[error("stage `{stage}` of start {start} took no finite time from 0 up")]
    Time {
        /// Which stage.
        stage: String,
        /// Which start, from 1.
        start: usize,
    },
}

/// Fits every stage of starts of one kind.
///
/// # Errors
/// If there are fewer than [`STARTS_MIN`], if they do not have the same stages in the same order, or
/// if a time is negative or not finite.
pub fn fit(starts: &[Start]) -> Result<Vec<StageFit>, ColdStartError> {
    if starts.len() < STARTS_MIN {
        return Err(ColdStartError::TooFew {
            starts: starts.len(),
        });
    }
    let first = &starts[0];
    for (index, start) in starts.iter().enumerate() {
        check(first, start, index + 1)?;
    }
    let total_s: f64 = starts.iter().map(total).sum();
    let start_s = total_s / starts.len() as f64;
    let stage = |(index, (name, _)): (usize, &(String, f64))| {
        let seconds = starts.iter().map(|start| start[index].1).collect();
        of_stage(name, seconds, start_s)
    };
    Ok(first.iter().enumerate().map(stage).collect())
}

/// How long a start took: the sum of its stages (s).
#[must_use]
pub fn total(start: &Start) -> f64 {
    start.iter().map(|(_, seconds)| seconds).sum()
}

/// What so many starts take, drawn from the fit as the simulator draws them (s).
#[must_use]
pub fn drawn(stages: &[StageFit], starts: usize, random: &mut Stream) -> Vec<f64> {
    let mut one = || stages.iter().map(|stage| stage.sample(random)).sum();
    (0..starts).map(|_| one()).collect()
}

/// A percentile of times, interpolated linearly between the two next to it (definition 7 of Hyndman
/// and Fan, "Sample Quantiles in Statistical Packages", 1996); 0 of none. The share is from 0 to 1.
#[must_use]
pub fn percentile(seconds: &[f64], share: f64) -> f64 {
    if seconds.is_empty() {
        return 0.0;
    }
    quantile(&sorted(seconds), share)
}

impl StageFit {
    /// One draw (s).
    fn sample(&self, random: &mut Stream) -> f64 {
        let mut left = Distribution::Uniform { min: 0.0, max: 1.0 }.sample(random);
        let chosen = self.outcomes.iter().find(|outcome| {
            left -= outcome.probability;
            left < 0.0
        });
        // Probabilities that were divided may add up to a little less than 1.
        let outcome = chosen.or(self.outcomes.last());
        outcome.map_or(0.0, |outcome| outcome.seconds.sample(random))
    }
}

fn of_stage(name: &str, seconds: Vec<f64>, start_s: f64) -> StageFit {
    let mean_s = mean(&seconds);
    let (choice, outcomes, outliers) = mixture::choose(&seconds, start_s);
    StageFit {
        name: name.to_owned(),
        mean_s,
        p50_s: percentile(&seconds, 0.5),
        p90_s: percentile(&seconds, 0.9),
        max_s: percentile(&seconds, 1.0),
        seconds,
        outliers,
        choice,
        outcomes,
    }
}

fn check(first: &Start, start: &Start, number: usize) -> Result<(), ColdStartError> {
    let names = |start: &Start| {
        let names: Vec<&str> = start.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    };
    let (expected, found) = (names(first), names(start));
    if expected != found {
        return Err(ColdStartError::Stages {
            start: number,
            expected,
            found,
        });
    }
    let wrong = start
        .iter()
        .find(|(_, seconds)| !seconds.is_finite() || *seconds < 0.0);
    match wrong {
        Some((stage, _)) => Err(ColdStartError::Time {
            stage: stage.clone(),
            start: number,
        }),
        None => Ok(()),
    }
}
