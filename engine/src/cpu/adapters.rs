//! LoRA adapters in their slots: `y += scale * B (A x)`.
//!
//! Only the tokens of sequences with an adapter are touched, one tile of
//! them after the other; of the others nothing is even read.

#![allow(
    unsafe_code,
    reason = "workers write the outputs of different tokens at the same time"
)]

use std::ops::Range;

use super::disjoint::{Disjoint, share};
use super::entry::Entry;
use super::isa::Task;
use super::memory::Arena;
use super::packed::{Matrix, Packed, with_packed};
use super::pool::Pool;
use super::product::{Columns, Finish, PanelSums, Panels, multiply};
use super::tiling::{Tile, Tiling};
use super::vector::{LANES, Vector};
use crate::batch::{Batch, BatchSequence};
use crate::config::{ModelConfig, Partition};
use crate::weights::{Adapter, AdapterLayer, HostMatrix, HostValues, LowRank};

/// This rank's part of an adapter.
#[derive(Debug)]
pub(super) struct AdapterShard {
    scale: f32,
    layers: Vec<AdapterLayer<Matrix>>,
}

impl AdapterShard {
    /// The outputs of this rank where a projection is split by outputs (rows of `B`, all of
    /// `A`), its inputs where it is split by inputs (columns of `A`, all of `B`).
    pub(super) fn new(
        adapter: &Adapter,
        config: &ModelConfig,
        partition: Partition,
        pool: &mut Pool,
    ) -> Self {
        let arena = &mut Arena::default();
        let of = |heads: Range<usize>| heads.start * config.head_dim..heads.end * config.head_dim;
        let queries = of(partition.query_heads(config));
        let keys = of(partition.key_value_heads(config));
        let inner = partition.intermediate(config);
        let mut outputs = |whole: &Option<LowRank<HostMatrix>>, rows: &Range<usize>| {
            let whole = whole.as_ref()?;
            Some(LowRank {
                down: Matrix::pack(&whole.down, arena, pool),
                up: Matrix::pack(&rows_of(&whole.up, rows), arena, pool),
            })
        };
        let mut layers: Vec<_> = adapter
            .layers
            .iter()
            .map(|layer| AdapterLayer {
                query: outputs(&layer.query, &queries),
                key: outputs(&layer.key, &keys),
                value: outputs(&layer.value, &keys),
                gate: outputs(&layer.gate, &inner),
                up: outputs(&layer.up, &inner),
                ..AdapterLayer::default()
            })
            .collect();
        let mut inputs = |whole: &Option<LowRank<HostMatrix>>, columns: &Range<usize>| {
            let whole = whole.as_ref()?;
            // More would be added to the next token's row, which may be another worker's.
            assert_eq!(whole.up.rows, config.hidden_size, "outputs of an adapter");
            Some(LowRank {
                down: Matrix::pack(&columns_of(&whole.down, columns), arena, pool),
                up: Matrix::pack(&whole.up, arena, pool),
            })
        };
        for (layer, whole) in layers.iter_mut().zip(&adapter.layers) {
            layer.output = inputs(&whole.output, &queries);
            layer.down = inputs(&whole.down, &inner);
        }
        Self {
            scale: adapter.scale,
            layers,
        }
    }
}

fn rows_of(matrix: &HostMatrix, rows: &Range<usize>) -> HostMatrix {
    let places = rows.start * matrix.columns..rows.end * matrix.columns;
    HostMatrix {
        rows: rows.len(),
        columns: matrix.columns,
        values: match &matrix.values {
            HostValues::F32(values) => HostValues::F32(values[places].to_vec()),
            HostValues::Bf16(values) => HostValues::Bf16(values[places].to_vec()),
        },
    }
}

