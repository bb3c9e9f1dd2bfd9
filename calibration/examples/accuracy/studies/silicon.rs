//! aiconfigurator's serving results of three engines at world sizes 1 to 8.

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::Precision;
use foresail_scenarios::random;
use rand::Rng as _;

use super::{Fold, Study, gpu, shape};
use crate::Result;
use crate::case::{Case, Engine, Figure, Given};
use crate::data::{Data, Row};
use crate::replica::{Due, Load};

/// One engine with one model.
struct Subject {
    title: &'static str,
    engine: &'static str,
    path: &'static str,
    model: &'static str,
    gpu: &'static str,
    precision: Precision,
    kv_precision: Precision,
    client: Client,
    /// What it is called where servers are compared.
    server: Option<&'static str>,
    about: &'static str,
}

/// How its closed loop is driven.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    /// By nobody knows whom: as long as said, and the first of each client, which all begin together, do not count.
    Unknown,
    /// By InferenceMAX's: lengths from 0.8 to 1 times what is said, ten requests a client, all of which count.
    InferenceMax,
}

const SUBJECTS: [Subject; 3] = [
    Subject {
        title: "Llama-3.1-8B bf16, H100, TensorRT-LLM 1.0.0rc3",
        engine: "trtllm",
        path: "meta-llama/Llama-3.1-8B-Instruct",
        model: "llama-3.1-8b",
        gpu: "h100",
        precision: Precision::Bf16,
        kv_precision: Precision::Bf16,
        client: Client::Unknown,
        server: None,
        about: ABOUT_UNKNOWN,
    },
    Subject {
        title: "Llama-3.1-70B fp8, H200, vLLM",
        engine: "vllm",
        path: "meta-llama/Llama-3.1-70B",
        model: "llama-3.1-70b",
        gpu: "h200",
        precision: Precision::Fp8,
        // `kv-cache-dtype: fp8` (SemiAnalysisAI/InferenceX 409e9a4 `benchmarks/70b_fp8_h200_slurm.sh`).
        kv_precision: Precision::Fp8,
        client: Client::InferenceMax,
        server: Some("vLLM of October 2025 (70B, H200, 4 clients)"),
        about: ABOUT_INFERENCE_MAX,
    },
    Subject {
        title: "Llama-3.1-70B fp8, H200, TensorRT-LLM",
        engine: "trtllm",
        path: "meta-llama/Llama-3.1-70B",
        model: "llama-3.1-70b",
        gpu: "h200",
        precision: Precision::Fp8,
        // `kv_cache_config: dtype: fp8` (73ef922 `benchmarks/70b_fp8_h200_trt_slurm.sh`).
        kv_precision: Precision::Fp8,
        client: Client::InferenceMax,
        server: Some("TensorRT-LLM of October 2025 (70B, H200, 4 clients)"),
        about: ABOUT_INFERENCE_MAX,
    },
];

const ABOUT_UNKNOWN: &str = "ai-dynamo/aiconfigurator 095f58a `silicon_sample.csv`: closed loops of 4 to 128 clients, lengths as given. Which statistic \
    the columns hold is not documented; means are assumed. How the clients begin is not known, and times to first token grow with the \
    length of the answers, so only the time per output token is fitted and compared. Rows with a time to first token above 5 s \
    (the KV cache was full) are left out. Each world size is predicted from the three others.";

const ABOUT_INFERENCE_MAX: &str = "ai-dynamo/aiconfigurator 095f58a `silicon_sample.csv`: closed loops of 4 to 128 clients. Which statistic the \
    columns hold is not documented; means are assumed. Models, lengths, clients and date are those of InferenceMAX, so that its settings are \
    assumed: lengths evenly between 0.8 and 1 times those given, ten requests a client (jyothisambolu/InferenceMAX 01de548 `README.md`), \
    an fp8 KV cache, 8192 tokens a step and, for vLLM, as many sequences as clients (SemiAnalysisAI/InferenceX 409e9a4, 73ef922 \
    `benchmarks/70b_fp8_h200_*.sh`). TensorRT-LLM's rows with 1024 + 1024 tokens on fewer than 8 GPUs are left out: there it was told to let \
    prompts wait for others. So are rows with a time to first token above 5 s. Times to first token are compared and never \
    fitted: they hold the work of a server. Each world size is predicted from the three others.";

