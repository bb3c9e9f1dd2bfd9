//! From logits to what a step returns.
//!
//! What comes of a row of logits depends on that row alone, so rows can be
//! shared out over threads without changing anything. A device may choose by
//! itself; this is what it does otherwise, and what it is compared with.

use std::num::NonZeroUsize;

use crate::backend::{Row, RowOutput};
use crate::sampling::{Logprobs, SampleError, Sampled, Scratch, logprobs, sample};

/// Below so many logits, it is not worth to start threads: a draw from a
/// million takes about a millisecond, and a thread some ten microseconds.
const LOGITS_THREADED_MIN: usize = 200_000;

/// Threads at most.
const THREADS_MAX: usize = 8;

/// What a row of logits is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The row of the step.
    pub row: usize,
    /// The place in its sequence of the token that the logits are of: a known one, or the one to sample.
    pub place: usize,
}

/// What is wanted of the logits of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Wants<'a> {
    /// What each row of logits is for, in their order.
    pub wants: &'a [Want],
    /// The rows of the step.
    pub rows: &'a [Row<'a>],
    /// For how many steps after this one, at most, the rows are certain to go on
    /// alike: see [`crate::backend::StepInput::ahead`].
    pub ahead: u32,
}

/// What came of a row of logits.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// It is of a token that is known.
    Known(Logprobs),
    /// A token was chosen.
    Sampled(Sampled),
    /// The logits, or what the request says of them, leave nothing to choose.
    Failed(SampleError),
}

impl Choice {
    pub(crate) fn add_to(self, output: &mut RowOutput) {
        match self {
            Self::Known(logprobs) => output.prompt_logprobs.push(logprobs),
            Self::Sampled(sampled) => output.sampled = Some(sampled),
            Self::Failed(error) => {
                output.failure.get_or_insert(error);
            }
        }
    }
}

/// What is wanted of each row of `logits`, `[wants][vocabulary]`, in their order.
#[must_use]
pub fn choose(logits: &[f32], wants: &Wants<'_>) -> Vec<Choice> {
    let Wants { wants, rows, .. } = *wants;
    if wants.is_empty() {
        return Vec::new();
    }
    let width = logits.len() / wants.len();
    let threads = threads(logits.len()).min(wants.len());
    let wants_each = wants.len().div_ceil(threads);
    let parts = logits
        .chunks(width * wants_each)
        .zip(wants.chunks(wants_each));
    std::thread::scope(|scope| {
        let mut parts = parts.map(|(logits, wants)| move || choose_in_order(logits, wants, rows));
        let first = parts.next();
        let others: Vec<_> = parts.map(|part| scope.spawn(part)).collect();
        let mut chosen = first.map_or_else(Vec::new, |part| part());
        for other in others {
            let other = other.join();
            chosen.extend(other.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        chosen
    })
}

fn threads(logits: usize) -> usize {
    if logits < LOGITS_THREADED_MIN {
        return 1;
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cores.min(THREADS_MAX)
}

fn choose_in_order(logits: &[f32], wants: &[Want], rows: &[Row<'_>]) -> Vec<Choice> {
    let mut scratch = Scratch::default();
    let width = logits.len() / wants.len();
    let each = logits.chunks_exact(width).zip(wants);
    each.map(|(logits, want)| {
        choose_one(logits, want, &rows[want.row], &mut scratch).unwrap_or_else(Choice::Failed)
    })
    .collect()
}

fn choose_one(
    logits: &[f32],
    want: &Want,
    row: &Row<'_>,
    scratch: &mut Scratch,
) -> Result<Choice, SampleError> {
    if let Some(known) = row.known.get(want.place) {
        let top = row.prompt_logprobs.unwrap_or(0);
        return Ok(Choice::Known(logprobs(logits, *known, top)?));
    }
    let context = row.sample.as_ref().expect("a row wants it");
    Ok(Choice::Sampled(sample(logits, context, scratch)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::{Context, Sampling};

    const WIDTH: usize = 50_000;

    /// Logits without a pattern that a row shares with another.
    fn logits(rows: usize) -> Vec<f32> {
        let value = |place: usize| ((place * 7919 + place / WIDTH * 31) % 10_007) as f32 / 1000.0;
        (0..rows * WIDTH).map(value).collect()
    }

    #[test]
    fn rows_come_out_the_same_alone_and_shared_out_over_threads() {
        let sampling = Sampling {
            logprobs: Some(2),
            ..Sampling::default()
        };
        let prompt = [5, 6];
        let sample = Context {
            sampling: &sampling,
            prompt: &prompt,
            generated: &[],
            banned: &[],
        };
        // Of every second row, the next token is known.
        let row = |known| Row {
            known,
            past: 0,
            len: 1,
            table: &[],
            adapter: None,
            prompt_logprobs: Some(1),
            sample: Some(sample),
        };
        let rows: Vec<_> = (0..9).map(|index| row(&prompt[..1 + index % 2])).collect();
        let wants: Vec<_> = (0..9).map(|row| Want { row, place: 1 }).collect();
        let logits = logits(9);
        let asked = Wants {
            wants: &wants,
            rows: &rows,
            ahead: 0,
        };
        assert!(logits.len() > LOGITS_THREADED_MIN);
        let outputs = |choices: Vec<Choice>| {
            let mut output = RowOutput::default();
            let told = choices.into_iter().map(|choice| {
                choice.add_to(&mut output);
                std::mem::take(&mut output)
            });
            told.collect::<Vec<_>>()
        };
        let together = outputs(choose(&logits, &asked));
        for (index, together) in together.iter().enumerate() {
            let alone = &logits[index * WIDTH..(index + 1) * WIDTH];
            let alone = choose_in_order(alone, &wants[index..=index], &rows);
            assert_eq!(&outputs(alone)[0], together);
            assert_eq!(together.sampled.is_none(), index % 2 == 1);
        }
    }

    #[test]
    fn a_row_that_is_no_distribution_fails_alone() {
        let sampling = Sampling::default();
        let sample = Context {
            sampling: &sampling,
            prompt: &[1],
            generated: &[],
            banned: &[],
        };
        let row = Row {
            known: &[1],
            past: 0,
            len: 1,
            table: &[],
            adapter: None,
            prompt_logprobs: None,
            sample: Some(sample),
        };
        let wants = [0, 1].map(|row| Want { row, place: 1 });
        let logits = [1.0, 2.0, 3.0, f32::NAN];
        let mut outputs = [RowOutput::default(), RowOutput::default()];
        let asked = Wants {
            wants: &wants,
            rows: &[row.clone(), row],
            ahead: 0,
        };
        let chosen = choose(&logits, &asked);
        for (choice, output) in chosen.into_iter().zip(&mut outputs) {
            choice.add_to(output);
        }
        let [good, bad] = outputs;
        assert!(good.sampled.is_some() && good.failure.is_none());
        assert_eq!(bad.failure, Some(SampleError::NotFinite { token: 1 }));
    }
}
