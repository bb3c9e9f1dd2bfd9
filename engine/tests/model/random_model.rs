//! Tiny models of any shape, with random weights, and what each rank has of them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use foresail_engine::backend::Limits;
use foresail_engine::config::{
    AttentionBias, Dtype, Family, ModelConfig, Partition, Rotary, RotaryScaling, SlidingWindow,
};
use foresail_engine::ops::KvFormat;
use foresail_engine::weights::{
    Adapter, AdapterLayer, HostMatrix, HostValues, Layer, LowRank, Weights,
};
use half::bf16;
use proptest::prelude::*;

use crate::devices::Setting;

/// The longest sequence that tests compute with these models (tokens).
pub(crate) const TOKENS_MAX: usize = 80;

/// Tokens a step can have: as many as three whole sequences.
const STEP_TOKENS_MAX: usize = 3 * TOKENS_MAX;

/// A model, and all of its weights.
#[derive(Clone)]
pub(crate) struct RandomModel {
    pub(crate) setting: Setting,
    pub(crate) weights: Weights<HostMatrix>,
    /// What random values of this model are drawn by.
    pub(crate) seed: u64,
}

/// Without the weights, which the seed says.
impl fmt::Debug for RandomModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}, seed {}", self.setting, self.seed)
    }
}

/// Any model that one rank can have.
pub(crate) fn models() -> impl Strategy<Value = RandomModel> {
    models_of_heads((1_usize..=3, 1_usize..=4).prop_map(|(kv, group)| (kv * group, kv)))
}

/// Any model that 1, 2 and 4 ranks can share, with key and value heads replicated or not.
pub(crate) fn models_for_ranks() -> impl Strategy<Value = RandomModel> {
    models_of_heads(prop_oneof![
        Just((4, 1)),
        Just((4, 2)),
        Just((4, 4)),
        Just((8, 4)),
        Just((12, 2)),
    ])
}

/// The same models as GPUs compute them: in bf16, with blocks of a power of two.
pub(crate) fn for_gpus(
    models: impl Strategy<Value = RandomModel>,
) -> impl Strategy<Value = RandomModel> {
    models.prop_map(|model| {
        let config = ModelConfig {
            dtype: Dtype::Bf16,
            ..ModelConfig::clone(&model.setting.config)
        };
        let block_size = model.setting.limits.block_size.next_power_of_two();
        RandomModel::new(config, KvFormat::Bf16, block_size, model.seed)
    })
}

fn models_of_heads(
    heads: impl Strategy<Value = (usize, usize)>,
) -> impl Strategy<Value = RandomModel> {
    let widths = (1_usize..=9, 3_usize..=70, 4_usize..=70, 4_usize..=150);
    let kinds = (rotary(), attention_bias(), any::<bool>(), window());
    let formats = (any::<bool>(), any::<bool>(), any::<bool>());
    let others = (1_usize..=3, 1_usize..=17, any::<u64>());
    (heads, widths, kinds, formats, others).prop_map(
        |(heads, widths, kinds, (tied, bf16_weights, bf16_kv), (layers, block_size, seed))| {
            let config = ModelConfig {
                family: Family::Llama,
                vocab_size: widths.3,
                hidden_size: widths.1,
                intermediate_size: widths.2,
                num_hidden_layers: layers,
                num_attention_heads: heads.0,
                num_key_value_heads: heads.1,
                head_dim: 2 * widths.0,
                max_position_embeddings: TOKENS_MAX,
                rms_norm_eps: 1e-5,
                rotary: kinds.0,
                attention_bias: kinds.1,
                query_key_norm: kinds.2,
                sliding_window: kinds.3,
                tie_word_embeddings: tied,
                dtype: if bf16_weights {
                    Dtype::Bf16
                } else {
                    Dtype::F32
                },
                bos_token_id: None,
                eos_token_ids: Vec::new(),
            };
            let kv_format = if bf16_kv {
                KvFormat::Bf16
            } else {
                KvFormat::F32
            };
            RandomModel::new(config, kv_format, block_size, seed)
        },
    )
}

fn rotary() -> impl Strategy<Value = Rotary> {
    let llama3 = RotaryScaling::Llama3 {
        factor: 4.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 64.0,
    };
    let scaling = prop_oneof![
        Just(RotaryScaling::None),
        Just(RotaryScaling::Linear { factor: 2.5 }),
        Just(llama3),
    ];
    (10.0..1e6_f64, scaling).prop_map(|(theta, scaling)| Rotary { theta, scaling })
}

