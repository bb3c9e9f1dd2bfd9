//! Root mean square norms (Zhang and Sennrich 2019).

#![allow(
    unsafe_code,
    reason = "workers write different tiles, or columns of them, at the same time"
)]

use super::disjoint::{Disjoint, share};
use super::isa::Task;
use super::tiling::{Tile, Tiling};
use super::vector::{LANES, Vector, sum};

/// Normalises one worker's share of rows, into tiles:
/// `n = x / sqrt(mean(x²) + eps) * scales`.
pub(super) struct NormTiles<'a> {
    /// `[tokens][width]`.
    pub(super) x: &'a [f32],
    /// Which rows, if not all: the indices of those that are wanted.
    pub(super) rows: Option<&'a [u32]>,
    pub(super) scales: &'a [f32],
    pub(super) eps: f32,
    pub(super) tiling: Tiling,
    pub(super) tiles: &'a Disjoint<'a, f32>,
    pub(super) worker: usize,
    pub(super) workers: usize,
}

impl Task for NormTiles<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (tiles, chunks) = (self.tiling.tiles(), self.scales.len().div_ceil(LANES));
        // Of few tiles every worker does some columns, so that none waits.
        let (tiles, chunks) = if tiles >= self.workers {
            (share(tiles, self.worker, self.workers), 0..chunks)
        } else {
            (0..tiles, share(chunks, self.worker, self.workers))
        };
        for tile in tiles.map(|tile| self.tiling.tile(tile)) {
            for token in 0..tile.tokens {
                let row = self.row(tile.first + token);
                let factor = V::splat(factor::<V>(row, self.eps));
                for chunk in chunks.clone() {
                    let n = load::<V>(row, chunk).multiply(factor);
                    let n = n.multiply(load::<V>(self.scales, chunk));
                    self.put(&tile, token, chunk, n);
                }
            }
        }
    }
}

impl NormTiles<'_> {
    #[inline(always)]
    fn row(&self, token: usize) -> &[f32] {
        let row = self.rows.map_or(token, |rows| rows[token] as usize);
        &self.x[row * self.scales.len()..][..self.scales.len()]
    }

    #[inline(always)]
    fn put<V: Vector>(&self, tile: &Tile, token: usize, chunk: usize, n: V) {
        let mut values = [0.0; LANES];
        n.store(&mut values);
        let columns = self.scales.len();
        let first = tile.start(columns) + chunk * LANES * tile.width;
        let lanes = LANES.min(columns - chunk * LANES);
        // SAFETY: these columns of the tile are in one worker's share.
        let block = unsafe { self.tiles.part(first..first + lanes * tile.width) };
        for (lane, value) in values.iter().enumerate().take(lanes) {
            block[lane * tile.width + token] = *value;
        }
    }
}

/// Normalises a row in place.
#[inline(always)]
pub(super) fn norm_in_place<V: Vector>(row: &mut [f32], scales: &[f32], eps: f32) {
    let factor = factor::<V>(row, eps);
    for (value, scale) in row.iter_mut().zip(scales) {
        *value = *value * factor * scale;
    }
}

/// `1 / sqrt(mean(x²) + eps)`.
#[inline(always)]
fn factor<V: Vector>(row: &[f32], eps: f32) -> f32 {
    let mut squares = V::splat(0.0);
    for chunk in 0..row.len().div_ceil(LANES) {
        let values = load::<V>(row, chunk);
        squares = values.multiply_add(values, squares);
    }
    1.0 / (sum(squares) / row.len() as f32 + eps).sqrt()
}

/// Sixteen values, or as many as there are, and zeros.
#[inline(always)]
fn load<V: Vector>(values: &[f32], chunk: usize) -> V {
    let values = &values[chunk * LANES..];
    if let Some(values) = values.first_chunk::<LANES>() {
        return V::load(values);
    }
    let mut padded = [0.0; LANES];
    padded[..values.len()].copy_from_slice(values);
    V::load(&padded)
}
