//! Files of weights: formats, several files, and everything that can be wrong with them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::checkpoint::test_support::{StoredTensor, TinyCheckpoint, parse, tiny_config};
use crate::checkpoint::{Checkpoint, DummyWeights, SafetensorsFiles, WeightFormat, load};
use crate::config::{Dtype, Partition};
use crate::weights::{HostMatrix, HostValues, Weights};

const GATE: &str = "model.layers.1.mlp.gate_proj.weight";

fn loaded(folder: &Path, format: WeightFormat) -> Weights<HostMatrix> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint
        .load(Partition::WHOLE, format, |matrix, _| matrix)
        .unwrap()
}

/// What is said about a folder, without the part of the path that changes.
fn refusal(folder: &Path) -> String {
    let error = Checkpoint::open(folder).unwrap_err().to_string();
    error.replace(folder.to_str().unwrap(), "m")
}

/// What is said about a tiny Llama that was spoilt.
fn refusal_of(spoil: impl FnOnce(&mut TinyCheckpoint)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = TinyCheckpoint::new(tiny_config("llama"), 0);
    spoil(&mut checkpoint);
    checkpoint.write(folder.path());
    refusal(folder.path())
}

/// What is said about a tiny Llama with one of its files changed.
fn refusal_with(shards: usize, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = TinyCheckpoint::new(tiny_config("llama"), 0);
    checkpoint.shards = shards;
    checkpoint.write(folder.path());
    let path = folder.path().join(file);
    fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
    refusal(folder.path())
}

#[test]
fn what_is_loaded_is_what_was_written() {
    for dtype in ["float32", "bfloat16", "float16"] {
        for shards in [1, 2, 5] {
            for family in ["llama", "mistral", "qwen2", "qwen3"] {
                let mut config = tiny_config(family);
                config["dtype"] = json!(dtype);
                let folder = tempfile::tempdir().unwrap();
                let mut checkpoint = TinyCheckpoint::new(config.clone(), 9);
                checkpoint.shards = shards;
                checkpoint.write(folder.path());
                let config = parse(&config);
                let dummy = DummyWeights {
                    seed: 9,
                    dtype: config.dtype,
                };
                for format in [
                    WeightFormat::AsStored,
                    WeightFormat::F32,
                    WeightFormat::Bf16,
                ] {
                    let expected = load(&dummy, &config, Partition::WHOLE, format, |matrix, _| {
                        matrix
                    });
                    let expected = format!("{:?}", expected.unwrap());
                    assert!(expected == format!("{:?}", loaded(folder.path(), format)));
                }
            }
        }
    }
}

#[test]
fn formats() {
    let is_narrow = |dtype: &str, format| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = tiny_config("llama");
        config["dtype"] = json!(dtype);
        TinyCheckpoint::new(config, 0).write(folder.path());
        matches!(
            loaded(folder.path(), format).layers[0].qkv.values,
            HostValues::Bf16(_)
        )
    };
    assert!(is_narrow("bfloat16", WeightFormat::AsStored));
    assert!(!is_narrow("float32", WeightFormat::AsStored));
    assert!(!is_narrow("float16", WeightFormat::AsStored));
    assert!(!is_narrow("bfloat16", WeightFormat::F32));
    assert!(is_narrow("float16", WeightFormat::Bf16));
}

#[test]
fn a_number_format_that_config_does_not_state_is_that_of_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = TinyCheckpoint::new(tiny_config("llama"), 0);
    checkpoint.config.as_object_mut().unwrap().remove("dtype");
    checkpoint.write(folder.path());
    let opened = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(opened.config().dtype, Dtype::Bf16);
}

#[test]
fn parts_that_are_stored_differently_come_in_the_wider_format() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = TinyCheckpoint::new(tiny_config("llama"), 0);
    let values = HostValues::F32(vec![0.1; 20 * 24]);
    let wide = StoredTensor::new(Dtype::F32, vec![20, 24], &values);
    checkpoint.tensors.insert(GATE.to_owned(), wide);
    checkpoint.write(folder.path());
    let layers = loaded(folder.path(), WeightFormat::AsStored).layers;
    assert!(matches!(layers[0].gate_up.values, HostValues::Bf16(_)));
    assert_eq!(layers[1].gate_up.at(19, 23), 0.1);
    assert_ne!(layers[1].gate_up.at(20, 0), 0.1);
}

