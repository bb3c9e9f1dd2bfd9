//! What a step has to do: bytes and floating-point operations.
//!
//! With `L` layers, `h` the hidden size, `d` the width of a head, `q` query
//! heads, `k` key and value heads, `m` the width of the MLP, `V` the
//! vocabulary, and `n` tokens in the step, of which the token at position `p`
//! attends to `a(p) = min(p + 1, window)` tokens:
//!
//! ```text
//! matrices  P = L (h d (2 q + 2 k) + 3 h m)              parameters that each token meets
//! FLOPs       = 2 n P + 2 V h sequences + 4 L q d Σ a(p)
//! bytes       = w (P + V h) + 2 v L k d (read + written)
//! ```
//!
//! `w` and `v` are the bytes of a weight and of a value in the KV cache. Each
//! matrix is read once a step however many tokens there are; a sequence's keys
//! and values are read once a step in each layer, as far as any of its tokens
//! attends to them, and those of its new tokens written. Activations, norms,
//! biases and the gathered rows of the embedding are neglected: a fast cache
//! holds them, and they are below 1 % of the rest. Sums over ranks count what
//! each rank reads and computes, replicated key and value heads included.
//!
//! These are what a perfect implementation would do, not what ours does: one
//! that reads a matrix twice gets half of the floor.

use super::grid::Step;
use crate::config::{Dtype, ModelConfig, Partition};
use foresail_reports::bench::Work;

/// Number formats of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// Of the weights.
    pub weights: Dtype,
    /// Of the KV cache.
    pub kv: Dtype,
}

/// What a step has to do in all ranks together.
#[must_use]
pub fn work(config: &ModelConfig, world_size: usize, formats: Formats, step: Step) -> Work {
    let (sequences, len, past) = match step {
        Step::Decode { batch, context } => (batch, 1, context),
        Step::Prefill { chunk, context } => (1, chunk, context),
    };
    let heads = heads(config, world_size);
    let vocabulary = config.vocab_size * config.hidden_size;
    let matrices = config.num_hidden_layers
        * (config.hidden_size * config.head_dim * (2 * heads.query + 2 * heads.key_value)
            + 3 * config.hidden_size * config.intermediate_size);
    let (attended, kept) = attention(config, past, len);
    let query_width = heads.query * config.head_dim;
    let flops = 2 * len * matrices + 2 * vocabulary + 4 * query_width * attended;
    let kv_bytes = 2 * heads.key_value * config.head_dim * formats.kv.bytes();
    let written = config.num_hidden_layers * len;
    let bytes =
        formats.weights.bytes() * (matrices + vocabulary) + sequences * kv_bytes * (kept + written);
    Work {
        tokens: (sequences * len) as u64,
        bytes: bytes as u64,
        flops: (sequences * flops) as u64,
    }
}

/// What one of a world's ranks has to do of it: they share evenly.
#[must_use]
pub fn of_one_rank(work: Work, world_size: usize) -> Work {
    Work {
        tokens: work.tokens,
        bytes: work.bytes / world_size as u64,
        flops: work.flops / world_size as u64,
    }
}

/// Parameters of a model, norms and biases included.
#[must_use]
pub fn parameters(config: &ModelConfig) -> u64 {
    use crate::config::AttentionBias;
    let (hidden, queries) = (config.hidden_size, config.query_width());
    let keys_values = 2 * config.key_value_width();
    let attention = hidden * (2 * queries + keys_values);
    let bias = match config.attention_bias {
        AttentionBias::None => 0,
        AttentionBias::QueryKeyValue => queries + keys_values,
        AttentionBias::All => queries + keys_values + hidden,
    };
    let head_norms = usize::from(config.query_key_norm) * 2 * config.head_dim;
    let layer = attention + bias + head_norms + 3 * hidden * config.intermediate_size + 2 * hidden;
    let embeddings = if config.tie_word_embeddings { 1 } else { 2 };
    let vocabulary = embeddings * config.vocab_size * hidden;
    (config.num_hidden_layers * layer + vocabulary + hidden) as u64
}

/// Heads of all ranks together.
struct Heads {
    query: usize,
    key_value: usize,
}

fn heads(config: &ModelConfig, world_size: usize) -> Heads {
    let ranks = (0..world_size).map(|rank| Partition { rank, world_size });
    Heads {
        query: config.num_attention_heads,
        key_value: ranks
            .map(|partition| partition.key_value_heads(config).len())
            .sum(),
    }
}

