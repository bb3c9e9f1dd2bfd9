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
    /// A bit for each bucket that is not empty.
    occupied: Vec<u64>,
}

impl Ring {
    pub(super) fn new(block_size: u32) -> Self {
        Self {
            buckets: vec![Vec::new(); block_size as usize],
            occupied: vec![0; block_size.div_ceil(u64::BITS) as usize],
        }
    }

    /// The bucket of a sequence with this offset: its computed tokens,
    /// `steps + offset`, are a multiple of the block size when the bucket comes up.
    fn bucket(&self, offset: i64) -> usize {
        (-offset).rem_euclid(self.buckets.len() as i64) as usize
    }

    pub(super) fn insert(&mut self, offset: i64, ticket: u64, sequence: SequenceId) {
        let index = self.bucket(offset);
        let bucket = &mut self.buckets[index];
        let place = bucket.partition_point(|(other, _)| *other < ticket);
        bucket.insert(place, (ticket, sequence));
        self.occupied[index / 64] |= 1 << (index % 64);
    }

    pub(super) fn remove(&mut self, offset: i64, ticket: u64) {
        let index = self.bucket(offset);
        let bucket = &mut self.buckets[index];
        let place = bucket.partition_point(|(other, _)| *other < ticket);
        let (removed, _) = bucket.remove(place);
        debug_assert_eq!(removed, ticket);
        if bucket.is_empty() {
            self.occupied[index / 64] &= !(1 << (index % 64));
        }
    }

    /// The first step count from `steps` on at which a sequence needs a block;
    /// `None` if the ring is empty.
    pub(super) fn next_due(&self, steps: u64) -> Option<u64> {
        let size = self.buckets.len() as u64;
        let here = (steps % size) as usize;
        let (word, bit) = (here / 64, here % 64);
        let count = self.occupied.len();
        // The rest of this word, then the other words, then the beginning of this one.
        let rest = self.occupied[word] >> bit << bit;
        let others = (1..count).map(|ahead| (word + ahead) % count);
        let words = std::iter::once((word, rest))
            .chain(others.map(|word| (word, self.occupied[word])))
            .chain(std::iter::once((word, self.occupied[word])));
        let (word, bits) = words.into_iter().find(|(_, bits)| *bits != 0)?;
        let found = word as u64 * 64 + u64::from(bits.trailing_zeros());
        Some(steps + (found + size - here as u64) % size)
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
