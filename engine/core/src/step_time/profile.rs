//! Step times by interpolation between measured steps.
//!
//! ```text
//! seconds                              decode: for each measured batch a curve over
//!    |              ___ batch 64       the total context, straight between rows and
//!    |        ___---                   beyond them; between two measured batches
//!    |  __----       ___ batch 1       their weighted mean
//!    |  _____-----
//!    +----------------------- past     prefill: the same over (tokens, past)
//! ```
//!
//! Straight pieces in integer picoseconds are what makes a leap exact. Each
//! piece begins where the one before it ends, so the time never jumps or falls
//! as the context grows; rounding the slopes costs at most half a picosecond a token.
//!
//! A line that is continued below the smallest measured row may come out below
//! zero, for a chunk shorter than any measured or for the fixed part of a step.
//! There it is held at zero: measure short chunks too where they matter.

mod measured;
mod table;
#[cfg(test)]
mod tests;

pub use measured::{MeasuredDecode, MeasuredPrefill, MeasuredSteps};
pub use table::{DecodeRow, PrefillRow, ProfileError, ProfilePrecision, ProfileTable, Provenance};

use super::roofline::picos;
use super::{Chunk, DecodePiece, StepLoad, StepTime};
use crate::time::Picos;
use table::Curve;

/// Step times by interpolation between measured steps.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The pieces of every batch size, one after the other.
    pieces: Vec<DecodePiece>,
    /// Where the pieces of each batch size begin, and where the last end.
    pieces_first: Vec<u32>,
    /// Seconds over past, for each measured number of tokens.
    prefill: Vec<Curve>,
    /// What every step pays once, see [`Profile::step`](StepTime::step) (ps).
    step_fixed: Picos,
}

impl Profile {
    /// Checks the table and prepares it for look-up of batches up to `max_num_seqs`.
    ///
    /// # Errors
    /// If the schema is unknown, a row makes no sense or contradicts another
    /// (more work in less time), or the table does not reach from a batch of 1
    /// to `max_num_seqs`: see [`ProfileError`], which names the rows.
    pub fn new(table: &ProfileTable, max_num_seqs: u32) -> Result<Self, ProfileError> {
        let curves = table.decode_curves(max_num_seqs)?;
        let prefill = table.prefill_curves()?;
        // Without sequences a step decodes nothing, in no time.
        let mut pieces = vec![DecodePiece {
            fixed: 0,
            per_past_token: 0,
            past_last: u64::MAX,
        }];
        let mut pieces_first = vec![0, 1];
        for batch in 1..=max_num_seqs {
            let above = curves.partition_point(|curve| curve.key < u64::from(batch));
            let (lower, upper) = (&curves[above.saturating_sub(1)], &curves[above]);
            pieces.extend(pieces_between(lower, upper, batch)?);
            pieces_first.push(pieces.len() as u32);
        }
        Ok(Self {
            pieces,
            pieces_first,
            prefill,
            step_fixed: picos(step_fixed(&curves)),
        })
    }

    /// One chunk alone in a step.
    fn chunk(&self, chunk: &Chunk) -> Picos {
        let (tokens, past) = (u64::from(chunk.len), u64::from(chunk.past));
        if let [only] = &self.prefill[..] {
            return picos(only.at(past));
        }
        // The segment that holds the tokens, or the nearest one beyond the ends.
        let above = self.prefill.partition_point(|curve| curve.key < tokens);
        let upper = above.clamp(1, self.prefill.len() - 1);
        let (lower, upper) = (&self.prefill[upper - 1], &self.prefill[upper]);
        let share = (tokens as f64 - lower.key as f64) / (upper.key - lower.key) as f64;
        picos(mean(lower.at(past), upper.at(past), share))
    }
}

impl StepTime for Profile {
    /// A step with chunks is the sum of its parts as if each were alone, but
    /// what every step pays once (launches, and reading the weights) is counted
    /// once: each part adds only what it takes beyond a step of no sequences,
    /// which is where the line through the two smallest batches leads. A table
    /// that is affine in tokens and past gives mixed steps that are so, too.
    fn step(&self, load: &StepLoad<'_>) -> Picos {
        let decode = self
            .decode(load.decodes, load.decode_past)
            .at(load.decode_past);
        let (mut longest, mut beyond) = (decode, decode.saturating_sub(self.step_fixed));
        for chunk in load.chunks {
            let alone = self.chunk(chunk);
            longest = longest.max(alone);
            beyond += alone.saturating_sub(self.step_fixed);
        }
        // Where even the longest part is below the fixed time there is nothing to count once.
        if longest < self.step_fixed {
            longest
        } else {
            self.step_fixed + beyond
        }
    }

    /// # Panics
    /// If `batch` is larger than the `max_num_seqs` that the profile was made for.
    fn decode(&self, batch: u32, past: u64) -> DecodePiece {
        let first = self.pieces_first[batch as usize] as usize;
        let end = self.pieces_first[batch as usize + 1] as usize;
        let pieces = &self.pieces[first..end];
        pieces[pieces.partition_point(|piece| piece.past_last < past)]
    }
}

/// The duration of a step without sequences or context, on the line through
/// the two smallest batches; of the smallest batch if there is only one (s).
fn step_fixed(curves: &[Curve]) -> f64 {
    let first = curves[0].at(0);
    match curves.get(1) {
        Some(second) => {
            let share = -(curves[0].key as f64) / (second.key - curves[0].key) as f64;
            mean(first, second.at(0), share).max(0.0)
        }
        None => first,
    }
}

/// The pieces of a batch between two measured ones.
fn pieces_between(
    lower: &Curve,
    upper: &Curve,
    batch: u32,
) -> Result<Vec<DecodePiece>, ProfileError> {
    let share = match upper.key - lower.key {
        0 => 0.0,
        width => (u64::from(batch) - lower.key) as f64 / width as f64,
    };
    let seconds = |past| mean(lower.at(past), upper.at(past), share);
    let mut bends: Vec<u64> = lower.bends().chain(upper.bends()).collect();
    bends.sort_unstable();
    bends.dedup();
    let (mut start, mut start_picos) = (0, picos(seconds(0)));
    let mut pieces = Vec::with_capacity(bends.len() + 1);
    for past_last in bends.into_iter().chain([u64::MAX]) {
        // Beyond the last bend the slope is the same however far one looks.
        let end = past_last.min(start + (1 << 20));
        let per_past_token = picos((seconds(end) - seconds(start)) / (end - start) as f64);
        let fixed = i128::from(start_picos) - i128::from(per_past_token) * i128::from(start);
        let fixed =
            i64::try_from(fixed).map_err(|_| ProfileError::TooSteep { batch, past: start })?;
        let piece = DecodePiece {
            fixed,
            per_past_token,
            past_last,
        };
        if past_last < u64::MAX {
            (start, start_picos) = (past_last, piece.at(past_last));
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

/// The point at `share` of the way from `a` to `b`, and beyond for shares outside 0 to 1.
fn mean(a: f64, b: f64, share: f64) -> f64 {
    a + (b - a) * share
}
