//! From `config.json` to a [`ModelConfig`], in the spellings of Hugging Face
//! transformers 4 and 5. What is not understood is refused by name: a field
//! that is overlooked gives fluent nonsense.

use std::path::Path;

use serde_json::Value;

use crate::config::{AttentionBias, Dtype, ModelConfig, SlidingWindow};

use super::error::{CheckpointError, ConfigError, ConfigProblem};
use super::family::{
    BiasRule, FAMILIES, FamilyRules, MAX_WINDOW_LAYERS, NEUTRAL, RMS_NORM_EPS, SLIDING_WINDOW,
    WindowRule,
};
use super::fields::{Fields, LAYERS_MAX, SIZE_MAX};
use super::{files, rotary};

/// The longest context that is taken seriously (tokens): positions are 32 bits.
const POSITIONS_MAX: usize = 1 << 31;

/// Reads `config.json` of a folder, and `generation_config.json` if there is one.
///
/// `unstated` is the number format of the weights, for files that do not say.
///
/// # Errors
/// If a file cannot be read, or a field is not understood.
pub fn read(folder: &Path, unstated: Dtype) -> Result<ModelConfig, CheckpointError> {
    let file = folder.join("config.json");
    let config = parse(&file, &files::read(&file)?, unstated)?;
    let file = folder.join("generation_config.json");
    match files::read_if_there(&file)? {
        Some(bytes) => Ok(with_generation_config(config, &file, &bytes)?),
        None => Ok(config),
    }
}

/// Understands the text of a `config.json`; `file` is its name for messages,
/// `unstated` the number format of the weights if it does not say.
///
/// # Errors
/// If it is not JSON, or a field is not understood.
pub fn parse(file: &Path, bytes: &[u8], unstated: Dtype) -> Result<ModelConfig, ConfigError> {
    let value = json(file, bytes)?;
    let fields = Fields::of(file, &value)?;
    let rules = family(&fields)?;
    refuse_what_changes_the_result(&fields)?;
    let num_hidden_layers = fields.required_size("num_hidden_layers", LAYERS_MAX)?;
    let (num_attention_heads, num_key_value_heads) = heads(&fields, rules)?;
    let max_position_embeddings = fields.size("max_position_embeddings", POSITIONS_MAX)?;
    Ok(ModelConfig {
        family: rules.family,
        vocab_size: fields.required_size("vocab_size", SIZE_MAX)?,
        hidden_size: fields.required_size("hidden_size", SIZE_MAX)?,
        intermediate_size: fields.required_size("intermediate_size", SIZE_MAX)?,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads,
        head_dim: head_dim(&fields, rules, num_attention_heads)?,
        max_position_embeddings: max_position_embeddings.unwrap_or(rules.max_position_embeddings),
        rms_norm_eps: fields.positive("rms_norm_eps")?.unwrap_or(RMS_NORM_EPS) as f32,
        rotary: rotary::read(&fields)?,
        attention_bias: attention_bias(&fields, rules)?,
        query_key_norm: rules.query_key_norm,
        sliding_window: sliding_window(&fields, rules, num_hidden_layers)?,
        tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(false),
        dtype: dtype(&fields)?.unwrap_or(unstated),
        bos_token_id: bos(&fields, rules)?,
        eos_token_ids: eos(&fields, rules)?,
    })
}

/// The tokens that end a text are those of `generation_config.json`, where it
/// has any: vLLM asks it first, and `config.json` only in its place
/// (`vllm/transformers_utils/config.py`, `try_get_generation_config`). To them it
/// adds the tokenizer's own (`SamplingParams.update_from_generation_config`).
///
/// # Errors
/// If it is not JSON, or its tokens are none.
pub fn with_generation_config(
    config: ModelConfig,
    file: &Path,
    bytes: &[u8],
) -> Result<ModelConfig, ConfigError> {
    let value = json(file, bytes)?;
    let tokens = Fields::of(file, &value)?.tokens("eos_token_id")?;
    Ok(ModelConfig {
        eos_token_ids: tokens.unwrap_or(config.eos_token_ids),
        ..config
    })
}

fn json(file: &Path, bytes: &[u8]) -> Result<Value, ConfigError> {
    serde_json::from_slice(bytes).map_err(|error| ConfigError {
        file: file.to_owned(),
        problem: ConfigProblem::Json(format!("not valid JSON: {error}")),
    })
}

