//! The operations of a forward pass, each as a few launches.
//!
//! ```text
//! up to 64 rows, alone, no adapters         otherwise
//!
//!   embed ── x, x·s, Σx²                      embed ── x
//!   skinny(x·s, Σx²) ── qkv                   norm(x) ── n;  product ── qkv;  adapters
//!   heads ── q, cache                         heads ── q, cache
//!   attention ── a                            attention ── a
//!   skinny(a) ── x, x·s, Σx²                  product ── y;  adapters;  sum over ranks;  x += y, n
//!   skinny(x·s, Σx²) ── h                     product ── gate, up;  adapters;  gate ── h
//!   skinny(h) ── x, x·s, Σx²                  product ── y;  adapters;  sum over ranks;  x += y, n
//! ```
//!
//! On the left a norm is no kernel: `rmsnorm(x) W = rstd · ((x · s) W)`, so who
//! writes `x` writes `x · s` and partial sums of squares beside it, and who multiplies
//! with `W` scales its sums. That is five launches a layer.

use super::pass::Pass;
use super::{CudaOps, Exchange};
use crate::backend::StepError;
use crate::batch::Batch;
use crate::choose::{Choice, Wants};
use crate::cuda::buckets::{BUCKET_MAX, bucket, buckets};
use crate::cuda::gpu::{Address, Format, GpuError, Product};
use crate::cuda::inputs::Array;
use crate::cuda::kernels::embed::EmbedCall;
use crate::cuda::kernels::gate::GateCall;
use crate::cuda::kernels::heads::{HeadNorm, HeadsCall};
use crate::cuda::kernels::norm::{NormCall, Rows};
use crate::cuda::kernels::skinny::{
    DeferredNorm, Epilogue, NextNorm, SkinnyCall, TOKENS_MAX, sum_parts,
};
use crate::cuda::memory::{self, Buffer, GATE_ROWS, Matrix};
use crate::ops::{Begun, Ops, Role};
use crate::weights::{Adapter, HostMatrix, Layer, Weights};

use super::adapters::Target;

/// What the scratch for normalised activations holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Normed {
    /// Nothing that is of use.
    No,
    /// `rmsnorm(x)`.
    Whole,
    /// `x · s`, and sums of squares in so many parts.
    Deferred { parts: usize },
}

impl Ops for CudaOps {
    type Matrix = Matrix;
    type Buffer = Buffer;

    fn pack(&mut self, matrix: HostMatrix, role: Role) -> Matrix {
        let none = Matrix {
            address: Address::NONE,
            rows: matrix.rows,
            columns: matrix.columns,
            stride: memory::stride(matrix.columns),
        };
        self.attempt(none, |it| memory::upload(&mut *it.gpu, &matrix, role))
    }

    fn prepare(&mut self, weights: &Weights<Matrix>) {
        self.run(|it| it.upload_vectors(weights));
    }

    fn buffer(&mut self, width: usize) -> Buffer {
        // Queries are padded head by head.
        let padded = self.shape.query_heads * self.shape.padded();
        let row = memory::stride(width).max(padded);
        let stride = memory::stride(width);
        // A batch that decodes is padded to its bucket.
        let rows = self.limits.max_batched_tokens.max(BUCKET_MAX);
        let address = self.attempt(Address::NONE, |it| {
            memory::zeros(&mut *it.gpu, 2 * rows * row)
        });
        Buffer {
            address,
            width,
            stride,
        }
    }

    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError> {
        self.put_adapter(slot, adapter).map_err(|error| {
            if error.is_fatal() {
                self.failure = Some(error.clone());
            }
            StepError(format!("adapter {}: {error}", adapter.name))
        })
    }

    fn unload_adapter(&mut self, slot: usize) {
        self.run(|it| it.take_adapter(slot));
    }

    fn begin(&mut self, batch: &Batch, wants: Option<&Wants<'_>>) -> Result<Begun, StepError> {
        self.begin_pass(batch, wants)
            .map_err(|error| self.failed(error))
    }

    fn end(&mut self) -> Result<(), StepError> {
        self.end_pass().map_err(|error| self.failed(error))
    }

    fn choose(&mut self, wants: &Wants<'_>) -> Result<Vec<Choice>, StepError> {
        self.choices(wants).map_err(|error| self.failed(error))
    }

