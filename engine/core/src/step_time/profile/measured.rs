//! From measured steps to a table that can be interpolated.
//!
//! A measurement has noise, and a [`Profile`](super::Profile) refuses rows that
//! contradict each other: more work in less time, or a line that falls below
//! zero. So the rows of a table are the medians of the repeats with the
//! contradictions taken out, and the repeats stay beside them: whoever fits
//! another model to them starts from what was measured.
//!
//! ```text
//! repeats ─median─> a time a cell ─monotone─> half-way between the longest of less work
//!                                             and the shortest of more work
//!                                 ─raised──> lines between rows hold to the order as well
//! ```

use super::table::{DecodeRow, PrefillRow, ProfileError, ProfileTable, Provenance};
use serde::{Deserialize, Serialize};

/// Every repeat of every step that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredSteps {
    /// Steps that only decode.
    pub decode: Vec<MeasuredDecode>,
    /// Steps of one chunk of one prompt.
    pub prefill: Vec<MeasuredPrefill>,
}

/// The repeats of a step that only decodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredDecode {
    /// Sequences in the step.
    pub batch: u32,
    /// Tokens in the KV cache before the step, summed over the sequences.
    pub past_tokens: u64,
    /// Duration of each repeat (s).
    pub seconds: Vec<f64>,
}

/// The repeats of a step of one chunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredPrefill {
    /// Tokens computed.
    pub tokens: u32,
    /// Tokens of the same prompt that were in the KV cache before.
    pub past_tokens: u64,
    /// Duration of each repeat (s).
    pub seconds: Vec<f64>,
}

/// What is added beyond a bound, as a share of it, so that rounding does not fall short of it.
const ROUNDING: f64 = 1e-9;

/// Rounds of raising. Each settles all but what the one before has moved; a few are enough.
const ROUNDS_MAX: usize = 1000;

impl ProfileTable {
    /// The table of measured steps, which it holds as well.
    ///
    /// # Errors
    /// If a step was never repeated, or what was measured is no full grid that
    /// begins with a batch of 1: see [`ProfileError`].
    pub fn of_measured(
        provenance: Provenance,
        measured: MeasuredSteps,
    ) -> Result<Self, ProfileError> {
        let decode = cells("decode", &measured.decode, |step| {
            (u64::from(step.batch), step.past_tokens, &step.seconds)
        })?;
        let prefill = cells("prefill", &measured.prefill, |step| {
            (u64::from(step.tokens), step.past_tokens, &step.seconds)
        })?;
        let decode_seconds = consistent(&decode, false);
        let prefill_seconds = consistent(&prefill, true);
        let table = Self {
            schema: Self::SCHEMA.to_owned(),
            provenance,
            decode: (measured.decode.iter().zip(decode_seconds))
                .map(|(step, seconds)| DecodeRow {
                    batch: step.batch,
                    past_tokens: step.past_tokens,
                    seconds,
                })
                .collect(),
            prefill: (measured.prefill.iter().zip(prefill_seconds))
                .map(|(step, seconds)| PrefillRow {
                    tokens: step.tokens,
                    past_tokens: step.past_tokens,
                    seconds,
                })
                .collect(),
            measured: Some(measured),
        };
        table.decode_curves(1)?;
        table.prefill_curves()?;
        Ok(table)
    }

    /// The largest difference between a row and the median of its repeats, as a
    /// share of the median; 0 for a table without repeats.
    #[must_use]
    pub fn correction_max(&self) -> f64 {
        let Some(measured) = &self.measured else {
            return 0.0;
        };
        let decode = (self.decode.iter().zip(&measured.decode))
            .map(|(row, step)| (row.seconds, &step.seconds));
        let prefill = (self.prefill.iter().zip(&measured.prefill))
            .map(|(row, step)| (row.seconds, &step.seconds));
        let share = |(seconds, repeats): (f64, &Vec<f64>)| match median(repeats) {
            Some(median) if median > 0.0 => (seconds / median - 1.0).abs(),
            _ => 0.0,
        };
        decode.chain(prefill).map(share).fold(0.0, f64::max)
    }
}

/// A step's work and time: `key` is the batch, or the tokens of the chunk.
#[derive(Clone, Copy, Debug)]
struct Cell {
    key: u64,
    past: u64,
    seconds: f64,
}

fn cells<Step>(
    kind: &'static str,
    steps: &[Step],
    of: impl Fn(&Step) -> (u64, u64, &Vec<f64>),
) -> Result<Vec<Cell>, ProfileError> {
    let cell = |(row, step): (usize, &Step)| {
        let (key, past, repeats) = of(step);
        let seconds = median(repeats).ok_or(ProfileError::NoRepeats { kind, row })?;
        Ok(Cell { key, past, seconds })
    };
    steps.iter().enumerate().map(cell).collect()
}

