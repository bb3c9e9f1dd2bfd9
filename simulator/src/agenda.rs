//! What is going to happen, in order.
//!
//! A binary heap of events. An entry is never taken out early: whoever changes
//! its mind files a new one and leaves the old one to be recognised as stale
//! when it comes up. At equal times the kinds come in the order of [`What`],
//! then replicas in the order of their ids, so a run never depends on chance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foresail_core::time::Nanos;

/// An entry of the agenda. The order of the variants is the order at equal times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// A step or leap of a replica ends; stale unless `plan` is its latest.
    Boundary { replica: u32, plan: u32 },
    /// A starting replica comes to its next phase.
    Phase { replica: u32 },
    /// A draining replica's time is up.
    DrainTimeout { replica: u32 },
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
        let boundary = |replica| What::Boundary { replica, plan: 0 };
        for what in [
            What::Phase { replica: 0 },
            boundary(2),
            What::DrainTimeout { replica: 0 },
            boundary(1),
        ] {
            agenda.add(5, what);
        }
        agenda.add(4, What::Phase { replica: 9 });
        let order: Vec<_> = std::iter::from_fn(|| agenda.take())
            .map(|(_, what)| what)
            .collect();
        let expected = [
            What::Phase { replica: 9 },
            boundary(1),
            boundary(2),
            What::Phase { replica: 0 },
            What::DrainTimeout { replica: 0 },
        ];
        assert_eq!(order, expected);
    }
}
