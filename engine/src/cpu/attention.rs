//! Attention over the paged cache.
//!
//! Work comes in items: up to a tile's width of rows, each a query head of a
//! token, that share a head of keys and values. An item is two matrix products
//! with softmax between: scores are computed for all keys that any of its rows
//! sees, then each row's maximum, exponentials and sum, then the weighted sum of
//! the values. A row's result does not depend on which others share its
//! item: tiles of keys begin at fixed places, what a row does not see weighs
//! exactly zero, and adding zero changes nothing.

#![allow(
    unsafe_code,
    reason = "workers write the outputs of different rows at the same time"
)]

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::disjoint::Disjoint;
use super::entry::Entry;
use super::isa::Task;
use super::kv_cache::{PageShape, Pages, TILE_PAIRS};
use super::product::{PanelSums, add_products, prefetch};
use super::tiling::{TILE_TOKENS_MAX, Tiling, width, with_width};
use super::vector::{LANES, Vector, exp, largest, sum};
use crate::batch::{Batch, BatchSequence};

/// How many tiles of keys ahead of the sums are asked for: two of bf16, 64 wide,
/// take some 100 ns, which is about as long as memory takes to answer.
const TILES_AHEAD: usize = 2;

/// Likewise of two panels of values, of which a tile has half as much.
const VALUE_TILES_AHEAD: usize = 4;

/// One worker's part of the attention of a layer: whatever items it gets to first.
pub(super) struct Attend<'a, E> {
    pub(super) layer: usize,
    pub(super) window: Option<usize>,
    pub(super) batch: &'a Batch,
    pub(super) items: &'a [Item],
    /// The next item that nobody has begun.
    pub(super) next: &'a AtomicUsize,
    pub(super) pages: &'a Pages<E>,
    pub(super) query_heads: usize,
    /// `[tokens][query heads][head_dim]`.
    pub(super) queries: &'a [f32],
    pub(super) tiling: Tiling,
    /// Where the result goes, in tiles of `query heads * head_dim` columns.
    pub(super) attended: &'a Disjoint<'a, f32>,
    pub(super) scratch: &'a mut AttentionScratch,
}

/// Rows of one sequence that share a head of keys and values. Row `r` is of
/// token `r / group`, and of the query head `r % group` of the group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    sequence: usize,
    head: usize,
    first_row: usize,
    rows: usize,
}

/// What a worker needs for an item.
#[derive(Debug)]
pub(super) struct AttentionScratch {
    /// Queries of an item, `[dimension][row]`.
    queries: Vec<f32>,
    /// Scores, then weights, `[tile of keys][row][key]`.
    scores: Vec<[f32; LANES]>,
    /// Where each tile of keys is: its head's first entry in the cache, and its place in the block.
    places: Vec<(usize, usize)>,
    /// Pairs of tokens to read of the last tile: what is beyond was never of this sequence.
    last_pairs: usize,
}

impl AttentionScratch {
    pub(super) fn new(shape: &PageShape, max_model_len: usize) -> Self {
        let tiles = max_model_len.div_ceil(shape.block_size) * shape.tiles;
        Self {
            queries: vec![0.0; shape.head_dim.next_multiple_of(2) * TILE_TOKENS_MAX],
            // Tiles are scored in pairs, the last of which may have only one.
            scores: vec![[0.0; LANES]; tiles.next_multiple_of(2) * TILE_TOKENS_MAX],
            places: Vec::with_capacity(tiles),
            last_pairs: 0,
        }
    }
}

/// Puts the items of a batch into a list, for tiles of so many rows.
pub(super) fn list_items(
    batch: &Batch,
    heads: usize,
    group: usize,
    rows: usize,
    items: &mut Vec<Item>,
) {
    items.clear();
    for (sequence, of) in batch.sequences.iter().enumerate() {
        let all = of.len * group;
        for first_row in (0..all).step_by(rows) {
            items.extend((0..heads).map(|head| Item {
                sequence,
                head,
                first_row,
                rows: rows.min(all - first_row),
            }));
        }
    }
}

impl<E: Entry> Task for Attend<'_, E> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        loop {
            let item = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = self.items.get(item).copied() else {
                return;
            };
            self.attend::<V>(item);
        }
    }
}

