//! What is measured, on which engines: the arguments, checked against the model.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use foresail_core::step_time::AllReduce;
use foresail_engine::adapters::{self, Base};
use foresail_engine::bench::cost::Formats;
use foresail_engine::bench::{Design, DesignLimits, random_adapter};
use foresail_engine::config::{ModelConfig, Partition};
use foresail_engine::startup::{Device, EngineSettings, KvCacheSize, LORA_RANK_MAX};
use foresail_engine::weights::Adapter;

use super::Arguments;
use crate::failure::Failure;
use crate::subject::all_reduce;

/// Tokens that a KV cache has room for, unless it is said: 750 MB of a small model's on a CPU, 17 GB of Llama 3 8B's.
const KV_TOKENS_CPU: usize = 32_768;
const KV_TOKENS_GPU: usize = 131_072;

/// The longest sequence, in full steps: enough to see how a chunk's time grows with what is before it.
const STEPS_OF_A_SEQUENCE: usize = 4;

/// The rank of random adapters, PEFT's most common.
const RANDOM_RANK: usize = 16;

/// More random adapters would fill the memory before anything is measured.
const RANDOM_ADAPTERS_MAX: usize = 256;

/// The word that stands for this machine's threads in the place of a GPU.
const THREADS: &str = "threads";

/// What is measured, on which engines.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) worlds: Vec<World>,
    pub(super) design: Design,
    pub(super) budget: Duration,
    pub(super) seed: u64,
    pub(super) temperature: f32,
    pub(super) adapters: Vec<Adapter>,
    pub(super) model: ModelConfig,
    pub(super) model_name: String,
    pub(super) formats: Formats,
    pub(super) device: Device,
    /// What was decided that nobody asked for.
    pub(super) note: Option<String>,
}

/// An engine of one world size.
#[derive(Debug)]
pub(super) struct World {
    pub(super) world_size: usize,
    pub(super) settings: EngineSettings,
    /// What a shard that exchanges nothing would exchange; none if the ranks do.
    pub(super) exchanges: Option<Exchanges>,
}

/// Where the times of exchanges are from.
#[derive(Clone, Debug)]
pub(super) enum Exchanges {
    /// A table of a kind of GPU.
    Gpu { name: String, table: AllReduce },
    /// Threads of this machine.
    Threads,
}

impl Plan {
    pub(super) fn of(arguments: &Arguments) -> Result<Self, Failure> {
        let subject = &arguments.subject;
        let model = subject.model()?;
        let world_sizes = world_sizes(arguments, &model)?;
        let ranks = ranks_here(arguments, &world_sizes);
        let (device, note) = subject.device(ranks)?;
        let adapters = load_adapters(arguments, &model)?;
        let defaults = subject.settings(device)?;
        let design = design(arguments, &model, &defaults, adapters.len())?;
        let rank_max = adapters.iter().map(|adapter| adapter.rank).max();
        let settings = EngineSettings {
            max_model_len: Some(design.limits().max_model_len),
            max_num_seqs: design.limits().max_num_seqs,
            max_batched_tokens: design.limits().max_batched_tokens,
            kv_cache: KvCacheSize::Blocks(design.num_blocks()),
            max_loras: adapters.len(),
            max_lora_rank: rank_max.unwrap_or(defaults.max_lora_rank),
            ..defaults
        };
        let world = |&world_size: &usize| world(arguments, &settings, device, world_size);
        Ok(Self {
            worlds: world_sizes.iter().map(world).collect::<Result<_, _>>()?,
            design,
            budget: arguments.budget,
            seed: arguments.seed,
            temperature: arguments.temperature,
            adapters,
            model_name: subject.model_name(),
            formats: subject.formats(&model, device),
            model,
            device,
            note,
        })
    }
}

/// What was asked for, in increasing order.
fn world_sizes(arguments: &Arguments, model: &ModelConfig) -> Result<Vec<usize>, Failure> {
    let mut sizes: Vec<usize> = arguments.world_size.iter().map(|size| size.get()).collect();
    sizes.sort_unstable();
    if let Some(pair) = sizes.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("--world-size has {} twice; name each once", pair[0]);
        return Err(Failure::Input(message));
    }
    for &size in &sizes {
        Partition::check(model, size).map_err(|error| Failure::Input(error.to_string()))?;
    }
    if arguments.shard_alone.is_some() && sizes.last() == Some(&1) {
        let message = "--shard-alone is one rank of several: add --world-size";
        return Err(Failure::Input(message.to_owned()));
    }
    Ok(sizes)
}

/// Whether the ranks of a world are all here: threads are, and GPUs unless one of them is alone.
fn are_all_here(arguments: &Arguments, world_size: usize) -> bool {
    match arguments.shard_alone.as_deref() {
        Some(gpu) => world_size == 1 || gpu == THREADS,
        None => true,
    }
}

/// The most ranks that are here at once.
fn ranks_here(arguments: &Arguments, world_sizes: &[usize]) -> usize {
    let here = world_sizes
        .iter()
        .filter(|&&size| are_all_here(arguments, size));
    here.copied().max().unwrap_or(1)
}