fn attention_bias() -> impl Strategy<Value = AttentionBias> {
    prop_oneof![
        Just(AttentionBias::None),
        Just(AttentionBias::QueryKeyValue),
        Just(AttentionBias::All),
    ]
}

fn window() -> impl Strategy<Value = Option<SlidingWindow>> {
    let window = (1_usize..=40, 0_usize..=2).prop_map(|(tokens, first_layer)| SlidingWindow {
        tokens,
        first_layer,
    });
    proptest::option::of(window)
}

impl RandomModel {
    fn new(config: ModelConfig, kv_format: KvFormat, block_size: usize, seed: u64) -> Self {
        let blocks_a_sequence = TOKENS_MAX.div_ceil(block_size);
        let limits = Limits {
            block_size,
            num_blocks: 6 * blocks_a_sequence,
            max_num_seqs: 8,
            max_batched_tokens: STEP_TOKENS_MAX,
            max_model_len: TOKENS_MAX,
            max_loras: 2,
            max_lora_rank: 8,
        };
        Self {
            weights: random_weights(&config, &mut Draw::new(seed, "weights")),
            setting: Setting {
                config: Arc::new(config),
                limits,
                kv_format,
            },
            seed,
        }
    }

    /// Random tokens of this model, others for each `index`.
    pub(crate) fn tokens(&self, index: usize, len: usize) -> Vec<u32> {
        let mut draw = Draw::new(self.seed.wrapping_add(index as u64), "tokens");
        let vocab_size = self.setting.config.vocab_size;
        (0..len).map(|_| draw.below(vocab_size) as u32).collect()
    }

    /// What a rank has of the weights.
    pub(crate) fn shard(&self, partition: Partition) -> Weights<HostMatrix> {
        shard(&self.setting.config, &self.weights, partition)
    }

    /// A random adapter of this model, another for each `index`, on some of the projections.
    pub(crate) fn adapter(&self, index: usize) -> Adapter {
        let config = &self.setting.config;
        let mut draw = Draw::new(self.seed.wrapping_add(index as u64), "adapter");
        let rank = 1 + draw.below(8);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.query_width(), config.key_value_width());
        let layers = (0..config.num_hidden_layers).map(|_| AdapterLayer {
            query: low_rank(&mut draw, queries, hidden, rank),
            key: low_rank(&mut draw, keys, hidden, rank),
            value: low_rank(&mut draw, keys, hidden, rank),
            output: low_rank(&mut draw, hidden, queries, rank),
            gate: low_rank(&mut draw, inner, hidden, rank),
            up: low_rank(&mut draw, inner, hidden, rank),
            down: low_rank(&mut draw, hidden, inner, rank),
        });
        Adapter {
            name: format!("adapter {index}"),
            rank,
            layers: layers.collect(),
            scale: 0.7,
        }
    }
}

/// Two matrices of an adapter, for three projections of four.
fn low_rank(
    draw: &mut Draw,
    out: usize,
    columns: usize,
    rank: usize,
) -> Option<LowRank<HostMatrix>> {
    let is_target = draw.below(4) > 0;
    is_target.then(|| LowRank {
        down: draw.matrix(rank, columns, Dtype::F32),
        up: draw.matrix(out, rank, Dtype::F32),
    })
}

fn random_weights(config: &ModelConfig, draw: &mut Draw) -> Weights<HostMatrix> {
    let (hidden, dtype) = (config.hidden_size, config.dtype);
    let embedding = draw.matrix(config.vocab_size, hidden, dtype);
    let layers = (0..config.num_hidden_layers).map(|index| random_layer(config, index, draw));
    let layers = layers.collect();
    let lm_head = draw.matrix(config.vocab_size, hidden, dtype);
    Weights {
        embedding,
        layers,
        norm: draw.scales(hidden),
        lm_head: (!config.tie_word_embeddings).then_some(lm_head),
    }
}

fn random_layer(config: &ModelConfig, index: usize, draw: &mut Draw) -> Layer<HostMatrix> {
    let (hidden, inner, dtype) = (config.hidden_size, config.intermediate_size, config.dtype);
    let queries = config.query_width();
    let fused = queries + 2 * config.key_value_width();
    let bias = config.attention_bias;
    Layer {
        index,
        attention_norm: draw.scales(hidden),
        qkv: draw.matrix(fused, hidden, dtype),
        qkv_bias: (bias != AttentionBias::None).then(|| draw.vector(fused)),
        query_key_norm: config
            .query_key_norm
            .then(|| (draw.scales(config.head_dim), draw.scales(config.head_dim))),
        output: draw.matrix(hidden, queries, dtype),
        output_bias: (bias == AttentionBias::All).then(|| draw.vector(hidden)),
        mlp_norm: draw.scales(hidden),
        gate_up: draw.matrix(2 * inner, hidden, dtype),
        down: draw.matrix(hidden, inner, dtype),
    }
}

