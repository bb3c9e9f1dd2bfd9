//! `profile.json`, version 2: a fit with its grid, its residuals, and where it came from.

use serde::{Deserialize, Serialize};

use super::super::profile::ProfilePrecision;
use super::super::{AllReduceRange, ModelShape};
use super::{Factor, Formula, Terms};

/// A calibrated engine, at one or several world sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibratedProfile {
    /// The version of this schema: [`CalibratedProfile::SCHEMA`].
    pub schema: String,
    /// What was measured, where, when and how.
    pub provenance: CalibrationProvenance,
    /// What is known of the engine's batches.
    pub batching: BatchingLimits,
    /// A fit a world size, in increasing order.
    pub world_sizes: Vec<WorldSizeFit>,
    /// What the measurements leave open, in words: one sentence each.
    pub not_identified: Vec<String>,
}

/// What a calibration was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationProvenance {
    /// What measured and fitted, with its version.
    pub tool: String,
    /// The engine, with its version as far as it is known.
    pub engine: String,
    /// The model's name.
    pub model: String,
    /// The model's shape; `null` of an endpoint that does not say.
    pub shape: Option<ModelShape>,
    /// The GPU or processor.
    pub device: String,
    /// Threads of a processor that computed; 0 on GPUs, and where it is not known.
    pub threads: u32,
    /// Number format of the weights; `null` of an endpoint that does not say.
    pub precision: Option<ProfilePrecision>,
    /// Number format of the KV cache; `null` of an endpoint that does not say.
    pub kv_precision: Option<ProfilePrecision>,
    /// The day, as `2026-11-21`.
    pub measured_on: String,
    /// Who measured, and with which command; of published results, where they are from.
    pub source: String,
}

/// What is known of an engine's batches. `null` is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchingLimits {
    /// Sequences that it computes at once.
    pub max_num_seqs: Option<u32>,
    /// Tokens of a step.
    pub max_num_batched_tokens: Option<u32>,
    /// Tokens of a KV block.
    pub block_size: Option<u32>,
    /// KV blocks.
    pub num_blocks: Option<u32>,
}

/// How a fit came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HowMeasured {
    /// From steps of all ranks together.
    Ranks,
    /// From steps of one rank alone, and a table of all-reduce times.
    ShardAlone,
    /// From requests at an endpoint, by simulating them.
    Requests,
    /// From published results, by simulating them.
    Published,
}

/// The fit at one world size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldSizeFit {
    /// GPUs, or ranks, of a replica.
    pub world_size: u32,
    /// How it came to be.
    pub how: HowMeasured,
    /// Every term, once, in any order.
    pub terms: Vec<TermEstimate>,
    /// On the time of the matrices, by tokens in the step.
    pub token_factor: Factor,
    /// On the time to read KV cache, by sequences that decode.
    pub kv_factor: Factor,
    /// Exchanges that are modelled beside the terms; `null` if the terms hold them.
    pub all_reduce: Option<CalibratedAllReduce>,
    /// Other values of all terms, each as likely as the best, in the order of `terms`.
    pub draws: Vec<Vec<f64>>,
    /// Standard deviation of the natural logarithm of all step times, from run to run.
    pub run_to_run: f64,
    /// How far the fit is from what was measured.
    pub residuals: Residuals,
    /// What was measured; empty if requests were, not steps.
    pub cells: Vec<Cell>,
}

/// A term with its interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermEstimate {
    /// Its name, one of [`Terms::names`].
    pub name: String,
    /// Its best value (s).
    pub value: f64,
    /// It is above this (s) and below `high` with 95 % confidence.
    pub low: f64,
    /// See `low` (s).
    pub high: f64,
    /// Whether the measurements say anything of it; if not, it is what was assumed.
    pub is_identified: bool,
}