/// The family by `architectures`, or by `model_type` in its place; they have to agree.
fn family(fields: &Fields<'_>) -> Result<&'static FamilyRules, ConfigError> {
    let model_type = fields.text("model_type")?;
    let by_type = |name: &str| FAMILIES.iter().find(|rules| rules.model_type == name);
    let Some(architectures) = fields.get("architectures") else {
        let name = model_type.ok_or_else(|| fields.missing("architectures", supported(true)))?;
        return by_type(name).ok_or_else(|| fields.wrong("model_type", supported(false)));
    };
    let rules = match architectures.as_array().map(Vec::as_slice) {
        Some([Value::String(name)]) => FAMILIES.iter().find(|rules| rules.architecture == name),
        _ => None,
    };
    let rules = rules.ok_or_else(|| fields.wrong("architectures", supported(true)))?;
    match model_type {
        Some(name) if name != rules.model_type => {
            Err(fields.wrong("model_type", format!("{:?}", rules.model_type)))
        }
        _ => Ok(rules),
    }
}

fn supported(architectures: bool) -> String {
    let name = |rules: &FamilyRules| {
        if architectures {
            format!("[{:?}]", rules.architecture)
        } else {
            format!("{:?}", rules.model_type)
        }
    };
    let names: Vec<_> = FAMILIES.iter().map(name).collect();
    format!("one of {}", names.join(", "))
}

fn refuse_what_changes_the_result(fields: &Fields<'_>) -> Result<(), ConfigError> {
    for (name, neutral) in NEUTRAL {
        let changes = match fields.get(name) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Number(number)) => number.as_f64() != Some(neutral),
            Some(Value::Array(values)) => !values.is_empty(),
            Some(Value::Object(values)) => !values.is_empty(),
            Some(Value::Bool(true) | Value::String(_)) => true,
        };
        if changes {
            return Err(fields.wrong(name, "null, as this is not supported"));
        }
    }
    match fields.text("hidden_act")? {
        None | Some("silu") => Ok(()),
        Some(_) => Err(fields.wrong("hidden_act", "\"silu\"")),
    }
}

/// Query heads, and key and value heads.
fn heads(fields: &Fields<'_>, rules: &FamilyRules) -> Result<(usize, usize), ConfigError> {
    let queries = fields.required_size("num_attention_heads", SIZE_MAX)?;
    let stated = fields.size("num_key_value_heads", SIZE_MAX)?;
    // `null` is as many as query heads in every family; only silence is the family's default.
    let silent = !fields.has("num_key_value_heads");
    let default = rules.num_key_value_heads.filter(|_| silent);
    let keys = stated.or(default).unwrap_or(queries);
    if !queries.is_multiple_of(keys) {
        let expected = format!("a divisor of num_attention_heads, which is {queries}");
        return Err(fields.wrong("num_key_value_heads", expected));
    }
    Ok((queries, keys))
}

fn head_dim(fields: &Fields<'_>, rules: &FamilyRules, heads: usize) -> Result<usize, ConfigError> {
    let stated = fields.size("head_dim", SIZE_MAX)?.or(rules.head_dim);
    let hidden = fields.required_size("hidden_size", SIZE_MAX)?;
    if stated.is_none() && !hidden.is_multiple_of(heads) {
        let expected =
            format!("a multiple of num_attention_heads, which is {heads}, or a head_dim");
        return Err(fields.wrong("hidden_size", expected));
    }
    let head_dim = stated.unwrap_or(hidden / heads);
    if !head_dim.is_multiple_of(2) {
        let expected = format!("an even number, as rotary embedding turns pairs; it is {head_dim}");
        return Err(fields.wrong("head_dim", expected));
    }
    if head_dim.saturating_mul(heads) > SIZE_MAX {
        let expected = format!("at most {SIZE_MAX} with {heads} heads of {head_dim} side by side");
        return Err(fields.wrong("num_attention_heads", expected));
    }
    Ok(head_dim)
}

fn attention_bias(fields: &Fields<'_>, rules: &FamilyRules) -> Result<AttentionBias, ConfigError> {
    let stated = fields.flag("attention_bias")?;
    match (rules.bias, stated) {
        (BiasRule::QueryKeyValue, _) => Ok(AttentionBias::QueryKeyValue),
        (BiasRule::Never, Some(true)) => {
            Err(fields.wrong("attention_bias", "false, as this family has no biases"))
        }
        (BiasRule::AllIfStated, Some(true)) => Ok(AttentionBias::All),
        (BiasRule::Never | BiasRule::AllIfStated, _) => Ok(AttentionBias::None),
    }
}

