//! The table of measured steps: its schema, and what must hold of it.

use super::measured::MeasuredSteps;
use serde::{Deserialize, Serialize};

/// The measured steps, as a profile file holds them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileTable {
    /// The version of this schema: [`ProfileTable::SCHEMA`].
    pub schema: String,
    /// What was measured, where and when.
    pub provenance: Provenance,
    /// Steps that only decode, in any order.
    pub decode: Vec<DecodeRow>,
    /// Steps of one chunk of one prompt, in any order.
    pub prefill: Vec<PrefillRow>,
    /// The repeats that the rows are the medians of, if the file has them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub measured: Option<MeasuredSteps>,
}

/// What a profile was measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Engine and version.
    pub engine: String,
    /// Model.
    pub model: String,
    /// GPU.
    pub gpu: String,
    /// GPUs of the replica.
    pub world_size: u32,
    /// Number format of the weights.
    pub precision: ProfilePrecision,
    /// Date of the measurement.
    pub measured_on: String,
    /// Who measured, and with which command.
    pub source: String,
}

/// Number format of the weights that were measured: those of
/// [`Precision`](super::super::Precision), and the one that only CPUs compute in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfilePrecision {
    /// 32-bit float.
    F32,
    /// 16-bit brain float.
    Bf16,
    /// 8-bit float.
    Fp8,
}

/// A measured step that only decodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeRow {
    /// Sequences in the step.
    pub batch: u32,
    /// Tokens in the KV cache before the step, summed over the sequences.
    pub past_tokens: u64,
    /// Duration (s).
    pub seconds: f64,
}

/// A measured step of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefillRow {
    /// Tokens computed.
    pub tokens: u32,
    /// Tokens of the same prompt that were in the KV cache before.
    pub past_tokens: u64,
    /// Duration (s).
    pub seconds: f64,
}

/// The longest step that is taken seriously (s), and the largest context.
const SECONDS_MAX: f64 = 3600.0;
const PAST_TOKENS_MAX: u64 = 1_000_000_000_000;

/// Why a table cannot be used. Rows are counted from 0, as in the file's lists.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProfileError {
    /// The file is of another version, or not a profile.
    #[error(
        "the profile's schema is `{found}`, expected `{}`",
        ProfileTable::SCHEMA
    )]
    Schema {
        /// What the file says.
        found: String,
    },
    /// The table has no rows of a kind.
    #[error("the profile has no {kind} rows")]
    Empty {
        /// Which rows.
        kind: &'static str,
    },
    /// A step has no repeats.
    #[error("{kind}[{row}] was never measured")]
    NoRepeats {
        /// Which rows.
        kind: &'static str,
        /// The row.
        row: usize,
    },
    /// A step takes no time that a step can take.
    #[error("{kind}[{row}]: seconds must be from 0 to 3600, got {seconds}")]
    Seconds {
        /// Which rows.
        kind: &'static str,
        /// The row.
        row: usize,
        /// Its duration (s).
        seconds: f64,
    },
    /// A context that no engine holds.
    #[error(
        "{kind}[{row}]: past_tokens must be at most {}, got {past}",
        PAST_TOKENS_MAX
    )]
    Past {
        /// Which rows.
        kind: &'static str,
        /// The row.
        row: usize,
        /// Its past.
        past: u64,
    },
    /// A step computes nothing.
    #[error("{kind}[{row}]: {field} must be at least 1")]
    Zero {
        /// Which rows.
        kind: &'static str,
        /// The row.
        row: usize,
        /// `batch` or `tokens`.
        field: &'static str,
    },
    /// Two rows say the same, or contradict each other.
    #[error("{kind}[{row}] repeats {kind}[{earlier}]: {field} {key}, past_tokens {past}")]
    Duplicate {
        /// Which rows.
        kind: &'static str,
        /// The later row.
        row: usize,
        /// The earlier row.
        earlier: usize,
        /// `batch` or `tokens`.
        field: &'static str,
        /// Its value.
        key: u64,
        /// Their past.
        past: u64,
    },
    /// More work takes less time.
    #[error(
        "{kind}[{more}] does more work than {kind}[{less}] in less time: {more_seconds} s against {less_seconds} s"
    )]
    NotMonotone {
        /// Which rows.
        kind: &'static str,
        /// The row with more work.
        more: usize,
        /// Its duration (s).
        more_seconds: f64,
        /// The row with less work.
        less: usize,
        /// Its duration, or that of its batch at the other row's past (s).
        less_seconds: f64,
    },
    /// The prefill rows are not a full grid.
    #[error(
        "prefill has no row of tokens {tokens}, past_tokens {past}, though both occur in other rows"
    )]
    MissingCell {
        /// The tokens of the missing row.
        tokens: u64,
        /// Its past.
        past: u64,
    },
    /// Some batches have one row, so that they would not slow down with the context.
    #[error(
        "decode has {rows} rows of batch {batch} but {other_rows} of batch {other}; measure each batch at as many contexts"
    )]
    MissingRows {
        /// A batch.
        batch: u64,
        /// Its rows.
        rows: usize,
        /// The smallest batch.
        other: u64,
        /// Its rows.
        other_rows: usize,
    },
    /// Two rows are so close that the line through them is of no use.
    #[error(
        "decode rises too steeply around batch {batch}, past_tokens {past}: are these seconds?"
    )]
    TooSteep {
        /// A batch near the rows.
        batch: u32,
        /// Where the line begins.
        past: u64,
    },
    /// The line through the first rows falls below zero before it reaches zero work.
    #[error(
        "{kind}[{row}]: the line through it and the next row is negative at zero {axis}; add a row with less"
    )]
    NegativeAtZero {
        /// Which rows.
        kind: &'static str,
        /// The first row of the line.
        row: usize,
        /// `past_tokens` or `tokens`.
        axis: &'static str,
    },
    /// Small batches were not measured.
    #[error("the smallest batch of the profile is {smallest}; measure batch 1")]
    SmallestBatch {
        /// The smallest batch in the table.
        smallest: u64,
    },
    /// Large batches were not measured.
    #[error("the profile was measured up to batch {largest}, but max_num_seqs is {max_num_seqs}")]
    LargestBatch {
        /// The largest batch in the table.
        largest: u64,
        /// What was asked for.
        max_num_seqs: u32,
    },
}

