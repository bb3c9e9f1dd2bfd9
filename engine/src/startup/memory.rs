//! How much memory an engine takes, worked out before any is taken.
//!
//! ```text
//! needed = weights + activations + KV cache
//! ```
//!
//! An automatic KV cache has half of what is free beside the weights and the
//! activations, but no more than the longest sequences of a full batch can use,
//! and no more than 1 GiB: all of it is written at start, so that a step never
//! waits for memory, and that takes time.

use crate::backend::Limits;
use crate::config::{ModelConfig, Partition};
use crate::ops::KvFormat;

use super::settings::{EngineSettings, KvCacheSize};

/// Of the memory that is free, what an automatic KV cache takes.
const AUTOMATIC_SHARE: f64 = 0.5;

/// The largest automatic KV cache (bytes).
const AUTOMATIC_BYTES_MAX: u64 = 1 << 30;

/// Devices keep keys and values in tiles of so many tokens by so many dimensions.
const TILE: usize = 16;

/// What the size of everything follows from.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The model.
    pub config: &'a ModelConfig,
    /// The ranks that are here: one that stands for all, or all.
    pub partitions: &'a [Partition],
    /// The number format of the KV cache.
    pub kv_format: KvFormat,
    /// The weights of those ranks (bytes).
    pub weight_bytes: u64,
    /// The memory that is free (bytes), if the system says.
    pub free_bytes: Option<u64>,
}

/// Why an engine does not fit. Each says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// It is more than there is.
    #[error(
        "{} of weights, {} of activations and {} of KV cache are needed, and {} of memory are free; \
         choose a smaller model, bf16 weights, a smaller --kv-cache-memory or \
         smaller --max-batched-tokens",
        bytes(*weights), bytes(*activations), bytes(*kv_cache), bytes(*free)
    )]
    TooMuch {
        /// Of weights (bytes).
        weights: u64,
        /// Of activations (bytes).
        activations: u64,
        /// Of KV cache (bytes).
        kv_cache: u64,
        /// What is free (bytes).
        free: u64,
    },
    /// Not one sequence of the longest kind fits.
    #[error(
        "a sequence of {max_model_len} tokens needs {needed} KV blocks of {}, and there are {num_blocks}; \
         choose a larger --kv-cache-memory or a smaller --max-model-len",
        bytes(*block_bytes)
    )]
    Sequence {
        /// The longest sequence.
        max_model_len: usize,
        /// Blocks that it needs.
        needed: usize,
        /// Blocks there are.
        num_blocks: usize,
        /// What a block takes (bytes).
        block_bytes: u64,
    },
    /// A limit that must be at least 1 is 0, or too large for its index.
    #[error("{name} is {value}; it must be at least 1 and below 2^31")]
    Limit {
        /// Which.
        name: &'static str,
        /// What it is.
        value: usize,
    },
    /// A full batch could not decode in one step.
    #[error(
        "--max-batched-tokens ({max_batched_tokens}) is below --max-num-seqs ({max_num_seqs}): \
         a full batch needs one token for each sequence"
    )]
    Budget {
        /// Most tokens in a step.
        max_batched_tokens: usize,
        /// Most sequences in a step.
        max_num_seqs: usize,
    },
    /// Longer than the model was made for.
    #[error(
        "--max-model-len ({max_model_len}) is more than the context that the model was made for \
         ({max_position_embeddings})"
    )]
    Context {
        /// What was asked for.
        max_model_len: usize,
        /// What the model has.
        max_position_embeddings: usize,
    },
}

/// What KV cache an engine has, and whether it fits.
///
/// # Errors
/// If it does not fit, or the settings contradict each other.
pub fn limits(settings: &EngineSettings, demand: &Demand<'_>) -> Result<Limits, MemoryError> {
    check(settings)?;
    let longest = demand.config.max_position_embeddings;
    let asked = settings.max_model_len;
    if let Some(max_model_len) = asked.filter(|asked| *asked > longest) {
        return Err(MemoryError::Context {
            max_model_len,
            max_position_embeddings: longest,
        });
    }
    let block_bytes = block_bytes(settings.block_size, demand);
    let num_blocks = num_blocks(settings, demand, block_bytes);
    let holds = num_blocks.saturating_mul(settings.block_size);
    let max_model_len = asked.unwrap_or_else(|| longest.min(holds));
    let needed = max_model_len.max(1).div_ceil(settings.block_size);
    if needed > num_blocks {
        return Err(MemoryError::Sequence {
            max_model_len: max_model_len.max(1),
            needed,
            num_blocks,
            block_bytes,
        });
    }
    let limits = Limits {
        block_size: settings.block_size,
        num_blocks,
        max_num_seqs: settings.max_num_seqs,
        max_batched_tokens: settings.max_batched_tokens,
        max_model_len,
        max_loras: settings.max_loras,
        max_lora_rank: settings.max_lora_rank,
    };
    fits(&limits, demand, block_bytes)?;
    Ok(limits)
}

