//! Argonne's LLM-Inference-Bench: static batches on A100 and H100.

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::{Gpu, ModelShape, Precision};

use super::{Fold, Study, gpu, shape};
use crate::Result;
use crate::case::{Case, Engine, Figure, Given};
use crate::data::{Data, Row};

const ABOUT: &str = "argonne-lcf/LLM-Inference-Bench 4211f5d: a whole batch of prompts, then a whole batch of answers as long as they, engines of \
    2024. The A100 are taken to have 40 GB, as Polaris has. Batches that do not fit in memory are left out, as the engines compute \
    them in waves. Each world size is predicted from the others.";

pub(super) fn studies(data: &Data) -> Result<Vec<Study>> {
    let rows = data.table("argonne_llm_inference_bench.csv")?;
    let mut studies = Vec::new();
    for (hardware, title, gpu) in [
        ("Nvidia A100 GPU", "A100 40 GB", Gpu::a100_40gb()),
        ("Nvidia H100 GPU", "H100", gpu("h100")?),
    ] {
        for engine in ["vLLM", "TensorRT-LLM"] {
            let is_of =
                |row: &&Row| row.text("Hardware") == hardware && row.text("Framework") == engine;
            let cases = rows.iter().filter(is_of).map(|row| case(row, &gpu));
            let cases: Vec<Case> = cases.filter_map(Result::transpose).collect::<Result<_>>()?;
            studies.push(Study {
                title: format!(
                    "Argonne's batches, {title}, {engine}: each world size from the others"
                ),
                about: ABOUT,
                // On H100, vLLM of 2024 takes six times what later ones take for each sequence.
                family: match (title, engine) {
                    ("H100", "vLLM") => None,
                    ("H100", _) => Some("Hopper"),
                    _ => Some("Ampere"),
                },
                start: Start {
                    gpu: gpu.clone(),
                    request: None,
                },
                folds: Fold::by_world_size(&cases),
                cases,
            });
        }
    }
    Ok(studies)
}

/// The case of a row; none of models whose shape is not known, and of what does not fit.
fn case(row: &Row, gpu: &Gpu) -> Result<Option<Case>> {
    let Some(shape) = model(row.text("Model"))? else {
        return Ok(None);
    };
    let length: u32 = row.number("Input Output Length")?;
    let batch: u32 = row.number("Batch Size")?;
    let world_size = row.number("Num of Hardware")?;
    let kv_bytes = shape.kv_bytes_per_token_per_rank(Precision::Bf16, world_size)
        * u64::from(2 * length * batch);
    let taken = shape.weight_bytes_per_rank(Precision::Bf16, world_size) + kv_bytes;
    if taken as f64 > 0.85 * gpu.memory_bytes as f64 {
        return Ok(None);
    }
    let model = row.text("Model");
    Ok(Some(Case {
        name: format!("{model}, world size {world_size}, batch {batch} of {length} tokens"),
        server: None,
        engine: Engine {
            shape,
            precision: Precision::Bf16,
            kv_precision: Precision::Bf16,
            world_size,
            max_num_seqs: batch,
            max_batched_tokens: 1 << 20,
            memory_share: 0.9,
        },
        given: Given::Batch {
            batch,
            prompt: length,
            output: length,
        },
        measured: vec![(Figure::BatchTime, row.number("Latency")?, true)],
    }))
}

fn model(path: &str) -> Result<Option<ModelShape>> {
    let name = match path {
        "meta-llama/Llama-2-7b-hf" => "llama-2-7b",
        "meta-llama/Llama-2-70b-hf" => "llama-2-70b",
        "meta-llama/Meta-Llama-3-8B" => "llama-3-8b",
        "meta-llama/Meta-Llama-3-70B" => "llama-3-70b",
        "mistralai/Mixtral-8x7B-v0.1" => "mixtral-8x7b",
        // Llama-3-8B but for its vocabulary; the catalogue's is a later version.
        "mistralai/Mistral-7B-v0.1" => {
            return Ok(Some(ModelShape {
                vocab_size: 32000,
                ..shape("llama-3-8b")?
            }));
        }
        _ => return Ok(None),
    };
    shape(name).map(Some)
}