#[test]
fn generation_config_has_the_last_word_on_the_end_of_texts() {
    let folder = tempfile::tempdir().unwrap();
    TinyCheckpoint::new(tiny_config("llama"), 0).write(folder.path());
    let path = folder.path().join("generation_config.json");
    fs::write(path, r#"{ "eos_token_id": [5, 6] }"#).unwrap();
    let opened = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(opened.config().eos_token_ids, [5, 6]);
}

#[test]
fn tensors_that_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = tiny_config("llama");
    config["tie_word_embeddings"] = json!(true);
    let mut checkpoint = TinyCheckpoint::new(config, 0);
    assert!(!checkpoint.tensors.contains_key("lm_head.weight"));
    let embedding = checkpoint.tensors["model.embed_tokens.weight"].clone();
    checkpoint
        .tensors
        .insert("lm_head.weight".to_owned(), embedding);
    let frequencies = StoredTensor::new(Dtype::F32, vec![3], &HostValues::F32(vec![1.0; 3]));
    let name = "model.layers.0.self_attn.rotary_emb.inv_freq".to_owned();
    checkpoint.tensors.insert(name, frequencies);
    checkpoint.write(folder.path());
    assert!(
        loaded(folder.path(), WeightFormat::AsStored)
            .lm_head
            .is_none()
    );
}

#[test]
fn tensors_that_would_change_the_result() {
    let head = refusal_of(|checkpoint| {
        checkpoint.config["tie_word_embeddings"] = json!(true);
    });
    insta::assert_snapshot!(head, @"m/model.safetensors: tensor lm_head.weight: it differs from model.embed_tokens.weight, and by config.json (tie_word_embeddings) they are the same");
    let bias = refusal_of(|checkpoint| {
        let bias = StoredTensor::new(Dtype::F32, vec![24], &HostValues::F32(vec![0.5; 24]));
        let name = "model.layers.0.self_attn.q_proj.bias".to_owned();
        checkpoint.tensors.insert(name, bias);
    });
    insta::assert_snapshot!(bias, @"m: 1 tensor that config.json does not account for: model.layers.0.self_attn.q_proj.bias");
}

#[test]
fn missing_tensors_are_listed() {
    let one = refusal_of(|checkpoint| drop(checkpoint.tensors.remove(GATE)));
    insta::assert_snapshot!(one, @"m: 1 tensor missing: model.layers.1.mlp.gate_proj.weight");
    let many = refusal_of(|checkpoint| checkpoint.config["num_hidden_layers"] = json!(4));
    insta::assert_snapshot!(many, @"m: 18 tensors missing: model.layers.2.input_layernorm.weight, model.layers.2.mlp.down_proj.weight, model.layers.2.mlp.gate_proj.weight, model.layers.2.mlp.up_proj.weight, model.layers.2.post_attention_layernorm.weight, model.layers.2.self_attn.k_proj.weight, model.layers.2.self_attn.o_proj.weight, model.layers.2.self_attn.q_proj.weight, model.layers.2.self_attn.v_proj.weight, model.layers.3.input_layernorm.weight, and 8 more");
    let biases = refusal_of(|checkpoint| {
        checkpoint.config["model_type"] = json!("qwen2");
        checkpoint.config["architectures"] = json!(["Qwen2ForCausalLM"]);
    });
    insta::assert_snapshot!(biases, @"m: 6 tensors missing: model.layers.0.self_attn.k_proj.bias, model.layers.0.self_attn.q_proj.bias, model.layers.0.self_attn.v_proj.bias, model.layers.1.self_attn.k_proj.bias, model.layers.1.self_attn.q_proj.bias, model.layers.1.self_attn.v_proj.bias");
}

#[test]
fn shapes_and_formats_that_do_not_fit() {
    let shape = refusal_of(|checkpoint| checkpoint.config["intermediate_size"] = json!(21));
    insta::assert_snapshot!(shape, @"m/model.safetensors: tensor model.layers.0.mlp.gate_proj.weight is [20, 24], and by config.json it is [21, 24]");
    let quantised = refusal_of(|checkpoint| {
        let tensor = checkpoint.tensors.get_mut(GATE).unwrap();
        tensor.dtype = safetensors::Dtype::F8_E4M3;
        tensor.bytes.truncate(20 * 24);
    });
    insta::assert_snapshot!(quantised, @"m/model.safetensors: tensor model.layers.1.mlp.gate_proj.weight is F8_E4M3; supported: F32, BF16, F16");
}

