//! Shapes of published models that the tests of this module use, from their `config.json`.

use super::{Experts, ModelShape};

/// `meta-llama/Meta-Llama-3-8B`.
pub(super) const LLAMA_3_8B: ModelShape = ModelShape {
    num_hidden_layers: 32,
    hidden_size: 4096,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 128,
    intermediate_size: 14336,
    vocab_size: 128_256,
    tie_word_embeddings: false,
    experts: None,
};

/// `meta-llama/Meta-Llama-3-70B`.
pub(super) const LLAMA_3_70B: ModelShape = ModelShape {
    num_hidden_layers: 80,
    hidden_size: 8192,
    num_attention_heads: 64,
    intermediate_size: 28672,
    ..LLAMA_3_8B
};

/// `meta-llama/Llama-3.2-1B`.
pub(super) const LLAMA_3_2_1B: ModelShape = ModelShape {
    num_hidden_layers: 16,
    hidden_size: 2048,
    head_dim: 64,
    intermediate_size: 8192,
    tie_word_embeddings: true,
    ..LLAMA_3_8B
};

/// `meta-llama/Llama-2-7b-hf`.
pub(super) const LLAMA_2_7B: ModelShape = ModelShape {
    num_key_value_heads: 32,
    intermediate_size: 11008,
    vocab_size: 32000,
    ..LLAMA_3_8B
};

/// `meta-llama/Llama-2-70b-hf`.
pub(super) const LLAMA_2_70B: ModelShape = ModelShape {
    vocab_size: 32000,
    ..LLAMA_3_70B
};

/// `mistralai/Mixtral-8x7B-v0.1`.
pub(super) const MIXTRAL_8X7B: ModelShape = ModelShape {
    vocab_size: 32000,
    experts: Some(Experts {
        count: 8,
        active: 2,
    }),
    ..LLAMA_3_8B
};

/// `Qwen/Qwen2.5-7B`.
pub(super) const QWEN_2_5_7B: ModelShape = ModelShape {
    num_hidden_layers: 28,
    hidden_size: 3584,
    num_attention_heads: 28,
    num_key_value_heads: 4,
    head_dim: 128,
    intermediate_size: 18944,
    vocab_size: 152_064,
    tie_word_embeddings: false,
    experts: None,
};

/// `Qwen/Qwen3-30B-A3B`.
pub(super) const QWEN_3_30B_A3B: ModelShape = ModelShape {
    num_hidden_layers: 48,
    hidden_size: 2048,
    num_attention_heads: 32,
    num_key_value_heads: 4,
    head_dim: 128,
    intermediate_size: 768,
    vocab_size: 151_936,
    tie_word_embeddings: false,
    experts: Some(Experts {
        count: 128,
        active: 8,
    }),
};