impl ProfileTable {
    /// The schema that this version reads and writes.
    pub const SCHEMA: &str = "foresail.profile/1";

    /// The decode rows as one curve a batch, checked.
    pub(super) fn decode_curves(&self, max_num_seqs: u32) -> Result<Vec<Curve>, ProfileError> {
        if self.schema != Self::SCHEMA {
            return Err(ProfileError::Schema {
                found: self.schema.clone(),
            });
        }
        let rows = self
            .decode
            .iter()
            .map(|row| (u64::from(row.batch), row.past_tokens, row.seconds));
        let curves = curves(&DECODE, rows)?;
        let (smallest, largest) = (&curves[0], curves[curves.len() - 1].key);
        if let Some(curve) = curves
            .iter()
            .find(|curve| curve.knots.len() != smallest.knots.len())
        {
            let (rows, other_rows) = (curve.knots.len(), smallest.knots.len());
            return Err(ProfileError::MissingRows {
                batch: curve.key,
                rows,
                other: smallest.key,
                other_rows,
            });
        }
        if smallest.key != 1 {
            return Err(ProfileError::SmallestBatch {
                smallest: smallest.key,
            });
        }
        if largest < u64::from(max_num_seqs) {
            return Err(ProfileError::LargestBatch {
                largest,
                max_num_seqs,
            });
        }
        Ok(curves)
    }

    /// The prefill rows as one curve a number of tokens, checked.
    pub(super) fn prefill_curves(&self) -> Result<Vec<Curve>, ProfileError> {
        let rows = self
            .prefill
            .iter()
            .map(|row| (u64::from(row.tokens), row.past_tokens, row.seconds));
        let curves = curves(&PREFILL, rows)?;
        let mut pasts: Vec<u64> = self.prefill.iter().map(|row| row.past_tokens).collect();
        pasts.sort_unstable();
        pasts.dedup();
        for curve in &curves {
            let missing = |past: &&u64| !curve.knots.iter().any(|knot| knot.past == **past);
            if let Some(&past) = pasts.iter().find(missing) {
                return Err(ProfileError::MissingCell {
                    tokens: curve.key,
                    past,
                });
            }
        }
        if let [first, second, ..] = &curves[..] {
            check_zero_tokens(first, second)?;
        }
        Ok(curves)
    }
}

/// What the two kinds of rows are called.
struct Kind {
    name: &'static str,
    key: &'static str,
}

const DECODE: Kind = Kind {
    name: "decode",
    key: "batch",
};
const PREFILL: Kind = Kind {
    name: "prefill",
    key: "tokens",
};

/// A measured point of a curve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knot {
    pub(super) past: u64,
    seconds: f64,
    row: usize,
}

/// Seconds over past: straight between the knots, and on beyond them.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// The batch, or the tokens.
    pub(super) key: u64,
    pub(super) knots: Vec<Knot>,
}

impl Curve {
    /// The duration at a past (s).
    pub(super) fn at(&self, past: u64) -> f64 {
        let knots = &self.knots;
        if knots.len() == 1 {
            return knots[0].seconds;
        }
        let upper = knots
            .partition_point(|knot| knot.past < past)
            .clamp(1, knots.len() - 1);
        let (a, b) = (&knots[upper - 1], &knots[upper]);
        if past == b.past {
            // The line through both may miss the second by a rounding.
            return b.seconds;
        }
        let share = (past as f64 - a.past as f64) / (b.past - a.past) as f64;
        super::mean(a.seconds, b.seconds, share)
    }