/// Exchanges between the GPUs of a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibratedAllReduce {
    /// All-reduces in a step.
    pub per_step: f64,
    /// Bytes of one, a token of the step.
    pub bytes_per_token: u64,
    /// Its time by size. The last range also serves larger messages.
    pub ranges: Vec<AllReduceRange>,
}

/// How far a fit is from what was measured: shares of the measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residuals {
    /// Cells, or figures of runs, that were fitted.
    pub fitted: u32,
    /// Those that were left out as outliers.
    pub left_out: u32,
    /// Mean of the magnitudes.
    pub mean: f64,
    /// The largest magnitude.
    pub max: f64,
    /// Mean of the magnitudes where each was predicted by a fit that had not seen it.
    pub cross_validated_mean: Option<f64>,
    /// Standard deviation of the natural logarithm of what the formula itself is off: what is neither noise nor told by
    /// the draws. `null`, or missing, is not known; then errors where it was cross-validated stand for it.
    #[serde(default)]
    pub model_deviation: Option<f64>,
}

/// A measured step with its repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Sequences that decode.
    pub decodes: u32,
    /// Tokens in the KV cache before the step, summed over those.
    pub decode_past: u64,
    /// Pieces of prompts, each of which samples a token.
    pub chunks: Vec<CellChunk>,
    /// Distinct adapters in the step.
    pub adapters: u32,
    /// Duration of each repeat, as the host saw it, in the order of the rounds (s).
    pub seconds: Vec<f64>,
    /// The round of each repeat: every cell that is still measured has one repeat a round, in random order.
    pub rounds: Vec<u32>,
    /// Busy time of the device in each repeat; empty if the device does not say (s).
    pub device_seconds: Vec<f64>,
    /// Whether the fit leaves it out as an outlier.
    pub is_left_out: bool,
}

/// A piece of a prompt in a measured step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellChunk {
    /// Tokens of its sequence that were in the KV cache.
    pub past: u32,
    /// Tokens computed.
    pub len: u32,
}

/// Why a calibrated profile cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// The file is of another version, or no such profile.
    #[error(
        "the profile's schema is `{found}`, expected `{}`",
        CalibratedProfile::SCHEMA
    )]
    Schema {
        /// What the file says.
        found: String,
    },
    /// It has no fit.
    #[error("the profile has no world size; calibrate again")]
    Empty,
    /// Two fits are of one world size.
    #[error("the profile has world size {world_size} twice; keep one of them")]
    Twice {
        /// Which.
        world_size: u32,
    },
    /// The world size was not measured.
    #[error("the profile has no world size {world_size}, only {known}; calibrate that one too")]
    WorldSize {
        /// What was asked for.
        world_size: u32,
        /// What there is, in words.
        known: String,
    },
    /// A term is missing, unknown, or there twice.
    #[error("world size {world_size}: the term `{name}` is {what}")]
    Term {
        /// Of which fit.
        world_size: u32,
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A term is no time that anything takes.
    #[error("world size {world_size}: the term `{name}` is not between 0 and {seconds_max} s")]
    Seconds {
        /// Of which fit.
        world_size: u32,
        /// Its name.
        name: String,
        /// The longest that is taken seriously (s).
        seconds_max: f64,
    },
    /// A number makes no sense.
    #[error("world size {world_size}: {field} must be {expected}")]
    Number {
        /// Of which fit.
        world_size: u32,
        /// Where it is.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// More tokens take less time.
    #[error(
        "world size {world_size}: by token_factor, {tokens} tokens take less time than {} do",
        tokens - 1
    )]
    NotMonotone {
        /// Of which fit.
        world_size: u32,
        /// The larger number of tokens.
        tokens: u64,
    },
}

/// The longest time of a term that is taken seriously (s), by what it is the time of: far above what any
/// engine takes, and so that steps of 1024 sequences, or prompts, of 128 Ki tokens still fit 64 bits of picoseconds.
pub(super) fn seconds_max(name: &str) -> f64 {
    match name {
        // One query with one key.
        "pair_s" => 1e-4,
        "kv_token_s" | "chunk_kv_token_s" => 1e-3,
        "token_s" | "prompt_token_s" => 1.0,
        // A step, or one of its parts.
        _ => 60.0,
    }
}

