//! Tiny checkpoints for tests, written as Hugging Face transformers writes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype as StoredDtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::config::{Dtype, ModelConfig, Partition};
use crate::weights::HostValues;

use super::{DummyWeights, TensorSource, config_json, layout};

/// A checkpoint in memory, which a test may spoil before it is written.
#[derive(Clone, Debug)]
pub struct TinyCheckpoint {
    /// The content of `config.json`.
    pub config: Value,
    /// The tensors by name.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// How many files the tensors are in; from two on there is an index.
    pub shards: usize,
}

/// A tensor as a file has it.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Its number format.
    pub dtype: StoredDtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, little-endian.
    pub bytes: Vec<u8>,
}

impl TinyCheckpoint {
    /// What this configuration needs, with dummy values of this seed, in the format that it says.
    ///
    /// # Panics
    /// If the configuration is refused.
    #[must_use]
    pub fn new(config: Value, seed: u64) -> Self {
        let parsed = parse(&config);
        let dummy = DummyWeights {
            seed,
            dtype: parsed.dtype,
        };
        let whole = layout::pieces(&parsed, Partition::WHOLE);
        let tensors = whole.map(|piece| {
            let mut values = HostValues::F32(Vec::new());
            let read = dummy.read(&piece, &mut values);
            read.expect("a formula can be evaluated");
            let stored = StoredTensor::new(parsed.dtype, piece.tensor.shape(), &values);
            (piece.tensor.name, stored)
        });
        Self {
            tensors: tensors.collect(),
            config,
            shards: 1,
        }
    }

    /// Writes `config.json` and the files of weights.
    ///
    /// # Panics
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) {
        let written = fs::write(folder.join("config.json"), self.config.to_string());
        written.expect("the folder can be written to");
        let per_file = self.tensors.len().div_ceil(self.shards).max(1);
        let names: Vec<_> = self.tensors.keys().collect();
        let mut weight_map = BTreeMap::new();
        for (place, names) in names.chunks(per_file).enumerate() {
            let file = self.file_name(place);
            let written = fs::write(folder.join(&file), self.serialized(names));
            written.expect("the folder can be written to");
            weight_map.extend(names.iter().map(|name| ((*name).clone(), file.clone())));
        }
        if self.shards > 1 {
            let index = json!({ "metadata": {}, "weight_map": weight_map });
            let path = folder.join("model.safetensors.index.json");
            fs::write(path, index.to_string()).expect("the folder can be written to");
        }
    }

    fn file_name(&self, place: usize) -> String {
        match self.shards {
            1 => "model.safetensors".to_owned(),
            shards => format!("model-{:05}-of-{shards:05}.safetensors", place + 1),
        }
    }

    /// Some of the tensors as a file.
    fn serialized(&self, names: &[&String]) -> Vec<u8> {
        let views = names.iter().map(|name| {
            let tensor = &self.tensors[*name];
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
            (
                name.as_str(),
                view.expect("as many bytes as the shape says"),
            )
        });
        safetensors::serialize(views, None).expect("valid tensors")
    }
}

impl StoredTensor {
    /// Values in a number format.
    #[must_use]
    pub fn new(dtype: Dtype, shape: Vec<usize>, values: &HostValues) -> Self {
        let values: Vec<f32> = match values {
            HostValues::F32(values) => values.clone(),
            HostValues::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
        };
        let values = values.into_iter();
        let (dtype, bytes) = match dtype {
            Dtype::F32 => (
                StoredDtype::F32,
                values.flat_map(f32::to_le_bytes).collect(),
            ),
            Dtype::Bf16 => {
                let bytes = values.flat_map(|value| half::bf16::from_f32(value).to_le_bytes());
                (StoredDtype::BF16, bytes.collect())
            }
            Dtype::F16 => {
                let bytes = values.flat_map(|value| half::f16::from_f32(value).to_le_bytes());
                (StoredDtype::F16, bytes.collect())
            }
        };
        Self {
            dtype,
            shape,
            bytes,
        }
    }
}

/// What a configuration means.
///
/// # Panics
/// If it is refused.
#[must_use]
pub fn parse(config: &Value) -> ModelConfig {
    let bytes = config.to_string();
    let parsed = config_json::parse(Path::new("config.json"), bytes.as_bytes(), Dtype::F32);
    parsed.unwrap_or_else(|error| panic!("{error}"))
}

/// A tiny configuration of each family, as transformers 5 writes it, by `model_type`.
///
/// # Panics
/// If there is no such family.
#[must_use]
pub fn tiny_config(model_type: &str) -> Value {
    let (architecture, own) = match model_type {
        "llama" => (
            "LlamaForCausalLM",
            json!({ "attention_bias": false, "mlp_bias": false }),
        ),
        "mistral" => ("MistralForCausalLM", json!({ "sliding_window": 5 })),
        "qwen2" => (
            "Qwen2ForCausalLM",
            json!({ "use_sliding_window": true, "sliding_window": 5, "max_window_layers": 1 }),
        ),
        "qwen3" => (
            "Qwen3ForCausalLM",
            json!({ "head_dim": 8, "attention_bias": false, "use_sliding_window": false }),
        ),
        other => panic!("there is no family {other}"),
    };
    let mut config = json!({
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": 37,
        "hidden_size": 24,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_parameters": { "rope_type": "default", "rope_theta": 10000.0 },
        "tie_word_embeddings": false,
        "dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    });
    let own = own.as_object().into_iter().flatten();
    for (name, value) in own {
        config[name] = value.clone();
    }
    config
}
