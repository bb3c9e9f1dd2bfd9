//! The operations of a forward pass, each as a few jobs of the pool.

#![allow(unsafe_code, reason = "workers use their own scratch at the same time")]

use std::sync::atomic::AtomicUsize;

use super::adapters::{AdapterShard, AddAdapters, Target, any_adds};
use super::attention::{Attend, list_items};
use super::disjoint::{Disjoint, share};
use super::entry::Entry;
use super::finish::{Gated, Rows, gate_rows};
use super::heads::TurnHeads;
use super::isa::{Isa, Task};
use super::kv_cache::{PageWriter, with_pages};
use super::norm::NormTiles;
use super::packed::{Matrix, Packed, with_packed};
use super::pool::Pool;
use super::product::{Columns, Finish, multiply};
use super::tiling::Tiling;
use super::vector::{LANES, Vector};
use super::{Buffer, CpuOps};
use crate::backend::StepError;
use crate::batch::Batch;
use crate::ops::{Ops, Role};
use crate::weights::{Adapter, HostMatrix, Layer, Weights};

impl Ops for CpuOps {
    type Matrix = Matrix;
    type Buffer = Buffer;

    fn pack(&mut self, matrix: HostMatrix, _role: Role) -> Matrix {
        Matrix::pack(&matrix, &mut self.arena, &mut self.pool)
    }

    fn buffer(&mut self, width: usize) -> Buffer {
        let room = Tiling::room(self.limits.max_batched_tokens, width);
        let values = vec![0.0; room];
        Buffer { width, values }
    }

    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError> {
        assert!(adapter.rank <= self.limits.max_lora_rank);
        let shard = AdapterShard::new(adapter, &self.config, self.partition, &mut self.pool);
        self.adapters[slot] = Some(shard);
        Ok(())
    }

    fn read_logits(&mut self) -> Result<&[f32], StepError> {
        Ok(&self.logits)
    }

    fn unload_adapter(&mut self, slot: usize) {
        self.adapters[slot] = None;
    }

    fn embed(&mut self, weights: &Weights<Matrix>, batch: &Batch, x: &mut Buffer) {
        let hidden = self.config.hidden_size;
        let vocabulary = self.partition.vocabulary(&self.config);
        let (workers, len) = (self.pool.workers(), batch.len() * hidden);
        let rows = Disjoint::new(&mut x.values[..len]);
        self.pool.run(&|worker| {
            for row in share(batch.len(), worker, workers) {
                // SAFETY: a row is in one worker's share.
                let values = unsafe { rows.part(row * hidden..(row + 1) * hidden) };
                let token = batch.tokens[row] as usize;
                if vocabulary.contains(&token) {
                    let row = token - vocabulary.start;
                    weights.embedding.copy_row(row, values);
                } else {
                    // Another rank has it.
                    values.fill(0.0);
                }
            }
        });
        self.comm.all_reduce(&mut x.values[..len]);
    }

    fn queries_keys_values(
        &mut self,
        layer: &Layer<Matrix>,
        batch: &Batch,
        x: &Buffer,
        q: &mut Buffer,
    ) {
        let (query_heads, heads) = (self.query_heads(), self.key_value_heads());
        let head_dim = self.config.head_dim;
        batch.assert_tokens_apart();
        batch.assert_blocks_apart(self.limits.block_size, &mut self.scratch.written);
        let key = query_heads * head_dim;
        let value = key + heads * head_dim;
        self.norm(x, None, batch.len(), &layer.attention_norm);
        self.project(&layer.qkv, batch.len());
        self.adapt_normed(layer, batch, Target::QueryKeyValue { key, value });
        let (workers, isa) = (self.pool.workers(), self.isa);
        let fused = Disjoint::new(&mut self.scratch.fused);
        let queries = Disjoint::new(&mut q.values);
        with_pages!(&mut self.cache, pages => {
            let writer = PageWriter::new(pages, layer.index);
            self.pool.run(&|worker| isa.run(TurnHeads {
                batch,
                fused: &fused,
                bias: layer.qkv_bias.as_deref(),
                norm: layer.query_key_norm.as_ref(),
                eps: self.config.rms_norm_eps,
                rotary: &self.rotary,
                query_heads,
                key_value_heads: heads,
                head_dim,
                queries: &queries,
                writer: &writer,
                worker,
                workers,
            }));
        });
    }

    fn attend(&mut self, layer: &Layer<Matrix>, batch: &Batch, q: &Buffer, a: &mut Buffer) {
        let (query_heads, heads) = (self.query_heads(), self.key_value_heads());
        batch.assert_tokens_apart();
        let items = &mut self.scratch.items;
        let group = query_heads / heads;
        list_items(batch, heads, group, self.isa.tile_tokens(), items);
        let tiling = Tiling::new(batch.len(), self.isa);
        tiling.clear_padding(&mut a.values, a.width);
        let attended = Disjoint::new(&mut a.values);
        let (items, next, isa) = (&*items, AtomicUsize::new(0), self.isa);
        let scratch = Disjoint::new(&mut self.scratch.workers);
        with_pages!(&self.cache, pages => {
            self.pool.run(&|worker| isa.run(Attend {
                layer: layer.index,
                window: self.config.window(layer.index),
                batch,
                items,
                next: &next,
                pages,
                query_heads,
                queries: &q.values,
                tiling,
                attended: &attended,
                // SAFETY: a worker runs once in a job, and takes its own.
                scratch: &mut unsafe { scratch.part(worker..worker + 1) }[0].attention,
            }));
        });
    }

