use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::config::{AttentionBias, Dtype as ModelDtype, Family, Rotary, RotaryScaling};
use crate::weights::{AdapterLayer, HostValues};

const RANK: usize = 2;

fn model() -> ModelConfig {
    ModelConfig {
        family: Family::Llama,
        vocab_size: 16,
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        max_position_embeddings: 32,
        rms_norm_eps: 1e-5,
        rotary: Rotary {
            theta: 10_000.0,
            scaling: RotaryScaling::None,
        },
        attention_bias: AttentionBias::None,
        query_key_norm: false,
        sliding_window: None,
        tie_word_embeddings: false,
        dtype: ModelDtype::F32,
        bos_token_id: None,
        eos_token_ids: vec![],
    }
}

/// A tensor of a file: its format, shape and bytes.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// An adapter folder that is right until a test changes it.
struct Folder {
    config: Value,
    tensors: BTreeMap<String, Tensor>,
}

fn name(layer: usize, module: &str, side: &str) -> String {
    format!("base_model.model.model.layers.{layer}.{module}.lora_{side}.weight")
}

fn f32s(rows: usize, columns: usize) -> Tensor {
    let values = (0..rows * columns).map(|place| (place as f32 - 3.0) * 0.25);
    let bytes = values.flat_map(f32::to_le_bytes).collect();
    (Dtype::F32, vec![rows, columns], bytes)
}

impl Folder {
    /// Queries and the MLP's output, in both layers.
    fn new() -> Self {
        let mut tensors = BTreeMap::new();
        for layer in 0..2 {
            for (module, out, input) in [("self_attn.q_proj", 8, 8), ("mlp.down_proj", 8, 12)] {
                tensors.insert(name(layer, module, "A"), f32s(RANK, input));
                tensors.insert(name(layer, module, "B"), f32s(out, RANK));
            }
        }
        let config = json!({
            "peft_type": "LORA",
            "base_model_name_or_path": "acme/base-8b",
            "r": RANK,
            "lora_alpha": 3,
            "target_modules": ["q_proj", "mlp.down_proj"],
        });
        Self { config, tensors }
    }

    fn with(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let view = |(dtype, shape, bytes)| TensorView::new(dtype, shape, bytes).unwrap();
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| (name, view((*dtype, shape.clone(), bytes))));
        safetensors::serialize(views, None).unwrap()
    }

    fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG_FILE), self.config.to_string()).unwrap();
        fs::write(folder.path().join(WEIGHTS_FILE), self.bytes()).unwrap();
        folder
    }

    fn load(&self) -> Result<Adapter, String> {
        load_in(self.write().path())
    }

    fn error(&self) -> String {
        self.load().unwrap_err()
    }
}

/// Loads a folder; errors have its files' names without its own.
fn load_in(folder: &Path) -> Result<Adapter, String> {
    let config = model();
    let base = Base {
        name: "models/other-1b",
        config: &config,
        rank_max: 4,
    };
    let without = format!("{}/", folder.display());
    load("poet", folder, &base).map_err(|error| error.to_string().replace(&without, ""))
}

#[test]
fn an_adapter_is_its_matrices_and_its_scale() {
    let adapter = Folder::new().load().unwrap();
    assert_eq!(adapter.name, "poet");
    assert_eq!((adapter.rank, adapter.scale), (2, 1.5));
    assert_eq!(adapter.layers.len(), 2);
    for layer in &adapter.layers {
        let query = layer.query.as_ref().unwrap();
        assert_eq!((query.down.rows, query.down.columns), (2, 8));
        assert_eq!((query.up.rows, query.up.columns), (8, 2));
        assert_eq!(query.down.at(1, 2), (10.0 - 3.0) * 0.25);
        assert!(layer.down.is_some());
        assert!(layer.key.is_none() && layer.gate.is_none());
    }
    let stabilised = Folder::new().with("use_rslora", json!(true));
    assert_eq!(
        stabilised.load().unwrap().scale,
        (3.0 / 2_f64.sqrt()) as f32
    );
}

