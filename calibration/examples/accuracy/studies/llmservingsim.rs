//! LLMServingSim's recorded run of vLLM with Llama-3.1-8B on one RTX PRO 6000.

use std::ops::Range;

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::{EfficiencySpread, Gpu, Precision};

use super::{Fold, Study, gpu, shape};
use crate::Result;
use crate::case::{Case, Engine, Figure, Given, percentile_of_sorted};
use crate::data::Data;
use crate::replica::{Due, Load};

const ABOUT: &str = "casys-kaist/LLMServingSim 5daddb2: 300 ShareGPT requests at 10/s, vLLM 0.19.0, at most 128 sequences and 2,048 tokens a step. \
    Arrivals and lengths of every request are known, and times are the engine's own (from `queued` on). This GPU is not built in: \
    the fit begins with its datasheet (96 GB at 1.6 TB/s, 504 TFLOP/s bf16) and the H100's shares of the peaks, all twice as uncertain. \
    The first half of the requests is fitted; the second, most of which waits for the first, is predicted.";

const FOLDER: &str = "llmservingsim_vllm/RTXPRO6000_Llama-3.1-8B";

#[derive(serde::Deserialize)]
struct Request {
    input_toks: u32,
    output_toks: u32,
    queued_ts: f64,
    first_token_ts: f64,
    last_token_ts: f64,
}

pub(super) fn study(data: &Data) -> Result<Study> {
    let text = data.text(&format!("{FOLDER}/requests.jsonl"))?;
    let requests = text.lines().map(serde_json::from_str);
    let mut requests = requests.collect::<std::result::Result<Vec<Request>, _>>()?;
    requests.sort_by(|left, right| left.queued_ts.total_cmp(&right.queued_ts));
    let begin_s = requests.first().ok_or("requests.jsonl is empty")?.queued_ts;
    let due = |of: &Request| Due {
        at_s: of.queued_ts - begin_s,
        prompt: of.input_toks,
        output: of.output_toks,
    };
    let load = Load {
        requests: requests.iter().map(due).collect(),
        in_flight_max: requests.len(),
    };
    let half = requests.len() / 2;
    let case = |name: &str, counted: Range<usize>| case(name, &requests, &load, counted);
    Ok(Study {
        title: "LLMServingSim's run, Llama-3.1-8B, RTX PRO 6000: the second half from the first"
            .to_owned(),
        about: ABOUT,
        family: None,
        start: Start {
            gpu: rtx_pro_6000()?,
            request: Some((0.002, 1.0)),
        },
        cases: vec![
            case("first half", 0..half)?,
            case("second half", half..requests.len())?,
        ],
        folds: vec![Fold::new("second half of the requests", &[0], &[1])],
    })
}

fn case(name: &str, requests: &[Request], load: &Load, counted: Range<usize>) -> Result<Case> {
    Ok(Case {
        name: name.to_owned(),
        server: None,
        engine: Engine {
            shape: shape("llama-3.1-8b")?,
            precision: Precision::Bf16,
            kv_precision: Precision::Bf16,
            world_size: 1,
            max_num_seqs: 128,
            max_batched_tokens: 2048,
            memory_share: 0.9,
        },
        measured: measured(&requests[counted.clone()]),
        given: Given::Load(load.clone(), counted),
    })
}

/// NVIDIA RTX PRO 6000 Blackwell Server Edition datasheet: 96 GB GDDR7 at 1,597 GB/s, 4 PFLOPS fp4 with
/// sparsity, of which dense bf16 is an eighth.
fn rtx_pro_6000() -> Result<Gpu> {
    let like = gpu("h100")?;
    let spread = like.spread.to_array().map(|deviation| 2.0 * deviation);
    Ok(Gpu {
        memory_bytes: 96_000_000_000,
        memory_bytes_per_s: 1.597e12,
        bf16_flops: 504e12,
        fp8_flops: Some(1008e12),
        spread: EfficiencySpread::of_array(spread),
        ..like
    })
}

fn measured(requests: &[Request]) -> Vec<(Figure, f64, bool)> {
    let ttft = |of: &Request| of.first_token_ts - of.queued_ts;
    let e2e = |of: &Request| of.last_token_ts - of.queued_ts;
    let tpot = |of: &Request| {
        (of.last_token_ts - of.first_token_ts) / f64::from(of.output_toks.max(2) - 1)
    };
    let of = |of: &dyn Fn(&Request) -> f64, names: [Figure; 4]| {
        let mut values: Vec<f64> = requests.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| percentile_of_sorted(&values, share));
        let figures = names.into_iter().zip([mean, p50, p90, p99]);
        figures
            .map(|(figure, value)| (figure, value, true))
            .collect::<Vec<_>>()
    };
    use Figure::{E2eMean, E2eP50, E2eP90, E2eP99, TpotMean, TpotP50, TpotP90, TpotP99};
    use Figure::{TtftMean, TtftP50, TtftP90, TtftP99};
    [
        of(&ttft, [TtftMean, TtftP50, TtftP90, TtftP99]),
        of(&tpot, [TpotMean, TpotP50, TpotP90, TpotP99]),
        of(&e2e, [E2eMean, E2eP50, E2eP90, E2eP99]),
    ]
    .concat()
}