    fn add_attention_output(
        &mut self,
        layer: &Layer<Matrix>,
        batch: &Batch,
        a: &Buffer,
        x: &mut Buffer,
    ) {
        let bias = layer.output_bias.as_deref();
        self.add_product(
            &layer.output,
            bias,
            layer.index,
            Target::Output,
            batch,
            a,
            x,
        );
    }

    fn gate_and_up(&mut self, layer: &Layer<Matrix>, batch: &Batch, x: &Buffer, h: &mut Buffer) {
        let columns = self.intermediate();
        let target = Target::GateUp { up: columns };
        let tiling = Tiling::new(batch.len(), self.isa);
        self.norm(x, None, batch.len(), &layer.mlp_norm);
        tiling.clear_padding(&mut h.values, columns);
        let adapts = any_adds(&self.adapters, batch, layer.index, target);
        if adapts || !columns.is_multiple_of(LANES) {
            self.project(&layer.gate_up, batch.len());
            self.adapt_normed(layer, batch, target);
            return self.gate(batch, columns, h);
        }
        let gated = Gated {
            tiles: Disjoint::new(&mut h.values),
            columns,
        };
        let (x, panels) = (&self.scratch.normed, columns / LANES);
        let beside = |gate: std::ops::Range<usize>| Columns {
            second: gate.start + panels..gate.end + panels,
            first: gate,
        };
        product(
            &mut self.pool,
            self.isa,
            &layer.gate_up,
            panels,
            &beside,
            x,
            tiling,
            &gated,
        );
    }

    fn add_mlp_output(&mut self, layer: &Layer<Matrix>, batch: &Batch, h: &Buffer, x: &mut Buffer) {
        self.add_product(&layer.down, None, layer.index, Target::Down, batch, h, x);
    }

    fn logits(&mut self, weights: &Weights<Matrix>, batch: &Batch, x: &Buffer) {
        let (rows, matrix) = (batch.logit_rows.len(), weights.output_projection());
        self.norm(x, Some(&batch.logit_rows), rows, &weights.norm);
        let width = matrix.rows();
        let mut part = std::mem::take(&mut self.logits);
        part.resize(rows * width, 0.0);
        let finish = Rows {
            rows: Disjoint::new(&mut part),
            width,
            outputs: width,
            adds: false,
        };
        let (tiling, x) = (Tiling::new(rows, self.isa), &self.scratch.normed);
        whole_product(&mut self.pool, self.isa, matrix, x, tiling, &finish);
        if self.partition.world_size == 1 {
            self.logits = part;
        } else {
            self.comm.gather(rows, &part, &mut self.logits);
        }
    }
}

impl CpuOps {
    /// `normed = rmsnorm(x)`, in tiles, of the first rows or of those that are wanted.
    fn norm(&mut self, x: &Buffer, rows: Option<&[u32]>, tokens: usize, scales: &[f32]) {
        let tiling = Tiling::new(tokens, self.isa);
        tiling.clear_padding(&mut self.scratch.normed, scales.len());
        let tiles = Disjoint::new(&mut self.scratch.normed);
        let (workers, isa, eps) = (self.pool.workers(), self.isa, self.config.rms_norm_eps);
        self.pool.run(&|worker| {
            isa.run(NormTiles {
                x: &x.values,
                rows,
                scales,
                eps,
                tiling,
                tiles: &tiles,
                worker,
                workers,
            });
        });
    }

    /// `fused = W normed`, in rows.
    fn project(&mut self, matrix: &Matrix, tokens: usize) {
        let finish = Rows {
            rows: Disjoint::new(&mut self.scratch.fused),
            width: matrix.rows(),
            outputs: matrix.rows(),
            adds: false,
        };
        let (tiling, x) = (Tiling::new(tokens, self.isa), &self.scratch.normed);
        whole_product(&mut self.pool, self.isa, matrix, x, tiling, &finish);
    }

    /// `fused += adapter(normed)`.
    fn adapt_normed(&mut self, layer: &Layer<Matrix>, batch: &Batch, target: Target) {
        let width = match target {
            Target::GateUp { up } => 2 * up,
            Target::QueryKeyValue { key, value } => 2 * value - key,
            Target::Output | Target::Down => unreachable!("their inputs are not normalised"),
        };
        self.adapt(layer.index, target, batch, None, width);
    }

