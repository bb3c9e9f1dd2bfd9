//! The KV blocks of a replica: which are free, which are held, and which hold
//! contents that another sequence can use.
//!
//! ```text
//! alloc ──> held, open ──seal──> held, sealed (refs ≥ 1) <──acquire── cached, free (refs = 0)
//!   ^           │                      │                                   ^        │
//!   │           └──release──> plain    └──────── last release ─────────────┘        │
//!   └────────── plain stack <── no contents                    LRU, oldest evicted ─┘
//! ```
//!
//! Only a sealed block can have more than one holder, so open blocks need no
//! count of references and move between stack and tables as plain numbers.

use std::hash::{BuildHasherDefault, Hasher};

use super::BlockHash;

/// A KV block of a replica.
pub type BlockId = u32;

const NONE: BlockId = BlockId::MAX;

/// All KV blocks of a replica. It knows no sequences and no tokens.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// Free blocks without contents; the last is taken first.
    plain: Vec<BlockId>,
    /// What is known of sealed blocks.
    meta: Vec<Meta>,
    /// Sealed blocks by contents. Looked up, never iterated in a decision.
    index: hashbrown::HashMap<BlockHash, BlockId, BuildHasherDefault<HashIsKey>>,
    /// Free sealed blocks, least recently used first, linked through `meta`.
    oldest: BlockId,
    newest: BlockId,
    cached_free: u32,
}

/// What is known of a block beyond its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meta {
    hash: BlockHash,
    sealed: bool,
    /// Tables that hold the block; counted only while it is sealed.
    refs: u32,
    older: BlockId,
    newer: BlockId,
}

impl Blocks {
    /// `num_blocks` free blocks without contents.
    #[must_use]
    pub fn new(num_blocks: u32) -> Self {
        let unknown = Meta {
            hash: 0,
            sealed: false,
            refs: 0,
            older: NONE,
            newer: NONE,
        };
        Self {
            plain: (0..num_blocks).rev().collect(),
            meta: vec![unknown; num_blocks as usize],
            index: hashbrown::HashMap::default(),
            oldest: NONE,
            newest: NONE,
            cached_free: 0,
        }
    }

    /// Blocks that can be allocated, cached ones included.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.plain.len() as u32 + self.cached_free
    }

    /// Blocks that can be allocated without forgetting any contents.
    #[must_use]
    pub fn free_without_contents(&self) -> u32 {
        self.plain.len() as u32
    }

    /// All blocks.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.meta.len() as u32
    }

    /// Takes a free block: one without contents first, else the least recently used.
    pub fn alloc(&mut self) -> Option<BlockId> {
        self.plain.pop().or_else(|| self.evict())
    }

    /// Appends `count` free blocks to a table, in the order that `alloc` would give them.
    /// The caller has checked that so many are free.
    pub fn alloc_into(&mut self, table: &mut Vec<BlockId>, count: u32) {
        let from_plain = self.plain.len().min(count as usize);
        let kept = self.plain.len() - from_plain;
        table.extend(self.plain[kept..].iter().rev());
        self.plain.truncate(kept);
        for _ in from_plain..count as usize {
            let block = self
                .evict()
                .expect("the caller checked that enough blocks are free");
            table.push(block);
        }
    }

    /// Gives up one hold on a block. Contents stay findable until the block is needed.
    pub fn release(&mut self, block: BlockId) {
        let meta = &mut self.meta[block as usize];
        if !meta.sealed {
            self.plain.push(block);
            return;
        }
        meta.refs -= 1;
        if meta.refs == 0 {
            self.link_newest(block);
        }
    }

    /// Gives up a table, last block first, so that the start of a prefix is evicted last.
    /// `open` says that none of its blocks was ever sealed or shared.
    pub fn release_table(&mut self, table: &mut Vec<BlockId>, open: bool) {
        if open {
            self.plain.extend(table.iter().rev());
        } else {
            for &block in table.iter().rev() {
                self.release(block);
            }
        }
        table.clear();
    }

    /// The block with these contents, held or free.
    #[must_use]
    pub fn cached(&self, hash: BlockHash) -> Option<BlockId> {
        self.index.get(&hash).copied()
    }

    /// Whether a cached block is free, so that acquiring it leaves one less to allocate.
    #[must_use]
    pub fn is_free(&self, block: BlockId) -> bool {
        let meta = &self.meta[block as usize];
        meta.sealed && meta.refs == 0
    }

    /// Holds a cached block once more.
    pub fn acquire(&mut self, block: BlockId) {
        if self.meta[block as usize].refs == 0 {
            self.unlink(block);
        }
        self.meta[block as usize].refs += 1;
    }

    /// Says what a held, open block contains. If other blocks have the same
    /// contents already, those stay the ones that are found.
    pub fn seal(&mut self, block: BlockId, hash: BlockHash) {
        if self.meta[block as usize].sealed {
            return;
        }
        if let hashbrown::hash_map::Entry::Vacant(vacant) = self.index.entry(hash) {
            vacant.insert(block);
            let meta = &mut self.meta[block as usize];
            (meta.hash, meta.sealed, meta.refs) = (hash, true, 1);
        }
    }

    /// Takes the least recently used cached block and forgets its contents.
    fn evict(&mut self) -> Option<BlockId> {
        let block = self.oldest;
        if block == NONE {
            return None;
        }
        self.unlink(block);
        self.index.remove(&self.meta[block as usize].hash);
        self.meta[block as usize].sealed = false;
        Some(block)
    }

    fn link_newest(&mut self, block: BlockId) {
        let older = self.newest;
        self.meta[block as usize].older = older;
        self.meta[block as usize].newer = NONE;
        match older {
            NONE => self.oldest = block,
            _ => self.meta[older as usize].newer = block,
        }
        self.newest = block;
        self.cached_free += 1;
    }

    fn unlink(&mut self, block: BlockId) {
        let Meta { older, newer, .. } = self.meta[block as usize];
        match older {
            NONE => self.oldest = newer,
            _ => self.meta[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            _ => self.meta[newer as usize].older = older,
        }
        self.cached_free -= 1;
    }
}

