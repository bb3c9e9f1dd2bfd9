//! What attention works on: heads, and the KV cache.

use crate::config::ModelConfig;

/// The sizes of attention on one rank, which its kernels are compiled for.
///
/// The KV cache of a layer is `[block][k|v][kv_head][block_size][padded]`, in bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// Query heads of this rank: a multiple of `kv_heads`.
    pub query_heads: usize,
    /// Key and value heads of this rank.
    pub kv_heads: usize,
    /// Width of a head, an even number.
    pub head_dim: usize,
    /// Tokens of a KV block, a power of two.
    pub block_size: usize,
}

impl AttentionShape {
    /// That of Llama-3-8B on one GPU.
    pub const LLAMA_3_8B: Self = Self {
        query_heads: 32,
        kv_heads: 8,
        head_dim: 128,
        block_size: 64,
    };
    /// A small odd one.
    pub const ODD: Self = Self {
        query_heads: 6,
        kv_heads: 2,
        head_dim: 6,
        block_size: 4,
    };

    /// That of a model, of which this rank has so many heads.
    #[must_use]
    pub fn new(
        config: &ModelConfig,
        query_heads: usize,
        kv_heads: usize,
        block_size: usize,
    ) -> Self {
        Self {
            query_heads,
            kv_heads,
            head_dim: config.head_dim,
            block_size,
        }
    }

    /// The width of a head in the KV cache and of queries: columns after `head_dim` are zeros.
    #[must_use]
    pub fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(16)
    }

    /// Query heads that share a key and value head.
    #[must_use]
    pub fn group(&self) -> usize {
        self.query_heads / self.kv_heads
    }

    /// Values of a row of the projection's product: queries, keys, values.
    #[must_use]
    pub fn product_width(&self) -> usize {
        (self.query_heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Values of a KV block of a layer.
    #[must_use]
    pub fn block_values(&self) -> usize {
        2 * self.kv_heads * self.block_size * self.padded()
    }

    /// What scores are multiplied by before powers of two are taken of them: `log2(e) / sqrt(head_dim)`.
    #[must_use]
    pub(super) fn scale(&self) -> f32 {
        (std::f64::consts::LOG2_E / (self.head_dim as f64).sqrt()) as f32
    }

    /// Bytes from one row to the next of a tile in shared memory: `tile_row_bytes` of the prelude.
    pub(super) fn tile_row_bytes(&self) -> usize {
        let bytes = 2 * self.padded();
        if bytes.is_power_of_two() {
            bytes
        } else {
            bytes + 16
        }
    }

    /// Constants that all kernels of attention are compiled with.
    pub(super) fn constants(&self) -> Vec<(&'static str, u32)> {
        let constant = |value: usize| u32::try_from(value).expect("sizes of heads have 32 bits");
        vec![
            ("HEAD_DIM", constant(self.head_dim)),
            ("PADDED", constant(self.padded())),
            ("KV_HEADS", constant(self.kv_heads)),
            ("BLOCK_SIZE", constant(self.block_size)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_padded_to_what_matrix_products_take() {
        assert_eq!(AttentionShape::LLAMA_3_8B.padded(), 128);
        assert_eq!(AttentionShape::LLAMA_3_8B.product_width(), 6144);
        assert_eq!(AttentionShape::ODD.padded(), 16);
        assert_eq!(AttentionShape::ODD.block_values(), 2 * 2 * 4 * 16);
        let wide = AttentionShape {
            head_dim: 80,
            ..AttentionShape::ODD
        };
        assert_eq!(wide.tile_row_bytes(), 176, "11 units of 16 bytes");
    }
}
