//! Step times from first principles.
//!
//! A step reads the weights once, computes its tokens, reads the KV cache of
//! its decoding sequences, and (with more than one GPU) adds up each layer's
//! two partial results across the GPUs:
//!
//! ```text
//! step = step_overhead + sequences * sequence_overhead
//!      + layers * (layer_overhead + kernels * kernel_overhead
//!                  + matrices(tokens) + elementwise(tokens) + attention)
//!      + lm_head(sampled) + (2 * layers + 1) * all_reduce(tokens * hidden_size)
//! ```
//!
//! - **matrices** is a roofline with a rounded corner: `sqrt(m^2 + c^2)` for the
//!   time `m` to read one rank's weights and the time `c` to multiply them. The
//!   sharp `max(m, c)` of the textbook is too fast where both are alike, which
//!   is where large decode batches are. All matrices of a layer have nearly
//!   the same ratio of `m` to `c`, so one root serves a layer. A mixture of
//!   experts reads the experts that its tokens are expected to meet.
//! - **kernel_overhead** is what keeps the world size honest: every matrix
//!   product costs its bytes plus a constant, so that an eighth of a matrix takes
//!   more than an eighth of the time. There is no exponent on the world size.
//! - **attention** of decoding sequences is affine in their total context, and
//!   that of a chunk is again a rounded roofline of its FLOPs and its KV reads.
//! - An engine that launches kernels one by one has a host that is busy as well: then a step takes
//!   `(host_launch^4 + step^4)^(1/4)` of the whole step above, which is the longer of the two, and a little more
//!   where they are alike (in straight pieces, within 0.4 %: `host.rs`).
//!   Splitwise's engine takes 45 ms a token on 4 GPUs and on 8 (splitwise-sim 8f99e7d, Llama-2-70B on A100).
//! - **all_reduce** comes twice a layer (after attention and after the MLP) and
//!   once after the embedding, as Megatron's split has it (arXiv 1909.08053, section 3).
//!
//! Everything is computed in seconds in `f64` with `+ - * / sqrt`, which are
//! the same on every machine, and rounded once to integer picoseconds.
//!
//! # How far it is off
//!
//! `docs/accuracy.md` has the errors against every published measurement that was at hand, without a fit and
//! with one to other results of the same source; the `accuracy` example writes it. The tests of this
//! module hold the errors below bounds:
//!
//! ```text
//! FORESAIL_SHARED=... cargo test -p foresail-core step_time::accuracy -- --nocapture --test-threads 1
//! ```
//!
//! The three overheads of [`Efficiency`](super::Efficiency) that only a whole engine shows are fitted
//! to published serving results, everything else comes from datasheets and kernel
//! measurements, and how well each is known is beside it
//! ([`EfficiencySpread`](super::EfficiencySpread)). B200 and B300 were compared with nothing. What a server
//! takes for a request outside the engine's steps is not in it: 15 to 45 ms in what was published.

mod formula;
mod host;

#[cfg(test)]
mod tests;

use super::all_reduce::{self, AllReduceRange};
use super::{AllReduce, Chunk, DecodePiece, Gpu, ModelShape, Precision, StepLoad, StepTime};
use crate::time::Picos;
use host::Host;

