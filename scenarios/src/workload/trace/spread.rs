//! Rows of one tick spread evenly up to the next.
//!
//! Mooncake's clock ticks every 3 s; replayed as recorded, its requests come
//! in bursts that no user sent. Row `i` of the `m` rows of a tick moves by
//! `i * gap / m`, where the gap is the time to the next tick; the last tick
//! takes the gap before it.

use std::collections::VecDeque;

use foresail_core::time::Nanos;

use super::super::Request;
use super::super::error::Fault;

/// The rows of a tick are held in memory, so there must be an end to them.
const ROWS_PER_TICK_MAX: usize = 100_000;

/// The rows of the current tick, and those that wait to be taken.
#[derive(Debug, Default)]
pub(super) struct Spread {
    tick: Vec<Request>,
    gap: Option<Nanos>,
    ready: VecDeque<Request>,
    finished: bool,
}

impl Spread {
    pub(super) fn pop(&mut self) -> Option<Request> {
        self.ready.pop_front()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Takes the next recorded request, or `None` at the end of the trace.
    pub(super) fn push(&mut self, next: Option<Request>) -> Result<(), Fault> {
        let same_tick = match (&next, self.tick.first()) {
            (Some(next), Some(first)) => next.due == first.due,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !same_tick {
            self.release(next.as_ref().map(|next| next.due))?;
        }
        match next {
            None => self.finished = true,
            Some(_) if self.tick.len() == ROWS_PER_TICK_MAX => {
                return Err(fault(&format!(
                    "at most {ROWS_PER_TICK_MAX} rows of one tick"
                )));
            }
            Some(next) => self.tick.push(next),
        }
        Ok(())
    }

    /// Spreads the rows of the tick up to `next_tick`.
    fn release(&mut self, next_tick: Option<Nanos>) -> Result<(), Fault> {
        let rows = self.tick.len() as u128;
        if let (Some(next), Some(first)) = (next_tick, self.tick.first()) {
            self.gap = Some(next - first.due);
        }
        if rows > 1 && self.gap.is_none() {
            return Err(fault("at least two ticks, to know how long a tick is"));
        }
        let gap = u128::from(self.gap.unwrap_or(0));
        for (index, mut request) in self.tick.drain(..).enumerate() {
            // Less than the gap, so it fits again.
            request.due = request
                .due
                .checked_add((index as u128 * gap / rows) as Nanos)
                .ok_or_else(|| fault("times below 584 years"))?;
            self.ready.push_back(request);
        }
        Ok(())
    }
}

fn fault(expected: &str) -> Fault {
    Fault {
        column: 1,
        field: "timestamp".to_owned(),
        expected: expected.to_owned(),
        text: "timestamps = \"spread\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Content;

    fn spread(dues: &[Nanos]) -> Result<Vec<Nanos>, Fault> {
        let mut spread = Spread::default();
        for &due in dues {
            let content = Content::Unique;
            spread.push(Some(Request {
                due,
                prompt_tokens: 1,
                output_tokens: 1,
                session: None,
                adapter: None,
                content,
            }))?;
        }
        spread.push(None)?;
        Ok(std::iter::from_fn(|| spread.pop())
            .map(|request| request.due)
            .collect())
    }

    #[test]
    fn rows_of_a_tick_go_up_to_the_next() {
        assert_eq!(
            spread(&[0, 0, 0, 300, 310, 310]).unwrap(),
            [0, 100, 200, 300, 310, 315]
        );
        assert_eq!(spread(&[5, 5, 8]).unwrap(), [5, 6, 8]);
        assert_eq!(spread(&[7]).unwrap(), [7]);
    }

    #[test]
    fn one_tick_alone_cannot_be_spread() {
        assert!(spread(&[0, 0]).unwrap_err().expected.contains("two ticks"));
    }
}
