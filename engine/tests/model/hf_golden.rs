//! The same log-probabilities and the same greedy tokens as Hugging Face transformers, for tiny random models of
//! every family. `goldens/make.py` made the models, and ran transformers on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foresail_core::batching::BlockId;
use foresail_engine::adapters::{self, Base};
use foresail_engine::backend::Limits;
use foresail_engine::checkpoint::{Checkpoint, WeightFormat};
use foresail_engine::config::{Dtype, Family, ModelConfig, Partition};
use foresail_engine::ops::KvFormat;
use serde::Deserialize;

use crate::devices::{Cpu, Device, Reference, Setting};
use crate::sequences::{Logits, Sequence, advance, finish, greedy};
use crate::world::World;

/// The models, each a folder of `goldens`.
const MODELS: [&str; 13] = [
    "llama",
    "llama-2",
    "mistral",
    "qwen2",
    "qwen3",
    "llama-bf16",
    "llama-2-bf16",
    "mistral-bf16",
    "qwen2-bf16",
    "qwen3-bf16",
    "odd-heads",
    "odd-single-head",
    "odd-f16",
];

/// Adapters of the model `llama`.
const ADAPTERS: [&str; 2] = ["plain", "rslora"];

/// The most that a log-probability may differ where transformers computed in f32 (nat).
const F32_DIFFERENCE_MAX: f64 = 1e-4;

/// The most that log-probabilities may differ on average where transformers computed in bf16 (nat). It rounds
/// after each operation, and is 0.02 from itself in f32 on these models.
const BF16_DIFFERENCE_MEAN_MAX: f64 = 0.06;

/// The most that all but a hundredth of those may differ (nat).
const BF16_DIFFERENCE_P99_MAX: f64 = 0.20;

/// Tokens that a sequence here can have: a text, and what follows.
const TOKENS_MAX: usize = 128;

const BLOCK_SIZE: usize = 16;

/// What transformers computed, as `goldens/make.py` describes it.
#[derive(Deserialize)]
struct Golden {
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    tokens: Vec<u32>,
    f32: Exact,
    bf16: Option<Rounded>,
}

#[derive(Deserialize)]
struct Exact {
    next: Vec<f64>,
    top: Vec<Vec<(u32, f64)>>,
    greedy: Vec<u32>,
}

#[derive(Deserialize)]
struct Rounded {
    next: Vec<f64>,
}

fn folder(name: &str) -> PathBuf {
    // Executables that were carried to another machine find them there.
    let package = std::env::var("CARGO_MANIFEST_DIR");
    let package = package.unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Path::new(&package).join("goldens").join(name)
}