/// What the invariants look at.
impl Blocks {
    /// Free blocks without contents, and free cached blocks from the least to the most recently used.
    pub(super) fn free_lists(&self) -> (&[BlockId], Vec<BlockId>) {
        let mut cached = Vec::new();
        let mut block = self.oldest;
        while block != NONE {
            cached.push(block);
            block = self.meta[block as usize].newer;
        }
        (&self.plain, cached)
    }

    /// The hash and holders of a sealed block.
    pub(super) fn sealed(&self, block: BlockId) -> Option<(BlockHash, u32)> {
        let meta = &self.meta[block as usize];
        meta.sealed.then_some((meta.hash, meta.refs))
    }

    pub(super) fn indexed(&self) -> usize {
        self.index.len()
    }
}

/// A key of the index is a hash already: half of it will do.
#[derive(Clone, Default)]
struct HashIsKey(u64);

impl Hasher for HashIsKey {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_without_contents_are_used_before_cached_ones() {
        let mut blocks = Blocks::new(3);
        let first = blocks.alloc().unwrap();
        blocks.seal(first, 7);
        blocks.release(first);
        assert_eq!(blocks.free(), 3);
        let taken: Vec<_> = (0..3).map(|_| blocks.alloc().unwrap()).collect();
        assert_eq!(taken, [1, 2, first], "the cached block goes last");
        assert_eq!(blocks.cached(7), None, "evicted contents are not found");
        assert_eq!(blocks.alloc(), None);
    }

    #[test]
    fn the_start_of_a_prefix_is_evicted_last() {
        let mut blocks = Blocks::new(3);
        let mut table = Vec::new();
        blocks.alloc_into(&mut table, 3);
        let held = table.clone();
        for (block, hash) in held.iter().zip([10, 11, 12]) {
            blocks.seal(*block, hash);
        }
        blocks.release_table(&mut table, false);
        assert_eq!(blocks.free_lists().1, [held[2], held[1], held[0]]);
    }

    #[test]
    fn a_shared_block_is_free_only_after_its_last_holder() {
        let mut blocks = Blocks::new(1);
        let block = blocks.alloc().unwrap();
        blocks.seal(block, 1);
        blocks.acquire(block);
        blocks.release(block);
        assert_eq!(blocks.free(), 0);
        blocks.release(block);
        assert_eq!(blocks.free(), 1);
        blocks.acquire(block);
        assert_eq!(blocks.free(), 0, "a revived block is not free");
    }

    #[test]
    fn the_first_block_with_some_contents_stays_the_one_that_is_found() {
        let mut blocks = Blocks::new(2);
        let (a, b) = (blocks.alloc().unwrap(), blocks.alloc().unwrap());
        blocks.seal(a, 5);
        blocks.seal(b, 5);
        assert_eq!(blocks.cached(5), Some(a));
        blocks.release(b);
        assert_eq!(
            blocks.free_lists().0,
            [b],
            "the duplicate has no contents of its own"
        );
    }
}