    /// `fused += adapter(x)`, for `x` in tiles: the normalised activations, if it is not said.
    fn adapt(
        &mut self,
        layer: usize,
        target: Target,
        batch: &Batch,
        x: Option<(&Buffer, usize)>,
        width: usize,
    ) {
        if !any_adds(&self.adapters, batch, layer, target) {
            return;
        }
        batch.assert_tokens_apart();
        let (workers, isa) = (self.pool.workers(), self.isa);
        let (x, columns) = match x {
            Some((x, columns)) => (&x.values, columns),
            None => (&self.scratch.normed, self.config.hidden_size),
        };
        let y = Disjoint::new(&mut self.scratch.fused);
        let scratch = Disjoint::new(&mut self.scratch.workers);
        self.pool.run(&|worker| {
            isa.run(AddAdapters {
                slots: &self.adapters,
                layer,
                target,
                batch,
                x,
                columns,
                y: &y,
                width,
                // SAFETY: a worker runs once in a job, and takes its own.
                scratch: &mut unsafe { scratch.part(worker..worker + 1) }[0].adapter,
                worker,
                workers,
            });
        });
    }

    /// `h = silu(gate) * up`, in tiles, of rows `[gate | up]`.
    fn gate(&mut self, batch: &Batch, columns: usize, h: &mut Buffer) {
        let tiling = Tiling::new(batch.len(), self.isa);
        let tiles = Disjoint::new(&mut h.values);
        let (workers, isa, rows) = (self.pool.workers(), self.isa, &self.scratch.fused);
        self.pool.run(&|worker| {
            isa.run(Gate {
                rows,
                columns,
                tiling,
                tiles: &tiles,
                worker,
                workers,
            });
        });
    }

    /// `x += W y + b + adapter(y)`, summed over ranks, for `y` in tiles.
    #[allow(clippy::too_many_arguments, reason = "one operation, twice a layer")]
    fn add_product(
        &mut self,
        matrix: &Matrix,
        bias: Option<&[f32]>,
        layer: usize,
        target: Target,
        batch: &Batch,
        y: &Buffer,
        x: &mut Buffer,
    ) {
        let (width, tiling) = (matrix.rows(), Tiling::new(batch.len(), self.isa));
        let len = batch.len() * width;
        let is_alone = self.partition.world_size == 1;
        let adapts = any_adds(&self.adapters, batch, layer, target);
        let adds = is_alone && bias.is_none() && !adapts;
        let to = if adds {
            &mut x.values
        } else {
            &mut self.scratch.fused
        };
        let finish = Rows {
            rows: Disjoint::new(&mut to[..len]),
            width,
            outputs: width,
            adds,
        };
        whole_product(&mut self.pool, self.isa, matrix, &y.values, tiling, &finish);
        if adds {
            return;
        }
        if let Some(bias) = bias {
            for row in self.scratch.fused[..len].chunks_exact_mut(width) {
                row.iter_mut()
                    .zip(bias)
                    .for_each(|(sum, bias)| *sum += bias);
            }
        }
        let inputs = Some((y, matrix.columns()));
        self.adapt(layer, target, batch, inputs, width);
        let sums = &mut self.scratch.fused[..len];
        self.comm.all_reduce(sums);
        x.values
            .iter_mut()
            .zip(sums)
            .for_each(|(x, sum)| *x += *sum);
    }
}

/// Multiplies a whole matrix with all tiles.
fn whole_product(
    pool: &mut Pool,
    isa: Isa,
    matrix: &Matrix,
    x: &[f32],
    tiling: Tiling,
    finish: &(impl Finish + Sync),
) {
    let panels = matrix.rows().div_ceil(LANES);
    let beside = &Columns::halves;
    product(pool, isa, matrix, panels, beside, x, tiling, finish);
}

/// Multiplies so many panels of a matrix with all tiles: each worker has some
/// of them, which it computes as `beside` says.
#[allow(
    clippy::too_many_arguments,
    reason = "a product has two sides, a result and means"
)]
fn product(
    pool: &mut Pool,
    isa: Isa,
    matrix: &Matrix,
    panels: usize,
    beside: &(impl Fn(std::ops::Range<usize>) -> Columns + Sync),
    x: &[f32],
    tiling: Tiling,
    finish: &(impl Finish + Sync),
) {
    let workers = pool.workers();
    with_packed!(matrix, matrix => pool.run(&|worker| isa.run(Multiply {
        matrix,
        columns: beside(share(panels, worker, workers)),
        x,
        tiling,
        finish,
    })));
}

/// One worker's panels of a product.
struct Multiply<'a, E, F> {
    matrix: &'a Packed<E>,
    columns: Columns,
    x: &'a [f32],
    tiling: Tiling,
    finish: &'a F,
}

impl<E: Entry, F: Finish> Task for Multiply<'_, E, F> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        multiply::<V, E>(self.matrix, self.columns, self.x, self.tiling, self.finish);
    }
}

/// One worker's columns of the gate.
struct Gate<'a> {
    rows: &'a [f32],
    columns: usize,
    tiling: Tiling,
    tiles: &'a Disjoint<'a, f32>,
    worker: usize,
    workers: usize,
}

impl Task for Gate<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let columns = share(self.columns, self.worker, self.workers);
        for tile in (0..self.tiling.tiles()).map(|tile| self.tiling.tile(tile)) {
            gate_rows::<V>(self.rows, self.columns, columns.clone(), &tile, self.tiles);
        }
    }
}
