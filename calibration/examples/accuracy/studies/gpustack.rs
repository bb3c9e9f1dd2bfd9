//! GPUStack's runs of Qwen3-8B on one H100 by three servers, with few clients.

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::Precision;

use super::lengths::{Quantiles, Uniform};
use super::{Study, gpu, shape};
use crate::Result;
use crate::case::{Case, Engine, Figure, Given};
use crate::replica::{Due, Load};

const ABOUT: &str = "gpustack/gpustack 6ceec5b `docs/performance-lab/qwen3-8b/h100-latency.md` (Apache-2.0; its numbers are in this example, since no \
    folder has them): Qwen3-8B on one H100, vLLM 0.11.0, SGLang 0.5.3.post3 and TensorRT-LLM 1.2.0rc1 as they come, `vllm bench serve` with a \
    hundred ShareGPT prompts (233 tokens in, 221 out in the mean) from 1 to 8 clients through the chat API. Prompts have the \
    quantiles of a thousand such prompts (dstack's, below), answers all their mean. Its runs at the greatest load are left out: there vLLM \
    reaches 44 requests/s with prompts of 128 tokens and 4 answered, and 30 % of the GPU's rate with long ones, so that something \
    beside the GPU was short.";

/// Tokens of ShareGPT's prompts as `vllm bench serve` takes them.
const PROMPTS: Quantiles = Quantiles([
    6, 9, 11, 14, 17, 22, 27, 35, 48, 72, 113, 175, 237, 288, 335, 385, 476, 573, 683, 770,
]);
const OUTPUT: u32 = 221;

/// A run.
struct Run {
    server: &'static str,
    precision: Precision,
    clients: usize,
    ttft_mean_ms: f64,
    ttft_p50_ms: f64,
    tpot_mean_ms: f64,
    requests_per_s: f64,
}

const VLLM: &str = "vLLM 0.11.0, chat API (GPUStack)";
const SGLANG: &str = "SGLang 0.5.3, chat API (GPUStack)";
const TENSORRT_LLM: &str = "TensorRT-LLM 1.2, chat API (GPUStack)";

const RUNS: [Run; 7] = [
    run(VLLM, Precision::Bf16, 1, [59.01, 60.38, 7.28, 0.60]),
    run(VLLM, Precision::Bf16, 2, [63.78, 64.78, 7.37, 1.17]),
    run(VLLM, Precision::Bf16, 4, [64.00, 60.26, 7.38, 2.25]),
    run(VLLM, Precision::Bf16, 8, [74.57, 60.77, 7.71, 4.16]),
    run(SGLANG, Precision::Bf16, 4, [27.70, 27.25, 7.19, 2.38]),
    run(SGLANG, Precision::Fp8, 4, [39.66, 33.38, 5.65, 2.98]),
    run(TENSORRT_LLM, Precision::Bf16, 4, [51.61, 45.46, 7.67, 2.21]),
];

const fn run(
    server: &'static str,
    precision: Precision,
    clients: usize,
    [ttft_mean_ms, ttft_p50_ms, tpot_mean_ms, requests_per_s]: [f64; 4],
) -> Run {
    Run {
        server,
        precision,
        clients,
        ttft_mean_ms,
        ttft_p50_ms,
        tpot_mean_ms,
        requests_per_s,
    }
}

pub(super) fn study() -> Result<Study> {
    Ok(Study {
        title: "Qwen3-8B, H100, three servers with few clients (GPUStack)".to_owned(),
        about: ABOUT,
        family: None,
        start: Start {
            gpu: gpu("h100")?,
            request: None,
        },
        cases: RUNS.iter().map(case).collect::<Result<_>>()?,
        folds: Vec::new(),
    })
}

fn case(run: &Run) -> Result<Case> {
    const COUNT: usize = 100;
    let mut uniform = Uniform::new("accuracy.gpustack");
    let requests = (0..COUNT).map(|_| Due {
        at_s: 0.0,
        prompt: PROMPTS.at(uniform.next()),
        output: OUTPUT,
    });
    let precision = match run.precision {
        Precision::Bf16 => "bf16",
        Precision::Fp8 => "fp8",
    };
    Ok(Case {
        name: format!("{}, {precision}, {} clients", run.server, run.clients),
        server: Some(run.server),
        engine: Engine {
            shape: shape("qwen3-8b")?,
            precision: run.precision,
            kv_precision: Precision::Bf16,
            world_size: 1,
            max_num_seqs: 256,
            max_batched_tokens: 8192,
            memory_share: 0.9,
        },
        given: Given::Load(
            Load {
                requests: requests.collect(),
                in_flight_max: run.clients,
            },
            0..COUNT,
        ),
        measured: vec![
            (Figure::TtftMean, run.ttft_mean_ms / 1e3, false),
            (Figure::TtftP50, run.ttft_p50_ms / 1e3, false),
            (Figure::TpotMean, run.tpot_mean_ms / 1e3, false),
            (Figure::RequestsPerSecond, run.requests_per_s, false),
        ],
    })
}
