//! Runs of equal steps, and when each of them ends.
//!
//! Step times are picoseconds, and a [`Moment`] carries what is left of a
//! nanosecond, so that the end of `k` steps is the same whether they are added
//! one by one or at once.

use foresail_core::step_time::DecodePiece;
use foresail_core::time::{Moment, Nanos, PICOS_PER_NANO, Picos};

/// Decode steps of one batch that follow each other without a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) start: Moment,
    pub(crate) piece: DecodePiece,
    pub(crate) batch: u32,
    /// Tokens in the KV cache before the first step.
    pub(crate) past: u64,
    pub(crate) steps: u32,
}

impl Stretch {
    /// When the first `steps` steps are done.
    pub(crate) fn end_of(&self, steps: u32) -> Moment {
        self.start
            .plus(self.piece.leap(self.batch, self.past, steps))
    }

    pub(crate) fn end(&self) -> Moment {
        self.end_of(self.steps)
    }

    /// The duration of the first step.
    pub(crate) fn first(&self) -> Picos {
        self.piece.at(self.past)
    }

    /// What each step takes longer than the one before.
    pub(crate) fn growth(&self) -> Picos {
        self.piece.per_past_token * u64::from(self.batch)
    }

    /// How many of the steps are done at `now`, a step that ends just then included.
    pub(crate) fn done_by(&self, now: Nanos) -> u32 {
        if now < self.start.nanos {
            return 0;
        }
        // All steps take between the first and what they would take if all
        // were as long as the last of the upper bound: two divisions bracket the answer.
        let elapsed = (now - self.start.nanos + 1).saturating_mul(PICOS_PER_NANO);
        let limit = u64::from(self.steps);
        let most = elapsed
            .checked_div(self.first())
            .unwrap_or(limit)
            .min(limit);
        let longest = self.first() + self.growth() * most;
        let least = elapsed
            .checked_div(longest)
            .unwrap_or(most)
            .saturating_sub(1)
            .min(most);
        let (mut done, mut not_done) = (least as u32, most as u32 + 1);
        while not_done - done > 1 {
            let middle = done + (not_done - done) / 2;
            if self.end_of(middle).nanos <= now {
                done = middle;
            } else {
                not_done = middle;
            }
        }
        done
    }

    /// Keeps only the steps up to the first that ends at or after `now`: the
    /// one in which something that comes now can be taken into account.
    pub(crate) fn cut(&mut self, now: Nanos) {
        let before = if now == 0 { 0 } else { self.done_by(now - 1) };
        self.steps = self.steps.min(before + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn steps_done_are_those_that_end_by_then(
            fixed in 0..30_000_000_i64, per in 0..60_000_u64, batch in 1..40_u32, past in 0..9_000_u64,
            steps in 1..400_u32, start in 0..9_u64, now in 0..4_000_000_u64,
        ) {
            let piece = DecodePiece { fixed, per_past_token: per, past_last: u64::MAX };
            let stretch = Stretch { start: Moment::at(start), piece, batch, past, steps };
            let (mut clock, mut done) = (stretch.start, 0);
            for step in 0..steps {
                clock = clock.plus(piece.at(past + u64::from(batch) * u64::from(step)));
                done += u32::from(clock.nanos <= now);
                prop_assert_eq!(clock, stretch.end_of(step + 1), "one by one as at once");
            }
            prop_assert_eq!(stretch.done_by(now), done);
            let mut cut = stretch;
            cut.cut(now);
            prop_assert!(cut.end().nanos >= now || cut.steps == steps);
            prop_assert!(cut.steps == 1 || cut.end_of(cut.steps - 1).nanos < now);
        }
    }
}
