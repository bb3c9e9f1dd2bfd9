//! Requests on their way into a replica's engine: received by its server, and not yet in the engine's queue.
//!
//! ```text
//! client ── router ──> a replica's server: outside ──> its scheduler's queue ──> steps
//! ```
//!
//! What server and client do for a request beside its steps takes nothing from the engine, so any number
//! can be here at once. As a constant delay it shifts the whole engine in time: a
//! request that comes in is served just as one that arrives then. The requests of one server come in in the order in
//! which it received them: a long prompt takes longer, and those behind it come no earlier. Other replicas have
//! servers of their own, and are not held up.

use std::collections::VecDeque;

use foresail_core::time::Nanos;

use crate::passage::Passage;

/// The requests on their way into one replica's engine, in order.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    passages: VecDeque<OnTheWay>,
}

#[derive(Debug)]
struct OnTheWay {
    passage: Passage,
    since: Nanos,
    /// When it could come in, if nobody were before it.
    ready_at: Nanos,
}

impl OnTheWay {
    /// The request, which is not here any more.
    fn end(self, now: Nanos) -> Passage {
        let mut passage = self.passage;
        passage.was_outside(now - self.since);
        passage
    }
}

impl Outside {
    /// A request that is received now comes in after so long, or with the one before it if that is later.
    pub(crate) fn add(&mut self, now: Nanos, overhead: Nanos, passage: Passage) {
        self.passages.push_back(OnTheWay {
            passage,
            since: now,
            ready_at: now.saturating_add(overhead),
        });
    }

    /// When the next one comes in: at once, if that is over.
    pub(crate) fn next_at(&self) -> Option<Nanos> {
        self.passages.front().map(|first| first.ready_at)
    }

    /// The next one comes in.
    pub(crate) fn take(&mut self, now: Nanos) -> Option<Passage> {
        self.passages.pop_front().map(|first| first.end(now))
    }

    /// This request, if it is here.
    pub(crate) fn holds(&self, request: u64) -> Option<&Passage> {
        let mut passages = self.passages.iter().map(|each| &each.passage);
        passages.find(|passage| passage.id() == request)
    }

    /// Takes a request that its client gives up, if it is here. Nobody waits for it any more.
    pub(crate) fn withdraw(&mut self, now: Nanos, request: u64) -> Option<Passage> {
        let place = (self.passages.iter()).position(|each| each.passage.id() == request)?;
        let withdrawn = self.passages.remove(place)?;
        Some(withdrawn.end(now))
    }

    /// Takes them all: the server is no more.
    pub(crate) fn abandon(&mut self, now: Nanos) -> impl Iterator<Item = Passage> {
        self.passages.drain(..).map(move |each| each.end(now))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.passages.len() as u32
    }
}
