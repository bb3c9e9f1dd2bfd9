//! From logits to what a step returns.
//!
//! What comes of a row of logits depends on that row alone, so rows can be
//! shared out over threads without changing anything.

use std::num::NonZeroUsize;

use super::plan::Want;
use crate::backend::{Row, RowOutput, StepError};
use crate::sampling::{Logprobs, SampleError, Sampled, Scratch, logprobs, sample};

/// Below so many logits, it is not worth to start threads: a draw from a
/// million takes about a millisecond, and a thread some ten microseconds.
const LOGITS_THREADED_MIN: usize = 200_000;

/// Threads at most.
const THREADS_MAX: usize = 8;

/// What came of a row of logits.
pub(super) enum Choice {
    /// It is of a token that is known.
    Known(Logprobs),
    /// A token was chosen.
    Sampled(Sampled),
}

impl Choice {
    pub(super) fn add_to(self, output: &mut RowOutput) {
        match self {
            Self::Known(logprobs) => output.prompt_logprobs.push(logprobs),
            Self::Sampled(sampled) => output.sampled = Some(sampled),
        }
    }
}

/// What is wanted of each row of `logits`, `[wants][vocabulary]`, in their order.
pub(super) fn choose(
    logits: &[f32],
    wants: &[Want],
    rows: &[Row<'_>],
) -> Result<Vec<Choice>, StepError> {
    if wants.is_empty() {
        return Ok(Vec::new());
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
        let mut chosen = first.map_or_else(|| Ok(Vec::new()), |part| part())?;
        for other in others {
            let other = other.join();
            chosen.extend(other.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(chosen)
    })
}

fn threads(logits: usize) -> usize {
    if logits < LOGITS_THREADED_MIN {
        return 1;
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cores.min(THREADS_MAX)
}

fn choose_in_order(
    logits: &[f32],
    wants: &[Want],
    rows: &[Row<'_>],
) -> Result<Vec<Choice>, StepError> {
    let mut scratch = Scratch::default();
    let width = logits.len() / wants.len();
    let each = logits.chunks_exact(width).zip(wants);
    each.map(|(logits, want)| {
        choose_one(logits, want, &rows[want.row], &mut scratch)
            .map_err(|error| StepError(format!("row {} of the step: {error}", want.row)))
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