fn world(
    arguments: &Arguments,
    settings: &EngineSettings,
    device: Device,
    world_size: usize,
) -> Result<World, Failure> {
    let name = arguments.shard_alone.as_deref().filter(|_| world_size > 1);
    let exchanges = match name {
        None => None,
        Some(THREADS) if device.is_gpu() => {
            let message = "--shard-alone threads is for the CPU; name a GPU such as h200";
            return Err(Failure::Input(message.to_owned()));
        }
        Some(THREADS) => Some(Exchanges::Threads),
        Some(gpu) => Some(Exchanges::Gpu {
            name: gpu.to_owned(),
            table: all_reduce(gpu)?,
        }),
    };
    if let Some(Exchanges::Gpu { name, table }) = &exchanges {
        let sizes: Vec<u32> = table.by_world_size.iter().map(|(size, _)| *size).collect();
        if !sizes.contains(&(world_size as u32)) {
            return Err(Failure::Input(format!(
                "--shard-alone: for {name} there are all-reduce times of world sizes {sizes:?}, not of {world_size}"
            )));
        }
    }
    Ok(World {
        world_size,
        settings: EngineSettings {
            world_size,
            device: device_of(device, world_size, exchanges.as_ref())?,
            ranks_apart: matches!(exchanges, Some(Exchanges::Threads)),
            shard_alone: match &exchanges {
                // It takes no time here: the profile has what it takes beside the steps.
                Some(Exchanges::Gpu { .. }) => Some(AllReduce::free(world_size as u32)),
                Some(Exchanges::Threads) | None => None,
            },
            ..settings.clone()
        },
        exchanges,
    })
}

/// The threads of a rank that is alone are its share of all.
fn device_of(
    device: Device,
    world_size: usize,
    exchanges: Option<&Exchanges>,
) -> Result<Device, Failure> {
    let Device::Cpu {
        threads: Some(threads),
    } = device
    else {
        return Ok(device);
    };
    if threads.get() % world_size != 0 {
        return Err(Failure::Input(format!(
            "{threads} threads cannot be shared equally by {world_size} ranks; give a multiple with --threads"
        )));
    }
    Ok(match exchanges {
        Some(Exchanges::Gpu { .. }) => Device::Cpu {
            threads: NonZeroUsize::new(threads.get() / world_size),
        },
        Some(Exchanges::Threads) | None => device,
    })
}

fn design(
    arguments: &Arguments,
    model: &ModelConfig,
    defaults: &EngineSettings,
    adapters: usize,
) -> Result<Design, Failure> {
    let or = |asked: Option<NonZeroUsize>, default| asked.map_or(default, NonZeroUsize::get);
    let positions = model.max_position_embeddings;
    let max_batched_tokens = or(arguments.max_batched_tokens, defaults.max_batched_tokens);
    let longest = positions.min(max_batched_tokens.saturating_mul(STEPS_OF_A_SEQUENCE));
    let max_model_len = or(arguments.max_model_len, longest);
    if max_model_len > positions {
        return Err(Failure::Input(format!(
            "--max-model-len {max_model_len} is more than the {positions} positions of the model"
        )));
    }
    let kv_tokens = match defaults.device.is_gpu() {
        true => KV_TOKENS_GPU,
        false => KV_TOKENS_CPU,
    };
    let limits = DesignLimits {
        max_num_seqs: or(arguments.max_num_seqs, defaults.max_num_seqs),
        max_batched_tokens,
        max_model_len,
        kv_tokens: or(arguments.kv_tokens, kv_tokens),
        block_size: defaults.block_size,
        adapters,
    };
    limits
        .check()
        .map_err(|error| Failure::Input(error.to_string()))?;
    if limits.max_batched_tokens < limits.max_num_seqs {
        return Err(Failure::Input(format!(
            "--max-batched-tokens {} is less than --max-num-seqs {}: each sequence computes a token in a step",
            limits.max_batched_tokens, limits.max_num_seqs
        )));
    }
    Design::new(limits).map_err(|error| Failure::Input(error.to_string()))
}

fn load_adapters(arguments: &Arguments, model: &ModelConfig) -> Result<Vec<Adapter>, Failure> {
    if let Some(count) = arguments.random_adapters {
        if count.get() > RANDOM_ADAPTERS_MAX {
            return Err(Failure::Input(format!(
                "--random-adapters {count}: give {RANDOM_ADAPTERS_MAX} at most"
            )));
        }
        let adapter = |number| random_adapter(model, RANDOM_RANK, arguments.seed, number);
        return Ok((0..count.get() as u64).map(adapter).collect());
    }
    let base = Base {
        name: &arguments.subject.model_name(),
        config: model,
        rank_max: LORA_RANK_MAX,
    };
    let load = |folder: &Path| {
        let name = folder.display().to_string();
        adapters::load(&name, folder, &base).map_err(|error| Failure::Input(error.to_string()))
    };
    arguments
        .adapter
        .iter()
        .map(|folder| load(folder))
        .collect()
}
