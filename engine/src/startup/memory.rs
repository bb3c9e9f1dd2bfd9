//! How much memory an engine takes, worked out before any is taken.
//!
//! ```text
//! needed = weights + activations + KV cache
//! ```
//!
//! An automatic KV cache has half of what is free beside the weights and the
//! activations, but no more than the longest sequences of a full batch can use,
//! and no more than 1 GiB: all of it is written at start, so that a step never
//! waits for memory, and that takes time. On a GPU, whose memory is for this
//! alone, it has nine tenths of what is left, and there is no such limit.

use crate::backend::Limits;
use crate::config::{ModelConfig, Partition};
use crate::ops::KvFormat;

use super::settings::{EngineSettings, KvCacheSize};

/// Of the memory that is free, what an automatic KV cache takes.
const AUTOMATIC_SHARE: f64 = 0.5;

/// The same where nothing else needs it. vLLM plans with nine tenths of a GPU's memory
/// (`gpu_memory_utilization` in vllm/config/cache.py).
const DEDICATED_SHARE: f64 = 0.9;

/// Rows that a GPU has room for in any case: `BUCKET_MAX` of [`crate::cuda::buckets`].
const GPU_ROWS: u64 = crate::cuda::buckets::BUCKET_MAX as u64;

/// Workspaces of a GPU's libraries and kernels, rounded up (bytes).
const GPU_WORKSPACE_BYTES: u64 = 256 << 20;

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
    /// Whether the memory is there for this alone, as a GPU's is.
    pub is_dedicated: bool,
}

/// Why an engine does not fit. Each says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// It is more than there is.
    #[error(
        "{} of weights, {} of activations and {} of KV cache are needed, and {} of memory are free; {}",
        bytes(*weights), bytes(*activations), bytes(*kv_cache), bytes(*free),
        what_fits(*weights, *activations, *free)
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
    if num_blocks == 0 && settings.kv_cache == KvCacheSize::Auto {
        // Nothing is left for it: what is too large is the model.
        let activations =
            activation_bytes(settings.max_batched_tokens, settings.max_num_seqs, demand);
        return Err(too_much(demand, activations, block_bytes));
    }
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
            let activations =
                activation_bytes(settings.max_batched_tokens, settings.max_num_seqs, demand);
            let taken = demand.weight_bytes.saturating_add(activations);
            let free = demand.free_bytes.map(|free| free.saturating_sub(taken));
            let of_free = match demand.is_dedicated {
                true => DEDICATED_SHARE,
                false => AUTOMATIC_SHARE,
            };
            let share = free.map(|free| (free as f64 * of_free) as u64);
            // One sequence of the length that was asked for has to fit in any case.
            let asked = settings
                .max_model_len
                .map_or(0, |_| sequence as u64 * block_bytes);
            let most = match demand.is_dedicated {
                true => u64::MAX,
                false => AUTOMATIC_BYTES_MAX.max(asked),
            };
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
    let counted = activations.saturating_add(logits);
    if !demand.is_dedicated {
        return counted;
    }
    // A GPU has room for its largest bucket whatever is asked for, each rank has logits of all, sampling has copies of
    // some rows, and there are libraries' workspaces.
    let ranks = demand.partitions.len() as u64;
    let vocabulary = 4 * config.vocab_size as u64;
    let more = ranks * (2 * (GPU_ROWS + max_num_seqs as u64) * vocabulary + GPU_WORKSPACE_BYTES);
    counted.saturating_add(more)
}

fn fits(limits: &Limits, demand: &Demand<'_>, block_bytes: u64) -> Result<(), MemoryError> {
    let free = demand.free_bytes.unwrap_or(u64::MAX);
    let activations = activation_bytes(limits.max_batched_tokens, limits.max_num_seqs, demand);
    let kv_cache = block_bytes.saturating_mul(limits.num_blocks as u64);
    let needed = demand.weight_bytes.saturating_add(activations);
    if needed.saturating_add(kv_cache) <= free {
        return Ok(());
    }
    Err(too_much(demand, activations, kv_cache))
}

