//! A replica with its server, which requests pass on their way into the engine.

use foresail_core::step_time::StepTime;
use foresail_core::time::Nanos;
use foresail_reports::records::RecordSink;

use super::{Fleet, Seat, note_loads, refusal};
use crate::SimulationError;
use crate::outside::Outside;
use crate::passage::Passage;
use crate::replica::{Lost, Replica};
use crate::scene::Scene;

/// A replica that serves.
pub(super) struct Server<'a> {
    pub(super) replica: Replica<'a>,
    pub(super) outside: Outside,
    /// The place of its world size.
    pub(super) size: usize,
    pub(super) draining: bool,
}

impl Server<'_> {
    /// Requests that it has: in the engine, and on their way there.
    pub(super) fn outstanding(&self) -> u32 {
        self.replica.tally.outstanding + self.outside.len()
    }

    /// This request, if somebody waits for it here.
    pub(super) fn serves(&self, seat: Seat, request: u64) -> Option<&Passage> {
        // Who came to the engine at once has a sequence, or waits for an adapter.
        if seat.sequence.is_none()
            && let Some(passage) = self.outside.holds(request)
        {
            return Some(passage);
        }
        self.replica.serves(seat.sequence, request)
    }

    /// Ends everything at once, and returns what it was.
    pub(super) fn evict(&mut self, now: Nanos, sink: &mut impl RecordSink) -> Vec<Lost> {
        let mut lost = self.replica.evict(now, sink);
        let outside = self.outside.abandon(now);
        lost.extend(outside.map(|passage| Lost { passage, tokens: 0 }));
        lost
    }
}

impl Fleet<'_> {
    /// When the next of the requests on their way comes into its engine.
    #[inline]
    pub(crate) fn next_entry(&self) -> Option<Nanos> {
        self.entries.first().map(|(at, _)| at)
    }

    /// The next of the requests on their way comes into its engine: returns which it is, and its seat
    /// there unless it was refused, and so has ended.
    pub(crate) fn enter<M: StepTime>(
        &mut self,
        models: &[&M],
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<Option<(u64, Option<Seat>)>, SimulationError> {
        let Some((_, place)) = self.entries.first() else {
            return Ok(None);
        };
        let server = &mut self.servers[place];
        let taken = server.outside.take(scene.now);
        self.entries.set(place, server.outside.next_at());
        let Some(passage) = taken else {
            return Ok(None);
        };
        let (request, replica) = (passage.id(), server.replica.id);
        let model = models[server.size];
        let received = (server.replica).receive(scene.now, scene.joins_from(), passage, model);
        let seat = match received {
            Ok((sequence, end)) => {
                note_loads(&mut server.replica, &mut scene.agenda);
                if end.is_some() {
                    self.boundaries.set(place, end);
                }
                Some(Seat { replica, sequence })
            }
            Err((reject, passage)) => {
                let record = passage.record(scene.now, refusal(reject), 0, Some(replica));
                scene.sink.request(&record);
                self.requests_left(place, scene)?;
                None
            }
        };
        Ok(Some((request, seat)))
    }
}
