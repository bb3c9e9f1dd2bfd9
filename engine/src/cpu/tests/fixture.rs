//! Random models, steps and adapters.

use std::sync::Arc;

use half::bf16;

use crate::backend::Limits;
use crate::batch::Batch;
use crate::comm::Solo;
use crate::config::{
    AttentionBias, Dtype, Family, ModelConfig, Partition, Rotary, RotaryScaling, SlidingWindow,
};
use crate::cpu::{CpuOps, Isa};
use crate::model::Model;
use crate::ops::{KvFormat, Ops, Role};
use crate::reference::ReferenceOps;
use crate::weights::{Adapter, AdapterLayer, HostMatrix, HostValues, Layer, LowRank, Weights};

/// What a random model is like.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) group: usize,
    pub(super) head_dim: usize,
    pub(super) intermediate: usize,
    pub(super) vocabulary: usize,
    pub(super) window: Option<usize>,
    pub(super) is_bf16: bool,
    pub(super) has_bias: bool,
    pub(super) has_norm: bool,
    pub(super) is_tied: bool,
    pub(super) block_size: usize,
}

impl Shape {
    /// One that exercises every edge: nothing is a multiple of sixteen.
    pub(super) fn odd() -> Self {
        Self {
            hidden: 37,
            heads: 2,
            group: 3,
            head_dim: 10,
            intermediate: 43,
            vocabulary: 51,
            window: None,
            is_bf16: true,
            has_bias: true,
            has_norm: true,
            is_tied: true,
            block_size: 5,
        }
    }

    /// One of which everything is a multiple of sixteen.
    pub(super) fn even() -> Self {
        Self {
            hidden: 64,
            heads: 3,
            group: 3,
            head_dim: 32,
            intermediate: 96,
            vocabulary: 80,
            window: Some(21),
            is_bf16: false,
            has_bias: false,
            has_norm: false,
            is_tied: false,
            block_size: 16,
        }
    }

    pub(super) fn config(&self) -> Arc<ModelConfig> {
        let bias = if self.has_bias {
            AttentionBias::All
        } else {
            AttentionBias::None
        };
        Arc::new(ModelConfig {
            family: Family::Llama,
            vocab_size: self.vocabulary,
            hidden_size: self.hidden,
            intermediate_size: self.intermediate,
            num_hidden_layers: 2,
            num_attention_heads: self.heads * self.group,
            num_key_value_heads: self.heads,
            head_dim: self.head_dim,
            max_position_embeddings: 4096,
            rms_norm_eps: 1e-5,
            rotary: Rotary {
                theta: 10_000.0,
                scaling: RotaryScaling::None,
            },
            attention_bias: bias,
            query_key_norm: self.has_norm,
            sliding_window: self.window.map(|tokens| SlidingWindow {
                tokens,
                first_layer: 1,
            }),
            tie_word_embeddings: self.is_tied,
            dtype: if self.is_bf16 {
                Dtype::Bf16
            } else {
                Dtype::F32
            },
            bos_token_id: None,
            eos_token_ids: Vec::new(),
        })
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            block_size: self.block_size,
            num_blocks: 480_usize.div_ceil(self.block_size),
            max_num_seqs: 64,
            max_batched_tokens: 150,
            // As long as the longest text, and an odd number of tiles.
            max_model_len: 75,
            max_loras: 2,
            max_lora_rank: 7,
        }
    }

    /// Random weights, the same for the same seed.
    pub(super) fn weights(&self, seed: u64) -> Weights<HostMatrix> {
        let mut random = Random(seed);
        let (hidden, intermediate) = (self.hidden, self.intermediate);
        let queries = self.heads * self.group * self.head_dim;
        let fused = queries + 2 * self.heads * self.head_dim;
        let layers = (0..2).map(|index| Layer {
            index,
            attention_norm: random.scales(hidden),
            qkv: random.matrix(fused, hidden, self.is_bf16),
            qkv_bias: self.has_bias.then(|| random.values(fused, 0.3)),
            query_key_norm: self
                .has_norm
                .then(|| (random.scales(self.head_dim), random.scales(self.head_dim))),
            output: random.matrix(hidden, queries, self.is_bf16),
            output_bias: self.has_bias.then(|| random.values(hidden, 0.3)),
            mlp_norm: random.scales(hidden),
            gate_up: random.matrix(2 * intermediate, hidden, self.is_bf16),
            down: random.matrix(hidden, intermediate, self.is_bf16),
        });
        let layers = layers.collect();
        Weights {
            layers,
            embedding: random.matrix(self.vocabulary, hidden, self.is_bf16),
            norm: random.scales(hidden),
            lm_head: (!self.is_tied).then(|| random.matrix(self.vocabulary, hidden, self.is_bf16)),
        }
    }

    /// A random adapter of all projections.
    pub(super) fn adapter(&self, rank: usize, seed: u64) -> Adapter {
        let mut random = Random(seed);
        let (hidden, intermediate) = (self.hidden, self.intermediate);
        let queries = self.heads * self.group * self.head_dim;
        let keys = self.heads * self.head_dim;
        let mut low_rank = |rows, columns| {
            Some(LowRank {
                down: random.matrix(rank, columns, false),
                up: random.matrix(rows, rank, true),
            })
        };
        let layers = (0..2).map(|_| AdapterLayer {
            query: low_rank(queries, hidden),
            key: low_rank(keys, hidden),
            value: low_rank(keys, hidden),
            output: low_rank(hidden, queries),
            gate: low_rank(intermediate, hidden),
            up: low_rank(intermediate, hidden),
            down: low_rank(hidden, intermediate),
        });
        Adapter {
            name: format!("random-{seed}"),
            rank,
            scale: 0.5,
            layers: layers.collect(),
        }
    }

    /// The fast operations.
    pub(super) fn fast(&self, format: KvFormat, isa: Isa, threads: usize) -> CpuOps {
        let ops = CpuOps::new(
            self.config(),
            self.limits(),
            format,
            Box::new(Solo),
            threads,
        );
        ops.unwrap().with_isa(isa).unwrap()
    }

    /// The slow ones.
    pub(super) fn slow(&self, format: KvFormat) -> ReferenceOps {
        ReferenceOps::new(self.config(), self.limits(), format, Box::new(Solo))
    }

    /// A model of these weights.
    pub(super) fn model<O: Ops>(&self, ops: &mut O, seed: u64) -> Model<O> {
        let weights = pack(ops, self.weights(seed));
        Model::new(ops, &self.config(), Partition::WHOLE, weights)
    }
}

