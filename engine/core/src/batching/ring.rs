//! When decoding sequences come to the end of a block.
//!
//! Every decoding sequence writes one token a step, so one that needs a block
//! now needs the next in exactly `block_size` steps. A ring of `block_size`
//! buckets, turned by one each step, names them without looking at the others.

use super::SequenceId;

/// The decoding sequences, by the step (modulo the block size) at which they need a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// In each bucket, (ticket, sequence), oldest first.
    buckets: Vec<Vec<(u64, SequenceId)>>,
}

impl Ring {
    pub(super) fn new(block_size: u32) -> Self {
        Self {
            buckets: vec![Vec::new(); block_size as usize],
        }
    }

    /// The bucket of a sequence with this offset: its computed tokens,
    /// `steps + offset`, are a multiple of the block size when the bucket comes up.
    fn bucket(&mut self, offset: i64) -> &mut Vec<(u64, SequenceId)> {
        let size = self.buckets.len() as i64;
        &mut self.buckets[(-offset).rem_euclid(size) as usize]
    }

    pub(super) fn insert(&mut self, offset: i64, ticket: u64, sequence: SequenceId) {
        let bucket = self.bucket(offset);
        let place = bucket.partition_point(|(other, _)| *other < ticket);
        bucket.insert(place, (ticket, sequence));
    }

    pub(super) fn remove(&mut self, offset: i64, ticket: u64) {
        let bucket = self.bucket(offset);
        let place = bucket.partition_point(|(other, _)| *other < ticket);
        let (removed, _) = bucket.remove(place);
        debug_assert_eq!(removed, ticket);
    }

    /// The sequences that need a block in the step after `steps` committed ones, oldest first.
    pub(super) fn due(&self, steps: u64) -> &[(u64, SequenceId)] {
        &self.buckets[(steps % self.buckets.len() as u64) as usize]
    }

    /// Blocks that `decodes` sequences, all those in the ring, need in the next `count` steps.
    pub(super) fn demand(&self, steps: u64, decodes: u32, count: u32) -> u64 {
        let size = self.buckets.len() as u64;
        let (turns, rest) = (u64::from(count) / size, u64::from(count) % size);
        let partial: usize = (0..rest).map(|step| self.due(steps + step).len()).sum();
        turns * u64::from(decodes) + partial as u64
    }
}