#[test]
fn half_precision_is_read_exactly() {
    let mut folder = Folder::new();
    let values = [0.5_f32, -1.25, 3.0, 65_504.0, 6e-8, -0.0, 1.0, 2.0];
    for (half, dtype) in [(true, Dtype::F16), (false, Dtype::BF16)] {
        let bytes = values.iter().cycle().take(16).flat_map(|value| {
            if half {
                half::f16::from_f32(*value).to_le_bytes()
            } else {
                half::bf16::from_f32(*value).to_le_bytes()
            }
        });
        let tensor = (dtype, vec![2, 8], bytes.collect());
        folder
            .tensors
            .insert(name(0, "self_attn.q_proj", "A"), tensor);
        let adapter = folder.load().unwrap();
        let matrix = &adapter.layers[0].query.as_ref().unwrap().down;
        let is_bf16 = matches!(matrix.values, HostValues::Bf16(_));
        assert_eq!(is_bf16, !half);
        for (place, value) in values.iter().enumerate() {
            let rounded = if half {
                half::f16::from_f32(*value).to_f32()
            } else {
                half::bf16::from_f32(*value).to_f32()
            };
            assert_eq!(matrix.at(0, place).to_bits(), rounded.to_bits());
        }
    }
}

#[test]
fn what_changes_the_result_and_is_not_understood_is_refused_by_name() {
    let cases = [
        ("peft_type", json!("IA3")),
        ("peft_type", json!(null)),
        ("r", json!(0)),
        ("r", json!("8")),
        ("r", json!(5)),
        ("lora_alpha", json!("16")),
        ("lora_alpha", json!(1e300)),
        ("use_rslora", json!("yes")),
        ("use_dora", json!(true)),
        ("lora_bias", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["score"])),
        ("fan_in_fan_out", json!(true)),
        ("init_lora_weights", json!("pissa_niter_16")),
        ("rank_pattern", json!({"q_proj": 1})),
        ("alpha_pattern", json!({"q_proj": 1})),
        ("layer_replication", json!([[0, 2], [1, 2]])),
        ("alora_invocation_tokens", json!([1, 2])),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["mlp.experts.gate_up_proj"])),
        ("target_modules", json!(null)),
        ("target_modules", json!([1])),
        ("target_modules", json!(["q_proj", "lm_head"])),
        ("target_modules", json!(["model.embed_tokens"])),
        ("layers_to_transform", json!("all")),
        ("something_of_tomorrow", json!(0.5)),
    ];
    let errors = cases.map(|(field, value)| Folder::new().with(field, value).error());
    insta::assert_snapshot!(errors.join("\n"), @r#"
    adapter_config.json: peft_type is "IA3"; only "LORA" is understood
    adapter_config.json: peft_type is null; only "LORA" is understood
    adapter_config.json: r is 0; it must be a whole number of at least 1
    adapter_config.json: r is "8"; it must be a whole number of at least 1
    adapter_config.json: r is 5; adapters up to rank 4 are taken, which --max-lora-rank sets
    adapter_config.json: lora_alpha is "16"; it must be a number
    adapter_config.json: lora_alpha is 1e+300; it must be a number
    adapter_config.json: use_rslora is "yes"; it must be true or false
    adapter_config.json: use_dora is true; it is not understood what that changes; only null, false or nothing is taken
    adapter_config.json: lora_bias is true; it is not understood what that changes; only null, false or nothing is taken
    adapter_config.json: bias is "all"; only "none" is understood
    adapter_config.json: modules_to_save is ["score"]; it is not understood what that changes; only null, false or nothing is taken
    adapter_config.json: fan_in_fan_out is true; only false is understood
    adapter_config.json: init_lora_weights is "pissa_niter_16"; that begins with changed weights of the base, which this file does not have; convert the adapter to a plain LoRA
    adapter_config.json: rank_pattern is {"q_proj":1}; it is not understood what that changes; only null, false or nothing is taken
    adapter_config.json: alpha_pattern is {"q_proj":1}; it is not understood what that changes; only null, false or nothing is taken
    adapter_config.json: layer_replication is [[0,2],[1,2]]; it is not understood what that changes; only null, false or nothing is taken
    adapter_config.json: alora_invocation_tokens is [1,2]; it is not understood what that changes; only null, false or nothing is taken
    adapter_config.json: trainable_token_indices is [1]; it is not understood what that changes; only null, false or nothing is taken
    adapter_config.json: target_parameters is ["mlp.experts.gate_up_proj"]; it is not understood what that changes; only null, false or nothing is taken
    adapter_config.json: target_modules is null; it must be a list of names of modules, a regular expression, or "all-linear"
    adapter_config.json: target_modules is [1]; each must be the name of a module
    adapter_config.json: target_modules is "lm_head" among others; adapters to the embedding and to the output projection are not understood
    adapter_config.json: target_modules is "model.embed_tokens" among others; adapters to the embedding and to the output projection are not understood
    adapter_config.json: layers_to_transform is "all"; it must be numbers of layers
    adapter_config.json: something_of_tomorrow is 0.5; it is not understood what that changes; only null, false or nothing is taken
    "#);
}

