//! Requests on their way to the engine: received, and not yet in its queue.
//!
//! What server and client do for a request beside its steps takes nothing from the engine, so any number
//! can be here at once. As a constant delay it shifts the whole engine in time: a
//! request that comes in is served just as one that arrives then. Requests come in in the order in
//! which they were sent, as a server reads them: a long prompt takes longer, and those after it come no earlier.

use std::collections::VecDeque;

use foresail_core::time::Nanos;

use crate::passage::Passage;

/// The requests on their way, in order, each with when it comes in.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    passages: VecDeque<(Nanos, Passage)>,
    /// When the last one comes in, or came.
    last_at: Nanos,
}

impl Outside {
    /// A request comes in at this time, or with the one before it if that is later.
    pub(crate) fn add(&mut self, at: Nanos, passage: Passage) {
        self.last_at = self.last_at.max(at);
        self.passages.push_back((self.last_at, passage));
    }

    /// When the next one comes in.
    #[inline]
    pub(crate) fn next_at(&self) -> Option<Nanos> {
        self.passages.front().map(|(at, _)| *at)
    }

    /// The next one to come in.
    pub(crate) fn take(&mut self) -> Option<Passage> {
        self.passages.pop_front().map(|(_, passage)| passage)
    }

    /// Takes a request that its client gives up, if it is here.
    pub(crate) fn withdraw(&mut self, request: u64) -> Option<Passage> {
        let is_it = |(_, passage): &(Nanos, Passage)| passage.id() == request;
        let place = self.passages.iter().position(is_it)?;
        self.passages.remove(place).map(|(_, passage)| passage)
    }
}