/// Over the layers: how many tokens the sequence's new tokens attend to,
/// summed, and how many of its tokens any of them attends to.
fn attention(config: &ModelConfig, past: usize, len: usize) -> (usize, usize) {
    let of_layer = |layer| {
        let window = config.window(layer).unwrap_or(usize::MAX);
        let attended = (past..past + len)
            .map(|position| window.min(position + 1))
            .sum::<usize>();
        // The first new token reaches back the furthest.
        let kept = len + past.min(window - 1);
        (attended, kept)
    };
    let layers = (0..config.num_hidden_layers).map(of_layer);
    layers.fold((0, 0), |(attended, kept), layer| {
        (attended + layer.0, kept + layer.1)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;
    use crate::config::SlidingWindow;

    const FORMATS: Formats = Formats {
        weights: Dtype::Bf16,
        kv: Dtype::Bf16,
    };

    /// SmolLM2-135M's shape.
    fn small() -> ModelConfig {
        ModelConfig {
            vocab_size: 49_152,
            hidden_size: 576,
            intermediate_size: 1536,
            num_hidden_layers: 30,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            head_dim: 64,
            tie_word_embeddings: true,
            ..config()
        }
    }

    #[test]
    fn parameters_match_a_published_checkpoint() {
        // `total_parameters` of HuggingFaceTB/SmolLM2-135M.
        assert_eq!(parameters(&small()), 134_515_008);
    }

    #[test]
    fn a_decoded_token_reads_every_weight_once() {
        let decode = |batch, context| {
            let step = Step::Decode { batch, context };
            work(&small(), 1, FORMATS, step)
        };
        let (one, eight) = (decode(1, 99), decode(8, 99));
        // Norms are not counted. A token has 23,040 bytes of keys and values: in
        // 30 layers, 3 heads of 64 of each, 2 bytes a value; one more is written.
        let norms = 61 * 576;
        let kv = 23_040 * (100 + 1);
        assert_eq!(one.bytes, 2 * (134_515_008 - norms) + kv);
        assert_eq!(eight.bytes - one.bytes, 7 * kv);
        assert_eq!(eight.flops, 8 * one.flops);
        // 0.212 GFLOP a token without the output projection and attention.
        let attention = 4 * 30 * 576 * 100;
        assert_eq!(one.flops, 2 * (134_515_008 - norms) + attention);
        assert_eq!((one.tokens, eight.tokens), (1, 8));
    }

    #[test]
    fn a_chunk_is_projected_to_the_vocabulary_once() {
        let chunk = |chunk, context| {
            let step = Step::Prefill { chunk, context };
            work(&small(), 1, FORMATS, step)
        };
        let decode = work(
            &small(),
            1,
            FORMATS,
            Step::Decode {
                batch: 1,
                context: 0,
            },
        );
        assert_eq!(chunk(1, 0), decode);
        let vocabulary = 2 * 49_152 * 576;
        let matrices = decode.flops - vocabulary - 4 * 30 * 576;
        // 1 + 2 + 3 tokens attended to.
        let attention = 4 * 30 * 576 * 6;
        assert_eq!(chunk(3, 0).flops, 3 * matrices + vocabulary + attention);
        // Whole or in two, the same attention.
        assert_eq!(
            chunk(8, 0).flops + vocabulary,
            chunk(5, 0).flops + chunk(3, 5).flops
        );
    }

    #[test]
    fn a_window_bounds_what_is_read_and_computed() {
        let mut config = small();
        let step = Step::Decode {
            batch: 1,
            context: 1000,
        };
        let whole = work(&config, 1, FORMATS, step);
        config.sliding_window = Some(SlidingWindow {
            tokens: 101,
            first_layer: 0,
        });
        let windowed = work(&config, 1, FORMATS, step);
        assert_eq!(whole.bytes - windowed.bytes, 23_040 * 900);
        assert_eq!(whole.flops - windowed.flops, 4 * 30 * 576 * 900);
    }

    #[test]
    fn ranks_share_all_but_replicated_heads() {
        let step = Step::Decode {
            batch: 2,
            context: 50,
        };
        let config = ModelConfig {
            num_attention_heads: 8,
            num_key_value_heads: 2,
            ..small()
        };
        let alone = work(&config, 1, FORMATS, step);
        assert_eq!(work(&config, 2, FORMATS, step), alone);
        // Twice the key and value heads on four ranks.
        let more = work(&config, 4, FORMATS, step);
        let replicated = 2 * 30 * 576 * 64 * 2 * 2;
        let kv = 2 * (30 * 2 * 2 * 64 * 2) * (51 + 1);
        assert_eq!(more.bytes - alone.bytes, replicated + kv);
    }
}
