//! Engines start from folders and from nothing, and say why if they do not.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use foresail_core::batching::BlockId;
use foresail_core::step_time::{Gpu, StepLoad};
use foresail_engine::backend::{Row, StepInput};
use foresail_engine::sampling::{Context, Sampling};
use foresail_engine::startup::{
    Device, DtypeChoice, EngineSettings, KvCacheSize, ModelSource, Started, start,
};
use tempfile::TempDir;

fn dummy(shape: &str) -> EngineSettings {
    small(ModelSource::Dummy(shape.to_owned()))
}

fn folder(path: &Path) -> EngineSettings {
    small(ModelSource::Folder(path.to_owned()))
}

/// Small enough for a test.
fn small(source: ModelSource) -> EngineSettings {
    EngineSettings {
        kv_cache: KvCacheSize::Blocks(64),
        max_num_seqs: 4,
        max_batched_tokens: 64,
        device: Device::Cpu {
            // So many that ranks of every number here can share them equally.
            threads: NonZeroUsize::new(8),
        },
        ..EngineSettings::new(source)
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("goldens")
        .join(name)
}

/// A copy of a golden model that a test may damage.
fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(name)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

/// Why an engine does not start; files are without their folder.
fn refused(settings: &EngineSettings) -> String {
    let error = match start(settings) {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    };
    match &settings.source {
        ModelSource::Folder(folder) => error.replace(&format!("{}/", folder.display()), ""),
        ModelSource::Dummy(_) => error,
    }
}

/// The tokens that an engine says after a prompt, each the likeliest.
fn generate(started: &mut Started, prompt: &[u32], count: usize) -> Vec<u32> {
    let sampling = Sampling {
        temperature: 0.0,
        ..Sampling::default()
    };
    let tokens = prompt.len() + count;
    let blocks = 0..tokens.div_ceil(started.limits.block_size);
    let table: Vec<_> = blocks.map(|block| block as BlockId).collect();
    let (mut known, mut past) = (prompt.to_vec(), 0);
    while known.len() < tokens {
        let row = Row {
            known: &known,
            past,
            len: known.len() - past,
            table: &table,
            adapter: None,
            prompt_logprobs: None,
            sample: Some(Context {
                sampling: &sampling,
                prompt,
                generated: &known[prompt.len()..],
                banned: &[],
            }),
        };
        let step = StepInput {
            load: StepLoad {
                decodes: 0,
                decode_past: 0,
                chunks: &[],
            },
            adapters: 0,
            continues: false,
            ahead: 0,
            rows: vec![row],
        };
        let output = started.backend.step(&step).unwrap().remove(0);
        past = known.len();
        known.push(output.sampled.unwrap().token);
    }
    known.split_off(prompt.len())
}

#[test]
fn a_dummy_model_starts_the_same_on_every_device_and_world_size() {
    let mut expected = None;
    let devices = [dummy("tiny").device, Device::Reference];
    for (device, world_size) in devices
        .into_iter()
        .flat_map(|it| [(it, 1), (it, 2), (it, 4)])
    {
        let settings = EngineSettings {
            device,
            world_size,
            dtype: DtypeChoice::F32,
            seed: 7,
            ..dummy("tiny")
        };
        let mut started = start(&settings).unwrap();
        let names: Vec<_> = started.stages.iter().map(|stage| stage.name).collect();
        assert_eq!(
            names,
            [
                "config",
                "kv cache",
                "weights",
                "pack",
                "warm-up",
                "tokenizer"
            ]
        );
        assert_eq!(started.limits.num_blocks, 64);
        assert_eq!(started.tokenizer.as_ref().unwrap().bos(), Some(256));
        let tokens = generate(&mut started, &[72, 101, 108, 108, 111], 12);
        assert_eq!(
            &tokens,
            expected.get_or_insert(tokens.clone()),
            "{device:?}, {world_size}"
        );
    }
    let other = EngineSettings {
        seed: 8,
        ..dummy("tiny")
    };
    let tokens = generate(&mut start(&other).unwrap(), &[72, 101, 108, 108, 111], 12);
    assert_ne!(Some(tokens), expected, "the seed changes nothing");
}

#[test]
fn a_folder_starts_with_its_tokenizer_and_says_what_transformers_says() {
    let golden_file = fs::read(golden("llama").join("golden.json")).unwrap();
    let text: serde_json::Value = serde_json::from_slice(&golden_file).unwrap();
    let tokens = |value: &serde_json::Value| -> Vec<u32> {
        let tokens = value.as_array().unwrap().iter();
        tokens.map(|token| token.as_u64().unwrap() as u32).collect()
    };
    let text = &text["texts"][0];
    for world_size in [1, 2, 4] {
        let settings = EngineSettings {
            world_size,
            ..folder(&golden("llama"))
        };
        let mut started = start(&settings).unwrap();
        let greedy = tokens(&text["f32"]["greedy"]);
        let found = generate(&mut started, &tokens(&text["tokens"]), greedy.len());
        assert_eq!(found, greedy);
        let tokenizer = started.tokenizer.unwrap();
        assert!(tokenizer.vocab_size() <= started.config.vocab_size);
    }
}

#[test]
fn a_shard_alone_keeps_to_its_own_part_of_the_vocabulary() {
    let settings = EngineSettings {
        world_size: 2,
        shard_alone: Some(Gpu::h200().all_reduce),
        ..dummy("tiny")
    };
    let mut started = start(&settings).unwrap();
    let half = (started.config.vocab_size / 2) as u32;
    let tokens = generate(&mut started, &[1, 2, 3], 8);
    assert!(tokens.iter().all(|token| *token < half), "{tokens:?}");
    let unknown = EngineSettings {
        world_size: 1,
        shard_alone: Some(Gpu::h200().all_reduce),
        ..dummy("tiny")
    };
    // One rank has nobody to wait for.
    start(&unknown).unwrap();
}

#[test]
fn the_formats_of_weights_and_cache_can_be_chosen() {
    let prompt = [3, 1, 4, 1, 5];
    let with = |dtype, kv_dtype| {
        let settings = EngineSettings {
            dtype,
            kv_dtype,
            with_tokenizer: false,
            ..folder(&golden("llama-bf16"))
        };
        generate(&mut start(&settings).unwrap(), &prompt, 16)
    };
    // bf16 values are f32 values: only the cache's format makes a difference, and a small one.
    let as_stored = with(DtypeChoice::Auto, DtypeChoice::F32);
    assert_eq!(as_stored, with(DtypeChoice::F32, DtypeChoice::F32));
    assert_eq!(as_stored, with(DtypeChoice::F32, DtypeChoice::Auto));
    assert_eq!(
        with(DtypeChoice::Auto, DtypeChoice::Auto),
        with(DtypeChoice::Bf16, DtypeChoice::Bf16)
    );
}

#[test]
fn what_is_damaged_or_does_not_belong_together_is_named() {
    let truncated = copy("llama");
    let weights = truncated.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 100]).unwrap();
    let error = refused(&folder(truncated.path()));
    assert!(error.contains("model.safetensors"), "{error}");

    // The tokenizer of a model with 269 tokens, and a model with 67.
    let mixed = copy("llama-2");
    fs::copy(
        golden("llama").join("tokenizer.json"),
        mixed.path().join("tokenizer.json"),
    )
    .unwrap();
    let error = refused(&folder(mixed.path()));
    assert!(
        error.starts_with("tokenizer.json: has tokens up to"),
        "{error}"
    );

    let error = refused(&folder(&golden("llama-2")));
    assert!(error.contains("tokenizer.json"), "{error}");
    let without = EngineSettings {
        with_tokenizer: false,
        ..folder(&golden("llama-2"))
    };
    assert!(start(&without).unwrap().tokenizer.is_none());
}