/// Random numbers: SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64, stream: &str) -> Self {
        let stream = stream.bytes().fold(0, |sum: u64, byte| {
            sum.wrapping_mul(257).wrapping_add(byte.into())
        });
        Self(seed ^ stream.rotate_left(32))
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// Between -1 and 1.
    pub(crate) fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn vector(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }

    /// Scales of a norm.
    fn scales(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| 1.0 + 0.5 * self.value()).collect()
    }

    /// A matrix whose outputs are about as large as its inputs.
    fn matrix(&mut self, rows: usize, columns: usize, dtype: Dtype) -> HostMatrix {
        let width = (3.0 / columns as f32).sqrt();
        let values = (0..rows * columns).map(|_| width * self.value());
        let values = match dtype {
            Dtype::Bf16 => HostValues::Bf16(values.map(bf16::from_f32).collect()),
            Dtype::F32 | Dtype::F16 => HostValues::F32(values.collect()),
        };
        HostMatrix {
            rows,
            columns,
            values,
        }
    }
}

/// What a rank has of a model: a second opinion on what the loader of checkpoints does.
fn shard(
    config: &ModelConfig,
    whole: &Weights<HostMatrix>,
    partition: Partition,
) -> Weights<HostMatrix> {
    let hidden = 0..config.hidden_size;
    let vocabulary = partition.vocabulary(config);
    let layers = whole.layers.iter();
    Weights {
        embedding: part(&whole.embedding, std::slice::from_ref(&vocabulary), &hidden),
        layers: layers
            .map(|layer| shard_layer(config, layer, partition))
            .collect(),
        norm: whole.norm.clone(),
        lm_head: whole
            .lm_head
            .as_ref()
            .map(|lm_head| part(lm_head, &[vocabulary], &hidden)),
    }
}

fn shard_layer(
    config: &ModelConfig,
    whole: &Layer<HostMatrix>,
    partition: Partition,
) -> Layer<HostMatrix> {
    let hidden = 0..config.hidden_size;
    let columns = |heads: Range<usize>| heads.start * config.head_dim..heads.end * config.head_dim;
    let queries = columns(partition.query_heads(config));
    let keys = columns(partition.key_value_heads(config));
    let inner = partition.intermediate(config);
    let (query_width, key_width) = (config.query_width(), config.key_value_width());
    let fused = [
        queries.clone(),
        after(&keys, query_width),
        after(&keys, query_width + key_width),
    ];
    let gate_up = [inner.clone(), after(&inner, config.intermediate_size)];
    let fused_bias = |bias: &Vec<f32>| {
        fused
            .iter()
            .flat_map(|rows| &bias[rows.clone()])
            .copied()
            .collect()
    };
    Layer {
        index: whole.index,
        attention_norm: whole.attention_norm.clone(),
        qkv: part(&whole.qkv, &fused, &hidden),
        qkv_bias: whole.qkv_bias.as_ref().map(fused_bias),
        query_key_norm: whole.query_key_norm.clone(),
        output: part(&whole.output, std::slice::from_ref(&hidden), &queries),
        output_bias: whole.output_bias.clone().filter(|_| partition.rank == 0),
        mlp_norm: whole.mlp_norm.clone(),
        gate_up: part(&whole.gate_up, &gate_up, &hidden),
        down: part(&whole.down, &[hidden], &inner),
    }
}

fn after(range: &Range<usize>, offset: usize) -> Range<usize> {
    range.start + offset..range.end + offset
}

/// Some rows and columns of a matrix, in its format.
fn part(whole: &HostMatrix, rows: &[Range<usize>], columns: &Range<usize>) -> HostMatrix {
    let rows: Vec<usize> = rows.iter().cloned().flatten().collect();
    let places = rows.iter().flat_map(|row| {
        let first = row * whole.columns;
        columns.clone().map(move |column| first + column)
    });
    let values = match &whole.values {
        HostValues::F32(values) => HostValues::F32(places.map(|place| values[place]).collect()),
        HostValues::Bf16(values) => HostValues::Bf16(places.map(|place| values[place]).collect()),
    };
    HostMatrix {
        rows: rows.len(),
        columns: columns.len(),
        values,
    }
}