#[test]
fn what_changes_nothing_is_passed_over() {
    let cases = [
        ("lora_dropout", json!(0.1)),
        ("init_lora_weights", json!("gaussian")),
        ("init_lora_weights", json!(true)),
        ("modules_to_save", json!([])),
        ("rank_pattern", json!({})),
        ("use_dora", json!(false)),
        ("base_model_name_or_path", json!(null)),
        ("task_type", json!("CAUSAL_LM")),
        ("something_of_tomorrow", json!(null)),
    ];
    let plain = Folder::new().load().unwrap();
    for (field, value) in cases {
        assert_eq!(
            Folder::new().with(field, value).load().as_ref(),
            Ok(&plain),
            "{field}"
        );
    }
}

#[test]
fn targets_may_be_names_a_pattern_or_all() {
    let plain = Folder::new().load().unwrap();
    let names = [
        json!(["q_proj", "down_proj", "c_attn"]),
        json!([
            "self_attn.q_proj",
            "model.layers.0.mlp.down_proj",
            "model.layers.1.mlp.down_proj"
        ]),
        json!(r".*\.(q_proj|down_proj)"),
    ];
    for targets in names {
        let folder = Folder::new().with("target_modules", targets);
        assert_eq!(folder.load().as_ref(), Ok(&plain));
    }
    // Not all of them are there.
    let all = Folder::new().with("target_modules", json!("all-linear"));
    insta::assert_snapshot!(all.error(), @"
    adapter_model.safetensors: tensor base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight: it is missing, and the configuration's target_modules have its module
    ");
    let mut first = Folder::new().with("layers_to_transform", json!([0]));
    first.tensors.retain(|name, _| name.contains("layers.0."));
    let adapter = first.load().unwrap();
    assert_eq!(adapter.layers[0], plain.layers[0]);
    assert_eq!(adapter.layers[1], AdapterLayer::default());
}

#[test]
fn tensors_that_do_not_belong_together_are_refused_by_name() {
    let changed = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut folder = Folder::new();
        change(&mut folder.tensors);
        folder.error()
    };
    let (a, b) = (
        name(1, "self_attn.q_proj", "A"),
        name(1, "self_attn.q_proj", "B"),
    );
    let errors = [
        changed(&|tensors| _ = tensors.remove(&a)),
        changed(&|tensors| _ = tensors.remove(&b)),
        changed(&|tensors| tensors.retain(|name, _| !name.contains("q_proj"))),
        changed(&|tensors| tensors.clear()),
        changed(&|tensors| {
            for side in ["A", "B"] {
                let tensor = f32s(RANK, if side == "A" { 8 } else { 4 });
                tensors.insert(name(0, "self_attn.k_proj", side), tensor);
            }
        }),
        changed(&|tensors| {
            _ = tensors.insert("base_model.model.lm_head.lora_A.weight".into(), f32s(2, 8))
        }),
        changed(&|tensors| _ = tensors.insert(name(0, "mlp.router", "A"), f32s(2, 8))),
        changed(&|tensors| _ = tensors.insert(name(0, "self_attn.q_proj", "C"), f32s(2, 8))),
        changed(&|tensors| {
            let padded = a.replace("layers.1", "layers.01");
            let tensor = tensors.remove(&a).unwrap();
            tensors.insert(padded, tensor);
        }),
        changed(&|tensors| {
            let bytes = f32::INFINITY.to_le_bytes().repeat(16);
            tensors.insert(a.clone(), (Dtype::F32, vec![2, 8], bytes));
        }),
        changed(&|tensors| _ = tensors.insert(a.clone(), (Dtype::F64, vec![2, 8], vec![0; 128]))),
    ];
    insta::assert_snapshot!(errors.join("\n"), @"
    adapter_model.safetensors: tensor base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight: it is missing, and its other half is there
    adapter_model.safetensors: tensor base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight: it is missing, and its other half is there
    adapter_model.safetensors: tensor base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight: it is missing, and the configuration's target_modules have its module
    adapter_model.safetensors: tensor base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight: it is missing, and the configuration's target_modules have its module
    adapter_model.safetensors: tensor base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight: it is there, and the configuration's target_modules and layers_to_transform leave its module out
    adapter_model.safetensors: tensor base_model.model.lm_head.lora_A.weight: adapters to lm_head are not understood
    adapter_model.safetensors: tensor base_model.model.model.layers.0.mlp.router.lora_A.weight: it is not understood; there are lora_A and lora_B of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj
    adapter_model.safetensors: tensor base_model.model.model.layers.0.self_attn.q_proj.lora_C.weight: it is not understood; there are lora_A and lora_B of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj
    adapter_model.safetensors: tensor base_model.model.model.layers.01.self_attn.q_proj.lora_A.weight: it is not understood; there are lora_A and lora_B of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj
    adapter_model.safetensors: tensor base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight: it has values that are not finite
    adapter_model.safetensors: tensor base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight: its numbers are F64; F32, BF16 and F16 are understood
    ");
}

#[test]
fn an_adapter_of_another_model_is_refused_naming_both() {
    let mut wide = Folder::new();
    let tensor = wide
        .tensors
        .get_mut(&name(1, "self_attn.q_proj", "A"))
        .unwrap();
    *tensor = f32s(2, 16);
    let mut deep = Folder::new().with("base_model_name_or_path", json!(null));
    for side in ["A", "B"] {
        deep.tensors
            .insert(name(2, "self_attn.q_proj", side), f32s(2, 8));
    }
    // The rank of the file is not that of the configuration.
    let ranked = Folder::new().with("r", json!(4));
    let errors = [wide.error(), deep.error(), ranked.error()];
    insta::assert_snapshot!(errors.join("\n"), @"
    adapter_model.safetensors: the adapter was made for acme/base-8b and does not fit models/other-1b: tensor base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight has the shape [2, 16] instead of [2, 8]
    adapter_model.safetensors: the adapter was made for a model that its configuration does not name and does not fit models/other-1b: tensor base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight is of layer 2, and there are 2 layers
    adapter_model.safetensors: the adapter was made for acme/base-8b and does not fit models/other-1b: tensor base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight has the shape [2, 8] instead of [4, 8]
    ");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let whole = Folder::new();
    let missing = tempfile::tempdir().unwrap();
    let no_weights = whole.write();
    fs::remove_file(no_weights.path().join(WEIGHTS_FILE)).unwrap();
    let pickled = whole.write();
    fs::rename(
        pickled.path().join(WEIGHTS_FILE),
        pickled.path().join(PICKLE_FILE),
    )
    .unwrap();
    let truncated = whole.write();
    let bytes = whole.bytes();
    fs::write(
        truncated.path().join(WEIGHTS_FILE),
        &bytes[..bytes.len() - 1],
    )
    .unwrap();
    let text = whole.write();
    fs::write(text.path().join(CONFIG_FILE), "{\"r\": 8,").unwrap();
    let list = whole.write();
    fs::write(list.path().join(CONFIG_FILE), "[]").unwrap();
    let errors = [&missing, &no_weights, &pickled, &truncated, &text, &list]
        .map(|folder| load_in(folder.path()).unwrap_err());
    insta::assert_snapshot!(errors.join("\n"), @"
    adapter_config.json: No such file or directory (os error 2)
    adapter_model.safetensors: No such file or directory (os error 2)
    adapter_model.bin: pickled weights are not read, as reading them can run code; save the adapter again with safe_serialization=True
    adapter_model.safetensors: it is not a whole safetensors file: incomplete metadata, file not fully covered
    adapter_config.json: EOF while parsing a value at line 1 column 8
    adapter_config.json: it is not a JSON object
    ");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Bytes of the header or the length, changed at random: an error, or an adapter, and nothing else.
    #[test]
    fn damaged_files_never_panic(
        changes in prop::collection::vec((0_usize..900, any::<u8>()), 1..6),
        cut in prop::option::of(0_usize..1200),
    ) {
        let whole = Folder::new();
        let mut bytes = whole.bytes();
        for (place, byte) in changes {
            let len = bytes.len();
            bytes[place % len] = byte;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        let folder = whole.write();
        fs::write(folder.path().join(WEIGHTS_FILE), bytes).unwrap();
        if let Err(error) = load_in(folder.path()) {
            prop_assert!(error.contains(WEIGHTS_FILE), "{error}");
        }
    }

    #[test]
    fn damaged_configurations_never_panic(
        changes in prop::collection::vec((0_usize..200, any::<u8>()), 1..4),
    ) {
        let whole = Folder::new();
        let mut text = whole.config.to_string().into_bytes();
        for (place, byte) in changes {
            let len = text.len();
            text[place % len] = byte;
        }
        let folder = whole.write();
        fs::write(folder.path().join(CONFIG_FILE), text).unwrap();
        if let Err(error) = load_in(folder.path()) {
            prop_assert!(error.contains("adapter_"), "{error}");
        }
    }
}