/// Why a roofline cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RooflineError {
    /// Heads cannot be split evenly.
    #[error("world size {world_size} does not divide the model's {heads} attention heads")]
    HeadsNotDivisible {
        /// The world size asked for.
        world_size: u32,
        /// The model's query heads.
        heads: u32,
    },
    /// Key and value heads can be neither split nor replicated evenly.
    #[error(
        "world size {world_size} neither divides nor is a multiple of the model's {heads} key and value heads"
    )]
    KeyValueHeadsNotDivisible {
        /// The world size asked for.
        world_size: u32,
        /// The model's key and value heads.
        heads: u32,
    },
    /// The GPU has no units for this precision.
    #[error("the GPU has no fp8 units")]
    NoFp8,
    /// The time of an all-reduce is not known for this world size.
    #[error("no all-reduce times are known for world size {world_size}, only for {known}")]
    NoAllReduce {
        /// The world size asked for.
        world_size: u32,
        /// The world sizes of the table, in words.
        known: String,
    },
    /// A figure of the GPU makes no sense.
    #[error("the GPU's `{field}` must be {expected}")]
    InvalidGpu {
        /// The field of [`Gpu`] or its [`Efficiency`](super::Efficiency).
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A dimension of the model makes no sense.
    #[error("the model's `{field}` must be {expected}")]
    InvalidShape {
        /// The field of [`ModelShape`].
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// Step times of one (model, GPU, world size, precision).
///
/// All that does not depend on a step's load is worked out when it is made, so
/// that a decode-only step is one array look-up and a step with chunks a few
/// dozen floating-point operations, whatever the number of layers.
#[derive(Clone, Debug)]
pub struct Roofline {
    made_of: MadeOf,
    costs: Costs,
    /// Fixed part of a decode-only step by batch size (ps).
    decode_fixed: Vec<i64>,
    /// What a token of decode past adds (ps).
    per_past_token: Picos,
    /// Where the host takes time to launch, the pieces of a decode-only step by batch size, and else nothing.
    decode_pieces: Vec<Vec<DecodePiece>>,
}

/// What a roofline was made of.
#[derive(Clone, Debug)]
struct MadeOf {
    shape: ModelShape,
    precision: Precision,
    kv_precision: Precision,
    gpu: Gpu,
    world_size: u32,
}

impl Roofline {
    /// The model for one replica of `world_size` GPUs.
    ///
    /// # Errors
    /// If the shape cannot be split over `world_size` GPUs, or the GPU lacks the
    /// precision, its all-reduce times, or sensible figures.
    pub fn new(
        shape: &ModelShape,
        precision: Precision,
        kv_precision: Precision,
        gpu: &Gpu,
        world_size: u32,
        max_num_seqs: u32,
    ) -> Result<Self, RooflineError> {
        check_shape(shape, world_size)?;
        gpu.check()?;
        let costs = Costs::new(shape, precision, kv_precision, gpu, world_size)?;
        let decode_fixed = (0..=max_num_seqs)
            .map(|n| picos(costs.step(n.into(), n.into())) as i64)
            .collect();
        let per_past_token = picos(costs.kv_read_token_s);
        let pieces = |host: Host| (0..=max_num_seqs).map(|n| costs.pieces(host, n)).collect();
        let decode_pieces = costs.host.map_or_else(Vec::new, pieces);
        let made_of = MadeOf {
            shape: *shape,
            precision,
            kv_precision,
            gpu: gpu.clone(),
            world_size,
        };
        Ok(Self {
            made_of,
            costs,
            decode_fixed,
            per_past_token,
            decode_pieces,
        })
    }

    /// The GPU that it is of.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.made_of.gpu
    }

    /// The same model as other measurements of the GPU might have had it: with
    /// [`Gpu::drawn`], which says where `deviation` is to come from.
    ///
    /// # Panics
    /// If a deviation is not finite, or so large that a figure is.
    #[must_use]
    pub fn drawn(&self, deviation: impl FnMut() -> f64) -> Self {
        let MadeOf {
            shape,
            precision,
            kv_precision,
            gpu,
            world_size,
        } = &self.made_of;
        let max_num_seqs = self.decode_fixed.len() as u32 - 1;
        let gpu = gpu.drawn(deviation);
        Self::new(
            shape,
            *precision,
            *kv_precision,
            &gpu,
            *world_size,
            max_num_seqs,
        )
        .expect("positive figures stay positive when they are multiplied")
    }
}

impl StepTime for Roofline {
    #[inline]
    fn step(&self, load: &StepLoad<'_>) -> Picos {
        if load.chunks.is_empty() {
            return self
                .decode(load.decodes, load.decode_past)
                .at(load.decode_past);
        }
        let (mut tokens, mut sampled) = (u64::from(load.decodes), u64::from(load.decodes));
        let mut attention_s = 0.0;
        for chunk in load.chunks {
            tokens += u64::from(chunk.len);
            sampled += u64::from(chunk.sample);
            attention_s += self.costs.chunk_attention(chunk);
        }
        let device_s = self.costs.step(tokens, sampled) + attention_s;
        if let Some(host) = self.costs.host {
            let decode_s = self.costs.kv_read_token_s * load.decode_past as f64;
            return picos(host.step_s(device_s + decode_s));
        }
        picos(device_s) + self.per_past_token * load.decode_past
    }

    #[inline]
    fn decode(&self, batch: u32, past: u64) -> DecodePiece {
        if let Some(host) = self.costs.host {
            return match self.decode_pieces.get(batch as usize) {
                Some(pieces) => host::piece(pieces, past),
                None => host::piece(&self.costs.pieces(host, batch), past),
            };
        }
        let fixed = match self.decode_fixed.get(batch as usize) {
            Some(&fixed) => fixed,
            None => picos(self.costs.step(batch.into(), batch.into())) as i64,
        };
        DecodePiece {
            fixed,
            per_past_token: self.per_past_token,
            past_last: u64::MAX,
        }
    }
}

/// The coefficients of the formula above, for one rank, summed over the layers (s).
#[derive(Clone, Debug)]
struct Costs {
    /// Overheads that every step pays.
    fixed_s: f64,
    sequence_s: f64,
    host: Option<Host>,
    /// Reading the weights that every token needs.
    dense_read_s: f64,
    /// Reading all experts.
    experts_read_s: f64,
    /// Share of the experts that a step of so many tokens reads; all of them beyond its end.
    experts_share: Vec<f64>,
    gemm_token_s: f64,
    elementwise_token_s: f64,
    lm_head_read_s: f64,
    lm_head_token_s: f64,
    /// Attention of one query with one key.
    attention_pair_s: f64,
    /// Reading one token of KV cache.
    kv_read_token_s: f64,
    all_reduces: f64,
    all_reduce_bytes_token: u64,
    all_reduce_ranges: Vec<AllReduceRange>,
}

impl Costs {
    fn new(
        shape: &ModelShape,
        precision: Precision,
        kv_precision: Precision,
        gpu: &Gpu,
        world_size: u32,
    ) -> Result<Self, RooflineError> {
        let efficiency = &gpu.efficiency;
        let layers = f64::from(shape.num_hidden_layers);
        let world = f64::from(world_size);
        let weight_bytes_per_s = gpu.memory_bytes_per_s * efficiency.weight_read;
        let bf16_flops = gpu.bf16_flops * efficiency.gemm;
        let gemm_flops = match precision {
            Precision::Bf16 => bf16_flops,
            Precision::Fp8 => gpu.fp8_flops.ok_or(RooflineError::NoFp8)? * efficiency.gemm_fp8,
        };
        let attention = shape.attention_parameters_per_rank(world_size) as f64;
        let router = shape.router_parameters() as f64;
        let mlp = shape.mlp_parameters() as f64 / world;
        let (experts, active) = shape
            .experts
            .map_or((0.0, 1.0), |e| (f64::from(e.count), f64::from(e.active)));
        let dense = if experts > 0.0 {
            attention
        } else {
            attention + mlp
        };
        let bytes = precision.bytes() as f64;
        let bf16_bytes = Precision::Bf16.bytes() as f64;
        let lm_head = shape.embedding_parameters() as f64 / world;
        // Query, key and value; output; gate and up; down; and the router.
        let kernels = if experts > 0.0 { 5.0 } else { 4.0 };
        let layer_overhead_s = efficiency.layer_overhead_s + kernels * efficiency.kernel_overhead_s;
        let heads = f64::from(shape.num_attention_heads) / world;
        Ok(Self {
            fixed_s: efficiency.step_overhead_s + layers * layer_overhead_s,
            sequence_s: efficiency.sequence_overhead_s,
            host: Host::new(efficiency.host_launch_s),
            dense_read_s: layers * (dense * bytes + router * bf16_bytes) / weight_bytes_per_s,
            experts_read_s: layers * experts * mlp * bytes / weight_bytes_per_s,
            experts_share: shape
                .experts
                .map_or_else(Vec::new, |e| experts_share(e.count, e.active)),
            gemm_token_s: layers * 2.0 * (attention + router + active * mlp) / gemm_flops,
            elementwise_token_s: layers * elementwise_bytes(shape, world_size, active)
                / (gpu.memory_bytes_per_s * efficiency.elementwise),
            lm_head_read_s: lm_head * bf16_bytes / weight_bytes_per_s,
            lm_head_token_s: 2.0 * lm_head / bf16_flops,
            // Scores and their product with the values: 2 * 2 FLOP for each element of a head.
            attention_pair_s: layers * 4.0 * heads * f64::from(shape.head_dim)
                / (gpu.bf16_flops * efficiency.attention),
            kv_read_token_s: shape.kv_bytes_per_token_per_rank(kv_precision, world_size) as f64
                / (gpu.memory_bytes_per_s * efficiency.kv_read),
            all_reduces: 2.0 * layers + 1.0,
            all_reduce_bytes_token: u64::from(shape.hidden_size) * Precision::Bf16.bytes(),
            all_reduce_ranges: all_reduce_ranges(&gpu.all_reduce, world_size)?,
        })
    }

    /// What the device takes for a step of `tokens`, of which `sampled` yield a next one, without attention (s).
    #[inline]
    fn step(&self, tokens: u64, sampled: u64) -> f64 {
        let (tokens_f, sampled_f) = (tokens as f64, sampled as f64);
        let read_s = self.dense_read_s + self.experts_read_s * self.experts_share(tokens);
        let matrices_s = rounded_max(read_s, self.gemm_token_s * tokens_f);
        let lm_head_s = match sampled {
            0 => 0.0,
            _ => rounded_max(self.lm_head_read_s, self.lm_head_token_s * sampled_f),
        };
        self.fixed_s
            + self.sequence_s * sampled_f
            + matrices_s
            + self.elementwise_token_s * tokens_f
            + lm_head_s
            + self.all_reduces
                * all_reduce::seconds(
                    &self.all_reduce_ranges,
                    tokens * self.all_reduce_bytes_token,
                )
    }

    /// The pieces of steps that only decode, with this host.
    fn pieces(&self, host: Host, batch: u32) -> Vec<DecodePiece> {
        let fixed_s = self.step(batch.into(), batch.into());
        host.pieces(fixed_s, self.kv_read_token_s)
    }

    #[inline]
    fn experts_share(&self, tokens: u64) -> f64 {
        let index = usize::try_from(tokens).unwrap_or(usize::MAX);
        self.experts_share.get(index).copied().unwrap_or(1.0)
    }

    /// Attention of a chunk: its j-th token sees the past and j tokens of the chunk (s).
    #[inline]
    fn chunk_attention(&self, chunk: &Chunk) -> f64 {
        let (past, len) = (f64::from(chunk.past), f64::from(chunk.len));
        let pairs = len * past + len * (len + 1.0) * 0.5;
        rounded_max(
            pairs * self.attention_pair_s,
            (past + len) * self.kv_read_token_s,
        )
    }
}

/// A smooth upper bound of the larger of two times that overlap.
#[inline]
fn rounded_max(a: f64, b: f64) -> f64 {
    (a * a + b * b).sqrt()
}

/// Expected share of the experts that `t` tokens meet when the router spreads
/// them evenly, `1 - (1 - active / count)^t`, for every `t` until it is 1 in all
/// but the ninth digit. Real routers are less even, and read fewer.
fn experts_share(count: u32, active: u32) -> Vec<f64> {
    let missed_by_one = 1.0 - f64::from(active) / f64::from(count);
    let mut missed = 1.0;
    let mut shares = Vec::new();
    while missed > 1e-9 {
        shares.push(1.0 - missed);
        missed *= missed_by_one;
    }
    shares
}

/// Bytes that one token moves through one layer's small kernels: two norms
/// with their residual additions (each reads and writes two vectors), rotary
/// embedding of queries and keys, the KV cache's new entry, and the gated
/// activation (two in, one out).
fn elementwise_bytes(shape: &ModelShape, world_size: u32, active_experts: f64) -> f64 {
    let world = f64::from(world_size);
    let hidden = f64::from(shape.hidden_size);
    let width = f64::from(shape.head_dim);
    let queries = f64::from(shape.num_attention_heads) / world * width;
    let keys = f64::from(shape.kv_heads_per_rank(world_size)) * width;
    let activation = 3.0 * active_experts * f64::from(shape.intermediate_size) / world;
    let elements = 8.0 * hidden + 2.0 * (queries + keys) + 4.0 * keys + activation;
    elements * Precision::Bf16.bytes() as f64
}

fn all_reduce_ranges(
    all_reduce: &AllReduce,
    world_size: u32,
) -> Result<Vec<AllReduceRange>, RooflineError> {
    if world_size == 1 {
        return Ok(Vec::new());
    }
    all_reduce
        .ranges(world_size)
        .map(<[_]>::to_vec)
        .ok_or_else(|| {
            let known = all_reduce
                .by_world_size
                .iter()
                .map(|(size, _)| size.to_string());
            RooflineError::NoAllReduce {
                world_size,
                known: known.collect::<Vec<_>>().join(", "),
            }
        })
}

fn check_shape(shape: &ModelShape, world_size: u32) -> Result<(), RooflineError> {
    let fields = [
        ("num_hidden_layers", shape.num_hidden_layers),
        ("hidden_size", shape.hidden_size),
        ("num_attention_heads", shape.num_attention_heads),
        ("num_key_value_heads", shape.num_key_value_heads),
        ("head_dim", shape.head_dim),
        ("intermediate_size", shape.intermediate_size),
        ("vocab_size", shape.vocab_size),
        (
            "experts.count",
            shape.experts.map_or(1, |experts| experts.count),
        ),
        (
            "experts.active",
            shape.experts.map_or(1, |experts| experts.active),
        ),
    ];
    if let Some((field, _)) = fields.into_iter().find(|(_, value)| *value == 0) {
        return Err(RooflineError::InvalidShape {
            field,
            expected: "at least 1",
        });
    }
    if shape
        .experts
        .is_some_and(|experts| experts.active > experts.count)
    {
        let expected = "at most `experts.count`";
        return Err(RooflineError::InvalidShape {
            field: "experts.active",
            expected,
        });
    }
    let heads = shape.num_attention_heads;
    if world_size == 0 || !heads.is_multiple_of(world_size) {
        return Err(RooflineError::HeadsNotDivisible { world_size, heads });
    }
    let heads = shape.num_key_value_heads;
    if !heads.is_multiple_of(world_size) && !world_size.is_multiple_of(heads) {
        return Err(RooflineError::KeyValueHeadsNotDivisible { world_size, heads });
    }
    Ok(())
}

/// Seconds as integer picoseconds, rounded to the nearest.
#[inline]
pub(super) fn picos(seconds: f64) -> Picos {
    (seconds * 1e12 + 0.5) as Picos
}