pub(super) fn studies(data: &Data) -> Result<Vec<Study>> {
    let rows = data.table("aiconfigurator_silicon.csv")?;
    SUBJECTS
        .iter()
        .map(|subject| study(subject, &rows))
        .collect()
}

fn study(subject: &Subject, rows: &[Row]) -> Result<Study> {
    let is_of = |row: &&Row| {
        row.text("model_path") == subject.path && row.text("backend") == subject.engine
    };
    let mut cases = Vec::new();
    for row in rows.iter().filter(is_of) {
        if row.number::<f64>("silicon_ttft_ms")? < 5000.0 && !waits_for_prompts(subject, row)? {
            cases.push(case(subject, row)?);
        }
    }
    Ok(Study {
        title: format!("{}: each world size from the others", subject.title),
        about: subject.about,
        family: Some("Hopper"),
        start: Start {
            gpu: gpu(subject.gpu)?,
            request: None,
        },
        folds: Fold::by_world_size(&cases),
        cases,
    })
}

/// Whether the engine was told to let prompts wait for others (`batch_wait_timeout_iters: 20` where both lengths are 1024
/// and the world size is below 8), which no scheduler here does.
fn waits_for_prompts(subject: &Subject, row: &Row) -> Result<bool> {
    let (prompt, output): (u32, u32) = (row.number("isl")?, row.number("osl")?);
    let is_told = subject.client == Client::InferenceMax && subject.engine == "trtllm";
    Ok(is_told && (prompt, output) == (1024, 1024) && row.number::<u32>("tp_size")? < 8)
}

fn case(subject: &Subject, row: &Row) -> Result<Case> {
    let source = row.text("silicon_data_source");
    let clients = source
        .rsplit("silicon_concurrency=")
        .next()
        .unwrap_or_default();
    let clients: String = clients.chars().take_while(char::is_ascii_digit).collect();
    let clients: u32 = clients
        .parse()
        .map_err(|_| format!("no concurrency in `{source}`"))?;
    let (prompt, output): (u32, u32) = (row.number("isl")?, row.number("osl")?);
    let world_size = row.number("tp_size")?;
    let tpot_s = row.number::<f64>("silicon_tpot_ms")? / 1e3;
    let mut measured = vec![(Figure::TpotMean, tpot_s, true)];
    if subject.client == Client::InferenceMax {
        let ttft_s = row.number::<f64>("silicon_ttft_ms")? / 1e3;
        measured.push((Figure::TtftMean, ttft_s, false));
    }
    Ok(Case {
        name: format!("world size {world_size}, {prompt} + {output} tokens, {clients} clients"),
        server: subject.server.filter(|_| clients == 4),
        engine: Engine {
            shape: shape(subject.model)?,
            precision: subject.precision,
            kv_precision: subject.kv_precision,
            world_size,
            max_num_seqs: clients,
            // vLLM's and TensorRT-LLM's default for servers.
            max_batched_tokens: 8192,
            memory_share: 0.9,
        },
        given: match subject.client {
            Client::Unknown => closed_loop(clients, prompt, output),
            Client::InferenceMax => inference_max(clients, prompt, output),
        },
        measured,
    })
}

/// Three requests a client, of which the first, which all begin together, do not count.
fn closed_loop(clients: u32, prompt: u32, output: u32) -> Given {
    let due = Due {
        at_s: 0.0,
        prompt,
        output,
    };
    let clients = clients as usize;
    let load = Load {
        requests: vec![due; 3 * clients],
        in_flight_max: clients,
    };
    Given::Load(load, clients..3 * clients)
}

/// `--random-range-ratio 0.8 --num-prompts $(( $CONC * 10 )) --max-concurrency $CONC --request-rate inf`, of the client
/// that draws `randint(int(length * ratio), length + 1)`.
fn inference_max(clients: u32, prompt: u32, output: u32) -> Given {
    let mut random = random::stream(
        7,
        &format!("accuracy.inference_max.{clients}.{prompt}.{output}"),
    );
    let mut length = |most: u32| {
        let least = most * 4 / 5;
        least + (random.next_u64() % u64::from(most - least + 1)) as u32
    };
    let clients = clients as usize;
    let requests = (0..10 * clients).map(|_| Due {
        at_s: 0.0,
        prompt: length(prompt),
        output: length(output),
    });
    let load = Load {
        requests: requests.collect(),
        in_flight_max: clients,
    };
    Given::Load(load, 0..10 * clients)
}
