//! aiconfigurator's serving results of three engines at world sizes 1 to 8.

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::Precision;

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
    },
    Subject {
        title: "Llama-3.1-70B fp8, H200, vLLM",
        engine: "vllm",
        path: "meta-llama/Llama-3.1-70B",
        model: "llama-3.1-70b",
        gpu: "h200",
        precision: Precision::Fp8,
        kv_precision: Precision::Bf16,
    },
    // TensorRT-LLM's fp8 checkpoints bring an fp8 KV cache, vLLM's do not.
    Subject {
        title: "Llama-3.1-70B fp8, H200, TensorRT-LLM",
        engine: "trtllm",
        path: "meta-llama/Llama-3.1-70B",
        model: "llama-3.1-70b",
        gpu: "h200",
        precision: Precision::Fp8,
        kv_precision: Precision::Fp8,
    },
];

const ABOUT: &str = "ai-dynamo/aiconfigurator 095f58a `silicon_sample.csv`: closed loops of 4 to 128 clients, lengths as given. Which statistic \
    the columns hold is not documented; means are assumed. How the clients begin is not known, and times to first token are not \
    monotone in load or GPUs, so only the time per output token is fitted and compared. Rows with a time to first token above 5 s \
    (the KV cache was full) are left out. Each world size is predicted from the three others.";

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
        if row.number::<f64>("silicon_ttft_ms")? < 5000.0 {
            cases.push(case(subject, row)?);
        }
    }
    Ok(Study {
        title: format!("{}: each world size from the others", subject.title),
        about: ABOUT,
        family: Some("Hopper"),
        start: Start {
            gpu: gpu(subject.gpu)?,
            request: None,
        },
        folds: Fold::by_world_size(&cases),
        cases,
    })
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
    Ok(Case {
        name: format!("world size {world_size}, {prompt} + {output} tokens, {clients} clients"),
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
        given: closed_loop(clients, prompt, output),
        measured: vec![(Figure::TpotMean, tpot_s, true)],
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
