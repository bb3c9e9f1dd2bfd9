//! Splitwise's table of Llama-2-70B on A100 at world sizes 2, 4 and 8.

use std::collections::BTreeMap;

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::Precision;

use super::{Fold, REQUEST, Study, gpu, shape};
use crate::Result;
use crate::case::{Case, Engine, Figure, Given, median};
use crate::data::Data;

const ABOUT: &str = "Mutinifni/splitwise-sim 8f99e7d `data/perf_model.csv`: Llama-2-70B on A100 80 GB, static batches, an engine of 2023 that \
    launches kernels one by one: a token takes 45 ms on four GPUs and on eight. Medians of the repeats. The fit begins with a \
    host that takes 30 ms to launch a step, to within a factor of 3. Prompts in batches of more than one take longer than as many one after the \
    other, except 64 on two GPUs, which take an eighth of what 32 do; they are compared, and not fitted.";

pub(super) fn study(data: &Data) -> Result<Study> {
    let mut repeats: BTreeMap<[u32; 4], (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for row in data.table("splitwise_perf_model.csv")? {
        if row.text("model") != "llama2-70b" || row.text("hardware") != "a100-80gb" {
            continue;
        }
        let key = ["tensor_parallel", "prompt_size", "batch_size", "token_size"];
        let key = key.map(|column| row.number(column));
        let [world_size, prompt, batch, output] = key;
        let (prompts, tokens) = repeats
            .entry([world_size?, prompt?, batch?, output?])
            .or_default();
        prompts.push(row.number::<f64>("prompt_time")? / 1e3);
        tokens.push(row.number::<f64>("token_time")? / 1e3);
    }
    let cases = repeats.into_iter().map(|(key, times)| case(key, times));
    let cases: Vec<Case> = cases.collect::<Result<_>>()?;
    let mut a100 = gpu("a100")?;
    a100.efficiency.host_launch_s = 0.03;
    a100.spread.host_launch = 1.0;
    Ok(Study {
        title: "Splitwise, Llama-2-70B, A100: each world size from the others".to_owned(),
        about: ABOUT,
        // It launches kernels one by one.
        family: None,
        start: Start {
            gpu: a100,
            request: Some(REQUEST),
        },
        folds: Fold::by_world_size(&cases),
        cases,
    })
}

fn case(
    [world_size, prompt, batch, output]: [u32; 4],
    (prompts, tokens): (Vec<f64>, Vec<f64>),
) -> Result<Case> {
    Ok(Case {
        name: format!("world size {world_size}, batch {batch}, {prompt} + {output} tokens"),
        server: None,
        engine: Engine {
            shape: shape("llama-2-70b")?,
            precision: Precision::Bf16,
            kv_precision: Precision::Bf16,
            world_size,
            max_num_seqs: 64,
            max_batched_tokens: 1 << 20,
            memory_share: 0.95,
        },
        given: Given::Batch {
            batch,
            prompt,
            output,
        },
        measured: vec![
            (Figure::PromptTime, median(prompts), batch == 1),
            (Figure::TokenTime, median(tokens), true),
        ],
    })
}
