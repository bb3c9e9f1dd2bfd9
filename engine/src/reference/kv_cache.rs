//! The KV cache, in blocks.

use half::bf16;

use crate::backend::Limits;
use crate::config::{ModelConfig, Partition};
use crate::ops::KvFormat;
use foresail_core::batching::BlockId;

/// Keys and values of this rank's heads, `[layer][block][place in the block][key | value][head][head_dim]`.
pub(super) struct KvCache {
    values: Vec<f32>,
    format: KvFormat,
    num_blocks: usize,
    block_size: usize,
    num_heads: usize,
    head_dim: usize,
}

/// Keys and values of one head of one sequence.
pub(super) struct History<'a> {
    cache: &'a KvCache,
    layer: usize,
    table: &'a [BlockId],
    head: usize,
}

impl KvCache {
    pub(super) fn new(
        config: &ModelConfig,
        partition: Partition,
        limits: Limits,
        format: KvFormat,
    ) -> Self {
        let num_heads = partition.key_value_heads(config).len();
        let tokens = config.num_hidden_layers * limits.num_blocks * limits.block_size;
        Self {
            values: vec![f32::NAN; tokens * 2 * num_heads * config.head_dim],
            format,
            num_blocks: limits.num_blocks,
            block_size: limits.block_size,
            num_heads,
            head_dim: config.head_dim,
        }
    }

    /// Stores the keys and the values, each `[head][head_dim]`, of the token at a position of a sequence.
    pub(super) fn write(
        &mut self,
        layer: usize,
        table: &[BlockId],
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let first = self.place(layer, table, position);
        let format = self.format;
        let stored = keys.iter().chain(values).map(|value| match format {
            KvFormat::F32 => *value,
            KvFormat::Bf16 => bf16::from_f32(*value).to_f32(),
        });
        for (cell, value) in self.values[first..].iter_mut().zip(stored) {
            *cell = value;
        }
    }

    /// What one head has of a sequence.
    pub(super) fn history<'a>(
        &'a self,
        layer: usize,
        table: &'a [BlockId],
        head: usize,
    ) -> History<'a> {
        History {
            cache: self,
            layer,
            table,
            head,
        }
    }

    /// Where the keys and values of a position begin.
    fn place(&self, layer: usize, table: &[BlockId], position: usize) -> usize {
        let block = table[position / self.block_size] as usize;
        assert!(block < self.num_blocks, "block {block} is in the cache");
        let token =
            (layer * self.num_blocks + block) * self.block_size + position % self.block_size;
        token * 2 * self.num_heads * self.head_dim
    }
}

impl History<'_> {
    /// The key at a position: `[head_dim]`.
    pub(super) fn key(&self, position: usize) -> &[f32] {
        self.vector(position, self.head)
    }

    /// The value at a position: `[head_dim]`.
    pub(super) fn value(&self, position: usize) -> &[f32] {
        self.vector(position, self.cache.num_heads + self.head)
    }

    fn vector(&self, position: usize, index: usize) -> &[f32] {
        let first = self.cache.place(self.layer, self.table, position);
        let head_dim = self.cache.head_dim;
        &self.cache.values[first + index * head_dim..][..head_dim]
    }
}
