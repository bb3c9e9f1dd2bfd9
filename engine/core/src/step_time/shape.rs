//! The shape of a transformer, as far as its time and memory depend on it.

use serde::{Deserialize, Serialize};

/// Number format of weights or of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 16-bit brain float.
    Bf16,
    /// 8-bit float.
    Fp8,
}

impl Precision {
    /// Bytes a value takes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::Fp8 => 1,
        }
    }
}

/// Mixture of experts: how many there are and how many a token uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experts {
    /// Experts in each layer.
    pub count: u32,
    /// Experts that each token is sent to.
    pub active: u32,
}

/// The dimensions of a decoder-only transformer, with Hugging Face's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// Decoder layers.
    pub num_hidden_layers: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Query heads.
    pub num_attention_heads: u32,
    /// Key and value heads.
    pub num_key_value_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Width of the MLP, or of one expert.
    pub intermediate_size: u32,
    /// Tokens in the vocabulary.
    pub vocab_size: u32,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Mixture of experts, if it is one.
    pub experts: Option<Experts>,
}

impl ModelShape {
    /// Parameters of one layer's attention projections: query, key, value and output.
    #[must_use]
    pub fn attention_parameters(&self) -> u64 {
        let [hidden, heads, kv_heads, width] = [
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        ]
        .map(u64::from);
        hidden * width * (2 * heads + 2 * kv_heads)
    }

    /// Parameters of one gated MLP (gate, up and down), or of one expert.
    #[must_use]
    pub fn mlp_parameters(&self) -> u64 {
        3 * u64::from(self.hidden_size) * u64::from(self.intermediate_size)
    }

    /// Parameters of one layer's router, 0 without experts.
    #[must_use]
    pub fn router_parameters(&self) -> u64 {
        self.experts.map_or(0, |experts| {
            u64::from(self.hidden_size) * u64::from(experts.count)
        })
    }

    /// Parameters of one layer's matrices: attention, router, and every expert's MLP.
    #[must_use]
    pub fn layer_parameters(&self) -> u64 {
        let mlps = self.experts.map_or(1, |experts| u64::from(experts.count));
        self.attention_parameters() + self.router_parameters() + mlps * self.mlp_parameters()
    }

    /// Parameters of one layer's matrices that one token is multiplied with.
    #[must_use]
    pub fn active_layer_parameters(&self) -> u64 {
        let mlps = self.experts.map_or(1, |experts| u64::from(experts.active));
        self.attention_parameters() + self.router_parameters() + mlps * self.mlp_parameters()
    }

    /// Parameters of the token embedding, which are also those of the output projection.
    #[must_use]
    pub fn embedding_parameters(&self) -> u64 {
        u64::from(self.vocab_size) * u64::from(self.hidden_size)
    }

