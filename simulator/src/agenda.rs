//! What is going to happen, in order.
//!
//! A binary heap of the rare events; the ends of steps, which are most of all,
//! are kept apart in [`crate::boundaries`]. An entry is never taken out early:
//! one about a replica or a request that is gone finds nothing to do. At equal times the
//! kinds come in the order of [`What`], then replicas and requests in the order of their ids,
//! so a run never depends on chance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foresail_core::time::Nanos;

/// An entry of the agenda. The order of the variants is the order at equal times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// A client sends a request again.
    Resend { request: u64 },
    /// A starting replica comes to its next phase.
    Phase { replica: u32 },
    /// A replica whose start failed is started again.
    Restart { replica: u32 },
    /// A replica crashes.
    Crash { replica: u32 },
    /// A draining replica's time is up.
    DrainTimeout { replica: u32 },
    /// A replica has loaded an adapter.
    AdapterLoaded { replica: u32, adapter: u32 },
    /// A client's patience with what it sent is at its end.
    ClientTimeout {
        request: u64,
        /// How often the client had sent it.
        sends: u32,
        awaits: Awaits,
    },
}

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Awaits {
    FirstToken,
    LastToken,
}

/// The events to come.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<(Nanos, What)>>,
}

impl Agenda {
    pub(crate) fn add(&mut self, at: Nanos, what: What) {
        self.heap.push(Reverse((at, what)));
    }

    pub(crate) fn next_at(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub(crate) fn take(&mut self) -> Option<(Nanos, What)> {
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_come_in_a_fixed_order() {
        let mut agenda = Agenda::default();
        let timeout = |replica| What::DrainTimeout { replica };
        let phase = |replica| What::Phase { replica };
        let resend = What::Resend { request: 7 };
        for what in [timeout(0), phase(2), resend, phase(1)] {
            agenda.add(5, what);
        }
        agenda.add(4, phase(9));
        let order: Vec<_> = std::iter::from_fn(|| agenda.take())
            .map(|(_, what)| what)
            .collect();
        assert_eq!(order, [phase(9), resend, phase(1), phase(2), timeout(0)]);
    }
}