/// The last place that a factor has a knot at.
const KNOT_MAX: u64 = 1 << 20;

/// The least and the largest factor.
const FACTORS: std::ops::RangeInclusive<f64> = 1e-3..=10.0;

/// Most bytes of an all-reduce, a token.
const BYTES_PER_TOKEN_MAX: u64 = 1 << 30;

/// The longest that the all-reduces of a step take seriously (s): beside what they do with tokens, and a token.
const EXCHANGES_S_MAX: (f64, f64) = (60.0, 1.0);

impl CalibratedProfile {
    /// The schema that this version reads and writes.
    pub const SCHEMA: &str = "foresail.profile/2";

    /// Whether it holds what it should.
    ///
    /// # Errors
    /// See [`CalibrationError`].
    pub fn check(&self) -> Result<(), CalibrationError> {
        if self.schema != Self::SCHEMA {
            return Err(CalibrationError::Schema {
                found: self.schema.clone(),
            });
        }
        if self.world_sizes.is_empty() {
            return Err(CalibrationError::Empty);
        }
        for (index, fit) in self.world_sizes.iter().enumerate() {
            let WorldSizeFit { world_size, .. } = *fit;
            let earlier = &self.world_sizes[..index];
            if earlier.iter().any(|other| other.world_size == world_size) {
                return Err(CalibrationError::Twice { world_size });
            }
            fit.draws()?;
            fit.formula()?;
            fit.check_intervals()?;
        }
        Ok(())
    }

    /// The fit of a world size.
    ///
    /// # Errors
    /// If there is none.
    pub fn world_size(&self, world_size: u32) -> Result<&WorldSizeFit, CalibrationError> {
        let of_size = |fit: &&WorldSizeFit| fit.world_size == world_size;
        self.world_sizes.iter().find(of_size).ok_or_else(|| {
            let known = self
                .world_sizes
                .iter()
                .map(|fit| fit.world_size.to_string());
            CalibrationError::WorldSize {
                world_size,
                known: known.collect::<Vec<_>>().join(", "),
            }
        })
    }
}

impl WorldSizeFit {
    /// The formula with the best values.
    ///
    /// # Errors
    /// If a term is missing or makes no sense, or more tokens take less time.
    pub fn formula(&self) -> Result<Formula, CalibrationError> {
        let values: Vec<f64> = self.terms.iter().map(|term| term.value).collect();
        let formula = Formula {
            terms: self.named(&values)?,
            token_factor: self.token_factor.clone(),
            kv_factor: self.kv_factor.clone(),
            all_reduce: self.all_reduce.clone(),
        };
        self.check_factors(&formula)?;
        self.check_all_reduce()?;
        Ok(formula)
    }

    /// The draws.
    ///
    /// # Errors
    /// If one has another number of values than there are terms, or they or the deviations beside them make no sense.
    pub fn draws(&self) -> Result<Vec<Terms>, CalibrationError> {
        let sound = self.run_to_run.is_finite() && (0.0..1.0).contains(&self.run_to_run);
        if !sound {
            return Err(self.number("run_to_run", "from 0 to below 1"));
        }
        let residuals = [
            ("cross_validated_mean", self.residuals.cross_validated_mean),
            ("model_deviation", self.residuals.model_deviation),
        ];
        for (field, value) in residuals {
            if value.is_some_and(|value| !value.is_finite() || value < 0.0) {
                return Err(self.number(field, "a number that is not negative, or null"));
            }
        }
        self.draws.iter().map(|draw| self.named(draw)).collect()
    }