    /// All parameters. Biases and the norms of single heads, which some
    /// families have and which are below 0.01 % of the whole, are not counted.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.layers() * self.layer_parameters() + self.unquantized_parameters()
            - self.layers() * self.router_parameters()
    }

    /// Parameters that one token is multiplied with, the output projection
    /// included: a forward pass takes twice as many FLOP a token, and attention.
    #[must_use]
    pub fn active_parameters(&self) -> u64 {
        self.layers() * self.active_layer_parameters() + self.embedding_parameters()
    }

    /// Bytes that the weights take in all GPUs together.
    ///
    /// With fp8, the embedding, the output projection, routers and norms stay
    /// bf16: published fp8 checkpoints quantize "only the weights and
    /// activations of the linear operators within transformers blocks" (model
    /// card of RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8) and their recipes
    /// ignore `lm_head` and the routers.
    #[must_use]
    pub fn weight_bytes(&self, precision: Precision) -> u64 {
        let unquantized = self.unquantized_parameters();
        (self.parameters() - unquantized) * precision.bytes()
            + unquantized * Precision::Bf16.bytes()
    }

    /// Bytes of weights in each of `world_size` GPUs: every matrix is split
    /// evenly, except that keys and values are replicated where there are
    /// fewer heads than GPUs, and norms and routers are whole everywhere.
    #[must_use]
    pub fn weight_bytes_per_rank(&self, precision: Precision, world_size: u32) -> u64 {
        let world = u64::from(world_size);
        let whole = self.norm_parameters() + self.layers() * self.router_parameters();
        let embeddings = self.unquantized_parameters() - whole;
        let layers = self.layers() * self.layer_matrix_bytes_per_rank(precision, world_size);
        layers + (embeddings.div_ceil(world) + whole) * Precision::Bf16.bytes()
    }

    /// Bytes that one token of context takes in the KV cache of the whole model.
    #[must_use]
    pub fn kv_bytes_per_token(&self, kv_precision: Precision) -> u64 {
        self.layers() * self.layer_kv_bytes(self.num_key_value_heads, kv_precision)
    }

    /// Bytes that one token of context takes in each of `world_size` GPUs.
    /// Beyond as many GPUs as key and value heads it shrinks no further.
    #[must_use]
    pub fn kv_bytes_per_token_per_rank(&self, kv_precision: Precision, world_size: u32) -> u64 {
        self.layers() * self.layer_kv_bytes(self.kv_heads_per_rank(world_size), kv_precision)
    }

    /// Key and value heads in each of `world_size` GPUs, at least one.
    #[must_use]
    pub fn kv_heads_per_rank(&self, world_size: u32) -> u32 {
        self.num_key_value_heads.div_ceil(world_size)
    }

    /// Bytes in one rank of one layer's attention and MLP matrices, without the router.
    fn layer_matrix_bytes_per_rank(&self, precision: Precision, world_size: u32) -> u64 {
        let mlps = self.experts.map_or(1, |experts| u64::from(experts.count));
        let mlp = (mlps * self.mlp_parameters()).div_ceil(u64::from(world_size));
        (self.attention_parameters_per_rank(world_size) + mlp) * precision.bytes()
    }

    /// Parameters in one rank of one layer's attention projections.
    pub(super) fn attention_parameters_per_rank(&self, world_size: u32) -> u64 {
        let heads = u64::from(self.num_attention_heads.div_ceil(world_size));
        let kv_heads = u64::from(self.kv_heads_per_rank(world_size));
        u64::from(self.hidden_size) * u64::from(self.head_dim) * (2 * heads + 2 * kv_heads)
    }

    /// Parameters that stay bf16 in fp8 checkpoints.
    fn unquantized_parameters(&self) -> u64 {
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        embeddings * self.embedding_parameters()
            + self.layers() * self.router_parameters()
            + self.norm_parameters()
    }

    /// Two norms a layer and one at the end.
    fn norm_parameters(&self) -> u64 {
        (2 * self.layers() + 1) * u64::from(self.hidden_size)
    }

    fn layer_kv_bytes(&self, kv_heads: u32, kv_precision: Precision) -> u64 {
        2 * u64::from(kv_heads) * u64::from(self.head_dim) * kv_precision.bytes()
    }

    fn layers(&self) -> u64 {
        u64::from(self.num_hidden_layers)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shapes::{
        LLAMA_3_2_1B, LLAMA_3_8B, LLAMA_3_70B, MIXTRAL_8X7B, QWEN_2_5_7B, QWEN_3_30B_A3B,
    };
    use super::*;

    fn assert_close(actual: u64, published: f64, tolerance: f64) {
        let error = actual as f64 / published - 1.0;
        assert!(
            error.abs() <= tolerance,
            "{actual} against {published}: {error:+.6}"
        );
    }

    #[test]
    fn parameters_match_the_published_checkpoints() {
        // `total_parameters` of the safetensors indexes on Hugging Face.
        assert_eq!(LLAMA_3_8B.parameters(), 8_030_261_248);
        assert_eq!(LLAMA_3_70B.parameters(), 70_553_706_496);
        assert_eq!(LLAMA_3_2_1B.parameters(), 1_235_814_400);
        assert_eq!(MIXTRAL_8X7B.parameters(), 46_702_792_704);
        // The difference is its biases of query, key and value.
        assert_eq!(
            QWEN_2_5_7B.parameters() + 28 * (3584 + 2 * 512),
            7_615_616_512
        );
        // The difference is the norm of each query and key head.
        assert_eq!(QWEN_3_30B_A3B.parameters() + 48 * 2 * 128, 30_532_122_624);
    }

    #[test]
    fn active_parameters_are_those_a_token_meets() {
        assert_eq!(
            LLAMA_3_8B.active_parameters(),
            32 * 218_103_808 + 525_336_576
        );
        // "12.9B active" (Mixtral of Experts, arXiv 2401.04088) and "3.3B" (Qwen3-30B-A3B's model
        // card) count the embedding as well as the output projection.
        assert_close(
            MIXTRAL_8X7B.active_parameters() + MIXTRAL_8X7B.embedding_parameters(),
            12.9e9,
            0.01,
        );
        assert_close(
            QWEN_3_30B_A3B.active_parameters() + QWEN_3_30B_A3B.embedding_parameters(),
            3.3e9,
            0.02,
        );
    }

    #[test]
    fn weights_in_fp8_keep_embeddings_in_bf16() {
        assert_eq!(LLAMA_3_8B.weight_bytes(Precision::Bf16), 2 * 8_030_261_248);
        let layers = 32 * 218_103_808;
        let rest = 8_030_261_248 - layers;
        assert_eq!(LLAMA_3_8B.weight_bytes(Precision::Fp8), layers + 2 * rest);
        // RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8 is 9.1 GB of files.
        assert_close(LLAMA_3_8B.weight_bytes(Precision::Fp8), 9.1e9, 0.01);
    }

    #[test]
    fn ranks_share_everything_but_norms_routers_and_surplus_kv_heads() {
        for shape in [LLAMA_3_8B, LLAMA_3_70B, MIXTRAL_8X7B] {
            let whole = shape.weight_bytes(Precision::Bf16);
            assert_eq!(shape.weight_bytes_per_rank(Precision::Bf16, 1), whole);
            let replicated = 2
                * (shape.norm_parameters()
                    + u64::from(shape.num_hidden_layers) * shape.router_parameters());
            for world_size in [2, 4, 8] {
                let together = u64::from(world_size)
                    * shape.weight_bytes_per_rank(Precision::Bf16, world_size);
                assert_eq!(together, whole + u64::from(world_size - 1) * replicated);
            }
        }
    }

    #[test]
    fn kv_cache_is_128_kib_a_token_and_stops_shrinking_at_one_head() {
        assert_eq!(LLAMA_3_8B.kv_bytes_per_token(Precision::Bf16), 128 * 1024);
        assert_eq!(LLAMA_3_8B.kv_bytes_per_token(Precision::Fp8), 64 * 1024);
        assert_eq!(LLAMA_3_70B.kv_bytes_per_token(Precision::Bf16), 320 * 1024);
        assert_eq!(
            LLAMA_3_8B.kv_bytes_per_token_per_rank(Precision::Bf16, 8),
            16 * 1024
        );
        assert_eq!(
            LLAMA_3_8B.kv_bytes_per_token_per_rank(Precision::Bf16, 16),
            16 * 1024
        );
    }
}
