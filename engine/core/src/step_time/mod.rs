//! How long one engine step takes.
//!
//! A step computes one token for each decoding sequence and a chunk of prompt
//! for each sequence in prefill. Its duration is an integer number of
//! picoseconds, and for a batch that only decodes it is affine in the total
//! context, piece by piece: that is what gives a leap over many steps a closed
//! form that is exact, to the picosecond.

#[cfg(test)]
mod accuracy;
mod adapters;
mod all_reduce;
pub mod calibrated;
mod gpus;
mod profile;
#[cfg(test)]
mod properties;
mod roofline;
mod shape;
#[cfg(test)]
mod shapes;
mod spread;

pub use adapters::{AdapterOverhead, adapter_bytes_per_rank};
pub use all_reduce::{AllReduce, AllReduceRange};
pub use calibrated::{Calibrated, CalibratedProfile, CalibrationError, RequestOverhead};
pub use gpus::{Efficiency, Gpu};
pub use profile::{
    DecodeRow, MeasuredDecode, MeasuredPrefill, MeasuredSteps, PrefillRow, Profile, ProfileError,
    ProfilePrecision, ProfileTable, Provenance,
};
pub use roofline::{Roofline, RooflineError};
pub use shape::{Experts, ModelShape, Precision};
pub use spread::EfficiencySpread;

use crate::time::Picos;

/// A piece of a prompt computed in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Tokens of the sequence that are in the KV cache already.
    pub past: u32,
    /// Tokens computed in this step.
    pub len: u32,
    /// Whether the chunk reaches the end of the known tokens, so that the step samples a token.
    pub sample: bool,
}

/// What one step computes, in the terms that its duration depends on.
#[derive(Clone, Copy, Debug)]
pub struct StepLoad<'a> {
    /// Sequences that compute exactly one token and sample the next.
    pub decodes: u32,
    /// Tokens in the KV cache, summed over those sequences, before the step.
    pub decode_past: u64,
    /// The pieces of prompts in the step.
    pub chunks: &'a [Chunk],
}

/// The step time of a decode-only batch of a fixed size, as a function of its
/// total past: `fixed + per_past_token * past`, for every past up to `past_last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodePiece {
    /// Time that does not depend on the context (ps). Where the line through a
    /// piece that begins far out starts below zero, this is negative.
    pub fixed: i64,
    /// Time a token of total past adds (ps).
    pub per_past_token: Picos,
    /// The last total past for which this piece holds.
    pub past_last: u64,
}

impl DecodePiece {
    /// The duration of one step at this total past.
    ///
    /// # Panics
    /// If that is negative, which it is nowhere that the piece holds.
    #[must_use]
    #[inline]
    pub fn at(&self, past: u64) -> Picos {
        add(self.per_past_token * past, self.fixed)
    }

    /// The duration of `steps` steps of `batch` sequences that start at total
    /// past `past`, each step adding one token a sequence:
    /// `k a + c (k S + n k (k - 1) / 2)`.
    ///
    /// # Panics
    /// If that is negative, which it is nowhere that the piece holds.
    #[must_use]
    #[inline]
    pub fn leap(&self, batch: u32, past: u64, steps: u32) -> Picos {
        let (n, k) = (u64::from(batch), u64::from(steps));
        let past_sum = k * past + n * (k * k.saturating_sub(1) / 2);
        add(
            self.per_past_token * past_sum,
            i64::from(steps) * self.fixed,
        )
    }
}

#[inline]
fn add(time: Picos, fixed: i64) -> Picos {
    time.checked_add_signed(fixed)
        .expect("a piece is not negative where it holds")
}

/// A model of step times for one (engine, model, GPU, world size, precision).
///
/// Contract, held by property tests on every implementation:
/// `step` of a load without chunks equals `decode(n, past).at(past)`, and a
/// piece returned for `past` holds for all totals in `past..=past_last`.
pub trait StepTime {
    /// The duration of one step.
    fn step(&self, load: &StepLoad<'_>) -> Picos;

    /// The affine piece that gives the duration of decode-only steps of `batch`
    /// sequences, valid from total past `past` up to its own `past_last`.
    fn decode(&self, batch: u32, past: u64) -> DecodePiece;
}
