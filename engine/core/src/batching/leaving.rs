//! How a sequence leaves the scheduler, and gives up what it holds: with its last
//! token, or because the driver no longer wants it. One that is preempted
//! leaves only the batch.

use super::scheduler::{Blocked, NEVER};
use super::sequence::State;
use super::{Scheduler, SequenceId};

/// When an aborted sequence ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aborted {
    /// It has ended, and its id may be given again.
    AtOnce,
    /// It ends with the step in flight, which computes for it one last time.
    WithStep {
        /// Whether what it computes is a token, and not a piece of its prompt.
        decodes: bool,
    },
}

impl Scheduler {
    /// Ends a sequence that the driver no longer wants: at once, or when the step in flight commits.
    pub fn abort(&mut self, id: SequenceId) -> Aborted {
        let Some(index) = self.running.iter().position(|running| *running == id) else {
            let place = self
                .waiting
                .iter()
                .position(|waiting| *waiting == id)
                .expect("the sequence has not ended");
            self.waiting.remove(place);
            self.forget(id);
            // The next in line may fit where this one did not.
            self.blocked = Blocked::Unknown;
            return Aborted::AtOnce;
        };
        if self.in_flight {
            return self.end_with_step(index);
        }
        self.stop_running(index);
        self.forget(id);
        Aborted::AtOnce
    }

    /// The running sequence at this place ends, unfinished, with the next step that is committed.
    pub(super) fn end_with_step(&mut self, index: usize) -> Aborted {
        let sequence = &mut self.sequences[self.running[index] as usize];
        sequence.aborted = true;
        self.finish_at[index] = self.steps + 1;
        self.next_finish = self.next_finish.min(self.steps + 1);
        let decodes = matches!(sequence.state, State::Decode { .. });
        Aborted::WithStep { decodes }
    }

    /// Ends the sequences whose last token came with the step just committed.
    pub(super) fn sweep_finished(&mut self) {
        self.finished.clear();
        if self.next_finish > self.steps {
            return;
        }
        let steps = self.steps;
        let (mut done, mut next_finish) = (0_usize, NEVER);
        for &finish_at in &self.finish_at {
            let is_done = finish_at <= steps;
            done += usize::from(is_done);
            next_finish = next_finish.min(if is_done { NEVER } else { finish_at });
        }
        self.next_finish = next_finish;
        let mut from = 0;
        for _ in 0..done {
            let ahead = self.finish_at[from..].iter();
            from += ahead.take_while(|finish_at| **finish_at > steps).count();
            self.finish_at.remove(from);
            let id = self.running.remove(from);
            self.let_go(id);
            if !self.sequences[id as usize].aborted {
                self.finished.push(id);
            }
            self.forget(id);
        }
    }

    /// Takes the sequence at this place out of the batch.
    pub(super) fn stop_running(&mut self, index: usize) {
        let id = self.running.remove(index);
        self.finish_at.remove(index);
        self.next_finish = self.finish_at.iter().copied().min().unwrap_or(NEVER);
        self.let_go(id);
    }

    /// Frees what a sequence holds that is no longer in the batch.
    fn let_go(&mut self, id: SequenceId) {
        let sequence = &mut self.sequences[id as usize];
        if let State::Decode { offset, .. } = sequence.state {
            self.ring.remove(offset, sequence.ticket);
            self.decodes -= 1;
            self.decode_past -= u64::from(sequence.computed(self.steps));
            self.sealing_decodes -= u32::from(self.config.prefix_caching && sequence.sealing());
        } else {
            self.prefilling.retain(|prefilling| *prefilling != id);
        }
        self.blocks
            .release_table(&mut sequence.table, sequence.sealed == 0);
        sequence.sealed = 0;
        sequence.exhausted = false;
        self.adapters.leave(sequence.adapter);
        self.blocked = Blocked::Unknown;
    }

    fn forget(&mut self, id: SequenceId) {
        self.sequences[id as usize].state = State::Unused;
        self.unused.push(id);
    }
}
