//! Step times from a fitted formula, with what is not known about it.
//!
//! A [`Profile`](super::Profile) interpolates between measured steps. This model has
//! a few terms that mean something physical instead, fitted to measured steps or to
//! measured requests, so that it also holds between and somewhat beyond them, and
//! so that what each term is worth, and how well it is known, can be said:
//!
//! ```text
//! step = launch_s + matrices(tokens) + sequence_s * sampled
//!      + kv_token_s * kv_factor(decodes) * decode_past            decodes: affine in the context
//!      + mixed_s, once if there is any chunk
//!      + sum over chunks: chunk_s + pair_s * pairs + chunk_kv_token_s * (past + len)
//!      + all_reduces * all_reduce(tokens)                         if it is modelled, not measured
//!
//! matrices(tokens) = factor(tokens) * sqrt(weights_s^2 + (token_s * tokens)^2)
//! ```
//!
//! `tokens` are all that the step computes, `sampled` the sequences that get a token
//! from it, and `pairs` of a chunk the queries times the keys that each sees. `weights_s` is the time to
//! read the weights and `token_s` that to multiply them with a token: a roofline with a rounded corner,
//! as [`Roofline`](super::Roofline) has it. The factors are 1 unless the measured steps show otherwise.
//!
//! No term is negative, so that without factors no step takes less time for more of anything. With the best values
//! and `token_factor`, the matrices never take less time for more tokens, which is checked; `kv_factor`, and the
//! factors with other draws, may bend times of neighbouring sizes the other way.
//!
//! The file has several draws of all terms together beside their best values. A run
//! that is given another draw is as likely as the first: what differs between
//! such runs is how far the measurements leave the answer open. A draw also makes all step times longer or
//! shorter together, by as much as runs differ and as the formula itself is off: no draw of terms holds either.

mod file;
mod terms;
#[cfg(test)]
mod tests;

pub use file::{
    BatchingLimits, CalibratedAllReduce, CalibratedProfile, CalibrationError,
    CalibrationProvenance, Cell, CellChunk, HowMeasured, Residuals, TermEstimate, WorldSizeFit,
};
pub use terms::{Factor, Knot, Terms};

use super::all_reduce::{self, AllReduceRange};
use super::roofline::picos;
use super::{AdapterOverhead, Chunk, DecodePiece, StepLoad, StepTime};
use crate::time::{Nanos, Picos};

/// Step times from a fitted formula. See the [module](self).
#[derive(Clone, Debug)]
pub struct Calibrated {
    formula: Formula,
    /// What else the terms may be, each as likely as the best: [`Calibrated::drawn`].
    draws: Vec<Terms>,
    /// Standard deviation of the natural logarithm of all step times together, beyond that of the terms.
    common_deviation: f64,
    /// The pieces of decode-only steps by batch, up to the largest that was asked for.
    decode: Vec<DecodePiece>,
}

/// The formula with its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Formula {
    /// The terms.
    pub terms: Terms,
    /// On the time of the matrices, by tokens in the step.
    pub token_factor: Factor,
    /// On the time to read KV cache, by sequences that decode.
    pub kv_factor: Factor,
    /// Exchanges between GPUs that the terms do not hold; none if they were measured with the steps.
    pub all_reduce: Option<CalibratedAllReduce>,
}

/// What a request takes beside its steps, by the length of its prompt, in its replica's server and on the way.
/// It takes nothing from the engine. Requests come into an engine in the order in which its server received them,
/// so that a long prompt also holds up those behind it, at its replica.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RequestOverhead {
    /// Every request (s).
    pub request_s: f64,
    /// Every token of its prompt (s).
    pub prompt_token_s: f64,
}