fn columns_of(matrix: &HostMatrix, columns: &Range<usize>) -> HostMatrix {
    fn cut<T: Copy>(values: &[T], width: usize, columns: &Range<usize>) -> Vec<T> {
        let rows = values.chunks_exact(width.max(1));
        rows.flat_map(|row| &row[columns.clone()])
            .copied()
            .collect()
    }
    HostMatrix {
        rows: matrix.rows,
        columns: columns.len(),
        values: match &matrix.values {
            HostValues::F32(values) => HostValues::F32(cut(values, matrix.columns, columns)),
            HostValues::Bf16(values) => HostValues::Bf16(cut(values, matrix.columns, columns)),
        },
    }
}

/// What a projection consists of, for adapters: where each of its parts begins among its outputs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// Query at 0, key and value where they begin.
    QueryKeyValue { key: usize, value: usize },
    /// The attention's output.
    Output,
    /// Gate at 0, up where it begins.
    GateUp { up: usize },
    /// The MLP's output.
    Down,
}

impl Target {
    fn parts<M>(self, layer: &AdapterLayer<M>) -> [(Option<&LowRank<M>>, usize); 3] {
        let none = (None, 0);
        match self {
            Self::QueryKeyValue { key, value } => [
                (layer.query.as_ref(), 0),
                (layer.key.as_ref(), key),
                (layer.value.as_ref(), value),
            ],
            Self::Output => [(layer.output.as_ref(), 0), none, none],
            Self::GateUp { up } => [(layer.gate.as_ref(), 0), (layer.up.as_ref(), up), none],
            Self::Down => [(layer.down.as_ref(), 0), none, none],
        }
    }
}

/// Whether any sequence's adapter adds to a projection of a layer.
pub(super) fn any_adds(
    slots: &[Option<AdapterShard>],
    batch: &Batch,
    layer: usize,
    target: Target,
) -> bool {
    batch.sequences.iter().any(|sequence| {
        let parts = shard(slots, sequence).map(|shard| target.parts(&shard.layers[layer]));
        parts.is_some_and(|parts| parts.iter().any(|(part, _)| part.is_some()))
    })
}

fn shard<'a>(
    slots: &'a [Option<AdapterShard>],
    sequence: &BatchSequence,
) -> Option<&'a AdapterShard> {
    let slot = sequence.adapter?;
    let shard = slots[slot].as_ref();
    Some(shard.expect("a sequence's adapter is in its slot"))
}

/// What a worker needs for a tile of tokens.
#[derive(Debug)]
pub(super) struct AdapterScratch {
    /// `[input][token]`.
    inputs: Vec<f32>,
    /// `scale * A x`, `[rank][token]`.
    between: Vec<f32>,
}

impl AdapterScratch {
    pub(super) fn new(columns: usize, rank: usize) -> Self {
        Self {
            inputs: vec![0.0; Tiling::room(0, columns)],
            between: vec![0.0; Tiling::room(0, rank)],
        }
    }
}

/// One worker's share of what adapters add to a projection.
pub(super) struct AddAdapters<'a> {
    pub(super) slots: &'a [Option<AdapterShard>],
    pub(super) layer: usize,
    pub(super) target: Target,
    pub(super) batch: &'a Batch,
    /// The inputs of the projection, in tiles.
    pub(super) x: &'a [f32],
    pub(super) columns: usize,
    /// Its outputs, `[tokens][width]`.
    pub(super) y: &'a Disjoint<'a, f32>,
    pub(super) width: usize,
    pub(super) scratch: &'a mut AdapterScratch,
    pub(super) worker: usize,
    pub(super) workers: usize,
}

impl Task for AddAdapters<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        for sequence in &self.batch.sequences {
            let Some(shard) = shard(self.slots, sequence) else {
                continue;
            };
            let tiling = Tiling::of::<V>(sequence.len);
            // Each worker has tokens of its own; of a single token, one worker does all.
            for tile in share(tiling.tiles(), self.worker, self.workers) {
                self.add::<V>(shard, sequence, &tiling.tile(tile));
            }
        }
    }
}