fn too_much(demand: &Demand<'_>, activations: u64, kv_cache: u64) -> MemoryError {
    MemoryError::TooMuch {
        weights: demand.weight_bytes,
        activations,
        kv_cache,
        free: demand.free_bytes.unwrap_or(u64::MAX),
    }
}

/// What would fit instead.
fn what_fits(weights: u64, activations: u64, free: u64) -> String {
    let left = free.saturating_sub(weights).saturating_sub(activations);
    if left > 0 {
        return format!(
            "a --kv-cache-memory of up to {} would fit, or more with smaller --max-batched-tokens",
            bytes(left)
        );
    }
    if weights < free {
        return "smaller --max-batched-tokens would leave room for a KV cache".to_owned();
    }
    // Ranks have equal parts of the weights, and somewhat more than that in all.
    let ranks = weights.div_ceil(free.max(1)) + 1;
    format!(
        "the weights alone do not fit: choose a smaller model, bf16 weights, or as many devices \
         (--world-size) as have {} together",
        bytes(ranks.saturating_mul(free))
    )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::startup::ModelSource;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    /// The shape of Llama 3 8B: a token of KV cache is 128 KiB in bf16.
    fn llama() -> ModelConfig {
        Checkpoint::dummy("llama-3-8b", 0).unwrap().config().clone()
    }

    fn demand<'a>(config: &'a ModelConfig, partitions: &'a [Partition]) -> Demand<'a> {
        Demand {
            config,
            partitions,
            kv_format: KvFormat::Bf16,
            weight_bytes: 16 * GIB,
            free_bytes: Some(64 * GIB),
            is_dedicated: false,
        }
    }

    fn settings() -> EngineSettings {
        EngineSettings::new(ModelSource::Dummy("llama-3-8b".to_owned()))
    }

    #[test]
    fn a_kv_cache_of_so_many_bytes_has_so_many_blocks() {
        let config = llama();
        let mut settings = settings();
        settings.kv_cache = KvCacheSize::Bytes(GIB);
        let whole = limits(&settings, &demand(&config, &[Partition::WHOLE])).unwrap();
        // 16 tokens of 128 KiB are 2 MiB.
        assert_eq!(whole.num_blocks, 512);
        assert_eq!(whole.max_model_len, 8192);
        // Over 16 ranks, each of 8 heads is there twice.
        let ranks: Vec<_> = (0..16)
            .map(|rank| Partition {
                rank,
                world_size: 16,
            })
            .collect();
        let replicated = limits(&settings, &demand(&config, &ranks)).unwrap();
        assert_eq!(replicated.num_blocks, 256);
        assert_eq!(replicated.max_model_len, 4096);
    }

    #[test]
    fn an_automatic_kv_cache_is_what_can_be_used_and_no_more_than_a_share() {
        let config = llama();
        let partitions = [Partition::WHOLE];
        let blocks = |settings: &EngineSettings, free| {
            let demand = Demand {
                free_bytes: free,
                ..demand(&config, &partitions)
            };
            limits(settings, &demand).unwrap().num_blocks
        };
        let mut settings = settings();
        assert_eq!(blocks(&settings, Some(64 * GIB)), 512);
        assert_eq!(blocks(&settings, None), 512);
        // Half of the GiB that is left beside weights and activations, or a little less.
        let tight = blocks(&settings, Some(17 * GIB));
        assert!((200..=256).contains(&tight), "{tight}");
        (settings.max_num_seqs, settings.max_model_len) = (4, Some(100));
        assert_eq!(blocks(&settings, Some(64 * GIB)), 4 * 7);
    }

    #[test]
    fn a_gpu_gives_nine_tenths_of_what_is_left() {
        let config = llama();
        let mut settings = settings();
        settings.max_num_seqs = 256;
        let demand = Demand {
            is_dedicated: true,
            ..demand(&config, &[Partition::WHOLE])
        };
        // 64 GiB without 16 of weights and some of activations, in blocks of 2 MiB.
        let blocks = limits(&settings, &demand).unwrap().num_blocks;
        assert!((20_500..22_118).contains(&blocks), "{blocks}");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_to_change() {
        let config = llama();
        let partitions = [Partition::WHOLE];
        let refused = |change: &dyn Fn(&mut EngineSettings), free: u64| {
            let mut settings = settings();
            change(&mut settings);
            let demand = Demand {
                free_bytes: Some(free),
                ..demand(&config, &partitions)
            };
            limits(&settings, &demand).unwrap_err().to_string()
        };
        let cases = [
            refused(&|_| (), 8 * GIB),
            refused(&|it| it.kv_cache = KvCacheSize::Bytes(50 * GIB), 64 * GIB),
            refused(&|it| it.kv_cache = KvCacheSize::Bytes(100), 64 * GIB),
            refused(
                &|it| {
                    it.kv_cache = KvCacheSize::Blocks(10);
                    it.max_model_len = Some(161);
                },
                64 * GIB,
            ),
            refused(&|it| it.max_model_len = Some(8193), 64 * GIB),
            refused(&|it| it.block_size = 0, 64 * GIB),
            refused(&|it| it.max_model_len = Some(0), 64 * GIB),
            refused(
                &|it| it.kv_cache = KvCacheSize::Blocks(usize::MAX),
                64 * GIB,
            ),
            refused(&|it| it.max_num_seqs = 513, 64 * GIB),
        ];
        insta::assert_snapshot!(cases.join("\n"), @"
        16.0 GiB of weights, 135.3 MiB of activations and 2.0 MiB of KV cache are needed, and 8.0 GiB of memory are free; the weights alone do not fit: choose a smaller model, bf16 weights, or as many devices (--world-size) as have 24.0 GiB together
        16.0 GiB of weights, 135.3 MiB of activations and 50.0 GiB of KV cache are needed, and 64.0 GiB of memory are free; a --kv-cache-memory of up to 47.9 GiB would fit, or more with smaller --max-batched-tokens
        a sequence of 1 tokens needs 1 KV blocks of 2.0 MiB, and there are 0; choose a larger --kv-cache-memory or a smaller --max-model-len
        a sequence of 161 tokens needs 11 KV blocks of 2.0 MiB, and there are 10; choose a larger --kv-cache-memory or a smaller --max-model-len
        --max-model-len (8193) is more than the context that the model was made for (8192)
        --block-size is 0; it must be at least 1 and below 2^31
        --max-model-len is 0; it must be at least 1 and below 2^31
        the number of KV blocks is 18446744073709551615; it must be at least 1 and below 2^31
        --max-batched-tokens (512) is below --max-num-seqs (513): a full batch needs one token for each sequence
        ");
    }

    proptest! {
        /// Whatever is asked for: an error, or limits that fit into what is free.
        #[test]
        fn limits_fit_or_there_are_none(
            free in prop::option::of(any::<u64>()),
            weight_bytes in any::<u64>(),
            kv_cache in prop_oneof![
                Just(KvCacheSize::Auto),
                any::<u64>().prop_map(KvCacheSize::Bytes),
                any::<usize>().prop_map(KvCacheSize::Blocks),
            ],
            max_model_len in prop::option::of(any::<usize>()),
            (block_size, max_num_seqs, max_batched_tokens) in (any::<u16>(), any::<u16>(), any::<usize>()),
        ) {
            let config = llama();
            let settings = EngineSettings {
                kv_cache,
                max_model_len,
                block_size: block_size.into(),
                max_num_seqs: max_num_seqs.into(),
                max_batched_tokens,
                ..settings()
            };
            let demand = Demand {
                free_bytes: free,
                weight_bytes,
                ..demand(&config, &[Partition::WHOLE])
            };
            if let Ok(limits) = limits(&settings, &demand) {
                let tokens = limits.num_blocks as u128 * limits.block_size as u128;
                prop_assert!(tokens >= limits.max_model_len as u128);
                let kv_cache = tokens * 128 * 1024;
                prop_assert!(free.is_none_or(|free| kv_cache + u128::from(weight_bytes) <= free.into()));
                if let Some(asked) = max_model_len {
                    prop_assert_eq!(limits.max_model_len, asked);
                }
            }
        }
    }
}
