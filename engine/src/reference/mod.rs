//! The slow clear twin of every device: each operation of [`Ops`] as its
//! formula says it, in loops over one token, one head, one output at a time.
//!
//! It is the oracle that the fast kernels are compared with, and is itself
//! compared with Hugging Face transformers. So it is written to be read:
//! - activations are `Vec<f32>`, `[tokens][width]`; nothing is tiled, packed or
//!   shared between threads;
//! - sums, norms and softmax are computed in f64 and rounded to f32 once, at
//!   the end of an operation, so that it is nearer to the formula than any f32
//!   kernel, and a difference is the kernel's;
//! - the KV cache is NaN until it is written, so that reading what no token
//!   wrote cannot go unseen.
//!
//! A token's result is computed from that token's row and its sequence's cache
//! alone, which makes it trivially the same in every batch and every chunking.

mod adapters;
mod attention;
mod kv_cache;
mod linear;
mod norm;
mod rotary;

use std::sync::Arc;

use foresail_core::batching::BlockId;

use self::adapters::AdapterShard;
use self::kv_cache::KvCache;
use self::linear::linear;
use self::norm::rms_norm;
use crate::backend::{Limits, StepError};
use crate::batch::Batch;
use crate::comm::Comm;
use crate::config::{ModelConfig, Partition};
use crate::ops::{KvFormat, Ops, Role};
use crate::weights::{Adapter, AdapterLayer, HostMatrix, Layer, LowRank, Weights};

/// One rank's operations in plain loops, with its KV cache and its adapters.
pub struct ReferenceOps {
    config: Arc<ModelConfig>,
    limits: Limits,
    comm: Box<dyn Comm>,
    partition: Partition,
    /// What each pair of a head turns by from one position to the next (radians).
    frequencies: Vec<f64>,
    cache: KvCache,
    /// This rank's part of the adapter in each slot.
    adapters: Vec<Option<AdapterShard>>,
    logits: Vec<f32>,
}

/// A projection of an adapter, and the column of the fused output where what it adds begins.
type Target<'a> = (&'a Option<LowRank<HostMatrix>>, usize);

impl ReferenceOps {
    /// The operations of this rank of a model, with an empty KV cache and empty adapter slots.
    #[must_use]
    pub fn new(
        config: Arc<ModelConfig>,
        limits: Limits,
        kv_format: KvFormat,
        comm: Box<dyn Comm>,
    ) -> Self {
        let partition = comm.partition();
        Self {
            frequencies: config.rotary.frequencies(config.head_dim),
            cache: KvCache::new(&config, partition, limits, kv_format),
            adapters: (0..limits.max_loras).map(|_| None).collect(),
            logits: Vec::new(),
            config,
            limits,
            comm,
            partition,
        }
    }

    /// Adds to the rows of each sequence with an adapter what its targets add: `scale * B (A x)`.
    fn add_adapters<'a>(
        &'a self,
        layer: usize,
        batch: &Batch,
        inputs: &[f32],
        outputs: &mut [f32],
        targets: impl Fn(&'a AdapterLayer<HostMatrix>) -> Vec<Target<'a>>,
    ) {
        let (in_width, out_width) = (inputs.len() / batch.len(), outputs.len() / batch.len());
        for sequence in &batch.sequences {
            let Some(slot) = sequence.adapter else {
                continue;
            };
            let shard = self.adapters[slot]
                .as_ref()
                .expect("a sequence's adapter is in its slot");
            for row in sequence.first..sequence.first + sequence.len {
                let input = &inputs[row * in_width..][..in_width];
                let output = &mut outputs[row * out_width..][..out_width];
                for (low_rank, first) in targets(&shard.layers[layer]) {
                    if let Some(low_rank) = low_rank {
                        shard.add(low_rank, input, &mut output[first..]);
                    }
                }
            }
        }
    }

    /// `x += part`, with the parts of all ranks.
    fn add_over_ranks(&mut self, mut part: Vec<f32>, x: &mut [f32]) {
        self.comm.all_reduce(&mut part);
        for (x, part) in x.iter_mut().zip(part) {
            *x += part;
        }
    }
}

/// What is in the first rows of a buffer, one for each token of the step.
fn rows<'a>(batch: &Batch, buffer: &'a [f32], width: usize) -> &'a [f32] {
    &buffer[..batch.len() * width]
}

/// The rows of a step, each with the block table of its sequence.
fn tables(batch: &Batch) -> impl Iterator<Item = (usize, &[BlockId])> {
    batch.sequences.iter().flat_map(|sequence| {
        let rows = sequence.first..sequence.first + sequence.len;
        rows.map(|row| (row, sequence.table.as_slice()))
    })
}

impl Ops for ReferenceOps {
    type Matrix = HostMatrix;
    type Buffer = Vec<f32>;

    fn pack(&mut self, matrix: HostMatrix, _role: Role) -> HostMatrix {
        matrix
    }

    fn buffer(&mut self, width: usize) -> Vec<f32> {
        vec![0.0; self.limits.max_batched_tokens * width]
    }

    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError> {
        let shard = AdapterShard::new(adapter, &self.config, self.partition);
        self.adapters[slot] = Some(shard);
        Ok(())
    }

    fn read_logits(&mut self) -> Result<&[f32], StepError> {
        Ok(&self.logits)
    }

    fn unload_adapter(&mut self, slot: usize) {
        self.adapters[slot] = None;
    }

