//! inference-perf's rate sweeps of vLLM with Llama-3-8B on one H100.

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::Precision;
use foresail_scenarios::random;
use rand::Rng as _;

use super::{Fold, REQUEST, Study, gpu, shape};
use crate::Result;
use crate::case::{Case, Engine, Figure, Given};
use crate::data::{Data, Row};
use crate::replica::{Due, Load};

/// `num_workers: 44`, `worker_max_concurrency: 10` (demos/kubecon-na-2025/vllm/config.yaml at 0e55ccf): what
/// is due beyond that waits in the client, and its time begins when it is sent.
const IN_FLIGHT_MAX: usize = 440;

const ABOUT: &str = "kubernetes-sigs/inference-perf 7de5ef2 `demos/kubecon-na-2025`: seven rates for a minute each, Llama-3-8B, vLLM 0.11.0, \
    H100 80 GB, prompts of about 200 and answers of about 62 tokens, no prefix cache, no chunked prefill. Known of the load from the \
    demo's configuration: exponential gaps scaled to the minute (`ConstantLoadTimer`), and 44 clients with at most 10 requests in \
    flight each, so that the saturated stages wait in the client. How much lengths vary is not published; E2E p90 is 1 % \
    above its median in the idle stage, so all are taken to be as long as their mean. The inter-token latencies of this client count \
    chunks, and are not compared.";

/// Figures and their columns.
const FIGURES: [(Figure, &str); 8] = [
    (Figure::TtftMean, "ttft_mean_ms"),
    (Figure::TtftP50, "ttft_p50_ms"),
    (Figure::TtftP90, "ttft_p90_ms"),
    (Figure::TtftP99, "ttft_p99_ms"),
    (Figure::TpotMean, "tpot_mean_ms"),
    (Figure::E2eMean, "e2e_mean_ms"),
    (Figure::E2eP50, "e2e_p50_ms"),
    (Figure::E2eP90, "e2e_p90_ms"),
];

pub(super) fn studies(data: &Data) -> Result<Vec<Study>> {
    let rows = data.table("inference_perf_kubecon.csv")?;
    let stages = |seqs: u32| -> Result<Vec<Case>> {
        let wanted = format!("--max-num-seqs={seqs} ");
        let rows = rows.iter().filter(|row| row.text("note").contains(&wanted));
        rows.map(|row| case(row, seqs)).collect()
    };
    let (narrow, wide) = (stages(128)?, stages(192)?);
    if (narrow.len(), wide.len()) != (7, 7) {
        return Err(
            "inference_perf_kubecon.csv: expected 7 stages with 128 sequences and 7 with 192"
                .into(),
        );
    }
    let gpu = gpu("h100")?;
    let study = |title: &str, family, cases, folds| Study {
        family,
        title: title.to_owned(),
        about: ABOUT,
        start: Start {
            gpu: gpu.clone(),
            request: Some(REQUEST),
        },
        cases,
        folds,
    };
    let (even, odd) = ([0, 2, 4, 6], [1, 3, 5]);
    let halves = || {
        vec![
            Fold::new("stages 1, 3, 5 from 0, 2, 4, 6", &even, &odd),
            Fold::new("stages 0, 2, 4, 6 from 1, 3, 5", &odd, &even),
        ]
    };
    let both = [narrow.clone(), wide.clone()].concat();
    let (first, second): (Vec<usize>, Vec<usize>) = (0..14).partition(|stage| *stage < 7);
    let across = vec![
        Fold::new("192 sequences from 128", &first, &second),
        Fold::new("128 sequences from 192", &second, &first),
    ];
    Ok(vec![
        study(
            "H100 rate sweep, 128 sequences: stages from other stages",
            None,
            narrow,
            halves(),
        ),
        study(
            "H100 rate sweep, 192 sequences: stages from other stages",
            None,
            wide,
            halves(),
        ),
        study(
            "H100 rate sweep: one batch limit from the other",
            Some("Hopper"),
            both,
            across,
        ),
    ])
}

fn case(row: &Row, max_num_seqs: u32) -> Result<Case> {
    let rate: f64 = row.number("load_value")?;
    let n_requests: usize = row.number("n_requests")?;
    let load = Load {
        requests: requests(row, n_requests, rate)?,
        in_flight_max: IN_FLIGHT_MAX,
    };
    let mut measured = Vec::new();
    for (figure, column) in FIGURES {
        measured.push((figure, row.number::<f64>(column)? / 1e3, true));
    }
    measured.push((Figure::RequestsPerSecond, row.number("req_per_s")?, true));
    Ok(Case {
        name: format!("{rate} requests/s, {max_num_seqs} sequences"),
        // Far below the 100 requests/s that it serves.
        server: (rate < 40.0).then_some("vLLM 0.11.0 in a cluster (rate sweep on H100)"),
        engine: Engine {
            shape: shape("llama-3-8b")?,
            precision: Precision::Bf16,
            kv_precision: Precision::Bf16,
            world_size: 1,
            max_num_seqs,
            // vLLM's default for servers on this GPU.
            max_batched_tokens: 8192,
            memory_share: 0.9,
        },
        given: Given::Load(load, 0..n_requests),
        measured,
    })
}

/// Exponential gaps, scaled so that all are due within the stage.
fn requests(row: &Row, count: usize, rate: f64) -> Result<Vec<Due>> {
    let mut random = random::stream(7, &format!("accuracy.kubecon.{rate}"));
    let mut uniform = move || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let gaps: Vec<f64> = (0..count).map(|_| -libm::log(1.0 - uniform())).collect();
    let scale = count as f64 / rate / gaps.iter().sum::<f64>();
    let (prompt, output): (f64, f64) = (row.number("isl")?, row.number("osl")?);
    // Means are not whole: some requests are a token longer than others.
    let mut whole = |mean: f64| mean.floor() as u32 + u32::from(uniform() < mean.fract());
    let mut at_s = 0.0;
    let due = gaps.into_iter().map(|gap| {
        at_s += gap * scale;
        Due {
            at_s,
            prompt: whole(prompt),
            output: whole(output),
        }
    });
    Ok(due.collect())
}
