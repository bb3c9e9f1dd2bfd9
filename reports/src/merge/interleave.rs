//! Several runs' requests as one, in the order of their ends.

use crate::files::{ReadError, Requests};
use crate::records::RequestRecord;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Hands out, of the next records of all shards, the one that ended first, and
/// at equal times the one of the smaller id. Holds one record a shard.
pub(super) struct Interleaved {
    shards: Vec<Requests>,
    next: Vec<Option<RequestRecord>>,
    /// End, id and shard of each of them.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// Shards to take the next record of.
    wanted: Vec<usize>,
}

impl Interleaved {
    pub(super) fn new(shards: Vec<Requests>) -> Self {
        Self {
            next: shards.iter().map(|_| None).collect(),
            order: BinaryHeap::new(),
            wanted: (0..shards.len()).collect(),
            shards,
        }
    }
}

impl Iterator for Interleaved {
    type Item = Result<RequestRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(shard) = self.wanted.pop() {
            match self.shards[shard].next() {
                None => {}
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(record)) => {
                    self.order.push(Reverse((record.end_ns, record.id, shard)));
                    self.next[shard] = Some(record);
                }
            }
        }
        let Reverse((_, _, shard)) = self.order.pop()?;
        self.wanted.push(shard);
        self.next[shard].take().map(Ok)
    }
}
