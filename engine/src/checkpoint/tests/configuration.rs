//! `config.json`: spellings, defaults of families, and refusals.

use std::path::Path;

use serde_json::{Value, json};

use crate::checkpoint::config_json;
use crate::checkpoint::test_support::{parse, tiny_config};
use crate::config::{
    AttentionBias, Dtype, Family, ModelConfig, Rotary, RotaryScaling, SlidingWindow,
};

const LLAMA3: RotaryScaling = RotaryScaling::Llama3 {
    factor: 8.0,
    low_freq_factor: 1.0,
    high_freq_factor: 4.0,
    original_max_position_embeddings: 8192.0,
};

/// A tiny configuration with some fields changed; `null` with a leading `-` takes a field out.
fn changed(model_type: &str, changes: Value) -> Value {
    let mut config = tiny_config(model_type);
    for (name, value) in changes.as_object().unwrap() {
        match name.strip_prefix('-') {
            Some(name) => drop(config.as_object_mut().unwrap().remove(name)),
            None => config[name] = value.clone(),
        }
    }
    config
}

fn read(model_type: &str, changes: Value) -> ModelConfig {
    parse(&changed(model_type, changes))
}

fn refusal_of(bytes: &[u8]) -> String {
    let parsed = config_json::parse(Path::new("m/config.json"), bytes, Dtype::F32);
    parsed.unwrap_err().to_string()
}

/// What is said about each of some changes, a line each.
fn refusals(model_type: &str, changes: &[Value]) -> String {
    let refusal = |change: &Value| {
        let config = changed(model_type, change.clone()).to_string();
        refusal_of(config.as_bytes())
    };
    changes.iter().map(refusal).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_llama_of_2024_and_one_of_2026_mean_the_same() {
    let older = br#"{
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 128256 }"#;
    let newer = br#"{
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "dtype": "bfloat16", "eos_token_id": [128001, 128008, 128009],
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "pad_token_id": null, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_parameters": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_theta": 500000.0, "rope_type": "llama3"},
        "tie_word_embeddings": false, "transformers_version": "5.23.0", "use_cache": true,
        "vocab_size": 128256 }"#;
    let parse = |bytes| config_json::parse(Path::new("config.json"), bytes, Dtype::F32).unwrap();
    let expected = ModelConfig {
        family: Family::Llama,
        vocab_size: 128_256,
        hidden_size: 4096,
        intermediate_size: 14_336,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_dim: 128,
        max_position_embeddings: 131_072,
        rms_norm_eps: 1e-5,
        rotary: Rotary {
            theta: 500_000.0,
            scaling: LLAMA3,
        },
        attention_bias: AttentionBias::None,
        query_key_norm: false,
        sliding_window: None,
        tie_word_embeddings: false,
        dtype: Dtype::Bf16,
        bos_token_id: Some(128_000),
        eos_token_ids: vec![128_001, 128_008, 128_009],
    };
    assert_eq!(parse(older), expected);
    assert_eq!(parse(newer), expected);
}

#[test]
fn families_differ_in_what_their_classes_say() {
    let llama = read("llama", json!({}));
    assert_eq!(llama.attention_bias, AttentionBias::None);
    assert_eq!(llama.head_dim, 6);
    let biased = read("llama", json!({ "attention_bias": true }));
    assert_eq!(biased.attention_bias, AttentionBias::All);
    let qwen2 = read("qwen2", json!({}));
    assert_eq!(qwen2.attention_bias, AttentionBias::QueryKeyValue);
    assert!(!qwen2.query_key_norm);
    let qwen3 = read("qwen3", json!({}));
    assert!(qwen3.query_key_norm);
    assert_eq!(qwen3.head_dim, 8);
    assert_eq!(read("qwen3", json!({ "-head_dim": null })).head_dim, 128);
}

#[test]
fn what_a_file_leaves_out_is_the_default_of_its_class() {
    let silent = json!({
        "-num_key_value_heads": null, "-max_position_embeddings": null, "-rms_norm_eps": null,
        "-rope_parameters": null, "-tie_word_embeddings": null, "-dtype": null,
        "-bos_token_id": null, "-eos_token_id": null, "-hidden_act": null, "num_attention_heads": 8, "head_dim": 6
    });
    let llama = read("llama", silent.clone());
    assert_eq!(llama.num_key_value_heads, 8);
    assert_eq!(llama.max_position_embeddings, 2048);
    assert_eq!(llama.rms_norm_eps, 1e-6);
    assert_eq!(llama.rotary.theta, 10_000.0);
    assert!(!llama.tie_word_embeddings);
    assert_eq!(llama.dtype, Dtype::F32);
    assert_eq!(
        (llama.bos_token_id, llama.eos_token_ids),
        (Some(1), vec![2])
    );
    let mistral = read("mistral", silent);
    assert_eq!(mistral.max_position_embeddings, 131_072);
    assert_eq!(
        read("mistral", json!({ "num_key_value_heads": null })).num_key_value_heads,
        4
    );
}

