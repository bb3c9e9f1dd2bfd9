//! Products of packed matrices and tiles of tokens: where the time goes.
//!
//! A tile of the result, up to twelve tokens by two panels, stays in registers
//! while both inputs stream past. With one token this is a matrix-vector
//! product, bound by memory; with a full tile it is bound by arithmetic. It is
//! the same code, and each sum is the same chain of additions, in the order of
//! the columns.

use std::ops::Range;

use super::entry::Entry;
use super::isa::Task;
use super::packed::Packed;
use super::tiling::{TILE_TOKENS_MAX, Tile, Tiling, with_width};
use super::vector::{LANES, Vector};

/// How far ahead of the sums weights are asked for: with one token, about what
/// memory delivers to a core while it answers (some 100 ns at 16 GB/s), rounded down.
pub(super) const PREFETCH_BYTES: usize = 1024;

/// Sums of a panel: sixteen outputs for each token of a tile.
pub(super) type PanelSums = [[f32; LANES]; TILE_TOKENS_MAX];

/// What to do with sums when they are complete.
pub(super) trait Finish {
    /// Takes the sums of a panel for a tile, and those of the panel beside it if there is one.
    fn finish<V: Vector>(&self, tile: &Tile, panels: &Panels, sums: &[PanelSums; 2]);
}

/// One panel, or two that are computed side by side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels {
    pub(super) first: usize,
    pub(super) second: Option<usize>,
}

/// Panels to compute: each of `first`, beside the one as far into `second`.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) first: Range<usize>,
    pub(super) second: Range<usize>,
}

impl Columns {
    /// Some panels, the first half of them beside the other: two streams, each
    /// from end to end.
    #[inline(always)]
    pub(super) fn halves(panels: Range<usize>) -> Self {
        let middle = panels.start + panels.len().div_ceil(2);
        Self {
            first: panels.start..middle,
            second: middle..panels.end,
        }
    }
}

/// Multiplies panels of a matrix with all tiles, `[tile][column][token]`.
#[inline(always)]
pub(super) fn multiply<V: Vector, E: Entry>(
    matrix: &Packed<E>,
    columns: Columns,
    x: &[f32],
    tiling: Tiling,
    finish: &impl Finish,
) {
    let mut second = columns.second;
    for first in columns.first {
        let panels = Panels {
            first,
            second: second.next(),
        };
        for tile in 0..tiling.tiles() {
            let tile = tiling.tile(tile);
            let x = &x[tile.start(matrix.columns)..][..tile.len(matrix.columns)];
            let mut sums = [[[0.0; LANES]; TILE_TOKENS_MAX]; 2];
            panel_sums::<V, E>(matrix, &panels, x, tile.width, &mut sums);
            finish.finish::<V>(&tile, &panels, &sums);
        }
    }
}

#[inline(always)]
fn panel_sums<V: Vector, E: Entry>(
    matrix: &Packed<E>,
    panels: &Panels,
    x: &[f32],
    width: usize,
    sums: &mut [PanelSums; 2],
) {
    let first = matrix.panel(panels.first);
    let [first_sums, second_sums] = sums;
    let Some(second) = panels.second else {
        return add_products::<V, E, 1>([first], [later(first)], x, width, [first_sums]);
    };
    let second = matrix.panel(second);
    let (both, both_later) = ([first, second], [later(first), later(second)]);
    if 2 * width <= V::SUMS {
        add_products::<V, E, 2>(both, both_later, x, width, [first_sums, second_sums]);
    } else {
        add_products::<V, E, 1>([first], [both_later[0]], x, width, [first_sums]);
        add_products::<V, E, 1>([second], [both_later[1]], x, width, [second_sums]);
    }
}

/// Where what is read some time after this is, in a matrix that is read from end to end.
#[inline(always)]
fn later<E>(panel: &[E]) -> *const E {
    panel.as_ptr().wrapping_byte_add(PREFETCH_BYTES)
}

/// Adds to the sums of panels their products with a tile of any width, and
/// asks for as much memory from each place in `later`, which may be anywhere.
#[inline(always)]
pub(super) fn add_products<V: Vector, E: Entry, const P: usize>(
    panels: [&[E]; P],
    later: [*const E; P],
    x: &[f32],
    width: usize,
    sums: [&mut [[f32; LANES]]; P],
) {
    // A function of its own: it is long, and there are many who call it.
    V::call(AddProducts {
        panels,
        later,
        x,
        width,
        sums,
    });
}

struct AddProducts<'a, E, const P: usize> {
    panels: [&'a [E]; P],
    later: [*const E; P],
    x: &'a [f32],
    width: usize,
    sums: [&'a mut [[f32; LANES]]; P],
}

impl<E: Entry, const P: usize> Task for AddProducts<'_, E, P> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            panels,
            later,
            x,
            width,
            sums,
        } = self;
        with_width!(V, P, width, T => add_tile::<V, E, T, P>(panels, later, x, sums));
    }
}

/// Adds to the sums of `P` panels their products with a tile of `T` tokens.
#[inline(always)]
fn add_tile<V: Vector, E: Entry, const T: usize, const P: usize>(
    panels: [&[E]; P],
    later: [*const E; P],
    x: &[f32],
    sums: [&mut [[f32; LANES]]; P],
) {
    let x = x.as_chunks::<T>().0.as_chunks::<2>().0;
    let panels = panels.map(|panel| &panel[..x.len()]);
    let mut totals = [[V::splat(0.0); T]; P];
    for panel in 0..P {
        for token in 0..T {
            totals[panel][token] = V::load(&sums[panel][token]);
        }
    }
    for (pair, [even, odd]) in x.iter().enumerate() {
        let mut weights = [(V::splat(0.0), V::splat(0.0)); P];
        for panel in 0..P {
            prefetch::<V, E>(later[panel].wrapping_add(pair));
            weights[panel] = panels[panel][pair].widen::<V>();
        }
        for token in 0..T {
            let value = V::splat(even[token]);
            for panel in 0..P {
                let total = &mut totals[panel][token];
                *total = weights[panel].0.multiply_add(value, *total);
            }
        }
        for token in 0..T {
            let value = V::splat(odd[token]);
            for panel in 0..P {
                let total = &mut totals[panel][token];
                *total = weights[panel].1.multiply_add(value, *total);
            }
        }
    }
    for panel in 0..P {
        for token in 0..T {
            totals[panel][token].store(&mut sums[panel][token]);
        }
    }
}

/// Asks for the cache lines of an entry.
#[inline(always)]
pub(super) fn prefetch<V: Vector, E: Entry>(entry: *const E) {
    const LINE_BYTES: usize = 64;
    for line in 0..size_of::<E>() / LINE_BYTES {
        V::prefetch(entry.cast(), line * LINE_BYTES);
    }
}
