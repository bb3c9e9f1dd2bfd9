//! What becomes of the sums of a matrix product.

#![allow(
    unsafe_code,
    reason = "workers write the outputs of different panels at the same time"
)]

use std::ops::Range;

use super::disjoint::Disjoint;
use super::product::{Finish, PanelSums, Panels};
use super::tiling::Tile;
use super::vector::{LANES, Vector, silu};

/// Puts outputs into rows: `rows[token][output] = sum`, or `+= sum`.
///
/// Of all that use the same rows, no two may compute the same panel.
pub(super) struct Rows<'a> {
    pub(super) rows: Disjoint<'a, f32>,
    /// Values of a row.
    pub(super) width: usize,
    /// Outputs, which are all or fewer than the panels have.
    pub(super) outputs: usize,
    /// Whether to add.
    pub(super) adds: bool,
}

impl Rows<'_> {
    #[inline(always)]
    fn put<V: Vector>(&self, tile: &Tile, panel: usize, sums: &PanelSums) {
        let first = panel * LANES;
        let outputs = LANES.min(self.outputs - first);
        for (token, sums) in sums.iter().enumerate().take(tile.tokens) {
            let place = (tile.first + token) * self.width + first;
            // SAFETY: these are the outputs of one panel, which one worker computes.
            let row = unsafe { self.rows.part(place..place + outputs) };
            match <&mut [f32; LANES]>::try_from(&mut *row) {
                Ok(row) if self.adds => V::load(row).add(V::load(sums)).store(row),
                Ok(row) => *row = *sums,
                Err(_) if self.adds => row.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum),
                Err(_) => row.copy_from_slice(&sums[..outputs]),
            }
        }
    }
}

impl Finish for Rows<'_> {
    #[inline(always)]
    fn finish<V: Vector>(&self, tile: &Tile, panels: &Panels, sums: &[PanelSums; 2]) {
        self.put::<V>(tile, panels.first, &sums[0]);
        if let Some(second) = panels.second {
            self.put::<V>(tile, second, &sums[1]);
        }
    }
}

/// Puts `silu(gate) * up` into tiles, where the first panels are of the gate
/// and those beside them of the same rows of the up projection.
///
/// Of all that use the same tiles, no two may compute the same panel.
pub(super) struct Gated<'a> {
    pub(super) tiles: Disjoint<'a, f32>,
    /// Outputs of the gate, which its panels have exactly.
    pub(super) columns: usize,
}

impl Finish for Gated<'_> {
    #[inline(always)]
    fn finish<V: Vector>(&self, tile: &Tile, panels: &Panels, sums: &[PanelSums; 2]) {
        let first = tile.start(self.columns) + panels.first * LANES * tile.width;
        // SAFETY: these are the outputs of one panel, which one worker computes.
        let block = unsafe { self.tiles.part(first..first + LANES * tile.width) };
        let mut values = [0.0; LANES];
        for (token, (gate, up)) in sums[0].iter().zip(&sums[1]).enumerate().take(tile.width) {
            silu(V::load(gate)).multiply(V::load(up)).store(&mut values);
            for (lane, value) in values.iter().enumerate() {
                block[lane * tile.width + token] = *value;
            }
        }
    }
}

/// `silu(gate) * up` of rows `[gate | up]`, into the columns of a tile.
#[inline(always)]
pub(super) fn gate_rows<V: Vector>(
    rows: &[f32],
    columns: usize,
    share: Range<usize>,
    tile: &Tile,
    tiles: &Disjoint<'_, f32>,
) {
    for token in 0..tile.tokens {
        let row = &rows[(tile.first + token) * 2 * columns..][..2 * columns];
        let (gate, up) = row.split_at(columns);
        for first in share.clone().step_by(LANES) {
            let lanes = LANES.min(share.end - first);
            let (mut one, mut other) = ([0.0; LANES], [0.0; LANES]);
            one[..lanes].copy_from_slice(&gate[first..first + lanes]);
            other[..lanes].copy_from_slice(&up[first..first + lanes]);
            silu(V::load(&one))
                .multiply(V::load(&other))
                .store(&mut one);
            for (lane, value) in one.iter().enumerate().take(lanes) {
                let place = tile.start(columns) + (first + lane) * tile.width + token;
                // SAFETY: a column of the tile is in one worker's share.
                unsafe { tiles.set(place, *value) };
            }
        }
    }
}
