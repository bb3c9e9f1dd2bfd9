//! NVIDIA's submissions of Llama-2-70B to MLPerf Inference 4.1: TensorRT-LLM at its limits.

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::Precision;

use super::lengths::{Quantiles, Uniform};
use super::{Study, gpu, shape};
use crate::Result;
use crate::case::{Case, Engine, Figure, Given};
use crate::data::{Data, Row};
use crate::replica::{Due, Load};

const ABOUT: &str = "mlcommons/inference_results_v4.1 198fc467, NVIDIA's closed results of llama2-70b: TensorRT-LLM with fp8 weights and KV cache. \
    *Offline* has all requests at once; *Server* has Poisson arrivals at the highest rate that meets 2 s to the first token and 200 ms a \
    token. World sizes (two H100, one H200) and batch limits are those of `closed/NVIDIA/configs/llama2-70b`; each replica is taken to get \
    its share of the rate. How many tokens a step may hold is not said: 8192. Prompts have the lengths of \
    OpenOrca's sample (openshift-psap/performance-dashboard 7100702 `llama2-70b-99.csv`, mean 222); answers those of its references \
    (mean 219), 1.33 times as long and at most 1024, as the results have 291 tokens a request. Results with other power limits (`MaxQ`, \
    `CTS`), of GH200, and of the Triton server, whose batch limits are the same, are left out, and so is mixtral-8x7b, whose settings are not known.";

/// Tokens of the sample's prompts and of its reference answers.
const PROMPTS: Quantiles = Quantiles([
    65, 80, 90, 98, 106, 113, 120, 128, 136, 146, 159, 176, 197, 219, 248, 287, 346, 451, 572, 666,
]);
const REFERENCES: Quantiles = Quantiles([
    7, 22, 40, 58, 75, 92, 112, 134, 157, 179, 200, 220, 242, 265, 289, 318, 358, 413, 499, 669,
]);

/// Tokens a request in the results, over those of the references.
const LONGER: f64 = 1.33;
/// `max_output_len` of the benchmark.
const OUTPUT_MAX: u32 = 1024;

/// A system, how many replicas of how many GPUs, and the batch limits offline and of the server.
struct System {
    name: &'static str,
    gpu: &'static str,
    replicas: u32,
    world_size: u32,
    seqs_offline: u32,
    seqs_server: u32,
}

const SYSTEMS: [System; 2] = [
    System {
        name: "DGX-H100_H100-SXM-80GBx8_TRT",
        gpu: "h100",
        replicas: 4,
        world_size: 2,
        seqs_offline: 896,
        seqs_server: 1024,
    },
    System {
        name: "H200-SXM-141GBx8_TRT",
        gpu: "h200",
        replicas: 8,
        world_size: 1,
        seqs_offline: 806,
        seqs_server: 896,
    },
];

const OF_SERVER: [(Figure, &str); 5] = [
    (Figure::TtftP50, "ttft_p50_ms"),
    (Figure::TtftP99, "ttft_p99_ms"),
    (Figure::TpotP50, "tpot_p50_ms"),
    (Figure::TpotP99, "tpot_p99_ms"),
    (Figure::E2eP50, "e2e_p50_ms"),
];

pub(super) fn studies(data: &Data) -> Result<Vec<Study>> {
    let rows = data.table("mlperf_v4.1_llm.csv")?;
    let study = |system: &System| {
        // The results of 99.9 % accuracy are those of 99 %.
        let is_of = |row: &&Row| {
            row.text("system") == system.name && row.text("model") == "llama2-70b-99.9"
        };
        let cases = rows.iter().filter(is_of).map(|row| case(system, row));
        let cases: Vec<Case> = cases.collect::<Result<_>>()?;
        if cases.len() != 2 {
            return Err(format!("{}: expected an Offline and a Server result", system.name).into());
        }
        Ok(Study {
            title: format!("MLPerf 4.1, Llama-2-70B fp8, {}", system.gpu.to_uppercase()),
            about: ABOUT,
            family: None,
            start: Start {
                gpu: gpu(system.gpu)?,
                request: None,
            },
            cases,
            folds: Vec::new(),
        })
    };
    SYSTEMS.iter().map(study).collect()
}

fn case(system: &System, row: &Row) -> Result<Case> {
    let is_offline = row.text("scenario") == "Offline";
    let per_replica = |rate: f64| rate / f64::from(system.replicas);
    let (given, measured) = if is_offline {
        let per_second = per_replica(row.number("samples_per_s")?);
        let measured = vec![(Figure::RequestsPerSecond, per_second, false)];
        (offline(), measured)
    } else {
        let rate = per_replica(row.number("scheduled_qps")?);
        let mut measured = Vec::new();
        for (figure, column) in OF_SERVER {
            measured.push((figure, row.number::<f64>(column)? / 1e3, false));
        }
        (server(rate), measured)
    };
    Ok(Case {
        name: format!("{} {}", system.gpu.to_uppercase(), row.text("scenario")),
        server: None,
        engine: Engine {
            shape: shape("llama-2-70b")?,
            precision: Precision::Fp8,
            kv_precision: Precision::Fp8,
            world_size: system.world_size,
            max_num_seqs: if is_offline {
                system.seqs_offline
            } else {
                system.seqs_server
            },
            max_batched_tokens: 8192,
            memory_share: 0.9,
        },
        given,
        measured,
    })
}

/// As long as the tail, in which the batch is not full, does not count.
fn offline() -> Given {
    const COUNT: usize = 16_384;
    let load = Load {
        requests: requests(COUNT, f64::INFINITY),
        in_flight_max: COUNT,
    };
    Given::Load(load, 0..COUNT)
}

/// Requests count once the batch is as large as it will be.
fn server(rate: f64) -> Given {
    const COUNT: usize = 6_000;
    let load = Load {
        requests: requests(COUNT, rate),
        in_flight_max: COUNT,
    };
    Given::Load(load, COUNT / 3..COUNT)
}

fn requests(count: usize, rate: f64) -> Vec<Due> {
    let mut uniform = Uniform::new("accuracy.mlperf");
    let mut at_s = 0.0;
    let due = (0..count).map(|_| {
        at_s += uniform.exponential() / rate;
        let output = LONGER * f64::from(REFERENCES.at(uniform.next()));
        Due {
            at_s,
            prompt: PROMPTS.at(uniform.next()).min(1024),
            output: (output.round() as u32).min(OUTPUT_MAX),
        }
    });
    due.collect()
}
