//! TensorRT-LLM's own table of throughput at the greatest load.

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::Precision;

use super::{Study, gpu, shape};
use crate::Result;
use crate::case::{Case, Engine, Figure, Given};
use crate::replica::{Due, Load};

const ABOUT: &str = "NVIDIA/TensorRT-LLM 00f3768 `docs/source/performance/perf-overview.md` (version 1.0, Apache-2.0; its numbers are in \
    this example, since no folder has them): output tokens/s of `trtllm-bench throughput`, which has all requests at once and all as long as \
    said. Weights and KV cache are fp8. Batch and step limits are chosen by the tool and not published: 8192 tokens a step are taken, and as many \
    sequences as the KV cache holds whole (the engine admits no others), at most 2048.";

const ABOUT_BARE: &str = "As above, with a `sequence_overhead` of 6 us: what Argonne's batches of TensorRT-LLM on H100 ask for, which also have no \
    server. The built-in 17 us are those of engines that stream every token through a server.";

/// [`ABOUT_BARE`] (s).
const SEQUENCE_OVERHEAD_BARE_S: f64 = 6e-6;

/// Prompt, answer, and how many requests.
const LOADS: [(u32, u32, usize); 10] = [
    (128, 128, 30_000),
    (128, 2048, 3_000),
    (128, 4096, 1_500),
    (500, 2000, 3_000),
    (1000, 1000, 3_000),
    (1000, 2000, 1_500),
    (2048, 128, 3_000),
    (2048, 2048, 1_500),
    (5000, 500, 1_500),
    (20_000, 2000, 1_000),
];

/// A model on GPUs, and output tokens/s for each of the loads.
struct Column {
    model: &'static str,
    gpu: &'static str,
    world_size: u32,
    tokens_per_s: [f64; 10],
}

const COLUMNS: [Column; 6] = [
    Column {
        model: "llama-3.1-8b",
        gpu: "h100",
        world_size: 1,
        tokens_per_s: [
            28_312.0, 22_714.0, 14_325.0, 17_660.0, 15_220.0, 13_899.0, 3_450.0, 9_305.0, 3_459.0,
            1_351.0,
        ],
    },
    Column {
        model: "llama-3.1-8b",
        gpu: "h200",
        world_size: 1,
        tokens_per_s: [
            27_911.0, 26_221.0, 18_027.0, 20_770.0, 17_744.0, 16_828.0, 3_538.0, 12_194.0, 3_902.0,
            1_804.0,
        ],
    },
    // Llama-3.3-70B has the shape of 3.1.
    Column {
        model: "llama-3.1-70b",
        gpu: "h100",
        world_size: 2,
        tokens_per_s: [
            6_378.0, 6_651.0, 4_199.0, 5_222.0, 4_205.0, 4_146.0, 762.0, 3_082.0, 898.0, 437.0,
        ],
    },
    Column {
        model: "llama-3.1-70b",
        gpu: "h200",
        world_size: 1,
        tokens_per_s: [
            3_803.0, 4_336.0, 2_872.0, 3_666.0, 2_909.0, 2_994.0, 442.0, 2_003.0, 566.0, 283.0,
        ],
    },
    Column {
        model: "llama-3.1-405b",
        gpu: "h100",
        world_size: 8,
        tokens_per_s: [
            3_627.0, 4_340.0, 3_116.0, 3_994.0, 2_919.0, 2_895.0, 453.0, 2_296.0, 610.0, 345.0,
        ],
    },
    Column {
        model: "llama-3.1-405b",
        gpu: "h200",
        world_size: 8,
        tokens_per_s: [
            3_814.0, 5_348.0, 4_741.0, 4_724.0, 3_330.0, 3_722.0, 456.0, 2_948.0, 650.0, 505.0,
        ],
    },
];

pub(super) fn studies() -> Result<Vec<Study>> {
    let as_built_in = COLUMNS.iter().map(|column| study(column, false));
    let bare = COLUMNS.iter().map(|column| study(column, true));
    as_built_in.chain(bare).collect()
}

fn study(column: &Column, is_bare: bool) -> Result<Study> {
    let cases = LOADS.iter().zip(column.tokens_per_s);
    let cases = cases.map(|(load, tokens_per_s)| case(column, *load, tokens_per_s));
    let (model, gpus) = (column.model, column.gpu.to_uppercase());
    let mut gpu = gpu(column.gpu)?;
    if is_bare {
        gpu.efficiency.sequence_overhead_s = SEQUENCE_OVERHEAD_BARE_S;
    }
    Ok(Study {
        title: format!(
            "TensorRT-LLM 1.0's table, {model} fp8, {} x {gpus}{}",
            column.world_size,
            if is_bare { ", without a server" } else { "" }
        ),
        about: if is_bare { ABOUT_BARE } else { ABOUT },
        family: None,
        start: Start { gpu, request: None },
        cases: cases.collect::<Result<_>>()?,
        folds: Vec::new(),
    })
}

fn case(column: &Column, load: (u32, u32, usize), tokens_per_s: f64) -> Result<Case> {
    let (prompt, output, count) = load;
    let due = Due {
        at_s: 0.0,
        prompt,
        output,
    };
    let mut engine = Engine {
        shape: shape(column.model)?,
        precision: Precision::Fp8,
        kv_precision: Precision::Fp8,
        world_size: column.world_size,
        max_num_seqs: 2048,
        max_batched_tokens: 8192,
        memory_share: 0.9,
    };
    let fit = engine.sequences(&gpu(column.gpu)?, prompt + output);
    engine.max_num_seqs = engine.max_num_seqs.min(fit);
    Ok(Case {
        name: format!("{prompt} + {output} tokens"),
        server: None,
        engine,
        given: Given::Load(
            Load {
                requests: vec![due; count],
                in_flight_max: count,
            },
            0..count,
        ),
        measured: vec![(
            Figure::RequestsPerSecond,
            tokens_per_s / f64::from(output),
            false,
        )],
    })
}