/// The middle of some durations, or half-way between the middle two.
fn median(seconds: &[f64]) -> Option<f64> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        Some(f64::midpoint(
            *sorted.get(middle.checked_sub(1)?)?,
            sorted[middle],
        ))
    } else {
        Some(sorted[middle])
    }
}

/// The times of the cells, in their order, without contradictions.
fn consistent(cells: &[Cell], meets_zero_tokens: bool) -> Vec<f64> {
    let mut seconds = monotone(cells);
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|&cell| (cells[cell].key, cells[cell].past));
    let curves: Vec<&[usize]> = order
        .chunk_by(|&a, &b| cells[a].key == cells[b].key)
        .collect();
    for _ in 0..ROUNDS_MAX {
        let before = seconds.clone();
        for (place, curve) in curves.iter().enumerate() {
            if let Some(lower) = place.checked_sub(1) {
                raise_above(cells, curves[lower], curve, &mut seconds);
            }
            raise_along(curve, &mut seconds);
            raise_at_zero_past(cells, curve, &mut seconds);
        }
        if let (true, [first, second, ..]) = (meets_zero_tokens, &curves[..]) {
            raise_at_zero_tokens(cells, first, second, &mut seconds);
        }
        if seconds == before {
            break;
        }
    }
    seconds
}

/// Of each cell, the mean of the longest time of no more work and the shortest
/// of no less: both never fall as work grows, so neither does their mean.
fn monotone(cells: &[Cell]) -> Vec<f64> {
    let at_most = |a: &Cell, b: &Cell| a.key <= b.key && a.past <= b.past;
    let mean = |cell: &Cell| {
        let less = cells.iter().filter(|other| at_most(other, cell));
        let more = cells.iter().filter(|other| at_most(cell, other));
        let longest = less.map(|other| other.seconds).fold(cell.seconds, f64::max);
        let shortest = more.map(|other| other.seconds).fold(cell.seconds, f64::min);
        f64::midpoint(longest, shortest)
    };
    cells.iter().map(mean).collect()
}

fn raise(seconds: &mut f64, least: f64) {
    if *seconds < least {
        *seconds = least * (1.0 + ROUNDING);
    }
}

/// More work than in the curve below takes no less time, on the lines between rows too.
fn raise_above(cells: &[Cell], lower: &[usize], upper: &[usize], seconds: &mut [f64]) {
    for &cell in upper {
        if let Some((a, b, share)) = around(cells, lower, cells[cell].past) {
            let least = super::mean(seconds[a], seconds[b], share);
            raise(&mut seconds[cell], least);
        }
    }
    for &cell in lower {
        if let Some((a, b, share)) = around(cells, upper, cells[cell].past) {
            let missing = seconds[cell] - super::mean(seconds[a], seconds[b], share);
            if missing > 0.0 {
                let (at_a, at_b) = (seconds[a] + missing, seconds[b] + missing);
                raise(&mut seconds[a], at_a);
                // One row may be both ends.
                raise(&mut seconds[b], at_b);
            }
        }
    }
}

/// The two rows of a curve around a past that it holds, and how far from the first to the second that is.
fn around(cells: &[Cell], curve: &[usize], past: u64) -> Option<(usize, usize, f64)> {
    let above = curve.partition_point(|&cell| cells[cell].past < past);
    let upper = *curve.get(above)?;
    if cells[upper].past == past {
        return Some((upper, upper, 0.0));
    }
    let lower = curve[above.checked_sub(1)?];
    let width = (cells[upper].past - cells[lower].past) as f64;
    let share = (past - cells[lower].past) as f64 / width;
    Some((lower, upper, share))
}

/// More context takes no less time.
fn raise_along(curve: &[usize], seconds: &mut [f64]) {
    for pair in curve.windows(2) {
        seconds[pair[1]] = seconds[pair[1]].max(seconds[pair[0]]);
    }
}

/// The line through the first two rows is not negative where there is no context.
fn raise_at_zero_past(cells: &[Cell], curve: &[usize], seconds: &mut [f64]) {
    if let [first, second, ..] = *curve {
        let share = cells[first].past as f64 / cells[second].past.max(1) as f64;
        let least = seconds[second] * share;
        raise(&mut seconds[first], least);
    }
}