#[test]
fn windows() {
    let window = |tokens, first_layer| {
        Some(SlidingWindow {
            tokens,
            first_layer,
        })
    };
    let of = |model_type, changes| read(model_type, changes).sliding_window;
    assert_eq!(of("mistral", json!({})), window(5, 0));
    assert_eq!(of("mistral", json!({ "sliding_window": null })), None);
    assert_eq!(
        of("mistral", json!({ "-sliding_window": null })),
        window(4096, 0)
    );
    assert_eq!(of("qwen2", json!({})), window(5, 1));
    assert_eq!(of("qwen2", json!({ "max_window_layers": 0 })), window(5, 0));
    assert_eq!(of("qwen2", json!({ "max_window_layers": 2 })), None);
    assert_eq!(of("qwen2", json!({ "use_sliding_window": false })), None);
    assert_eq!(of("qwen3", json!({ "sliding_window": 4096 })), None);
    let (full, sliding) = ("full_attention", "sliding_attention");
    let upper = json!({ "layer_types": [full, sliding] });
    assert_eq!(of("qwen2", upper), window(5, 1));
    let all = json!({ "layer_types": [sliding, sliding] });
    assert_eq!(of("qwen2", all.clone()), window(5, 0));
    assert_eq!(of("mistral", all), window(5, 0));
    assert_eq!(of("qwen3", json!({ "layer_types": [full, full] })), None);
}

