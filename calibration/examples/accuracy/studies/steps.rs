//! BLIS's sampled steps of vLLM with Llama-2-70B on four H100.

use std::collections::BTreeMap;

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::Precision;

use super::{Fold, Study, gpu, shape};
use crate::Result;
use crate::case::{Case, Engine, Figure, Given, median};
use crate::data::Data;

const ABOUT: &str = "inference-sim/inference-sim 9293b22 `enriched_steps.parquet`: steps that only decode, Llama-2-70B, world size 4, H100. A step's time \
    is from its start to the next one's, where both were sampled; as that holds idle time now and then, medians of at least five steps \
    with batches of the same eight are compared. Tokens in the KV cache are those of its use. Each of the two experiments is \
    predicted from the other.";

/// Batches in a group.
const GROUP: u32 = 8;

/// A step: its batch, tokens in the KV cache, and its time (s).
type Step = (u32, f64, f64);

pub(super) fn study(data: &Data) -> Result<Study> {
    let mut groups: BTreeMap<(String, u32), Vec<Step>> = BTreeMap::new();
    for row in data.table("blis_steps.csv")? {
        let Ok(time_us) = row.text("next_step_start_dt_us").parse::<f64>() else {
            continue;
        };
        let batch: u32 = row.number("num_decode_reqs")?;
        if row.text("num_prefill_reqs") != "0" || batch == 0 {
            continue;
        }
        let used: f64 = row.number("kv_usage_gpu_ratio")?;
        let blocks = used * row.number::<f64>("kv_blocks_total_gpu")?;
        // A block holds 16 tokens, and the last of each sequence is half full on average.
        let past = (16.0 * blocks - 8.0 * f64::from(batch)).max(0.0);
        let key = (row.text("experiment_id").to_owned(), batch / GROUP);
        groups
            .entry(key)
            .or_default()
            .push((batch, past, time_us / 1e6));
    }
    groups.retain(|_, steps| steps.len() >= 5);
    let is_general = |(experiment, _): &(String, u32)| experiment.ends_with("general");
    let general: Vec<bool> = groups.keys().map(is_general).collect();
    let cases = groups
        .iter()
        .map(|((experiment, _), steps)| case(experiment, steps));
    let cases: Vec<Case> = cases.collect::<Result<_>>()?;
    let (one, other): (Vec<usize>, Vec<usize>) =
        (0..cases.len()).partition(|index| general[*index]);
    Ok(Study {
        title: "Single steps, Llama-2-70B on four H100, vLLM: one experiment from the other"
            .to_owned(),
        about: ABOUT,
        family: Some("Hopper"),
        start: Start {
            gpu: gpu("h100")?,
            request: None,
        },
        folds: vec![
            Fold::new("codegen from general", &one, &other),
            Fold::new("general from codegen", &other, &one),
        ],
        cases,
    })
}

fn case(experiment: &str, steps: &[Step]) -> Result<Case> {
    let batch = median(steps.iter().map(|step| f64::from(step.0)).collect()) as u32;
    let past = median(steps.iter().map(|step| step.1).collect()) as u64;
    let step_s = median(steps.iter().map(|step| step.2).collect());
    Ok(Case {
        name: format!("{experiment}, batch {batch}"),
        server: None,
        engine: Engine {
            shape: shape("llama-2-70b")?,
            precision: Precision::Bf16,
            kv_precision: Precision::Bf16,
            world_size: 4,
            max_num_seqs: 256,
            max_batched_tokens: 2048,
            memory_share: 0.9,
        },
        given: Given::Step { batch, past },
        measured: vec![(Figure::StepTime, step_s, true)],
    })
}
