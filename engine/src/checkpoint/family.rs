//! What families of models do differently, as a table: the defaults and the
//! fixed choices of their classes in Hugging Face transformers
//! (`src/transformers/models/*/configuration_*.py` and `modeling_*.py`, 5.23).

use crate::config::Family;

/// One family: how it is named in a file, and what holds where the file is silent.
#[derive(Debug)]
pub(super) struct FamilyRules {
    /// The family.
    pub(super) family: Family,
    /// Its entry in `architectures`.
    pub(super) architecture: &'static str,
    /// Its `model_type`.
    pub(super) model_type: &'static str,
    /// The width of a head; where it is `None`, `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<usize>,
    /// Key and value heads; where it is `None`, as many as query heads.
    pub(super) num_key_value_heads: Option<usize>,
    /// The longest context.
    pub(super) max_position_embeddings: usize,
    /// The tokens that begin and end a text.
    pub(super) bos_and_eos: Option<(u32, u32)>,
    /// Which projections of the attention have a bias.
    pub(super) bias: BiasRule,
    /// Whether each head's query and key is normalised.
    pub(super) query_key_norm: bool,
    /// Which layers have a window.
    pub(super) window: WindowRule,
}

/// Which projections of the attention have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BiasRule {
    /// None, whatever the file says.
    Never,
    /// All four if `attention_bias` is true.
    AllIfStated,
    /// Query, key and value, whatever the file says.
    QueryKeyValue,
}

/// Which layers have a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WindowRule {
    /// None.
    Never,
    /// All, unless `sliding_window` is `null`.
    AllLayers,
    /// Those from `max_window_layers` on, or those that `layer_types` says, if `use_sliding_window` is true.
    UpperLayers,
}

/// The eps of norms where a file does not have it, in all families.
pub(super) const RMS_NORM_EPS: f64 = 1e-6;

/// The base of the rotary frequencies where a file does not have it, in all families.
pub(super) const ROPE_THETA: f64 = 10_000.0;

/// The window of a family that has one where the file does not say how long (tokens).
pub(super) const SLIDING_WINDOW: usize = 4_096;

/// The first layer with a window where the file does not say.
pub(super) const MAX_WINDOW_LAYERS: usize = 28;

/// All families.
pub(super) const FAMILIES: [FamilyRules; 4] = [
    FamilyRules {
        family: Family::Llama,
        architecture: "LlamaForCausalLM",
        model_type: "llama",
        head_dim: None,
        num_key_value_heads: None,
        max_position_embeddings: 2_048,
        bos_and_eos: Some((1, 2)),
        bias: BiasRule::AllIfStated,
        query_key_norm: false,
        window: WindowRule::Never,
    },
    FamilyRules {
        family: Family::Mistral,
        architecture: "MistralForCausalLM",
        model_type: "mistral",
        head_dim: None,
        num_key_value_heads: Some(8),
        max_position_embeddings: 131_072,
        bos_and_eos: Some((1, 2)),
        bias: BiasRule::Never,
        query_key_norm: false,
        window: WindowRule::AllLayers,
    },
    FamilyRules {
        family: Family::Qwen2,
        architecture: "Qwen2ForCausalLM",
        model_type: "qwen2",
        head_dim: None,
        num_key_value_heads: Some(32),
        max_position_embeddings: 32_768,
        bos_and_eos: None,
        bias: BiasRule::QueryKeyValue,
        query_key_norm: false,
        window: WindowRule::UpperLayers,
    },
    FamilyRules {
        family: Family::Qwen3,
        architecture: "Qwen3ForCausalLM",
        model_type: "qwen3",
        head_dim: Some(128),
        num_key_value_heads: Some(32),
        max_position_embeddings: 32_768,
        bos_and_eos: None,
        bias: BiasRule::AllIfStated,
        query_key_norm: true,
        window: WindowRule::UpperLayers,
    },
];

/// Fields that change what a model computes in ways that no family here has,
/// with the number at which they change nothing; so do `null`, `false`, and what is empty.
pub(super) const NEUTRAL: [(&str, f64); 27] = [
    // Quantised weights.
    ("quantization_config", 0.0),
    ("compression_config", 0.0),
    // Mixtures of experts.
    ("num_experts", 0.0),
    ("num_local_experts", 0.0),
    ("n_routed_experts", 0.0),
    ("n_shared_experts", 0.0),
    ("num_experts_per_tok", 0.0),
    ("moe_intermediate_size", 0.0),
    // Biases and norms that are not in the forward pass.
    ("mlp_bias", 0.0),
    ("use_qk_norm", 0.0),
    ("qk_layernorm", 0.0),
    ("clip_qkv", 0.0),
    // Factors, as Granite, Cohere, MiniCPM and Gemma have them.
    ("attn_logit_softcapping", 0.0),
    ("final_logit_softcapping", 0.0),
    ("query_pre_attn_scalar", 0.0),
    ("attention_multiplier", 0.0),
    ("embedding_multiplier", 1.0),
    ("residual_multiplier", 1.0),
    ("logits_scaling", 1.0),
    ("logit_scale", 1.0),
    ("scale_depth", 0.0),
    // Other ways to attend, and to see positions.
    ("attention_chunk_size", 0.0),
    ("no_rope_layers", 0.0),
    ("partial_rotary_factor", 1.0),
    ("kv_lora_rank", 0.0),
    ("is_encoder_decoder", 0.0),
    ("add_cross_attention", 0.0),
];