impl<E: Entry> Attend<'_, E> {
    #[inline(always)]
    fn attend<V: Vector>(&mut self, item: Item) {
        let sequence = &self.batch.sequences[item.sequence];
        let (first, last) = (item.first_row, item.first_row + item.rows - 1);
        let end = self.seen(sequence, last).end;
        let tiles = self.tiles(self.seen(sequence, first).start..end);
        self.scratch.last_pairs = (end - self.positions(tiles.end - 1).start).div_ceil(2);
        self.find_tiles(sequence, item.head, tiles.clone());
        self.load_queries(sequence, item);
        self.score::<V>(item);
        let mut factors = [0.0; TILE_TOKENS_MAX];
        for (row, factor) in factors.iter_mut().enumerate().take(item.rows) {
            let seen = self.seen(sequence, item.first_row + row);
            self.mask(row, item, tiles.clone(), seen);
            *factor = 1.0 / self.exponentiate::<V>(row, item);
        }
        let panels = self.pages.shape.head_dim.div_ceil(LANES);
        for panel in (0..panels).step_by(2) {
            let mut sums: [PanelSums; 2] = [[[0.0; LANES]; TILE_TOKENS_MAX]; 2];
            let [one, other] = &mut sums;
            if panel + 1 < panels && 2 * width(item.rows) <= V::SUMS {
                self.weigh::<V, 2>([panel, panel + 1], item, [one, other]);
            } else {
                self.weigh::<V, 1>([panel], item, [one]);
                if panel + 1 < panels {
                    self.weigh::<V, 1>([panel + 1], item, [other]);
                }
            }
            for (panel, sums) in (panel..panels).zip(&sums) {
                self.put(sequence, item, panel, sums, &factors);
            }
        }
    }

    /// Query heads that share a head of keys and values.
    #[inline(always)]
    fn group(&self) -> usize {
        self.query_heads / self.pages.shape.heads
    }

    /// The positions that a row sees.
    #[inline(always)]
    fn seen(&self, sequence: &BatchSequence, row: usize) -> Range<usize> {
        let end = sequence.past + row / self.group() + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// The tiles that have these positions.
    #[inline(always)]
    fn tiles(&self, positions: Range<usize>) -> Range<usize> {
        let tile = |position: usize| {
            let shape = &self.pages.shape;
            let (block, slot) = (position / shape.block_size, position % shape.block_size);
            block * shape.tiles + slot / LANES
        };
        tile(positions.start)..tile(positions.end - 1) + 1
    }

    /// The positions that a tile has.
    #[inline(always)]
    fn positions(&self, tile: usize) -> Range<usize> {
        let shape = &self.pages.shape;
        let first = tile / shape.tiles * shape.block_size;
        let slot = tile % shape.tiles * LANES;
        first + slot..first + shape.block_size.min(slot + LANES)
    }

    #[inline(always)]
    fn find_tiles(&mut self, sequence: &BatchSequence, head: usize, tiles: Range<usize>) {
        let shape = &self.pages.shape;
        self.scratch.places.clear();
        for tile in tiles {
            let block = sequence.table[tile / shape.tiles];
            let head = shape.head(self.layer, block, head);
            self.scratch.places.push((head, tile % shape.tiles));
        }
    }

    /// Brings the queries into a tile, divided by the square root of the width of a head.
    #[inline(always)]
    fn load_queries(&mut self, sequence: &BatchSequence, item: Item) {
        let (group, head_dim) = (self.group(), self.pages.shape.head_dim);
        let (scale, width) = (1.0 / (head_dim as f32).sqrt(), width(item.rows));
        for row in 0..item.rows {
            let token = sequence.first + (item.first_row + row) / group;
            let head = item.head * group + (item.first_row + row) % group;
            let query = &self.queries[(token * self.query_heads + head) * head_dim..][..head_dim];
            for (dimension, value) in query.iter().enumerate() {
                self.scratch.queries[dimension * width + row] = value * scale;
            }
        }
        if head_dim % 2 == 1 {
            self.scratch.queries[head_dim * width..][..width].fill(0.0);
        }
    }

    /// `q · k` of each row and each key.
    #[inline(always)]
    fn score<V: Vector>(&mut self, item: Item) {
        let AttentionScratch {
            queries,
            scores,
            places,
            ..
        } = &mut *self.scratch;
        let width = width(item.rows);
        let queries = &queries[..self.pages.shape.head_dim.next_multiple_of(2) * width];
        scores[..places.len() * width].fill([0.0; LANES]);
        let scores = scores.chunks_exact_mut(2 * width);
        let keys = |place: usize| self.pages.keys(places[place].0, places[place].1);
        // Blocks are anywhere in memory, so the processor cannot guess which are next.
        let later = |place: usize| keys((place + TILES_AHEAD).min(places.len() - 1)).as_ptr();
        for (place, scores) in (0..places.len()).step_by(2).zip(scores) {
            let (one, other) = scores.split_at_mut(width);
            let next = place + 1;
            if next < places.len() && 2 * width <= V::SUMS {
                let (tiles, later) = ([keys(place), keys(next)], [later(place), later(next)]);
                add_products::<V, E, 2>(tiles, later, queries, width, [one, other]);
            } else {
                add_products::<V, E, 1>([keys(place)], [later(place)], queries, width, [one]);
                if next < places.len() {
                    add_products::<V, E, 1>([keys(next)], [later(next)], queries, width, [other]);
                }
            }
        }
    }

    /// Takes out of a row's scores what it does not see: in the first tiles and in the last.
    #[inline(always)]
    fn mask(&mut self, row: usize, item: Item, tiles: Range<usize>, seen: Range<usize>) {
        let (width, first) = (width(item.rows), tiles.start);
        for tile in tiles {
            let positions = self.positions(tile);
            if seen.start <= positions.start
                && positions.start + LANES <= seen.end.min(positions.end)
            {
                continue;
            }
            let scores = &mut self.scratch.scores[(tile - first) * width + row];
            for (position, score) in (positions.start..).zip(scores) {
                if !seen.contains(&position) || position >= positions.end {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// `exp(z - max z)` of a row; returns their sum.
    #[inline(always)]
    fn exponentiate<V: Vector>(&mut self, row: usize, item: Item) -> f32 {
        let (width, tiles) = (width(item.rows), self.scratch.places.len());
        let scores = &mut self.scratch.scores[..tiles * width];
        let mut most = V::splat(f32::NEG_INFINITY);
        for tile in scores.chunks_exact(width) {
            most = most.max(V::load(&tile[row]));
        }
        let less = V::splat(-largest(most));
        let mut total = V::splat(0.0);
        for tile in scores.chunks_exact_mut(width) {
            let power = exp(V::load(&tile[row]).add(less));
            total = total.add(power);
            power.store(&mut tile[row]);
        }
        sum(total)
    }

    /// Adds up the values of `P` panels of dimensions, weighted, for each row.
    #[inline(always)]
    fn weigh<V: Vector, const P: usize>(
        &self,
        panels: [usize; P],
        item: Item,
        sums: [&mut PanelSums; P],
    ) {
        with_width!(V, P, width(item.rows), T => self.weigh_rows::<V, T, P>(panels, sums));
    }

    #[inline(always)]
    fn weigh_rows<V: Vector, const T: usize, const P: usize>(
        &self,
        panels: [usize; P],
        sums: [&mut PanelSums; P],
    ) {
        let mut totals = [[V::splat(0.0); T]; P];
        let (weights, _) = self.scratch.scores.as_chunks::<T>();
        let last = self.scratch.places.len() - 1;
        for (place, (head, tile)) in self.scratch.places.iter().enumerate() {
            let weights = &weights[place];
            let values = panels.map(|panel| self.pages.values(*head, *tile, panel));
            let (head, tile) = self.scratch.places[(place + VALUE_TILES_AHEAD).min(last)];
            let later = panels.map(|panel| self.pages.values(head, tile, panel).as_ptr());
            let pairs = if place < last {
                TILE_PAIRS
            } else {
                self.scratch.last_pairs
            };
            for pair in 0..pairs {
                let mut widened = [(V::splat(0.0), V::splat(0.0)); P];
                for panel in 0..P {
                    prefetch::<V, E>(later[panel].wrapping_add(pair));
                    widened[panel] = values[panel][pair].widen::<V>();
                }
                for token in 0..T {
                    let even = V::splat(weights[token][2 * pair]);
                    let odd = V::splat(weights[token][2 * pair + 1]);
                    for panel in 0..P {
                        let total = &mut totals[panel][token];
                        *total = widened[panel].0.multiply_add(even, *total);
                        *total = widened[panel].1.multiply_add(odd, *total);
                    }
                }
            }
        }
        for panel in 0..P {
            for token in 0..T {
                totals[panel][token].store(&mut sums[panel][token]);
            }
        }
    }

    #[inline(always)]
    fn put(
        &self,
        sequence: &BatchSequence,
        item: Item,
        panel: usize,
        sums: &PanelSums,
        factors: &[f32; TILE_TOKENS_MAX],
    ) {
        let (group, head_dim) = (self.group(), self.pages.shape.head_dim);
        let columns = self.query_heads * head_dim;
        for row in 0..item.rows {
            let token = sequence.first + (item.first_row + row) / group;
            let head = item.head * group + (item.first_row + row) % group;
            let dimensions = panel * LANES..head_dim.min((panel + 1) * LANES);
            let tile = self.tiling.place(token, head * head_dim, columns);
            let width = self.tiling.width_at(token);
            for (dimension, value) in dimensions.zip(sums[row]) {
                // SAFETY: a row is in one item.
                unsafe {
                    self.attended
                        .set(tile + dimension * width, value * factors[row])
                };
            }
        }
    }
}
