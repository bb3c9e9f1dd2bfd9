//! The paged KV cache, in the order in which attention reads it.
//!
//! ```text
//! [layer][block][head][ keys:   tile of 16 tokens][pair of dimensions][token][dimension of the pair]
//!                     [ values: tile of 16 tokens][panel of 16 dimensions][pair of tokens][dimension][token of the pair]
//! ```
//!
//! So a tile of keys is a packed matrix whose rows are tokens, and a tile of
//! values one whose rows are dimensions: attention is two matrix products, and
//! uses the kernel of all others. Tiles begin at fixed places of a block, and
//! so of a sequence: how a prompt is cut into chunks does not move them.

#![allow(
    unsafe_code,
    reason = "workers write different tokens at the same time"
)]

use super::CpuError;
use super::disjoint::Disjoint;
use super::entry::{Bf16Entry, Entry, F32Entry};
use super::memory::{Arena, Region};
use super::pool::Pool;
use super::vector::LANES;
use crate::backend::Limits;
use crate::config::{ModelConfig, Partition};
use crate::ops::KvFormat;
use foresail_core::batching::BlockId;

/// Keys and values in one of the number formats.
#[derive(Debug)]
pub(super) enum KvCache {
    Bf16(Pages<Bf16Entry>),
    F32(Pages<F32Entry>),
}

/// Keys and values of all blocks.
#[derive(Debug)]
pub(super) struct Pages<E> {
    pub(super) shape: PageShape,
    pub(super) entries: Region<E>,
}

/// How keys and values lie in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageShape {
    pub(super) block_size: usize,
    pub(super) num_blocks: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// Tiles of a block; the last may have fewer than 16 tokens.
    pub(super) tiles: usize,
    /// Entries of a tile of keys.
    pub(super) key_entries: usize,
    /// Entries of a tile of values.
    pub(super) value_entries: usize,
}

/// Does the same with the pages of a cache, whatever their number format.
macro_rules! with_pages {
    ($cache:expr, $pages:ident => $body:expr) => {
        match $cache {
            $crate::cpu::kv_cache::KvCache::Bf16($pages) => $body,
            $crate::cpu::kv_cache::KvCache::F32($pages) => $body,
        }
    };
}
pub(super) use with_pages;

/// Pairs of tokens in a tile: entries of a panel of values.
pub(super) const TILE_PAIRS: usize = LANES / 2;

impl KvCache {
    pub(super) fn new(
        config: &ModelConfig,
        partition: Partition,
        limits: Limits,
        format: KvFormat,
        pool: &mut Pool,
    ) -> Result<Self, CpuError> {
        let shape = PageShape::new(config, partition, limits);
        let heads = (config.num_hidden_layers * shape.heads).saturating_mul(limits.num_blocks);
        let entries = heads.saturating_mul(shape.head_entries());
        Ok(match format {
            KvFormat::Bf16 => Self::Bf16(Pages::new(shape, entries, pool)?),
            KvFormat::F32 => Self::F32(Pages::new(shape, entries, pool)?),
        })
    }

    pub(super) fn shape(&self) -> PageShape {
        match self {
            Self::Bf16(pages) => pages.shape,
            Self::F32(pages) => pages.shape,
        }
    }
}

impl<E: Entry> Pages<E> {
    fn new(shape: PageShape, len: usize, pool: &mut Pool) -> Result<Self, CpuError> {
        let refused = || CpuError::KvCacheMemory {
            bytes: len.saturating_mul(size_of::<E>()),
            num_blocks: shape.num_blocks,
        };
        let entries = Arena::default().zeros(len, pool).ok_or_else(refused)?;
        Ok(Self { shape, entries })
    }

    /// The tile of keys of a sequence's tokens: an entry for each pair of dimensions.
    #[inline(always)]
    pub(super) fn keys(&self, head: usize, tile: usize) -> &[E] {
        let first = head + tile * self.shape.key_entries;
        &self.entries[first..][..self.shape.key_entries]
    }