fn check(settings: &EngineSettings) -> Result<(), MemoryError> {
    let blocks = match settings.kv_cache {
        KvCacheSize::Blocks(blocks) => blocks,
        KvCacheSize::Auto | KvCacheSize::Bytes(_) => 1,
    };
    let limits = [
        ("--block-size", settings.block_size),
        ("--max-num-seqs", settings.max_num_seqs),
        ("--max-batched-tokens", settings.max_batched_tokens),
        ("--max-model-len", settings.max_model_len.unwrap_or(1)),
        ("--max-lora-rank", settings.max_lora_rank),
        ("the number of KV blocks", blocks),
    ];
    // Rows, positions and blocks are 32-bit numbers.
    let wrong = |value: usize| value == 0 || value > i32::MAX as usize;
    if let Some((name, value)) = limits.into_iter().find(|(_, value)| wrong(*value)) {
        return Err(MemoryError::Limit { name, value });
    }
    if settings.max_batched_tokens < settings.max_num_seqs {
        return Err(MemoryError::Budget {
            max_batched_tokens: settings.max_batched_tokens,
            max_num_seqs: settings.max_num_seqs,
        });
    }
    Ok(())
}

fn num_blocks(settings: &EngineSettings, demand: &Demand<'_>, block_bytes: u64) -> usize {
    let of_bytes = |bytes: u64| usize::try_from(bytes / block_bytes).unwrap_or(usize::MAX);
    let blocks = match settings.kv_cache {
        KvCacheSize::Blocks(blocks) => blocks,
        KvCacheSize::Bytes(bytes) => of_bytes(bytes),
        KvCacheSize::Auto => {
            let longest = settings.max_model_len;
            let longest = longest.unwrap_or(demand.config.max_position_embeddings);
            let sequence = longest.div_ceil(settings.block_size);
            let used = sequence.saturating_mul(settings.max_num_seqs);
            let taken = demand.weight_bytes
                + activation_bytes(settings.max_batched_tokens, settings.max_num_seqs, demand);
            let free = demand.free_bytes.map(|free| free.saturating_sub(taken));
            let share = free.map(|free| (free as f64 * AUTOMATIC_SHARE) as u64);
            // One sequence of the length that was asked for has to fit in any case.
            let asked = settings
                .max_model_len
                .map_or(0, |_| sequence as u64 * block_bytes);
            let most = AUTOMATIC_BYTES_MAX.max(asked);
            of_bytes(share.unwrap_or(u64::MAX).min(most)).min(used)
        }
    };
    blocks.min(i32::MAX as usize)
}

/// What a KV block takes in all ranks that are here (bytes).
fn block_bytes(block_size: usize, demand: &Demand<'_>) -> u64 {
    let config = demand.config;
    let heads = |partition: &Partition| partition.key_value_heads(config).len();
    let heads: usize = demand.partitions.iter().map(heads).sum();
    let value = match demand.kv_format {
        KvFormat::F32 => 4,
        KvFormat::Bf16 => 2,
    };
    let (tokens, width) = (
        block_size.next_multiple_of(TILE),
        config.head_dim.next_multiple_of(TILE),
    );
    let values = [2, config.num_hidden_layers, heads, tokens, width];
    let values = values
        .into_iter()
        .fold(value, |all: u64, factor| all.saturating_mul(factor as u64));
    values.max(1)
}

/// What activations and logits take in all ranks that are here (bytes): the
/// buffers of [`crate::model::Model`], the insides of operations, which are no
/// larger, and a row of logits for each sequence that samples.
fn activation_bytes(max_batched_tokens: usize, max_num_seqs: usize, demand: &Demand<'_>) -> u64 {
    let config = demand.config;
    let rank = |partition: &Partition| {
        let query_width = partition.query_heads(config).len() * config.head_dim;
        let inner = partition.intermediate(config).len();
        let width = config.hidden_size + 2 * query_width + inner;
        2 * 4 * (max_batched_tokens as u64).saturating_mul(width as u64)
    };
    let activations: u64 = demand.partitions.iter().map(rank).sum();
    let logits = 4 * (max_num_seqs as u64).saturating_mul(config.vocab_size as u64);
    activations.saturating_add(logits)
}

fn fits(limits: &Limits, demand: &Demand<'_>, block_bytes: u64) -> Result<(), MemoryError> {
    let Some(free) = demand.free_bytes else {
        return Ok(());
    };
    let activations = activation_bytes(limits.max_batched_tokens, limits.max_num_seqs, demand);
    let kv_cache = block_bytes.saturating_mul(limits.num_blocks as u64);
    let needed = demand.weight_bytes.saturating_add(activations);
    if needed.saturating_add(kv_cache) <= free {
        return Ok(());
    }
    Err(MemoryError::TooMuch {
        weights: demand.weight_bytes,
        activations,
        kv_cache,
        free,
    })
}

/// An amount of memory for people.
fn bytes(amount: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if amount < 1024 {
        return format!("{amount} B");
    }
    let mut value = amount as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// The memory that this process can take before something else has to give
/// (bytes), if the system says: what Linux calls available, or what is left
/// within the limit of its control group, whichever is less.
#[must_use]
pub fn free_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let available = available(&meminfo)?;
    Some(control_group_left().map_or(available, |left| left.min(available)))
}

/// The line `MemAvailable:   123 kB` of `/proc/meminfo` (proc(5)).
fn available(meminfo: &str) -> Option<u64> {
    let value = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// What the process's control group may still take: version 2, as a container
/// sees its own (Linux, Documentation/admin-guide/cgroup-v2.rst).
fn control_group_left() -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok();
    let most: u64 = read("memory.max")?.trim().parse().ok()?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    // Cached files count as current, and give way.
    let stat = read("memory.stat").unwrap_or_default();
    let cached = |line: &str| {
        line.strip_prefix("inactive_file ")?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let cached = stat.lines().find_map(cached).unwrap_or(0);
    Some(most.saturating_sub(current.saturating_sub(cached)))
}
