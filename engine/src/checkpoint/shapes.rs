//! Shapes that dummy weights can be made of: those of the catalogue, and `tiny`.

use foresail_scenarios::catalogue::models::{self, Model};

use crate::config::{AttentionBias, Dtype, Family, ModelConfig, Rotary, RotaryScaling};

use super::error::CheckpointError;

/// What the models of one line have in common beyond the catalogue's dimensions,
/// by how their names begin; from each model's `config.json` ([`Model::source`]).
#[derive(Debug)]
struct Line {
    prefix: &'static str,
    family: Family,
    theta: f64,
    /// How much longer the context was made after training on 8,192 tokens (Llama 3.1 on).
    stretch: Option<f64>,
    rms_norm_eps: f32,
}

/// Longer prefixes first.
const LINES: [Line; 8] = [
    line("llama-3.1-", Family::Llama, 500_000.0, Some(8.0), 1e-5),
    line("llama-3.2-", Family::Llama, 500_000.0, Some(32.0), 1e-5),
    line("llama-3-", Family::Llama, 500_000.0, None, 1e-5),
    line("llama-2-", Family::Llama, 10_000.0, None, 1e-5),
    line("smollm2-", Family::Llama, 100_000.0, None, 1e-5),
    line("mistral-", Family::Mistral, 1_000_000.0, None, 1e-5),
    line("qwen2.5-", Family::Qwen2, 1_000_000.0, None, 1e-6),
    line("qwen3-", Family::Qwen3, 1_000_000.0, None, 1e-6),
];

const fn line(
    prefix: &'static str,
    family: Family,
    theta: f64,
    stretch: Option<f64>,
    rms_norm_eps: f32,
) -> Line {
    Line {
        prefix,
        family,
        theta,
        stretch,
        rms_norm_eps,
    }
}

/// The tokens that begin and end a text in the byte-level tokenizer of dummy
/// models: the first two after the 256 bytes.
const BOS_AND_EOS: (u32, u32) = (256, 257);

/// The configuration of a shape: `tiny`, or a dense model of the catalogue.
///
/// # Errors
/// If there is none of this name, or it has experts.
pub fn find(name: &str) -> Result<ModelConfig, CheckpointError> {
    if name == "tiny" {
        return Ok(tiny());
    }
    let model = models::find(name).ok_or_else(|| CheckpointError::UnknownShape {
        name: name.to_owned(),
        known: known().collect(),
    })?;
    of_catalogue(model)
}

/// The names of the catalogue's shapes that can be computed with.
pub fn known() -> impl Iterator<Item = &'static str> {
    let dense = models::MODELS
        .iter()
        .filter(|model| of_catalogue(model).is_ok());
    dense.map(|model| model.name)
}

fn of_catalogue(model: &Model) -> Result<ModelConfig, CheckpointError> {
    let unsupported = |reason| CheckpointError::UnsupportedShape {
        name: model.name,
        reason,
    };
    if model.shape.experts.is_some() {
        return Err(unsupported("a mixture of experts, which is not computed"));
    }
    let line = LINES
        .iter()
        .find(|line| model.name.starts_with(line.prefix));
    let line = line.ok_or_else(|| unsupported("not of a family that is computed"))?;
    Ok(configured(model, line))
}

fn configured(model: &Model, line: &Line) -> ModelConfig {
    let shape = &model.shape;
    let size = |number: u32| number as usize;
    ModelConfig {
        family: line.family,
        vocab_size: size(shape.vocab_size),
        hidden_size: size(shape.hidden_size),
        intermediate_size: size(shape.intermediate_size),
        num_hidden_layers: size(shape.num_hidden_layers),
        num_attention_heads: size(shape.num_attention_heads),
        num_key_value_heads: size(shape.num_key_value_heads),
        head_dim: size(shape.head_dim),
        max_position_embeddings: size(model.max_position_embeddings),
        rms_norm_eps: line.rms_norm_eps,
        rotary: line.rotary(),
        attention_bias: match line.family {
            Family::Qwen2 => AttentionBias::QueryKeyValue,
            Family::Llama | Family::Mistral | Family::Qwen3 => AttentionBias::None,
        },
        query_key_norm: line.family == Family::Qwen3,
        sliding_window: None,
        tie_word_embeddings: shape.tie_word_embeddings,
        dtype: Dtype::Bf16,
        bos_token_id: Some(BOS_AND_EOS.0),
        eos_token_ids: vec![BOS_AND_EOS.1],
    }
}

impl Line {
    fn rotary(&self) -> Rotary {
        let scaling = self.stretch.map(|factor| RotaryScaling::Llama3 {
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8_192.0,
        });
        Rotary {
            theta: self.theta,
            scaling: scaling.unwrap_or(RotaryScaling::None),
        }
    }
}

/// A Llama of 1.3 million parameters, which splits over 1, 2, 4 and 8 ranks:
/// large enough to exercise every operation, small enough to start at once.
fn tiny() -> ModelConfig {
    ModelConfig {
        family: Family::Llama,
        vocab_size: 512,
        hidden_size: 128,
        intermediate_size: 384,
        num_hidden_layers: 6,
        num_attention_heads: 8,
        num_key_value_heads: 4,
        head_dim: 16,
        max_position_embeddings: 4_096,
        rms_norm_eps: 1e-5,
        rotary: Rotary {
            theta: 10_000.0,
            scaling: RotaryScaling::None,
        },
        attention_bias: AttentionBias::None,
        query_key_norm: false,
        sliding_window: None,
        tie_word_embeddings: false,
        dtype: Dtype::Bf16,
        bos_token_id: Some(BOS_AND_EOS.0),
        eos_token_ids: vec![BOS_AND_EOS.1],
    }
}