#[test]
fn files_that_are_not_whole() {
    let spoilt = |change: fn(Vec<u8>) -> Vec<u8>| refusal_with(1, "model.safetensors", change);
    insta::assert_snapshot!(spoilt(|mut bytes| {
        bytes.truncate(bytes.len() - 1000);
        bytes
    }), @"m/model.safetensors: tensor model.layers.1.self_attn.q_proj.weight: its bytes end at 15840, and the file has 15464: it is truncated");
    insta::assert_snapshot!(spoilt(|mut bytes| {
        bytes.truncate(100);
        bytes
    }), @"m/model.safetensors: the header would be 2064 bytes, of a file of 100; it is truncated, or not a safetensors file");
    insta::assert_snapshot!(spoilt(|_| b"abc".to_vec()), @"m/model.safetensors: 3 bytes; not a safetensors file");
    insta::assert_snapshot!(spoilt(|mut bytes| {
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        bytes
    }), @"m/model.safetensors: the header would be 18446744073709551615 bytes, of a file of 18536; it is truncated, or not a safetensors file");
    insta::assert_snapshot!(spoilt(|mut bytes| {
        bytes.extend([0; 7]);
        bytes
    }), @"m/model.safetensors: 16471 bytes of values, of which its tensors are 16464");
    insta::assert_snapshot!(spoilt(|mut bytes| {
        bytes[8] = b'[';
        bytes
    }), @"m/model.safetensors: in the header: invalid type: sequence, expected an object with an entry for each tensor at line 1 column 0");
}

/// A file with this header and so many bytes of values.
fn file(header: &Value, values: usize) -> Vec<u8> {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.resize(bytes.len() + values, 0);
    bytes
}

