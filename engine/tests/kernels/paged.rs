//! A KV cache in memory, and attention over it written plainly.

use foresail_engine::cuda::gpu::Address;
use foresail_engine::cuda::kernels::attention_shape::AttentionShape;
use half::bf16;

use crate::device::{Device, Random, to_bytes};

/// Sequences whose keys and values are in blocks here and there. What no token has written is NaN, and what no
/// table should be asked for is a block that is nowhere.
pub(crate) struct Paged {
    pub(crate) shape: AttentionShape,
    /// Tokens of each sequence.
    pub(crate) contexts: Vec<usize>,
    /// Of each sequence, `[token][kv_head][head_dim]`.
    keys: Vec<Vec<bf16>>,
    values: Vec<Vec<bf16>>,
    pub(crate) tables: Vec<u32>,
    pub(crate) table_stride: usize,
    blocks: usize,
}

impl Paged {
    pub(crate) fn new(shape: AttentionShape, contexts: &[usize], random: &mut Random) -> Self {
        let tokens = |random: &mut Random, context: usize| {
            random.bf16s(context * shape.kv_heads * shape.head_dim, 1.0)
        };
        let keys = contexts
            .iter()
            .map(|context| tokens(random, *context))
            .collect();
        let values = contexts
            .iter()
            .map(|context| tokens(random, *context))
            .collect();
        let blocks_of = |context: &usize| context.div_ceil(shape.block_size);
        let blocks = contexts.iter().map(blocks_of).sum::<usize>() + 2;
        let table_stride = contexts.iter().map(blocks_of).max().unwrap_or(0) + 3;
        let mut free: Vec<u32> = (0..blocks as u32).collect();
        let mut tables = vec![u32::MAX; contexts.len() * table_stride];
        for (table, context) in tables.chunks_mut(table_stride).zip(contexts) {
            for entry in &mut table[..blocks_of(context)] {
                *entry = free.swap_remove(random.below(free.len()));
            }
        }
        Self {
            shape,
            contexts: contexts.to_vec(),
            keys,
            values,
            tables,
            table_stride,
            blocks,
        }
    }

    /// The slot of a token.
    pub(crate) fn slot(&self, sequence: usize, position: usize) -> u32 {
        let block_size = self.shape.block_size;
        let block = self.tables[sequence * self.table_stride + position / block_size];
        block * block_size as u32 + (position % block_size) as u32
    }

    /// Values of the cache.
    pub(crate) fn cache_len(&self) -> usize {
        self.blocks * self.shape.block_values()
    }

    /// Where a head of a token begins in the cache.
    pub(crate) fn place(&self, slot: u32, is_value: bool, kv_head: usize) -> usize {
        let AttentionShape {
            kv_heads,
            block_size,
            ..
        } = self.shape;
        let (block, offset) = (slot as usize / block_size, slot as usize % block_size);
        (((block * 2 + usize::from(is_value)) * kv_heads + kv_head) * block_size + offset)
            * self.shape.padded()
    }

    /// The cache, with all tokens in it.
    pub(crate) fn upload(&self, device: &mut Device) -> Address {
        let mut cache = vec![bf16::NAN; self.cache_len()];
        let AttentionShape {
            kv_heads, head_dim, ..
        } = self.shape;
        for (sequence, context) in self.contexts.iter().enumerate() {
            for position in 0..*context {
                for kv_head in 0..kv_heads {
                    for (is_value, tokens) in [(false, &self.keys), (true, &self.values)] {
                        let place = self.place(self.slot(sequence, position), is_value, kv_head);
                        let head = &tokens[sequence][(position * kv_heads + kv_head) * head_dim..]
                            [..head_dim];
                        cache[place..place + self.shape.padded()].fill(bf16::ZERO);
                        cache[place..place + head_dim].copy_from_slice(head);
                    }
                }
            }
        }
        device.upload(&cache)
    }

    pub(crate) fn upload_tables(&self, device: &mut Device) -> Address {
        device.upload(&self.tables)
    }

    /// Attention of one token's queries, `[query_heads][padded]`, at a position of a sequence.
    pub(crate) fn attend(
        &self,
        sequence: usize,
        position: usize,
        q: &[bf16],
        window: Option<usize>,
    ) -> Vec<f64> {
        let AttentionShape {
            kv_heads,
            head_dim,
            query_heads,
            ..
        } = self.shape;
        let begin = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let mut a = Vec::with_capacity(query_heads * head_dim);
        for (head, q) in q.chunks_exact(self.shape.padded()).enumerate() {
            let kv_head = head / self.shape.group();
            let row = |tokens: &'_ [Vec<bf16>], position: usize| {
                let first = (position * kv_heads + kv_head) * head_dim;
                tokens[sequence][first..first + head_dim]
                    .iter()
                    .map(|value| value.to_f64())
                    .collect::<Vec<_>>()
            };
            let score = |position| {
                let products = row(&self.keys, position)
                    .into_iter()
                    .zip(q)
                    .map(|(key, query)| key * query.to_f64());
                products.sum::<f64>() / (head_dim as f64).sqrt()
            };
            let scores: Vec<f64> = (begin..=position).map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = powers.iter().sum();
            let mut sums = vec![0.0; head_dim];
            for (power, position) in powers.iter().zip(begin..) {
                for (sum, value) in sums.iter_mut().zip(row(&self.values, position)) {
                    *sum += power / total * value;
                }
            }
            a.extend(sums);
        }
        a
    }
}

/// Queries `[rows][query_heads][padded]`, zeros in the columns of padding.
pub(crate) fn queries(shape: &AttentionShape, rows: usize, random: &mut Random) -> Vec<bf16> {
    let mut q = random.bf16s(rows * shape.query_heads * shape.padded(), 1.0);
    for head in q.chunks_exact_mut(shape.padded()) {
        head[shape.head_dim..].fill(bf16::ZERO);
    }
    q
}

/// Queries of so many times the size.
pub(crate) fn sharpened(q: &[bf16], times: f32) -> Vec<bf16> {
    q.iter()
        .map(|value| bf16::from_f32(value.to_f32() * times))
        .collect()
}

/// Whether nothing was written there since it was poisoned.
pub(crate) fn is_poison(values: &[bf16]) -> bool {
    to_bytes(values).iter().all(|byte| *byte == 0xff)
}