    /// A panel of 16 dimensions of a tile of values: an entry for each pair of tokens.
    #[inline(always)]
    pub(super) fn values(&self, head: usize, tile: usize, panel: usize) -> &[E] {
        let first = head + self.shape.values_at(tile) + panel * TILE_PAIRS;
        &self.entries[first..][..TILE_PAIRS]
    }
}

impl PageShape {
    fn new(config: &ModelConfig, partition: Partition, limits: Limits) -> Self {
        Self {
            block_size: limits.block_size,
            num_blocks: limits.num_blocks,
            heads: partition.key_value_heads(config).len(),
            head_dim: config.head_dim,
            tiles: limits.block_size.div_ceil(LANES),
            key_entries: config.head_dim.div_ceil(2),
            value_entries: config.head_dim.div_ceil(LANES) * TILE_PAIRS,
        }
    }

    fn head_entries(&self) -> usize {
        self.tiles * (self.key_entries + self.value_entries)
    }

    #[inline(always)]
    fn values_at(&self, tile: usize) -> usize {
        self.tiles * self.key_entries + tile * self.value_entries
    }

    /// The first entry of a head in a block.
    #[inline(always)]
    pub(super) fn head(&self, layer: usize, block: BlockId, head: usize) -> usize {
        let block = block as usize;
        assert!(block < self.num_blocks, "block {block} is in the cache");
        ((layer * self.num_blocks + block) * self.heads + head) * self.head_entries()
    }
}

/// Writes the keys or the values of single tokens.
pub(super) struct PageWriter<'a, E: Entry> {
    pub(super) shape: PageShape,
    pub(super) layer: usize,
    pub(super) values: Disjoint<'a, E::Value>,
}

impl<'a, E: Entry> PageWriter<'a, E> {
    pub(super) fn new(pages: &'a mut Pages<E>, layer: usize) -> Self {
        Self {
            shape: pages.shape,
            layer,
            values: Disjoint::new(E::values_mut(&mut pages.entries)),
        }
    }

    /// Writes a token's key of a head.
    ///
    /// # Safety
    /// No other worker writes the same token's key of this head at the same time.
    #[inline(always)]
    pub(super) unsafe fn write_key(
        &self,
        table: &[BlockId],
        position: usize,
        head: usize,
        key: &[f32],
    ) {
        let (first, slot) = self.find(table, position, head);
        let first = first + slot / LANES * self.shape.key_entries;
        for (dimension, value) in key.iter().enumerate() {
            let place = E::place(slot % LANES, dimension % 2);
            let place = (first + dimension / 2) * E::VALUES + place;
            // SAFETY: as the caller promises: places are of this token alone.
            unsafe { self.values.set(place, E::value(*value)) };
        }
    }

    /// Writes a token's value of a head. Of the `last` token that a step writes
    /// of a sequence, the place of the one after it becomes zero: products read
    /// tokens in pairs, and what another sequence left there may not be a number.
    ///
    /// # Safety
    /// No other worker writes the same token's value of this head at the same time, nor the
    /// next one's if this is the last.
    #[inline(always)]
    pub(super) unsafe fn write_value(
        &self,
        table: &[BlockId],
        position: usize,
        head: usize,
        value: &[f32],
        last: bool,
    ) {
        let (first, slot) = self.find(table, position, head);
        let (tile, slot) = (slot / LANES, slot % LANES);
        let first = first + self.shape.values_at(tile) + slot / 2;
        let clears = last && slot % 2 == 0;
        for (dimension, value) in value.iter().enumerate() {
            let entry = first + dimension / LANES * TILE_PAIRS;
            let place = |odd| entry * E::VALUES + E::place(dimension % LANES, odd);
            // SAFETY: as the caller promises: places are of this token alone.
            unsafe { self.values.set(place(slot % 2), E::value(*value)) };
            if clears {
                // SAFETY: the next token's place is nobody's in this step.
                unsafe { self.values.set(place(1), E::value(0.0)) };
            }
        }
    }

    /// The first entry of a head in the block of a position, and the position in the block.
    #[inline(always)]
    fn find(&self, table: &[BlockId], position: usize, head: usize) -> (usize, usize) {
        let block = table[position / self.shape.block_size];
        let first = self.shape.head(self.layer, block, head);
        (first, position % self.shape.block_size)
    }
}