#[test]
fn headers_that_contradict_themselves() {
    let spoilt = |header: Value| {
        let written = file(&header, 8);
        refusal_with(1, "model.safetensors", |_| written)
    };
    let tensor = |dtype: &str, shape: Value, places: [u64; 2]| json!({ "dtype": dtype, "shape": shape, "data_offsets": places });
    let of = |tensor: Value| spoilt(json!({ "a": tensor }));
    insta::assert_snapshot!([
        of(tensor("F32", json!([3]), [0, 8])),
        of(tensor("F32", json!([2]), [4, 12])),
        of(tensor("F32", json!([1]), [0, 4])),
        of(tensor("F32", json!([4]), [0, 16])),
        of(tensor("F32", json!([u64::MAX, 2]), [0, 8])),
        of(tensor("F32", json!([2]), [8, 0])),
        of(tensor("F32", json!([-2]), [0, 8])),
        of(tensor("BF17", json!([4]), [0, 8])),
        of(json!({ "dtype": "F32", "shape": [2] })),
        spoilt(json!({ "a": tensor("F32", json!([2]), [0, 8]), "b": tensor("F32", json!([2]), [0, 8]) })),
        spoilt(json!([])),
    ].join("\n"), @r"
    m/model.safetensors: tensor a: its bytes are 0 to 8, and [3] of F32 are 12
    m/model.safetensors: tensor a: its bytes begin at 4, and those before it end at 0
    m/model.safetensors: 8 bytes of values, of which its tensors are 4
    m/model.safetensors: tensor a: its bytes end at 16, and the file has 8: it is truncated
    m/model.safetensors: tensor a: a shape of [18446744073709551615, 2]
    m/model.safetensors: tensor a: its bytes are 8 to 0, and [2] of F32 are 8
    m/model.safetensors: in the header: tensor a: invalid value: integer `-2`, expected usize at line 1 column 31
    m/model.safetensors: in the header: tensor a: unknown variant `BF17`, expected one of `BOOL`, `F4`, `F6_E2M3`, `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, `F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FNUZ`, `I16`, `U16`, `F16`, `BF16`, `I32`, `U32`, `F32`, `C64`, `F64`, `I64`, `U64` at line 1 column 20
    m/model.safetensors: in the header: tensor a: missing field `data_offsets` at line 1 column 32
    m/model.safetensors: tensor b: its bytes begin at 0, and those before it end at 8
    m/model.safetensors: in the header: invalid type: sequence, expected an object with an entry for each tensor at line 1 column 0
    ");
    let twice = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut bytes = (twice.len() as u64).to_le_bytes().to_vec();
    bytes.extend(twice);
    bytes.extend([0; 8]);
    insta::assert_snapshot!(refusal_with(1, "model.safetensors", |_| bytes), @"m/model.safetensors: in the header: tensor a is there twice at line 1 column 107");
}

#[test]
fn indices_that_lead_nowhere() {
    const INDEX: &str = "model.safetensors.index.json";
    let changed = |change: fn(&mut Value)| {
        refusal_with(2, INDEX, |bytes| {
            let mut index: Value = serde_json::from_slice(&bytes).unwrap();
            change(&mut index["weight_map"]);
            index.to_string().into_bytes()
        })
    };
    insta::assert_snapshot!([
        changed(|map| map[GATE] = json!("../model.safetensors")),
        changed(|map| map[GATE] = json!("/etc/passwd")),
        changed(|map| map[GATE] = json!("")),
        changed(|map| map[GATE] = json!("config.json")),
        changed(|map| map[GATE] = json!("model-00003-of-00002.safetensors")),
        changed(|map| map[GATE] = json!("model-00001-of-00002.safetensors")),
        changed(|map| map["other.weight"] = json!("model-00002-of-00002.safetensors")),
        changed(|map| *map = json!(["model.safetensors"])),
    ].join("\n"), @r#"
    m/model.safetensors.index.json: tensor model.layers.1.mlp.gate_proj.weight: it would be in "../model.safetensors", which is not a file of this folder
    m/model.safetensors.index.json: tensor model.layers.1.mlp.gate_proj.weight: it would be in "/etc/passwd", which is not a file of this folder
    m/model.safetensors.index.json: tensor model.layers.1.mlp.gate_proj.weight: it would be in "", which is not a file of this folder
    m/config.json: the header would be 8388350557284278907 bytes, of a file of 441; it is truncated, or not a safetensors file
    m/model-00003-of-00002.safetensors: No such file or directory (os error 2)
    m/model-00001-of-00002.safetensors: tensor model.layers.1.mlp.gate_proj.weight: the index says that it is here, and it is not
    m/model-00002-of-00002.safetensors: tensor other.weight: the index says that it is here, and it is not
    m/model.safetensors.index.json: invalid type: sequence, expected a map at line 1 column 28
    "#);
}

#[test]
fn a_tensor_in_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = TinyCheckpoint::new(tiny_config("llama"), 0);
    checkpoint.shards = 2;
    checkpoint.write(folder.path());
    let file = |place: usize| {
        folder
            .path()
            .join(format!("model-0000{place}-of-00002.safetensors"))
    };
    fs::copy(file(1), file(2)).unwrap();
    insta::assert_snapshot!(refusal(folder.path()), @"tensor lm_head.weight is in m/model-00001-of-00002.safetensors and in m/model-00002-of-00002.safetensors; one of them is not of this model");
}

#[test]
fn folders_without_weights() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(refusal(&folder.path().join("missing")), @"m: there is no such folder");
    insta::assert_snapshot!(refusal(folder.path()), @"m: there is neither model.safetensors nor model.safetensors.index.json");
    fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    insta::assert_snapshot!(refusal(folder.path()), @"m: there is pytorch_model.bin, and only safetensors are read; convert it");
    let mut checkpoint = TinyCheckpoint::new(tiny_config("llama"), 0);
    checkpoint.write(folder.path());
    checkpoint.shards = 2;
    checkpoint.write(folder.path());
    insta::assert_snapshot!(refusal(folder.path()), @"m: both model.safetensors and model.safetensors.index.json are there; remove the one that is not meant");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    fs::remove_file(folder.path().join("config.json")).unwrap();
    insta::assert_snapshot!(refusal(folder.path()), @"m/config.json: there is no such file");
}

#[test]
fn a_file_that_shrinks_after_it_was_opened_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    TinyCheckpoint::new(tiny_config("llama"), 0).write(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(folder.path().join("model.safetensors"));
    file.unwrap().set_len(3000).unwrap();
    let loaded = checkpoint.load(Partition::WHOLE, WeightFormat::AsStored, |matrix, _| matrix);
    let error = loaded.unwrap_err().to_string();
    assert!(error.contains("model.safetensors: tensor "), "{error}");
}

#[test]
fn one_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    TinyCheckpoint::new(tiny_config("llama"), 0).write(folder.path());
    let files = SafetensorsFiles::open_file(&folder.path().join("model.safetensors")).unwrap();
    assert_eq!(files.names().count(), 2 * 9 + 3);
    assert_eq!(files.shape(GATE), Some(&[20, 24][..]));
    assert_eq!(SafetensorsFiles::dtype(&files, GATE), Some(Dtype::Bf16));
    let matrix = files.matrix(GATE).unwrap();
    assert_eq!((matrix.rows, matrix.columns), (20, 24));
    let refusal = |name| {
        let error = files.matrix(name).unwrap_err().to_string();
        error.replace(folder.path().to_str().unwrap(), "m")
    };
    insta::assert_snapshot!(refusal("model.norm.weight"), @"m/model.safetensors: tensor model.norm.weight: it is [24], and should be a matrix");
    insta::assert_snapshot!(refusal("other"), @"m/model.safetensors: 1 tensor missing: other");
}