fn pack<O: Ops>(ops: &mut O, weights: Weights<HostMatrix>) -> Weights<O::Matrix> {
    let layers = weights.layers.into_iter().map(|layer| Layer {
        index: layer.index,
        attention_norm: layer.attention_norm,
        qkv: ops.pack(layer.qkv, Role::Projection),
        qkv_bias: layer.qkv_bias,
        query_key_norm: layer.query_key_norm,
        output: ops.pack(layer.output, Role::Projection),
        output_bias: layer.output_bias,
        mlp_norm: layer.mlp_norm,
        gate_up: ops.pack(layer.gate_up, Role::GateUp),
        down: ops.pack(layer.down, Role::Projection),
    });
    let layers = layers.collect();
    Weights {
        layers,
        embedding: ops.pack(weights.embedding, Role::Embedding),
        norm: weights.norm,
        lm_head: weights
            .lm_head
            .map(|matrix| ops.pack(matrix, Role::Projection)),
    }
}

/// A sequence of a test: its tokens, and where its KV blocks are.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) tokens: Vec<u32>,
    table: Vec<u32>,
    pub(super) adapter: Option<usize>,
}

impl Text {
    /// Random tokens. Sequences of different numbers have different blocks.
    pub(super) fn random(shape: &Shape, number: usize, len: usize, adapter: Option<usize>) -> Self {
        let mut random = Random(1000 + number as u64);
        let blocks = 100_usize.div_ceil(shape.block_size);
        let first = number * blocks;
        let tokens = (0..len).map(|_| random.next() as u32 % shape.vocabulary as u32);
        Self {
            tokens: tokens.collect(),
            // In descending order, so that nothing relies on neighbours.
            table: (first..first + blocks)
                .rev()
                .map(|block| block as u32)
                .collect(),
            adapter,
        }
    }

    /// Adds its tokens at these places to a batch, and wants the logits of all.
    pub(super) fn push(&self, batch: &mut Batch, places: std::ops::Range<usize>) {
        let first = batch.len();
        batch.push(
            &self.tokens[places.clone()],
            places.start,
            &self.table,
            self.adapter,
        );
        let rows = first..batch.len();
        batch.logit_rows.extend(rows.map(|row| row as u32));
    }
}

/// Numbers that look random (SplitMix64, Steele et al. 2014).
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Values in ± `size`.
    fn values(&mut self, len: usize, size: f32) -> Vec<f32> {
        let unit = |random: u64| (random >> 40) as f32 / (1 << 23) as f32 - 1.0;
        (0..len).map(|_| unit(self.next()) * size).collect()
    }

    fn scales(&mut self, len: usize) -> Vec<f32> {
        let values = self.values(len, 0.4);
        values.iter().map(|value| 1.0 + value).collect()
    }

    /// Values of such a size that outputs are about as large as inputs.
    fn matrix(&mut self, rows: usize, columns: usize, is_bf16: bool) -> HostMatrix {
        let values = self.values(rows * columns, (3.0 / columns as f32).sqrt());
        HostMatrix {
            rows,
            columns,
            values: if is_bf16 {
                HostValues::Bf16(values.into_iter().map(bf16::from_f32).collect())
            } else {
                HostValues::F32(values)
            },
        }
    }
}