    /// The pasts where the slope changes: all knots but the first and the last.
    pub(super) fn bends(&self) -> impl Iterator<Item = u64> {
        let end = self.knots.len().max(2) - 1;
        self.knots
            .get(1..end)
            .unwrap_or_default()
            .iter()
            .map(|knot| knot.past)
    }

    fn holds(&self, past: u64) -> bool {
        (self.knots[0].past..=self.knots[self.knots.len() - 1].past).contains(&past)
    }

    /// The knot nearest below a past, to name in an error.
    fn row_at(&self, past: u64) -> usize {
        let above = self.knots.partition_point(|knot| knot.past <= past);
        self.knots[above.saturating_sub(1)].row
    }
}

/// Groups rows of (key, past, seconds) into curves in order of key and past,
/// and checks whatever holds for both kinds.
fn curves(
    kind: &Kind,
    rows: impl Iterator<Item = (u64, u64, f64)>,
) -> Result<Vec<Curve>, ProfileError> {
    let mut knots: Vec<(u64, Knot)> = Vec::new();
    for (row, (key, past, seconds)) in rows.enumerate() {
        check_row(kind, row, key, past, seconds)?;
        knots.push((key, Knot { past, seconds, row }));
    }
    knots.sort_by_key(|(key, knot)| (*key, knot.past, knot.row));
    let mut curves: Vec<Curve> = Vec::new();
    for (key, knot) in knots {
        match curves.last_mut().filter(|curve| curve.key == key) {
            Some(curve) => curve.knots.push(knot),
            None => curves.push(Curve {
                key,
                knots: vec![knot],
            }),
        }
    }
    if curves.is_empty() {
        return Err(ProfileError::Empty { kind: kind.name });
    }
    curves
        .iter()
        .try_for_each(|curve| check_curve(kind, curve))?;
    curves
        .windows(2)
        .try_for_each(|pair| check_pair(kind, &pair[0], &pair[1]))?;
    Ok(curves)
}

fn check_row(
    kind: &Kind,
    row: usize,
    key: u64,
    past: u64,
    seconds: f64,
) -> Result<(), ProfileError> {
    let (kind, field) = (kind.name, kind.key);
    if key == 0 {
        return Err(ProfileError::Zero { kind, row, field });
    }
    if past > PAST_TOKENS_MAX {
        return Err(ProfileError::Past { kind, row, past });
    }
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(ProfileError::Seconds { kind, row, seconds });
    }
    Ok(())
}

/// No row twice, more context never faster, and no time below zero without context.
fn check_curve(kind: &Kind, curve: &Curve) -> Result<(), ProfileError> {
    for pair in curve.knots.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        if a.past == b.past {
            let (row, earlier, field) = (b.row, a.row, kind.key);
            let (key, past) = (curve.key, a.past);
            return Err(ProfileError::Duplicate {
                kind: kind.name,
                row,
                earlier,
                field,
                key,
                past,
            });
        }
        if b.seconds < a.seconds {
            return Err(not_monotone(kind, b.row, b.seconds, a.row, a.seconds));
        }
    }
    if curve.at(0) < 0.0 {
        let row = curve.knots[0].row;
        return Err(ProfileError::NegativeAtZero {
            kind: kind.name,
            row,
            axis: "past_tokens",
        });
    }
    Ok(())
}

/// A larger batch or chunk is never faster with the same past, where both were measured.
fn check_pair(kind: &Kind, lower: &Curve, upper: &Curve) -> Result<(), ProfileError> {
    let knots = lower.knots.iter().chain(&upper.knots);
    let shared = knots
        .map(|knot| knot.past)
        .filter(|past| lower.holds(*past) && upper.holds(*past));
    for past in shared {
        let (less, more) = (lower.at(past), upper.at(past));
        if more < less {
            return Err(not_monotone(
                kind,
                upper.row_at(past),
                more,
                lower.row_at(past),
                less,
            ));
        }
    }
    Ok(())
}

/// Chunks shorter than the shortest measured one must not take less than no time.
fn check_zero_tokens(first: &Curve, second: &Curve) -> Result<(), ProfileError> {
    let share = -(first.key as f64) / (second.key - first.key) as f64;
    for knot in &first.knots {
        if super::mean(knot.seconds, second.at(knot.past), share) < 0.0 {
            return Err(ProfileError::NegativeAtZero {
                kind: "prefill",
                row: knot.row,
                axis: "tokens",
            });
        }
    }
    Ok(())
}

fn not_monotone(
    kind: &Kind,
    more: usize,
    more_seconds: f64,
    less: usize,
    less_seconds: f64,
) -> ProfileError {
    ProfileError::NotMonotone {
        kind: kind.name,
        more,
        more_seconds,
        less,
        less_seconds,
    }
}
