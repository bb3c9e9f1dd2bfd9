//! Many decode steps at once.
//!
//! As long as the same sequences decode, a step changes nothing but counters,
//! a block here and there, and what those blocks contain. So `k` steps cost
//! what their blocks cost, not `k` times the batch.

use super::scheduler::Blocked;
use super::{Aborted, Content, Scheduler, SequenceId};

/// Decode steps of one batch, done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leap {
    /// How many steps.
    pub steps: u32,
    /// Sequences that decoded in each of them.
    pub batch: u32,
    /// Tokens they had in the KV cache before the first.
    pub past: u64,
}

impl Scheduler {
    /// For how many steps from here the batch is certain to be exactly the
    /// sequences that decode now. 0 if the next step must be scheduled.
    ///
    /// A sequence that waits limits it only if it might be admitted meanwhile.
    /// Growth of the batch only takes blocks away from it, but what it finds in
    /// the cache may change: a block filled during the leap may lengthen its
    /// prefix, and one evicted may shorten it by several, of which the others
    /// are then free for its first chunk. So the leap stops before such a step.
    #[must_use]
    pub fn horizon(&self) -> u32 {
        if self.decodes == 0 || self.in_flight || !self.prefilling.is_empty() {
            return 0;
        }
        let mut steps = u32::try_from(self.next_finish - self.steps).unwrap_or(u32::MAX);
        let mut free = self.blocks.free();
        if !self.waiting.is_empty() && self.running.len() < self.config.max_num_seqs as usize {
            match self.blocked {
                Blocked::Unknown => return 0,
                Blocked::Adapters => {}
                Blocked::Memory => {
                    steps = self.steps_before_seal(steps);
                    free = self.blocks.free_without_contents();
                }
            }
        }
        self.steps_that_fit(steps, free)
    }

    /// The largest number of steps, up to `limit`, in which no block with
    /// contents that can be shared becomes full.
    fn steps_before_seal(&self, limit: u32) -> u32 {
        if self.sealing_decodes == 0 {
            return limit;
        }
        let seals = |step: u32| {
            let due = self.ring.due(self.steps + u64::from(step) + 1);
            due.iter()
                .any(|(_, id)| self.sequences[*id as usize].sealing())
        };
        (0..limit.min(self.config.block_size))
            .find(|step| seals(*step))
            .unwrap_or(limit)
    }

    /// The largest number of steps, up to `limit`, that need at most `free` blocks.
    fn steps_that_fit(&self, limit: u32, free: u32) -> u32 {
        let free = u64::from(free);
        let at_most = u64::from(self.decodes) * u64::from(limit.div_ceil(self.config.block_size));
        if at_most <= free {
            return limit;
        }
        // Demand does not fall with the number of steps: bisect.
        let (mut fits, mut fails) = (0, limit + 1);
        while fails - fits > 1 {
            let middle = fits + (fails - fits) / 2;
            if self.ring.demand(self.steps, self.decodes, middle) <= free {
                fits = middle;
            } else {
                fails = middle;
            }
        }
        fits
    }

    /// Does `steps` decode steps, at most `horizon()`: the same as so many
    /// times `schedule` and `commit` with [`super::Verdict::Continue`].
    /// The horizon may be one from before sequences were added: until the leap is
    /// over, they wait, as they would for a step in flight.
    /// [`Scheduler::finished`] says which sequences ended with the last of them.
    ///
    /// # Panics
    /// If blocks run out, which `horizon` rules out.
    #[inline(always)]
    pub fn leap(&mut self, steps: u32, content: &mut impl Content) -> Leap {
        debug_assert!(!self.in_flight && self.prefilling.is_empty());
        debug_assert!(self.steps + u64::from(steps) <= self.next_finish);
        let leap = Leap {
            steps,
            batch: self.decodes,
            past: self.decode_past,
        };
        let end = self.steps + u64::from(steps);
        let mut next = self.ring.next_due(self.steps);
        while let Some(due) = next
            && due <= end
        {
            // The block that ends here was filled by the step before.
            if due > self.steps {
                self.seal_decodes(due - 1, content);
            }
            if due < end {
                for (_, id) in self.ring.due(due) {
                    let block = self.blocks.alloc().expect("the leap is within the horizon");
                    self.sequences[*id as usize].table.push(block);
                }
            }
            next = self.ring.next_due(due + 1);
        }
        self.steps += u64::from(steps);
        self.decode_past += u64::from(self.decodes) * u64::from(steps);
        self.sweep_finished();
        leap
    }

    /// As [`Scheduler::abort`] when the next step of a leap is under way: a running
    /// sequence ends with that step, which the driver does by `leap(1)`, as it
    /// would have ended with a step in flight.
    ///
    /// # Panics
    /// If the sequence has ended, or a step in flight was scheduled by itself.
    pub fn abort_in_leap(&mut self, id: SequenceId) -> Aborted {
        assert!(!self.in_flight, "a step is in flight, and no leap");
        match self.running.iter().position(|running| *running == id) {
            Some(index) => self.end_with_step(index),
            None => self.abort(id),
        }
    }

    /// The sequences that ended with the last step or leap, oldest first.
    #[must_use]
    pub fn finished(&self) -> &[SequenceId] {
        &self.finished
    }
}