impl AddAdapters<'_> {
    #[inline(always)]
    fn add<V: Vector>(&mut self, shard: &AdapterShard, sequence: &BatchSequence, tile: &Tile) {
        let first = sequence.first + tile.first;
        let one = Tiling::of::<V>(tile.tokens);
        let parts = self.target.parts(&shard.layers[self.layer]);
        if parts.iter().any(|(part, _)| part.is_some()) {
            self.gather::<V>(first, one);
        }
        for (low_rank, begin) in parts {
            let Some(low_rank) = low_rank else { continue };
            let AdapterScratch { inputs, between } = &mut *self.scratch;
            one.clear_padding(between, low_rank.down.rows());
            let scaled = Scaled {
                tile: Disjoint::new(between),
                rank: low_rank.down.rows(),
                scale: shard.scale,
            };
            with_packed!(low_rank.down, packed => product::<V, _>(packed, inputs, one, &scaled));
            let added = Added {
                rows: self.y,
                first,
                width: self.width,
                begin,
                outputs: low_rank.up.rows(),
            };
            with_packed!(low_rank.up, packed => product::<V, _>(packed, between, one, &added));
        }
    }

    /// Brings the inputs of a tile's tokens together, which may be in two tiles of the batch.
    #[inline(always)]
    fn gather<V: Vector>(&mut self, first: usize, one: Tiling) {
        let (from, tile) = (Tiling::of::<V>(self.batch.len()), one.tile(0));
        for token in 0..tile.tokens {
            let start = from.place(first + token, 0, self.columns);
            let step = from.width_at(first + token);
            for column in 0..self.columns {
                let value = self.x[start + column * step];
                self.scratch.inputs[column * tile.width + token] = value;
            }
        }
        one.clear_padding(&mut self.scratch.inputs, self.columns);
    }
}

#[inline(always)]
fn product<V: Vector, E: Entry>(
    matrix: &Packed<E>,
    x: &[f32],
    tiling: Tiling,
    finish: &impl Finish,
) {
    let columns = Columns::halves(0..matrix.panels());
    multiply::<V, E>(matrix, columns, x, tiling, finish);
}

/// Puts `scale * sum` into a tile of as many columns as the adapter's rank.
struct Scaled<'a> {
    tile: Disjoint<'a, f32>,
    rank: usize,
    scale: f32,
}

impl Finish for Scaled<'_> {
    #[inline(always)]
    fn finish<V: Vector>(&self, tile: &Tile, panels: &Panels, sums: &[PanelSums; 2]) {
        for (panel, sums) in [Some(panels.first), panels.second].iter().zip(sums) {
            let Some(panel) = panel else { continue };
            let first = panel * LANES;
            for lane in 0..LANES.min(self.rank - first) {
                for (token, sums) in sums.iter().enumerate().take(tile.width) {
                    let place = (first + lane) * tile.width + token;
                    // SAFETY: one worker has all of the tile.
                    unsafe { self.tile.set(place, self.scale * sums[lane]) };
                }
            }
        }
    }
}

/// Adds sums to the rows of a tile's tokens.
struct Added<'a> {
    rows: &'a Disjoint<'a, f32>,
    /// The first token.
    first: usize,
    /// Values of a row.
    width: usize,
    /// Where the outputs begin in a row.
    begin: usize,
    outputs: usize,
}

impl Finish for Added<'_> {
    #[inline(always)]
    fn finish<V: Vector>(&self, tile: &Tile, panels: &Panels, sums: &[PanelSums; 2]) {
        for (panel, sums) in [Some(panels.first), panels.second].iter().zip(sums) {
            let Some(panel) = panel else { continue };
            let first = panel * LANES;
            let outputs = LANES.min(self.outputs - first);
            for (token, sums) in sums.iter().enumerate().take(tile.tokens) {
                let place = (self.first + token) * self.width + self.begin + first;
                // SAFETY: a token is in one worker's share, and its outputs are within its row.
                let row = unsafe { self.rows.part(place..place + outputs) };
                row.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
            }
        }
    }
}