    fn embed(&mut self, weights: &Weights<HostMatrix>, batch: &Batch, x: &mut Vec<f32>) {
        let vocabulary = self.partition.vocabulary(&self.config);
        let mut part = Vec::with_capacity(batch.len() * self.config.hidden_size);
        for &token in &batch.tokens {
            let token = token as usize;
            // The rank that has the token's row gives it, and the others zeros.
            let is_here = vocabulary.contains(&token);
            part.extend((0..self.config.hidden_size).map(|column| {
                if is_here {
                    weights.embedding.at(token - vocabulary.start, column)
                } else {
                    0.0
                }
            }));
        }
        self.comm.all_reduce(&mut part);
        x[..part.len()].copy_from_slice(&part);
    }

    fn queries_keys_values(
        &mut self,
        layer: &Layer<HostMatrix>,
        batch: &Batch,
        x: &Vec<f32>,
        q: &mut Vec<f32>,
    ) {
        let config = &self.config;
        let head_dim = config.head_dim;
        let query_width = self.partition.query_heads(config).len() * head_dim;
        let key_width = self.partition.key_value_heads(config).len() * head_dim;

        let x = rows(batch, x, config.hidden_size);
        let n = rms_norm(x, &layer.attention_norm, config.rms_norm_eps);
        let mut fused = linear(&layer.qkv, layer.qkv_bias.as_deref(), &n);
        self.add_adapters(layer.index, batch, &n, &mut fused, |adapter| {
            vec![
                (&adapter.query, 0),
                (&adapter.key, query_width),
                (&adapter.value, query_width + key_width),
            ]
        });

        let width = query_width + 2 * key_width;
        for (row, table) in tables(batch) {
            let fused = &mut fused[row * width..][..width];
            let position = batch.positions[row];
            let (queries, rest) = fused.split_at_mut(query_width);
            let (keys, values) = rest.split_at_mut(key_width);
            if let Some((query_norm, key_norm)) = &layer.query_key_norm {
                queries.copy_from_slice(&rms_norm(queries, query_norm, config.rms_norm_eps));
                keys.copy_from_slice(&rms_norm(keys, key_norm, config.rms_norm_eps));
            }
            rotary::turn(queries, &self.frequencies, position);
            rotary::turn(keys, &self.frequencies, position);
            q[row * query_width..][..query_width].copy_from_slice(queries);
            self.cache
                .write(layer.index, table, position as usize, keys, values);
        }
    }

    fn attend(&mut self, layer: &Layer<HostMatrix>, batch: &Batch, q: &Vec<f32>, a: &mut Vec<f32>) {
        let config = &self.config;
        let head_dim = config.head_dim;
        let query_heads = self.partition.query_heads(config);
        let key_value_heads = self.partition.key_value_heads(config);
        let group = config.num_attention_heads / config.num_key_value_heads;
        let window = config.window(layer.index).unwrap_or(usize::MAX);
        for (row, table) in tables(batch) {
            let end = batch.positions[row] as usize + 1;
            let seen = end.saturating_sub(window)..end;
            for (place, head) in query_heads.clone().enumerate() {
                let key_value_head = head / group - key_value_heads.start;
                let history = self.cache.history(layer.index, table, key_value_head);
                let first = (row * query_heads.len() + place) * head_dim;
                let query = &q[first..][..head_dim];
                let a = &mut a[first..][..head_dim];
                attention::attend(query, &history, seen.clone(), a);
            }
        }
    }

    fn add_attention_output(
        &mut self,
        layer: &Layer<HostMatrix>,
        batch: &Batch,
        a: &Vec<f32>,
        x: &mut Vec<f32>,
    ) {
        let a = rows(batch, a, layer.output.columns);
        let mut part = linear(&layer.output, layer.output_bias.as_deref(), a);
        self.add_adapters(layer.index, batch, a, &mut part, |adapter| {
            vec![(&adapter.output, 0)]
        });
        self.add_over_ranks(part, x);
    }

    fn gate_and_up(
        &mut self,
        layer: &Layer<HostMatrix>,
        batch: &Batch,
        x: &Vec<f32>,
        h: &mut Vec<f32>,
    ) {
        let width = self.partition.intermediate(&self.config).len();
        let x = rows(batch, x, self.config.hidden_size);
        let n = rms_norm(x, &layer.mlp_norm, self.config.rms_norm_eps);
        let mut fused = linear(&layer.gate_up, None, &n);
        self.add_adapters(layer.index, batch, &n, &mut fused, |adapter| {
            vec![(&adapter.gate, 0), (&adapter.up, width)]
        });
        for (row, fused) in fused.chunks_exact(2 * width).enumerate() {
            let (gate, up) = fused.split_at(width);
            for (column, (gate, up)) in gate.iter().zip(up).enumerate() {
                h[row * width + column] = norm::silu(*gate) * up;
            }
        }
    }

    fn add_mlp_output(
        &mut self,
        layer: &Layer<HostMatrix>,
        batch: &Batch,
        h: &Vec<f32>,
        x: &mut Vec<f32>,
    ) {
        let h = rows(batch, h, layer.down.columns);
        let mut part = linear(&layer.down, None, h);
        self.add_adapters(layer.index, batch, h, &mut part, |adapter| {
            vec![(&adapter.down, 0)]
        });
        self.add_over_ranks(part, x);
    }

    fn logits(&mut self, weights: &Weights<HostMatrix>, batch: &Batch, x: &Vec<f32>) {
        let hidden = self.config.hidden_size;
        let wanted: Vec<f32> = batch
            .logit_rows
            .iter()
            .flat_map(|row| &x[*row as usize * hidden..][..hidden])
            .copied()
            .collect();
        let n = rms_norm(&wanted, &weights.norm, self.config.rms_norm_eps);
        let part = linear(weights.output_projection(), None, &n);
        self.comm
            .gather(batch.logit_rows.len(), &part, &mut self.logits);
    }
}
