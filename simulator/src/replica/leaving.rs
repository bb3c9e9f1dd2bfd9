//! Requests that leave a replica before they are done: their client gives one up,
//! or the replica is no more.

use foresail_core::batching::{Aborted, SequenceId};
use foresail_core::time::Nanos;
use foresail_reports::records::RecordSink;

use super::{Flight, Replica};
use crate::clock::Stretch;
use crate::passage::Passage;

/// A request that a replica no longer serves.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) passage: Passage,
    /// Tokens that it had got.
    pub(crate) tokens: u32,
}

/// Sequences given up while a step computes for them: they end with that step,
/// and until then the scheduler may still ask for their contents.
#[derive(Debug, Default)]
pub(super) struct Doomed {
    sequences: Vec<SequenceId>,
    /// How many of them decode.
    decodes: u32,
}

impl Doomed {
    pub(super) fn contains(&self, id: SequenceId) -> bool {
        self.sequences.contains(&id)
    }

    /// How many tokens of the step in flight nobody waits for.
    pub(super) fn decodes(&self) -> u32 {
        self.decodes
    }
}

/// Where a request is.
#[derive(Clone, Copy, Debug)]
enum Whereabouts {
    Scheduler(SequenceId),
    /// It waits for its adapter.
    Gate,
}

impl Replica<'_> {
    /// Where this request is, if somebody waits for it here. `sequence` is what
    /// it was when it came, if it had no adapter to wait for.
    fn find(&self, sequence: Option<SequenceId>, request: u64) -> Option<Whereabouts> {
        let is_it = |&id: &SequenceId| {
            let passage = self.passages.get(id as usize).and_then(Option::as_ref);
            passage.is_some_and(|passage| passage.id() == request) && !self.doomed.contains(id)
        };
        if let Some(sequence) = sequence {
            return is_it(&sequence).then_some(Whereabouts::Scheduler(sequence));
        }
        let gate = self.adapters.as_ref()?;
        if gate.holds(request).is_some() {
            return Some(Whereabouts::Gate);
        }
        let mut sequences = 0..self.passages.len() as SequenceId;
        sequences.find(is_it).map(Whereabouts::Scheduler)
    }

    /// This request, if somebody waits for it here.
    pub(crate) fn serves(&self, sequence: Option<SequenceId>, request: u64) -> Option<&Passage> {
        match self.find(sequence, request)? {
            Whereabouts::Scheduler(id) => self.passages[id as usize].as_ref(),
            Whereabouts::Gate => self.adapters.as_ref()?.holds(request),
        }
    }

    /// Gives a request up, if it is here. Also returns when what is in flight
    /// ends, if that is news.
    pub(crate) fn withdraw(
        &mut self,
        now: Nanos,
        sequence: Option<SequenceId>,
        request: u64,
        sink: &mut impl RecordSink,
    ) -> (Option<Lost>, Option<Nanos>) {
        match self.find(sequence, request) {
            Some(Whereabouts::Scheduler(id)) => {
                let (lost, end) = self.withdraw_sequence(now, id, sink);
                (Some(lost), end)
            }
            Some(Whereabouts::Gate) => {
                let gate = self.adapters.as_mut();
                let passage = gate.and_then(|gate| gate.withdraw(now, request));
                self.tally.outstanding -= 1;
                let lost = passage.map(|passage| Lost { passage, tokens: 0 });
                (lost, None)
            }
            None => (None, None),
        }
    }

    /// Gives a sequence up: now if it waits, and else when the step in flight ends.
    /// Also returns when what is in flight ends, if that is news.
    fn withdraw_sequence(
        &mut self,
        now: Nanos,
        sequence: SequenceId,
        sink: &mut impl RecordSink,
    ) -> (Lost, Option<Nanos>) {
        let is_leaping = matches!(self.flight, Flight::Leap(_));
        let mut end = None;
        if is_leaping && self.scheduler.is_running(sequence) {
            end = self.stop_leap(now, sink);
        }
        let left = self.scheduler.left(sequence);
        let aborted = if is_leaping {
            self.scheduler.abort_in_leap(sequence)
        } else {
            self.scheduler.abort(sequence)
        };
        let place = &mut self.passages[sequence as usize];
        let passage = match aborted {
            Aborted::AtOnce => {
                let passage = place.take();
                if let (Some(gate), Some(passage)) = (&mut self.adapters, &passage) {
                    gate.release_of(now, passage);
                }
                // Whoever stood behind it may be admitted now, by the next step that begins.
                end = self.shorten_leap(now + 1).or(end);
                passage
            }
            Aborted::WithStep { decodes } => {
                self.doomed.sequences.push(sequence);
                self.doomed.decodes += u32::from(decodes);
                place.clone()
            }
        };
        let passage = passage.expect("a sequence that is given up was live");
        self.tally.outstanding -= 1;
        let tokens = passage.request.output_tokens - left;
        (Lost { passage, tokens }, end)
    }

    /// Ends a leap at the last step that is done; what is left of it is the step
    /// in flight. Returns when that ends.
    fn stop_leap(&mut self, now: Nanos, sink: &mut impl RecordSink) -> Option<Nanos> {
        let Flight::Leap(stretch) = self.flight else {
            return None;
        };
        let steps = self.do_steps_of_leap(now, sink);
        let in_flight = Stretch {
            start: self.clock,
            past: stretch.past + u64::from(stretch.batch) * u64::from(steps),
            steps: 1,
            ..stretch
        };
        self.flight = Flight::Leap(in_flight);
        Some(in_flight.end().nanos)
    }

    /// Does the steps of a leap in flight that have ended by now, and says how many.
    fn do_steps_of_leap(&mut self, now: Nanos, sink: &mut impl RecordSink) -> u32 {
        let Flight::Leap(stretch) = self.flight else {
            return 0;
        };
        let steps = stretch.done_by(now);
        if steps > 0 {
            self.end_leap(&Stretch { steps, ..stretch }, sink);
        }
        steps
    }

    /// Ends everything at once, and returns what it was.
    pub(crate) fn evict(&mut self, now: Nanos, sink: &mut impl RecordSink) -> Vec<Lost> {
        self.do_steps_of_leap(now, sink);
        if !matches!(self.flight, Flight::Idle) {
            self.tally.busy_ns += now - self.clock.nanos;
        }
        self.flight = Flight::Idle;
        self.bury();
        let mut lost = Vec::with_capacity(self.tally.outstanding as usize);
        for (sequence, passage) in self.passages.iter_mut().enumerate() {
            if let Some(passage) = passage.take() {
                let left = self.scheduler.left(sequence as SequenceId);
                let tokens = passage.request.output_tokens - left;
                lost.push(Lost { passage, tokens });
            }
        }
        let without_adapter = (self.adapters.iter_mut()).flat_map(|gate| gate.abandon(now));
        lost.extend(without_adapter.map(|passage| Lost { passage, tokens: 0 }));
        self.tally.outstanding = 0;
        lost
    }

    /// Forgets the sequences that ended, unwanted, with the step that just did.
    #[inline]
    pub(super) fn bury(&mut self) {
        if self.doomed.sequences.is_empty() {
            return;
        }
        for id in self.doomed.sequences.drain(..) {
            let passage = self.passages[id as usize].take();
            if let (Some(gate), Some(passage)) = (&mut self.adapters, &passage) {
                gate.release_of(self.clock.nanos, passage);
            }
        }
        self.doomed.decodes = 0;
    }
}