fn golden(folder: &Path) -> Golden {
    let text = fs::read_to_string(folder.join("golden.json")).expect("a golden.json");
    serde_json::from_str(&text).expect("a golden as make.py writes it")
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&folder(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn start<D: Device>(
    device: D,
    checkpoint: &Checkpoint,
    kv_format: KvFormat,
    world_size: usize,
) -> World {
    let limits = Limits {
        block_size: BLOCK_SIZE,
        num_blocks: 3 * TOKENS_MAX / BLOCK_SIZE,
        max_num_seqs: 3,
        max_batched_tokens: 3 * TOKENS_MAX,
        max_model_len: TOKENS_MAX,
        max_loras: ADAPTERS.len(),
        max_lora_rank: 64,
    };
    let setting = Setting {
        config: Arc::new(checkpoint.config().clone()),
        limits,
        kv_format,
    };
    World::start(device, &setting, world_size, |partition| {
        let weights = checkpoint.load(partition, WeightFormat::AsStored, |matrix, _| matrix);
        weights.expect("the model can be loaded")
    })
}

/// The world sizes that a model can have.
fn world_sizes(checkpoint: &Checkpoint) -> impl Iterator<Item = usize> {
    (1..=4).filter(|world_size| Partition::check(checkpoint.config(), *world_size).is_ok())
}

/// The blocks of one of three sequences.
fn table(place: usize) -> Vec<BlockId> {
    let blocks = TOKENS_MAX / BLOCK_SIZE;
    (place * blocks..(place + 1) * blocks)
        .map(|block| block as BlockId)
        .collect()
}

/// The natural logarithm of the softmax.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let logits: Vec<f64> = logits.iter().map(|logit| f64::from(*logit)).collect();
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    let shift = largest + sum.ln();
    logits.iter().map(|logit| logit - shift).collect()
}

/// Log-probabilities of the tokens from the second on, given those before.
fn next_logprobs(logits: &Logits, tokens: &[u32]) -> Vec<f64> {
    let following = logits.iter().zip(&tokens[1..]);
    following
        .map(|(logits, token)| log_softmax(logits)[*token as usize])
        .collect()
}

/// How far each value is from what it should be. NaN is infinitely far.
fn differences(found: &[f64], expected: &[f64]) -> Vec<f64> {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    pairs
        .map(|(found, expected)| (found - expected).abs())
        .map(|difference| {
            if difference.is_nan() {
                f64::INFINITY
            } else {
                difference
            }
        })
        .collect()
}

/// The largest difference from what transformers computed in f32.
fn difference_max(logits: &Logits, text: &Text) -> f64 {
    let mut found = next_logprobs(logits, &text.tokens);
    let mut expected = text.f32.next.clone();
    for (logits, top) in logits.iter().zip(&text.f32.top) {
        let logprobs = log_softmax(logits);
        for (token, logprob) in top {
            found.push(logprobs[*token as usize]);
            expected.push(*logprob);
        }
    }
    differences(&found, &expected)
        .into_iter()
        .fold(0.0, f64::max)
}

/// Computes a text and its continuation, and compares both with transformers in f32.
#[track_caller]
fn assert_right(what: &str, world: &mut World, text: &Text, adapter: Option<usize>) {
    let mut sequence = Sequence::new(&text.tokens, adapter, table(0));
    finish(world, &mut sequence);
    let difference = difference_max(&sequence.logits, text);
    assert!(
        difference <= F32_DIFFERENCE_MAX,
        "{what}: a log-probability is {difference} nat off"
    );
    let found = greedy(world, &mut sequence, text.f32.greedy.len());
    assert_eq!(found, text.f32.greedy, "{what}: greedy tokens");
}

fn f32_on_any_number_of_ranks<D: Device>(device: D) {
    for name in MODELS {
        let (checkpoint, golden) = (open(name), golden(&folder(name)));
        for world_size in world_sizes(&checkpoint) {
            let mut world = start(device, &checkpoint, KvFormat::F32, world_size);
            for text in &golden.texts {
                let what = format!("{name} on {world_size} ranks");
                assert_right(&what, &mut world, text, None);
            }
        }
    }
}

pub(crate) fn bf16<D: Device>(device: D) {
    let in_bf16 = MODELS.into_iter().filter(|name| name.ends_with("bf16"));
    for name in in_bf16 {
        let mut world = start(device, &open(name), KvFormat::Bf16, 1);
        let mut found = Vec::new();
        let mut expected = Vec::new();
        for text in &golden(&folder(name)).texts {
            let mut sequence = Sequence::new(&text.tokens, None, table(0));
            finish(&mut world, &mut sequence);
            found.extend(next_logprobs(&sequence.logits, &text.tokens));
            let rounded = text.bf16.as_ref().expect("bf16 checkpoints have it");
            expected.extend(&rounded.next);
        }
        let mut differences = differences(&found, &expected);
        differences.sort_by(f64::total_cmp);
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        let p99 = differences[differences.len() * 99 / 100];
        assert!(
            mean <= BF16_DIFFERENCE_MEAN_MAX && p99 <= BF16_DIFFERENCE_P99_MAX,
            "{name}: log-probabilities differ by {mean} nat on average, p99 {p99}"
        );
    }
}

/// Each adapter alone on any number of ranks, then the base and both adapters in one batch.
fn with_adapters<D: Device>(device: D) {
    let checkpoint = open("llama");
    let base = Base {
        name: "llama",
        config: checkpoint.config(),
        rank_max: 64,
    };
    let folders = ADAPTERS.map(|name| folder("llama/adapters").join(name));
    for world_size in world_sizes(&checkpoint) {
        let mut world = start(device, &checkpoint, KvFormat::F32, world_size);
        for (slot, folder) in folders.iter().enumerate() {
            let adapter = adapters::load(ADAPTERS[slot], folder, &base);
            world.load_adapter(slot, &adapter.expect("PEFT wrote it"));
            for text in &golden(folder).texts {
                let what = format!("{} on {world_size} ranks", ADAPTERS[slot]);
                assert_right(&what, &mut world, text, Some(slot));
            }
        }
        assert_right_together(&mut world, &folders);
    }
}

fn assert_right_together(world: &mut World, adapters: &[PathBuf]) {
    let mut goldens = vec![golden(&folder("llama"))];
    goldens.extend(adapters.iter().map(|folder| golden(folder)));
    let mut sequences: Vec<_> = goldens
        .iter()
        .enumerate()
        .map(|(place, golden)| {
            let slot = place.checked_sub(1);
            Sequence::new(&golden.texts[0].tokens, slot, table(place))
        })
        .collect();
    let pieces = sequences.iter_mut().map(|sequence| {
        let left = sequence.left();
        (sequence, left)
    });
    advance(world, &mut pieces.collect::<Vec<_>>());
    for (golden, sequence) in goldens.iter().zip(&sequences) {
        let difference = difference_max(&sequence.logits, &golden.texts[0]);
        assert!(
            difference <= F32_DIFFERENCE_MAX,
            "adapter {:?} in a mixed batch: a log-probability is {difference} nat off",
            sequence.adapter
        );
    }
}

/// The same tests for each device.
macro_rules! tests_of {
    ($name:ident, $device:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn every_family_is_that_of_transformers_in_f32_on_any_number_of_ranks() {
                f32_on_any_number_of_ranks($device);
            }

            #[test]
            fn every_family_is_that_of_transformers_in_bf16() {
                bf16($device);
            }

            #[test]
            fn adapters_are_those_of_peft() {
                with_adapters($device);
            }
        }
    };
}

tests_of!(reference, Reference);
tests_of!(cpu, Cpu::best());
tests_of!(cpu_portable, Cpu::portable());

/// Each family in f32 and in bf16, and what else there is to get wrong.
#[test]
fn the_models_have_what_families_differ_in() {
    let configs = MODELS.map(|name| open(name).config().clone());
    for family in [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3] {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let is_there = configs
                .iter()
                .any(|config| config.family == family && config.dtype == dtype);
            assert!(is_there, "{family:?} in {dtype:?}");
        }
    }
    let longest = golden(&folder("mistral")).texts[2].tokens.len();
    let is_short = |window: Option<usize>| window.is_some_and(|tokens| tokens < longest / 2);
    let everywhere = |config: &ModelConfig| is_short(config.window(0));
    let later = |config: &ModelConfig| config.window(0).is_none() && is_short(config.window(1));
    assert!(configs.iter().any(everywhere) && configs.iter().any(later));
}