/// The line through the two shortest chunks is not negative where there are no tokens.
fn raise_at_zero_tokens(cells: &[Cell], first: &[usize], second: &[usize], seconds: &mut [f64]) {
    for &cell in first {
        if let Some((a, b, share)) = around(cells, second, cells[cell].past) {
            let ratio = cells[cell].key as f64 / cells[a].key as f64;
            let least = super::mean(seconds[a], seconds[b], share) * ratio;
            raise(&mut seconds[cell], least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Profile, ProfilePrecision};
    use super::*;
    use proptest::prelude::*;

    fn provenance() -> Provenance {
        Provenance {
            engine: "none".into(),
            model: "none".into(),
            gpu: "none".into(),
            world_size: 1,
            precision: ProfilePrecision::F32,
            measured_on: "2026-11-21".into(),
            source: "made up".into(),
        }
    }

    /// A full grid of batches 1, 2, 4 and chunks 1, 16, 64, at contexts of each
    /// sequence; times are taken from `times`, over and over.
    fn measured(contexts: &[u64], times: &[f64]) -> MeasuredSteps {
        let mut times = times.iter().copied().cycle();
        let mut next = || vec![times.next().unwrap()];
        let mut steps = MeasuredSteps::default();
        for batch in [1, 2, 4] {
            for context in contexts {
                steps.decode.push(MeasuredDecode {
                    batch,
                    past_tokens: u64::from(batch) * context,
                    seconds: next(),
                });
            }
        }
        for tokens in [1, 16, 64] {
            for &past_tokens in contexts {
                steps.prefill.push(MeasuredPrefill {
                    tokens,
                    past_tokens,
                    seconds: next(),
                });
            }
        }
        steps
    }

    #[test]
    fn sound_measurements_are_kept_as_they_are() {
        let mut steps = measured(&[0, 100], &[1.0]);
        for step in &mut steps.decode {
            let seconds = 1.0 + f64::from(step.batch) + step.past_tokens as f64 / 1000.0;
            step.seconds = vec![seconds * 1.5, seconds, seconds * 0.9];
        }
        for step in &mut steps.prefill {
            step.seconds = vec![f64::from(step.tokens) + step.past_tokens as f64 / 100.0];
        }
        let table = ProfileTable::of_measured(provenance(), steps.clone()).unwrap();
        for (row, step) in table.decode.iter().zip(&steps.decode) {
            assert_eq!(row.seconds, step.seconds[1], "{row:?}");
        }
        assert_eq!(table.correction_max(), 0.0);
        assert_eq!(table.measured, Some(steps));
    }

    #[test]
    fn a_contradiction_is_settled_half_way() {
        let mut steps = measured(&[10, 20], &[1.0]);
        // Batch 1 slowed down, then not.
        steps.decode[0].seconds = vec![1.2];
        let table = ProfileTable::of_measured(provenance(), steps).unwrap();
        assert!((table.decode[0].seconds - 1.1).abs() < 1e-6, "{table:?}");
        assert!((table.decode[1].seconds - 1.1).abs() < 1e-6, "{table:?}");
        assert!((table.correction_max() - 0.1).abs() < 1e-6, "{table:?}");
    }

    #[test]
    fn a_rounding_at_a_row_is_no_contradiction() {
        let mut times = [1e-6; 12];
        times[7] = 0.762_226_996_040_958_1;
        times[8] = 0.229_389_056_619_748_3;
        times[9] = 0.445_047_555_286_982_6;
        times[10] = 0.743_801_043_491_366_6;
        times[11] = 0.082_218_898_262_150_97;
        let steps = measured(&[100, 4096], &times);
        ProfileTable::of_measured(provenance(), steps).unwrap();
    }

    #[test]
    fn a_step_without_repeats_is_named() {
        let mut steps = measured(&[10, 20], &[1.0]);
        steps.prefill[2].seconds.clear();
        let error = ProfileTable::of_measured(provenance(), steps).unwrap_err();
        assert_eq!(error.to_string(), "prefill[2] was never measured");
    }

    #[test]
    fn batches_without_a_first_are_refused() {
        let mut steps = measured(&[10, 20], &[1.0]);
        steps.decode.retain(|step| step.batch > 1);
        let error = ProfileTable::of_measured(provenance(), steps).unwrap_err();
        assert!(matches!(error, ProfileError::SmallestBatch { smallest: 2 }));
    }

    proptest! {
        /// However noisy, what was measured over a grid is a profile.
        #[test]
        fn every_grid_is_a_profile(
            times in proptest::collection::vec(1e-6_f64..1.0, 24),
            contexts in proptest::sample::subsequence(vec![0_u64, 1, 16, 100, 1024, 4096], 2..=4),
        ) {
            let steps = measured(&contexts, &times);
            let table = ProfileTable::of_measured(provenance(), steps).unwrap();
            let profile = Profile::new(&table, 4);
            prop_assert!(profile.is_ok(), "{:?}", profile.err());
        }
    }
}
