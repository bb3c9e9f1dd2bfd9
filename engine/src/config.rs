//! What a model is: its dimensions, and what its family does differently.
//!
//! Families are data. The forward pass asks for what a model has (a bias, a
//! norm on queries, a window), never for its name.

use std::ops::Range;

/// A decoder-only transformer of the Llama kind, with Hugging Face's names.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family, for messages and defaults.
    pub family: Family,
    /// Tokens in the vocabulary: rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; each serves as many query heads as go into it.
    pub num_key_value_heads: usize,
    /// Width of a head. Not always `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// The longest context that the model was made for (tokens).
    pub max_position_embeddings: usize,
    /// What RMS norms add to the mean square.
    pub rms_norm_eps: f32,
    /// How positions turn queries and keys.
    pub rotary: Rotary,
    /// Which attention projections have a bias.
    pub attention_bias: AttentionBias,
    /// Whether each head's query and key is normalised before it is rotated (Qwen 3).
    pub query_key_norm: bool,
    /// Attention to the last tokens only, in some layers.
    pub sliding_window: Option<SlidingWindow>,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// The number format of the checkpoint.
    pub dtype: Dtype,
    /// The token that begins a text, if the model has one.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text.
    pub eos_token_ids: Vec<u32>,
}

/// Families whose checkpoints are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2, 3, 3.1, 3.2.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3.
    Qwen3,
}

/// Which of the attention's projections add a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionBias {
    /// None of them.
    None,
    /// Query, key and value (Qwen 2).
    QueryKeyValue,
    /// Those and the output (Llama with `attention_bias`).
    All,
}

/// Attention to the last tokens only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindow {
    /// A token attends to this many tokens, itself included.
    pub tokens: usize,
    /// The first layer with a window; those before it attend to everything.
    pub first_layer: usize,
}

/// Rotary position embedding: pair `i` of a head's halves turns by
/// `position * frequency(i)` (Su et al. 2021, in the half-split form of Hugging Face).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    /// The base of the frequencies.
    pub theta: f64,
    /// How the frequencies are changed for contexts longer than those trained on.
    pub scaling: RotaryScaling,
}

/// How rotary frequencies are stretched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RotaryScaling {
    /// Not at all (`default`).
    None,
    /// All by the same factor (`linear`).
    Linear {
        /// By what each frequency is divided.
        factor: f64,
    },
    /// Long wavelengths only (`llama3`).
    Llama3 {
        /// By what low frequencies are divided.
        factor: f64,
        /// Wavelengths longer than the old context divided by this are stretched in full.
        low_freq_factor: f64,
        /// Wavelengths shorter than the old context divided by this stay.
        high_freq_factor: f64,
        /// The context before stretching (tokens).
        original_max_position_embeddings: f64,
    },
}

/// A number format of weights and of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// The upper half of those.
    Bf16,
    /// IEEE half precision. Checkpoints have it; it is computed with as f32.
    F16,
}

impl Dtype {
    /// Bytes a value takes.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

impl ModelConfig {
    /// Rows of the query projection.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Rows of the key projection, which are those of the value projection.
    #[must_use]
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// The window of a layer: how many tokens a token attends to, itself included.
    #[must_use]
    pub fn window(&self, layer: usize) -> Option<usize> {
        let window = self.sliding_window?;
        (layer >= window.first_layer).then_some(window.tokens)
    }
}

impl Rotary {
    /// What pair `i` of `head_dim / 2` turns by for each position (radians).
    #[must_use]
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let base = |pair: usize| libm::pow(self.theta, -((2 * pair) as f64) / head_dim as f64);
        let pairs = (0..head_dim / 2).map(base);
        pairs.map(|frequency| self.scaling.of(frequency)).collect()
    }
}

impl RotaryScaling {
    /// The scaled form of a frequency (radians a token).
    fn of(self, frequency: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            // As `_compute_llama3_parameters` of Hugging Face transformers has it
            // (src/transformers/modeling_rope_utils.py): between the two
            // wavelengths, a straight line in the number of turns.
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let wavelength = std::f64::consts::TAU / frequency;
                let turns = original_max_position_embeddings / wavelength;
                if turns < low_freq_factor {
                    frequency / factor
                } else if turns > high_freq_factor {
                    frequency
                } else {
                    let smooth = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

/// One rank of a world: which part of a model it has.
///
/// Sharding is Megatron's: query, key, value, gate and up by columns, output
/// and down by rows, embedding and output projection by vocabulary. Where
/// there are fewer key and value heads than ranks, heads are replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Which rank, from 0.
    pub rank: usize,
    /// Of how many.
    pub world_size: usize,
}

/// Why a model cannot be split over so many ranks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// Ranks would have parts of heads.
    #[error(
        "{num_attention_heads} query heads cannot be split over {world_size} ranks; \
         choose a world size that divides them"
    )]
    QueryHeads {
        /// Query heads of the model.
        num_attention_heads: usize,
        /// The world size.
        world_size: usize,
    },
    /// Key and value heads neither split nor replicate evenly.
    #[error(
        "{num_key_value_heads} key and value heads cannot be split over, or replicated to, \
         {world_size} ranks; choose a world size that divides them, or that they divide"
    )]
    KeyValueHeads {
        /// Key and value heads of the model.
        num_key_value_heads: usize,
        /// The world size.
        world_size: usize,
    },
    /// No ranks.
    #[error("a world has at least one rank")]
    Empty,
}

impl Partition {
    /// The whole of a model.
    pub const WHOLE: Self = Self {
        rank: 0,
        world_size: 1,
    };

    /// Checks that a model can be split over so many ranks.
    ///
    /// # Errors
    /// If heads do not come out even.
    pub fn check(config: &ModelConfig, world_size: usize) -> Result<(), PartitionError> {
        if world_size == 0 {
            return Err(PartitionError::Empty);
        }
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        if !heads.is_multiple_of(world_size) {
            return Err(PartitionError::QueryHeads {
                num_attention_heads: heads,
                world_size,
            });
        }
        if !kv_heads.is_multiple_of(world_size) && !world_size.is_multiple_of(kv_heads) {
            return Err(PartitionError::KeyValueHeads {
                num_key_value_heads: kv_heads,
                world_size,
            });
        }
        Ok(())
    }

    /// This rank's query heads.
    #[must_use]
    pub fn query_heads(&self, config: &ModelConfig) -> Range<usize> {
        self.part(config.num_attention_heads)
    }

    /// This rank's key and value heads; several ranks have the same where there are fewer heads than ranks.
    #[must_use]
    pub fn key_value_heads(&self, config: &ModelConfig) -> Range<usize> {
        let heads = config.num_key_value_heads;
        if heads >= self.world_size {
            return self.part(heads);
        }
        let head = self.rank * heads / self.world_size;
        head..head + 1
    }

    /// This rank's columns of the MLP.
    #[must_use]
    pub fn intermediate(&self, config: &ModelConfig) -> Range<usize> {
        self.part(config.intermediate_size)
    }

    /// This rank's rows of the embedding and of the output projection.
    #[must_use]
    pub fn vocabulary(&self, config: &ModelConfig) -> Range<usize> {
        self.part(config.vocab_size)
    }

    /// This rank's share of `whole` things: contiguous, and even to within one.
    #[must_use]
    pub fn part(&self, whole: usize) -> Range<usize> {
        whole * self.rank / self.world_size..whole * (self.rank + 1) / self.world_size
    }
}