    fn read_logits(&mut self) -> Result<&[f32], StepError> {
        match self.fetch_logits() {
            Ok(()) => Ok(&self.host_logits),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn ready(&mut self) -> Result<(), StepError> {
        match self.failure.take() {
            Some(error) => Err(self.failed(error)),
            None => Ok(()),
        }
    }

    fn warm_up_steps(&self) -> usize {
        // The first is computed, the second is recorded.
        3
    }

    fn warm_up_batches(&self) -> Vec<usize> {
        // Up to the one that full batches are padded to.
        let full = bucket(self.limits.max_num_seqs).unwrap_or(BUCKET_MAX);
        buckets(full).collect()
    }

    fn take_busy_seconds(&mut self) -> Option<f64> {
        self.busy_seconds().ok()
    }

    fn is_lost(&self) -> bool {
        self.failure.as_ref().is_some_and(GpuError::is_fatal)
    }

    fn embed(&mut self, weights: &Weights<Matrix>, _batch: &Batch, x: &mut Buffer) {
        let vocabulary = self.partition.vocabulary(&self.config);
        let (pass, x, embedding) = (self.pass, *x, weights.embedding);
        self.run(|it| {
            let scales = it.vectors.attention_norm(0);
            let next = pass.is_fused.then(|| it.next_norm(scales));
            let call = EmbedCall {
                tokens: pass.rows,
                ids: it.input(Array::Tokens),
                embedding: embedding.address,
                embedding_stride: embedding.stride,
                first: vocabulary.start,
                count: vocabulary.len(),
                x: x.address,
                x_stride: x.stride,
                width: x.width,
                next,
            };
            it.kernels.embed.enqueue(&mut *it.gpu, &call)?;
            it.sum_over_ranks(x)
        });
        self.normed = match pass.is_fused {
            true => Normed::Deferred { parts: 1 },
            false => Normed::No,
        };
    }

    fn queries_keys_values(
        &mut self,
        layer: &Layer<Matrix>,
        _batch: &Batch,
        x: &Buffer,
        q: &mut Buffer,
    ) {
        let (index, qkv, x, q) = (layer.index, layer.qkv, *x, *q);
        self.run(|it| {
            let scales = it.vectors.attention_norm(index);
            it.norm(x, scales)?;
            let fused = it.scratch.fused(it.shape.product_width());
            it.product_of_normed(qkv, fused)?;
            it.adapt(index, Target::QueryKeyValue, it.scratch.normed, fused)?;
            it.turn_heads(index, fused, q)
        });
    }

    fn attend(&mut self, layer: &Layer<Matrix>, _batch: &Batch, q: &Buffer, a: &mut Buffer) {
        let (index, q, a) = (layer.index, *q, *a);
        self.run(|it| {
            it.attend_decodes(index, q, a)?;
            it.attend_chunks(index, q, a)
        });
    }

    fn add_attention_output(
        &mut self,
        layer: &Layer<Matrix>,
        _batch: &Batch,
        a: &Buffer,
        x: &mut Buffer,
    ) {
        let (index, output, a, x) = (layer.index, layer.output, *a, *x);
        self.run(|it| {
            let (bias, scales) = (it.vectors.output_bias(index), it.vectors.mlp_norm(index));
            it.add_product(index, Target::Output, output, bias, scales, a, x)
        });
    }

    fn gate_and_up(&mut self, layer: &Layer<Matrix>, _batch: &Batch, x: &Buffer, h: &mut Buffer) {
        let (index, gate_up, x, h) = (layer.index, layer.gate_up, *x, *h);
        self.run(|it| {
            let scales = it.vectors.mlp_norm(index);
            it.norm(x, scales)?;
            if it.pass.rows <= TOKENS_MAX && !it.pass.adapts {
                let epilogue = Epilogue::SiluMul {
                    h: h.address,
                    h_stride: h.stride,
                };
                return it.skinny(gate_up, it.scratch.normed, it.deferred(), epilogue);
            }
            let both = it.scratch.fused(gate_up.rows);
            it.product_of_normed(gate_up, both)?;
            it.adapt(index, Target::GateUp, it.scratch.normed, both)?;
            it.kernels.gate.enqueue(
                &mut *it.gpu,
                &GateCall {
                    rows: it.pass.rows,
                    both: both.address,
                    both_stride: both.stride,
                    h: h.address,
                    h_stride: h.stride,
                    // Padding comes out as zeros.
                    width: h.width.next_multiple_of(GATE_ROWS),
                },
            )
        });
    }

    fn add_mlp_output(
        &mut self,
        layer: &Layer<Matrix>,
        _batch: &Batch,
        h: &Buffer,
        x: &mut Buffer,
    ) {
        let (index, down, h, x) = (layer.index, layer.down, *h, *x);
        self.run(|it| {
            let scales = it.vectors.attention_norm(index + 1);
            it.add_product(index, Target::Down, down, None, scales, h, x)
        });
    }

    fn logits(&mut self, weights: &Weights<Matrix>, _batch: &Batch, x: &Buffer) {
        let (head, x) = (*weights.output_projection(), *x);
        self.run(|it| {
            if it.pass.logits == 0 {
                return Ok(());
            }
            let (input, deferred) = it.wanted(x)?;
            let (y, y_stride) = it.logits_of_rank();
            if it.pass.logits <= TOKENS_MAX {
                let epilogue = Epilogue::StoreF32 { y, y_stride };
                it.skinny_of(it.pass.logits, head, input, deferred, epilogue)?;
            } else {
                it.multiply(it.pass.logits, head, input, y, y_stride, Format::F32, false)?;
            }
            it.gather_logits()?;
            it.sample()
        });
    }
}

impl CudaOps {
    /// What a step has at this place on the GPU.
    pub(super) fn input(&self, array: Array) -> Address {
        self.pass.input(array)
    }

    /// Where the next norm's input is written by whoever writes `x`.
    fn next_norm(&self, scales: Address) -> NextNorm {
        NextNorm {
            scales,
            scaled: self.scratch.normed.address,
            scaled_stride: self.scratch.normed.stride,
            sums: self.scratch.sums,
        }
    }

    fn deferred(&self) -> Option<DeferredNorm> {
        match self.normed {
            Normed::Deferred { parts } => Some(DeferredNorm {
                sums: self.scratch.sums,
                parts,
                width: self.config.hidden_size,
                eps: self.config.rms_norm_eps,
            }),
            Normed::Whole | Normed::No => None,
        }
    }

    /// Has `rmsnorm(x)`, or what stands for it, in the scratch.
    fn norm(&mut self, x: Buffer, scales: Address) -> Result<(), GpuError> {
        if self.normed != Normed::No {
            return Ok(());
        }
        self.normed = Normed::Whole;
        self.kernels.norm.enqueue(
            &mut *self.gpu,
            &NormCall {
                rows: self.pass.rows,
                of: Rows::All,
                x: x.address,
                x_stride: x.stride,
                scales,
                eps: self.config.rms_norm_eps,
                n: self.scratch.normed.address,
                n_stride: self.scratch.normed.stride,
            },
        )
    }

    /// `y = W n`, of what the scratch has.
    fn product_of_normed(&mut self, matrix: Matrix, y: Buffer) -> Result<(), GpuError> {
        self.product(matrix, self.scratch.normed, self.deferred(), y)
    }

    fn product(
        &mut self,
        matrix: Matrix,
        x: Buffer,
        norm: Option<DeferredNorm>,
        y: Buffer,
    ) -> Result<(), GpuError> {
        if self.pass.rows <= TOKENS_MAX {
            let epilogue = Epilogue::Store {
                y: y.address,
                y_stride: y.stride,
                bias: None,
            };
            return self.skinny(matrix, x, norm, epilogue);
        }
        debug_assert!(norm.is_none(), "norms are deferred to skinny products only");
        self.multiply(
            self.pass.rows,
            matrix,
            x,
            y.address,
            y.stride,
            Format::Bf16,
            false,
        )
    }

    fn skinny(
        &mut self,
        matrix: Matrix,
        x: Buffer,
        norm: Option<DeferredNorm>,
        epilogue: Epilogue,
    ) -> Result<(), GpuError> {
        self.skinny_of(self.pass.rows, matrix, x, norm, epilogue)
    }

    fn skinny_of(
        &mut self,
        tokens: usize,
        matrix: Matrix,
        x: Buffer,
        norm: Option<DeferredNorm>,
        epilogue: Epilogue,
    ) -> Result<(), GpuError> {
        let call = SkinnyCall {
            tokens,
            x: x.address,
            x_stride: x.stride,
            weights: matrix.address,
            weights_stride: matrix.stride,
            outputs: matrix.rows,
            inputs: matrix.columns,
            norm,
            epilogue,
        };
        self.kernels.skinny.enqueue(&mut *self.gpu, &call)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "a product has two sides and a result"
    )]
    fn multiply(
        &mut self,
        rows: usize,
        matrix: Matrix,
        x: Buffer,
        y: Address,
        y_stride: usize,
        y_format: Format,
        adds: bool,
    ) -> Result<(), GpuError> {
        self.gpu.multiply(&Product {
            rows,
            outputs: matrix.rows,
            inputs: matrix.stride,
            x: x.address,
            x_stride: x.stride,
            weights: matrix.address,
            weights_stride: matrix.stride,
            y,
            y_stride,
            y_format,
            adds,
        })
    }

    /// `x += W y + b + adapter(y)`, summed over ranks; then what the next norm makes of it.
    #[allow(clippy::too_many_arguments, reason = "one operation, twice a layer")]
    fn add_product(
        &mut self,
        layer: usize,
        target: Target,
        matrix: Matrix,
        bias: Option<Address>,
        scales: Address,
        y: Buffer,
        x: Buffer,
    ) -> Result<(), GpuError> {
        let Pass { rows, is_fused, .. } = self.pass;
        if is_fused {
            let epilogue = Epilogue::Add {
                x: x.address,
                x_stride: x.stride,
                bias,
                next: Some(self.next_norm(scales)),
            };
            self.skinny(matrix, y, None, epilogue)?;
            self.normed = Normed::Deferred {
                parts: sum_parts(matrix.rows),
            };
            return Ok(());
        }
        if rows > TOKENS_MAX && self.is_alone() && bias.is_none() && !self.pass.adapts {
            self.normed = Normed::No;
            return self.multiply(rows, matrix, y, x.address, x.stride, Format::Bf16, true);
        }
        let sum = self.scratch.fused(x.width);
        self.product(matrix, y, None, sum)?;
        self.adapt(layer, target, y, sum)?;
        self.sum_over_ranks(sum)?;
        self.normed = Normed::Whole;
        self.kernels.norm.enqueue(
            &mut *self.gpu,
            &NormCall {
                rows,
                of: Rows::Added {
                    y: sum.address,
                    y_stride: sum.stride,
                    bias,
                },
                x: x.address,
                x_stride: x.stride,
                scales,
                eps: self.config.rms_norm_eps,
                n: self.scratch.normed.address,
                n_stride: self.scratch.normed.stride,
            },
        )
    }

    fn turn_heads(&mut self, layer: usize, fused: Buffer, q: Buffer) -> Result<(), GpuError> {
        let norm = self.vectors.head_norm(layer);
        let call = HeadsCall {
            rows: self.pass.rows,
            product: fused.address,
            product_stride: fused.stride,
            bias: self.vectors.qkv_bias(layer),
            norm: norm.map(|(query_scales, key_scales)| HeadNorm {
                query_scales,
                key_scales,
                eps: self.config.rms_norm_eps,
            }),
            rotary: self.rotary,
            positions: self.input(Array::Positions),
            slots: self.input(Array::Slots),
            q: q.address,
            cache: self.cache[layer],
        };
        self.kernels.heads.enqueue(&mut *self.gpu, &call)
    }

    /// What the rows of logits are computed from, and how it is normalised.
    fn wanted(&mut self, x: Buffer) -> Result<(Buffer, Option<DeferredNorm>), GpuError> {
        let scales = self.vectors.norm();
        if self.pass.wants_all {
            self.norm(x, scales)?;
            return Ok((self.scratch.normed, self.deferred()));
        }
        let wanted = self.scratch.wanted;
        let call = NormCall {
            rows: self.pass.logits,
            of: Rows::Chosen(self.input(Array::LogitRows)),
            x: x.address,
            x_stride: x.stride,
            scales,
            eps: self.config.rms_norm_eps,
            n: wanted.address,
            n_stride: wanted.stride,
        };
        self.kernels.norm.enqueue(&mut *self.gpu, &call)?;
        Ok((wanted, None))
    }

    /// The sum of all ranks' rows, in all of them.
    fn sum_over_ranks(&mut self, values: Buffer) -> Result<(), GpuError> {
        let count = self.pass.rows * values.stride;
        match &self.exchange {
            Exchange::Alone => Ok(()),
            Exchange::Group => self.gpu.all_reduce(values.address, count),
            Exchange::Modelled(modelled) => {
                let duration = modelled.duration(self.pass.rows * values.width);
                if duration.is_zero() {
                    // Even a kernel that waits for nothing takes its launch.
                    return Ok(());
                }
                let nanoseconds = u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX);
                self.kernels.delay.enqueue(&mut *self.gpu, nanoseconds)
            }
        }
    }
}