#[test]
fn weights_that_compute_nothing_fail_at_start() {
    let spoilt = copy("llama");
    let weights = spoilt.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for value in bytes[8 + header..].as_chunks_mut::<4>().0 {
        *value = f32::NAN.to_le_bytes();
    }
    fs::write(&weights, bytes).unwrap();
    let error = refused(&folder(spoilt.path()));
    assert!(error.starts_with("the first step failed"), "{error}");
}

#[test]
fn settings_that_cannot_be_met_say_what_to_change() {
    let cases = [
        EngineSettings {
            world_size: 3,
            ..dummy("tiny")
        },
        EngineSettings {
            world_size: 0,
            ..dummy("tiny")
        },
        EngineSettings {
            kv_cache: KvCacheSize::Blocks(2),
            max_model_len: Some(100),
            ..dummy("tiny")
        },
        EngineSettings {
            max_lora_rank: 65,
            ..dummy("tiny")
        },
        EngineSettings {
            world_size: 2,
            device: Device::Cpu {
                threads: NonZeroUsize::new(3),
            },
            ..dummy("tiny")
        },
        EngineSettings {
            max_num_seqs: 65,
            ..dummy("tiny")
        },
        EngineSettings {
            world_size: 2,
            shard_alone: Some(foresail_core::step_time::AllReduce {
                by_world_size: vec![],
            }),
            ..dummy("tiny")
        },
    ];
    let errors = cases.each_ref().map(refused);
    insta::assert_snapshot!(errors.join("\n"), @"
    8 query heads cannot be split over 3 ranks; choose a world size that divides them
    a world has at least one rank
    a sequence of 100 tokens needs 7 KV blocks of 24.0 KiB, and there are 2; choose a larger --kv-cache-memory or a smaller --max-model-len
    --max-lora-rank is 65; ranks up to 64 are supported
    --threads is 3, which 2 ranks cannot share equally; choose a multiple of 2
    --max-batched-tokens (64) is below --max-num-seqs (65): a full batch needs one token for each sequence
    there are no all-reduce times for world size 2; there are for []
    ");
    let huge = EngineSettings {
        kv_cache: KvCacheSize::Blocks(1 << 30),
        ..dummy("tiny")
    };
    let error = refused(&huge);
    assert!(error.contains("a --kv-cache-memory of up to"), "{error}");
    let unknown = refused(&dummy("no-such-shape"));
    assert!(unknown.contains("no-such-shape"), "{unknown}");
}
