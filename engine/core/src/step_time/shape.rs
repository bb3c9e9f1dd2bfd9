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