fn sliding_window(
    fields: &Fields<'_>,
    rules: &FamilyRules,
    layers: usize,
) -> Result<Option<SlidingWindow>, ConfigError> {
    let stated = fields.size("sliding_window", POSITIONS_MAX)?;
    let is_used = match rules.window {
        WindowRule::Never if stated.is_some() => {
            return Err(fields.wrong("sliding_window", "null, as this family has no window"));
        }
        WindowRule::Never => false,
        WindowRule::AllLayers => true,
        WindowRule::UpperLayers => fields.flag("use_sliding_window")?.unwrap_or(false),
    };
    let default = (!fields.has("sliding_window")).then_some(SLIDING_WINDOW);
    let tokens = stated.or(default).filter(|_| is_used);
    let first_layer = first_window_layer(fields, rules, layers, tokens.is_some())?;
    Ok(tokens
        .filter(|_| first_layer < layers)
        .map(|tokens| SlidingWindow {
            tokens,
            first_layer,
        }))
}

/// The first layer with a window, or the number of layers if none has one.
fn first_window_layer(
    fields: &Fields<'_>,
    rules: &FamilyRules,
    layers: usize,
    has_window: bool,
) -> Result<usize, ConfigError> {
    let default = match rules.window {
        _ if !has_window => layers,
        WindowRule::UpperLayers => max_window_layers(fields)?.unwrap_or(MAX_WINDOW_LAYERS),
        WindowRule::Never | WindowRule::AllLayers => 0,
    };
    let Some(types) = fields.get("layer_types") else {
        return Ok(default);
    };
    let types = types.as_array().filter(|types| types.len() == layers);
    let types = types.ok_or_else(|| {
        let expected = format!("a list of {layers}, as num_hidden_layers is");
        fields.wrong("layer_types", expected)
    })?;
    let is_full = |kind: &&Value| kind.as_str() == Some("full_attention");
    let full = types.iter().take_while(is_full).count();
    let rest = &types[full..];
    let is_known = rest
        .iter()
        .all(|kind| kind.as_str() == Some("sliding_attention"));
    let is_free = rules.window == WindowRule::UpperLayers && has_window;
    if is_known && (is_free || full == default.min(layers)) {
        Ok(full)
    } else {
        Err(fields.wrong("layer_types", expected_types(rules, has_window)))
    }
}

fn expected_types(rules: &FamilyRules, has_window: bool) -> &'static str {
    match rules.window {
        WindowRule::AllLayers if has_window => "\"sliding_attention\" in every layer",
        WindowRule::UpperLayers if has_window => {
            "\"full_attention\" in the first layers and \"sliding_attention\" in all after them"
        }
        _ => "\"full_attention\" in every layer, as there is no sliding_window",
    }
}

/// Unlike sizes, this may be 0.
fn max_window_layers(fields: &Fields<'_>) -> Result<Option<usize>, ConfigError> {
    match fields.get("max_window_layers") {
        Some(Value::Number(number)) if number.as_u64() == Some(0) => Ok(Some(0)),
        _ => fields.size("max_window_layers", SIZE_MAX),
    }
}

/// The format of the weights: `dtype`, or `torch_dtype` before transformers 5.
fn dtype(fields: &Fields<'_>) -> Result<Option<Dtype>, ConfigError> {
    let read = |name| match fields.text(name)? {
        None => Ok(None),
        Some("float32") => Ok(Some(Dtype::F32)),
        Some("bfloat16") => Ok(Some(Dtype::Bf16)),
        Some("float16") => Ok(Some(Dtype::F16)),
        Some(_) => Err(fields.wrong(name, "\"float32\", \"bfloat16\" or \"float16\"")),
    };
    match (read("dtype")?, read("torch_dtype")?) {
        (Some(newer), Some(older)) if newer != older => {
            Err(fields.wrong("torch_dtype", "the same as dtype"))
        }
        (newer, older) => Ok(newer.or(older)),
    }
}

fn bos(fields: &Fields<'_>, rules: &FamilyRules) -> Result<Option<u32>, ConfigError> {
    if fields.has("bos_token_id") {
        return fields.token("bos_token_id");
    }
    Ok(rules.bos_and_eos.map(|(bos, _)| bos))
}

fn eos(fields: &Fields<'_>, rules: &FamilyRules) -> Result<Vec<u32>, ConfigError> {
    if fields.has("eos_token_id") {
        return Ok(fields.tokens("eos_token_id")?.unwrap_or_default());
    }
    Ok(rules.bos_and_eos.map(|(_, eos)| eos).into_iter().collect())
}