impl RequestOverhead {
    /// What a request with so long a prompt takes.
    #[must_use]
    pub fn of(&self, prompt_tokens: u32) -> Nanos {
        let seconds = self.request_s + self.prompt_token_s * f64::from(prompt_tokens);
        picos(seconds) / crate::time::PICOS_PER_NANO
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Calibrated {
    /// The model of a replica of `world_size` GPUs.
    ///
    /// # Errors
    /// If the file does not hold what it should, or has nothing of this world size.
    pub fn new(
        profile: &CalibratedProfile,
        world_size: u32,
        max_num_seqs: u32,
    ) -> Result<Self, CalibrationError> {
        profile.check()?;
        let fit = profile.world_size(world_size)?;
        Self::of_fit(fit, max_num_seqs)
    }

    /// The model of a fit.
    ///
    /// # Errors
    /// If the fit does not hold what it should.
    pub fn of_fit(fit: &WorldSizeFit, max_num_seqs: u32) -> Result<Self, CalibrationError> {
        let draws = fit.draws()?;
        Ok(Self {
            draws,
            common_deviation: common_deviation(fit),
            ..Self::of(fit.formula()?, max_num_seqs)
        })
    }

    /// The model of a formula that is sure of itself.
    #[must_use]
    pub fn of(formula: Formula, max_num_seqs: u32) -> Self {
        let decode = (0..=max_num_seqs).map(|n| formula.decode(n)).collect();
        Self {
            formula,
            draws: Vec::new(),
            common_deviation: 0.0,
            decode,
        }
    }

    /// The formula.
    #[must_use]
    pub fn formula(&self) -> &Formula {
        &self.formula
    }

    /// Whether there is anything to draw.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        !self.draws.is_empty() || self.common_deviation > 0.0
    }

    /// The same model as another measurement might have had it: with the draw of this
    /// number, counted round and round, and all step times `exp(deviations * d)` as long, where `d` is
    /// how far runs differ and the formula is off, together. `deviations` is to come from a standard normal
    /// distribution.
    #[must_use]
    pub fn drawn(&self, draw: u64, exp: impl Fn(f64) -> f64, deviations: f64) -> Self {
        let terms = match self.draws.len() as u64 {
            0 => self.formula.terms,
            draws => self.draws[(draw % draws) as usize],
        };
        let formula = Formula {
            terms,
            ..self.formula.clone()
        };
        let formula = formula.times(exp(deviations * self.common_deviation));
        Self {
            draws: self.draws.clone(),
            common_deviation: self.common_deviation,
            ..Self::of(formula, self.decode.len() as u32 - 1)
        }
    }

    /// What a request takes beside its steps: the server's and the client's work before
    /// its first token, as far as it takes nothing from the engine.
    #[must_use]
    pub fn request_overhead(&self, prompt_tokens: u32) -> Nanos {
        self.request_overheads().of(prompt_tokens)
    }

    /// The same, for any prompt.
    #[must_use]
    pub fn request_overheads(&self) -> RequestOverhead {
        RequestOverhead {
            request_s: self.formula.terms.request_s,
            prompt_token_s: self.formula.terms.prompt_token_s,
        }
    }

    /// What adapters add to a step; zero if no step with an adapter was measured.
    #[must_use]
    pub fn adapter_overhead(&self) -> AdapterOverhead {
        AdapterOverhead {
            step: picos(self.formula.terms.adapter_step_s),
            adapter: picos(self.formula.terms.adapter_s),
        }
    }
}

/// The standard deviation of normal numbers by the mean of their magnitudes: sqrt(pi / 2) (Geary, "The ratio of the
/// mean deviation to the standard deviation as a test of normality", 1935).
const DEVIATION_BY_MEAN_MAGNITUDE: f64 = 1.253_314_137_315_5;

/// How far all step times may be off together: runs differ, and the formula lacks something. A run visits few
/// kinds of steps, so that what the formula lacks of one is not averaged out by others.
fn common_deviation(fit: &WorldSizeFit) -> f64 {
    let unseen = fit.residuals.cross_validated_mean.unwrap_or(0.0);
    let of_model = fit.residuals.model_deviation;
    let of_model = of_model.unwrap_or(DEVIATION_BY_MEAN_MAGNITUDE * unseen);
    libm::hypot(fit.run_to_run, of_model)
}

impl Formula {
    /// All times so many times as long.
    fn times(self, factor: f64) -> Self {
        let longer = |range: AllReduceRange| AllReduceRange {
            alpha_s: range.alpha_s * factor,
            beta_bytes_per_s: range.beta_bytes_per_s / factor,
            ..range
        };
        let all_reduce = self.all_reduce.map(|exchanges| CalibratedAllReduce {
            ranges: exchanges.ranges.into_iter().map(longer).collect(),
            ..exchanges
        });
        Self {
            terms: self.terms.times(factor),
            all_reduce,
            ..self
        }
    }