#[test]
fn windows_that_are_not_understood() {
    let (full, sliding) = ("full_attention", "sliding_attention");
    insta::assert_snapshot!(refusals("qwen2", &[
        json!({ "layer_types": [sliding, full] }),
        json!({ "layer_types": [full] }),
        json!({ "layer_types": [full, "chunked_attention"] }),
        json!({ "layer_types": [full, sliding], "use_sliding_window": false }),
    ]), @r#"
    m/config.json: layer_types is ["sliding_attention","full_attention"]; expected "full_attention" in the first layers and "sliding_attention" in all after them
    m/config.json: layer_types is ["full_attention"]; expected a list of 2, as num_hidden_layers is
    m/config.json: layer_types is ["full_attention","chunked_attention"]; expected "full_attention" in the first layers and "sliding_attention" in all after them
    m/config.json: layer_types is ["full_attention","sliding_attention"]; expected "full_attention" in every layer, as there is no sliding_window
    "#);
    insta::assert_snapshot!(refusals("llama", &[json!({ "sliding_window": 5 })]), @"m/config.json: sliding_window is 5; expected null, as this family has no window");
    insta::assert_snapshot!(refusals("mistral", &[json!({ "layer_types": [full, sliding] })]), @r#"m/config.json: layer_types is ["full_attention","sliding_attention"]; expected "sliding_attention" in every layer"#);
}

#[test]
fn rotary_spellings() {
    let of = |changes| read("llama", changes).rotary;
    let rotary = |theta, scaling| Rotary { theta, scaling };
    let linear = RotaryScaling::Linear { factor: 4.0 };
    let older = json!({
        "-rope_parameters": null, "rope_theta": 5e5, "rope_scaling": { "type": "linear", "factor": 4.0 }
    });
    assert_eq!(of(older), rotary(5e5, linear));
    let none = json!({ "-rope_parameters": null, "rope_theta": 5e5, "rope_scaling": null });
    assert_eq!(of(none), rotary(5e5, RotaryScaling::None));
    let newer =
        json!({ "rope_parameters": { "rope_type": "linear", "rope_theta": 7.5, "factor": 4 } });
    assert_eq!(of(newer), rotary(7.5, linear));
    let bare = json!({ "rope_parameters": { "rope_theta": 7.5 } });
    assert_eq!(of(bare), rotary(7.5, RotaryScaling::None));
    let both = json!({
        "rope_theta": 5.0, "rope_scaling": { "type": "linear", "rope_type": "linear", "factor": 4.0 },
        "rope_parameters": { "rope_type": "linear", "rope_theta": 5.0, "factor": 4.0, "partial_rotary_factor": 1.0 }
    });
    assert_eq!(of(both), rotary(5.0, linear));
}

#[test]
fn rotary_embeddings_that_are_not_understood() {
    let scaled = |scaling: Value| json!({ "rope_parameters": scaling });
    insta::assert_snapshot!(refusals("llama", &[
        scaled(json!({ "rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4 })),
        json!({ "-rope_parameters": null, "rope_scaling": { "type": "dynamic", "factor": 2.0 } }),
        scaled(json!({ "factor": 2.0 })),
        scaled(json!({ "rope_type": "linear" })),
        scaled(json!({ "rope_type": "linear", "factor": -1.0 })),
        scaled(json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4 })),
        scaled(json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
            "original_max_position_embeddings": 64 })),
        scaled(json!({ "rope_type": "default", "mrope_section": [16, 24, 24] })),
        scaled(json!({ "rope_type": "default", "partial_rotary_factor": 0.5 })),
        scaled(json!({ "full_attention": { "rope_type": "default" } })),
        scaled(json!("default")),
        json!({ "rope_theta": 5.0 }),
        json!({ "rope_scaling": { "rope_type": "linear", "factor": 2.0 } }),
    ]), @r#"
    m/config.json: rope_parameters.rope_type is "yarn"; expected "default", "linear" or "llama3"
    m/config.json: rope_scaling.type is "dynamic"; expected "default", "linear" or "llama3"
    m/config.json: rope_parameters.rope_type is missing; expected "default", "linear" or "llama3"
    m/config.json: rope_parameters.factor is missing; expected a number above 0
    m/config.json: rope_parameters.factor is -1.0; expected a number above 0
    m/config.json: rope_parameters.original_max_position_embeddings is missing; expected a number above 0
    m/config.json: rope_parameters.high_freq_factor is 4; expected more than low_freq_factor, which is 4
    m/config.json: rope_parameters.mrope_section is [16,24,24]; expected nothing, as "default" embeddings have no such field
    m/config.json: rope_parameters.partial_rotary_factor is 0.5; expected nothing, as "default" embeddings have no such field
    m/config.json: rope_parameters.rope_type is missing; expected "default", "linear" or "llama3"
    m/config.json: rope_parameters is "default"; expected an object
    m/config.json: rope_theta is 5.0; expected 10000, as in rope_parameters
    m/config.json: rope_scaling is {"rope_type":"linear","factor":2.0}; expected the same as in rope_parameters
    "#);
}

#[test]
fn the_tokens_that_end_a_text() {
    let config = read("llama", json!({ "eos_token_id": [2, 3] }));
    assert_eq!(config.eos_token_ids, [2, 3]);
    let with = |bytes: &[u8]| {
        let file = Path::new("m/generation_config.json");
        config_json::with_generation_config(config.clone(), file, bytes)
    };
    assert_eq!(with(br#"{"eos_token_id": 7}"#).unwrap().eos_token_ids, [7]);
    assert_eq!(
        with(br#"{"eos_token_id": [7, 8]}"#).unwrap().eos_token_ids,
        [7, 8]
    );
    assert_eq!(with(b"{}").unwrap().eos_token_ids, [2, 3]);
    assert_eq!(
        read("qwen2", json!({ "eos_token_id": null })).eos_token_ids,
        [0; 0]
    );
    insta::assert_snapshot!(with(br#"{"eos_token_id": "</s>"}"#).unwrap_err(), @r#"m/generation_config.json: eos_token_id is "</s>"; expected a token id, or a list of them"#);
}

#[test]
fn other_architectures() {
    insta::assert_snapshot!(refusals("llama", &[
        json!({ "architectures": ["MixtralForCausalLM"], "model_type": "mixtral" }),
        json!({ "architectures": ["LlamaForCausalLM", "MistralForCausalLM"] }),
        json!({ "architectures": "LlamaForCausalLM" }),
        json!({ "model_type": "qwen2" }),
        json!({ "-architectures": null, "model_type": "gemma3" }),
        json!({ "-architectures": null, "-model_type": null }),
    ]), @r#"
    m/config.json: architectures is ["MixtralForCausalLM"]; expected one of ["LlamaForCausalLM"], ["MistralForCausalLM"], ["Qwen2ForCausalLM"], ["Qwen3ForCausalLM"]
    m/config.json: architectures is ["LlamaForCausalLM","MistralForCausalLM"]; expected one of ["LlamaForCausalLM"], ["MistralForCausalLM"], ["Qwen2ForCausalLM"], ["Qwen3ForCausalLM"]
    m/config.json: architectures is "LlamaForCausalLM"; expected one of ["LlamaForCausalLM"], ["MistralForCausalLM"], ["Qwen2ForCausalLM"], ["Qwen3ForCausalLM"]
    m/config.json: model_type is "qwen2"; expected "llama"
    m/config.json: model_type is "gemma3"; expected one of "llama", "mistral", "qwen2", "qwen3"
    m/config.json: architectures is missing; expected one of ["LlamaForCausalLM"], ["MistralForCausalLM"], ["Qwen2ForCausalLM"], ["Qwen3ForCausalLM"]
    "#);
    let by_type = read(
        "llama",
        json!({ "-architectures": null, "model_type": "qwen2" }),
    );
    assert_eq!(by_type.family, Family::Qwen2);
}

#[test]
fn fields_that_change_the_result() {
    insta::assert_snapshot!(refusals("llama", &[
        json!({ "quantization_config": { "quant_method": "fp8", "activation_scheme": "dynamic" } }),
        json!({ "hidden_act": "gelu" }),
        json!({ "mlp_bias": true }),
        json!({ "num_local_experts": 8 }),
        json!({ "embedding_multiplier": 12.0 }),
        json!({ "partial_rotary_factor": 0.25 }),
        json!({ "dtype": "float8_e4m3fn" }),
        json!({ "torch_dtype": "float16" }),
    ]), @r#"
    m/config.json: quantization_config is {"quant_method":"fp8","activation_scheme":"dynamic"}; expected null, as this is not supported
    m/config.json: hidden_act is "gelu"; expected "silu"
    m/config.json: mlp_bias is true; expected null, as this is not supported
    m/config.json: num_local_experts is 8; expected null, as this is not supported
    m/config.json: embedding_multiplier is 12.0; expected null, as this is not supported
    m/config.json: partial_rotary_factor is 0.25; expected null, as this is not supported
    m/config.json: dtype is "float8_e4m3fn"; expected "float32", "bfloat16" or "float16"
    m/config.json: torch_dtype is "float16"; expected the same as dtype
    "#);
    insta::assert_snapshot!(refusals("mistral", &[json!({ "attention_bias": true })]), @"m/config.json: attention_bias is true; expected false, as this family has no biases");
    // Its class has the biases whatever this field says, which it does not know.
    let unknown = read("qwen2", json!({ "attention_bias": false }));
    assert_eq!(unknown.attention_bias, AttentionBias::QueryKeyValue);
    let neutral = json!({
        "quantization_config": null, "num_experts": 0, "no_rope_layers": [], "logits_scaling": 1,
        "is_encoder_decoder": false, "partial_rotary_factor": 1.0
    });
    assert_eq!(read("llama", neutral), read("llama", json!({})));
}

#[test]
fn sizes_that_make_no_model() {
    insta::assert_snapshot!(refusals("llama", &[
        json!({ "-vocab_size": null }),
        json!({ "hidden_size": "24" }),
        json!({ "hidden_size": 24.5 }),
        json!({ "num_hidden_layers": 0 }),
        json!({ "num_hidden_layers": 1_000_000 }),
        json!({ "intermediate_size": -20 }),
        json!({ "vocab_size": 9_007_199_254_740_993_u64 }),
        json!({ "num_key_value_heads": 3 }),
        json!({ "num_attention_heads": 5 }),
        json!({ "head_dim": 7 }),
        json!({ "head_dim": 16_777_216 }),
        json!({ "rms_norm_eps": 0.0 }),
        json!({ "max_position_embeddings": 4_294_967_296_u64 }),
        json!({ "tie_word_embeddings": "yes" }),
        json!({ "bos_token_id": -1 }),
    ]), @r#"
    m/config.json: vocab_size is missing; expected a whole number from 1 to 16777216
    m/config.json: hidden_size is "24"; expected a whole number from 1 to 16777216
    m/config.json: hidden_size is 24.5; expected a whole number from 1 to 16777216
    m/config.json: num_hidden_layers is 0; expected a whole number from 1 to 4096
    m/config.json: num_hidden_layers is 1000000; expected a whole number from 1 to 4096
    m/config.json: intermediate_size is -20; expected a whole number from 1 to 16777216
    m/config.json: vocab_size is 9007199254740993; expected a whole number from 1 to 16777216
    m/config.json: num_key_value_heads is 3; expected a divisor of num_attention_heads, which is 4
    m/config.json: num_key_value_heads is 2; expected a divisor of num_attention_heads, which is 5
    m/config.json: head_dim is 7; expected an even number, as rotary embedding turns pairs; it is 7
    m/config.json: num_attention_heads is 4; expected at most 16777216 with 4 heads of 16777216 side by side
    m/config.json: rms_norm_eps is 0.0; expected a number above 0
    m/config.json: max_position_embeddings is 4294967296; expected a whole number from 1 to 2147483648
    m/config.json: tie_word_embeddings is "yes"; expected true or false
    m/config.json: bos_token_id is -1; expected a token id
    "#);
}

#[test]
fn text_that_is_not_a_configuration() {
    insta::assert_snapshot!(refusal_of(b"{\"vocab_size\": 1"), @"m/config.json: not valid JSON: EOF while parsing an object at line 1 column 16");
    insta::assert_snapshot!(refusal_of(b"[]"), @"m/config.json: not a JSON object");
    insta::assert_snapshot!(refusal_of(b"\xff"), @"m/config.json: not valid JSON: expected value at line 1 column 1");
    let nested = "[".repeat(100_000);
    insta::assert_snapshot!(refusal_of(nested.as_bytes()), @"m/config.json: not valid JSON: recursion limit exceeded at line 1 column 128");
}
