//! Requests on their way to the engine: received, and not yet in its queue.
//!
//! What server and client do for a request beside its steps delays that request and nobody else,
//! so any number can be here at once. As a constant delay it shifts the whole engine in time: a
//! request that comes in is served just as one that arrives then.

use std::collections::BTreeMap;

use foresail_core::time::Nanos;

use crate::passage::Passage;

/// The requests on their way, by when they come in; those of one time in the order of their ids.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    passages: BTreeMap<(Nanos, u64), Passage>,
}

impl Outside {
    /// A request comes in later.
    pub(crate) fn add(&mut self, at: Nanos, passage: Passage) {
        self.passages.insert((at, passage.id()), passage);
    }

    /// When the next one comes in.
    #[inline]
    pub(crate) fn next_at(&self) -> Option<Nanos> {
        let first = self.passages.first_key_value();
        first.map(|((at, _), _)| *at)
    }

    /// The next one to come in.
    pub(crate) fn take(&mut self) -> Option<Passage> {
        self.passages.pop_first().map(|(_, passage)| passage)
    }

    /// Takes a request that its client gives up, if it is here.
    pub(crate) fn withdraw(&mut self, request: u64) -> Option<Passage> {
        let mut keys = self.passages.keys();
        let key = *keys.find(|(_, id)| *id == request)?;
        self.passages.remove(&key)
    }
}