    /// The duration of a step, without adapters (s).
    #[must_use]
    pub fn seconds(&self, load: &StepLoad<'_>) -> f64 {
        self.without_decode_kv_s(load) + self.kv_token_s(load.decodes) * load.decode_past as f64
    }

    /// All but reading the KV cache of sequences that decode (s).
    fn without_decode_kv_s(&self, load: &StepLoad<'_>) -> f64 {
        let terms = &self.terms;
        let (mut tokens, mut sampled) = (u64::from(load.decodes), u64::from(load.decodes));
        let mut chunks_s = 0.0;
        for chunk in load.chunks {
            tokens += u64::from(chunk.len);
            sampled += u64::from(chunk.sample);
            chunks_s += terms.chunk_s
                + terms.pair_s * pairs(chunk)
                + terms.chunk_kv_token_s * (f64::from(chunk.past) + f64::from(chunk.len));
        }
        if tokens == 0 {
            return 0.0;
        }
        if !load.chunks.is_empty() {
            chunks_s += terms.mixed_s;
        }
        terms.launch_s
            + self.matrices_s(tokens)
            + terms.sequence_s * sampled as f64
            + chunks_s
            + self.all_reduce_s(tokens)
    }

    /// The time of the matrix products of so many tokens (s).
    #[must_use]
    pub fn matrices_s(&self, tokens: u64) -> f64 {
        let multiply_s = self.terms.token_s * tokens as f64;
        let weights_s = self.terms.weights_s;
        self.token_factor.at(tokens) * (weights_s * weights_s + multiply_s * multiply_s).sqrt()
    }

    /// The time a token of decode past adds to a step of so many sequences (s).
    fn kv_token_s(&self, decodes: u32) -> f64 {
        self.terms.kv_token_s * self.kv_factor.at(decodes.into())
    }

    fn all_reduce_s(&self, tokens: u64) -> f64 {
        let Some(exchanges) = &self.all_reduce else {
            return 0.0;
        };
        let ranges: &[AllReduceRange] = &exchanges.ranges;
        exchanges.per_step * all_reduce::seconds(ranges, tokens * exchanges.bytes_per_token)
    }

    fn decode(&self, batch: u32) -> DecodePiece {
        let load = StepLoad {
            decodes: batch,
            decode_past: 0,
            chunks: &[],
        };
        DecodePiece {
            fixed: picos(self.without_decode_kv_s(&load)) as i64,
            per_past_token: picos(self.kv_token_s(batch)),
            past_last: u64::MAX,
        }
    }
}

impl StepTime for Calibrated {
    #[inline]
    fn step(&self, load: &StepLoad<'_>) -> Picos {
        let piece = self.decode(load.decodes, load.decode_past);
        if load.chunks.is_empty() {
            return piece.at(load.decode_past);
        }
        picos(self.formula.without_decode_kv_s(load)) + piece.per_past_token * load.decode_past
    }

    #[inline]
    fn decode(&self, batch: u32, _past: u64) -> DecodePiece {
        match self.decode.get(batch as usize) {
            Some(piece) => *piece,
            None => self.formula.decode(batch),
        }
    }
}

/// Queries of a chunk times the keys that each sees: its j-th token sees the past and j tokens of the chunk.
#[must_use]
pub fn pairs(chunk: &Chunk) -> f64 {
    let (past, len) = (f64::from(chunk.past), f64::from(chunk.len));
    len * past + len * (len + 1.0) * 0.5
}