    /// Values in the order of this file's terms.
    fn named(&self, values: &[f64]) -> Result<Terms, CalibrationError> {
        if values.len() != self.terms.len() {
            return Err(self.number("draws", "as many numbers each as there are terms"));
        }
        let error = |name: &str, what| CalibrationError::Term {
            world_size: self.world_size,
            name: name.to_owned(),
            what,
        };
        let mut terms = Terms::default();
        for (index, (term, value)) in self.terms.iter().zip(values).enumerate() {
            if self.terms[..index]
                .iter()
                .any(|earlier| earlier.name == term.name)
            {
                return Err(error(&term.name, "there twice"));
            }
            if !terms.set(&term.name, *value) {
                return Err(error(&term.name, "not known"));
            }
            let seconds_max = seconds_max(&term.name);
            if !(0.0..=seconds_max).contains(value) {
                return Err(CalibrationError::Seconds {
                    world_size: self.world_size,
                    name: term.name.clone(),
                    seconds_max,
                });
            }
        }
        let missing = Terms::names().find(|name| self.terms.iter().all(|term| term.name != *name));
        match missing {
            Some(name) => Err(error(name, "missing")),
            None => Ok(terms),
        }
    }

    fn check_factors(&self, formula: &Formula) -> Result<(), CalibrationError> {
        for (field, factor) in [
            ("token_factor", &self.token_factor),
            ("kv_factor", &self.kv_factor),
        ] {
            let far = factor.knots.last().is_some_and(|knot| knot.at > KNOT_MAX);
            let in_range = (factor.knots.iter()).all(|knot| FACTORS.contains(&knot.factor));
            if !factor.is_in_order() || !in_range || far {
                return Err(self.number(
                    field,
                    "from 0.001 to 10, in order of `at`, and at most at 1048576",
                ));
            }
        }
        let last = self.token_factor.knots.last().map_or(0, |knot| knot.at);
        let falls = |&tokens: &u64| {
            formula.matrices_s(tokens) < formula.matrices_s(tokens - 1) * (1.0 - 1e-9)
        };
        match (2..=last).find(falls) {
            Some(tokens) => Err(CalibrationError::NotMonotone {
                world_size: self.world_size,
                tokens,
            }),
            None => Ok(()),
        }
    }

    fn check_all_reduce(&self) -> Result<(), CalibrationError> {
        let Some(exchanges) = &self.all_reduce else {
            return Ok(());
        };
        let ranges = &exchanges.ranges;
        let in_order = ranges
            .windows(2)
            .all(|pair| pair[0].bytes_last < pair[1].bytes_last);
        let (step_s_max, token_s_max) = EXCHANGES_S_MAX;
        let is_sound = |range: &AllReduceRange| {
            let token_s = exchanges.bytes_per_token as f64 / range.beta_bytes_per_s;
            range.is_valid()
                && exchanges.per_step * range.alpha_s <= step_s_max
                && exchanges.per_step * token_s <= token_s_max
        };
        let sound = exchanges.per_step.is_finite()
            && exchanges.per_step >= 0.0
            && exchanges.bytes_per_token <= BYTES_PER_TOKEN_MAX
            && in_order
            && !ranges.is_empty()
            && ranges.iter().all(is_sound);
        if sound {
            return Ok(());
        }
        Err(self.number(
            "all_reduce",
            "a number of exchanges of at most 1 GiB a token, and ranges in order of size, with latencies that are \
             not negative and positive bandwidths, of at most 60 s a step and 1 s a token",
        ))
    }

    fn check_intervals(&self) -> Result<(), CalibrationError> {
        let in_order =
            |term: &TermEstimate| 0.0 <= term.low && term.low <= term.high && term.high.is_finite();
        if self.terms.iter().all(in_order) {
            return Ok(());
        }
        Err(self.number("terms", "with a `low` of 0 or more that is at most `high`"))
    }

    fn number(&self, field: &'static str, expected: &'static str) -> CalibrationError {
        CalibrationError::Number {
            world_size: self.world_size,
            field,
            expected,
        }
    }
}
