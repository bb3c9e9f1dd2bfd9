//! The first steps: they bring everything into memory and show that the model
//! computes a distribution, before anybody relies on it. A device that records its
//! steps does so here, so that no request waits for it.

use foresail_core::batching::BlockId;
use foresail_core::step_time::{Chunk, StepLoad};

use super::StartError;
use crate::backend::{Backend, Limits, Row, StepError, StepInput};
use crate::config::ModelConfig;
use crate::sampling::{Context, Sampling};

/// Enough to go through the kernels of prompts.
const TOKENS_MAX: usize = 16;

/// Computes what has to be computed once before it is quick. Blocks hold nothing yet, so it may use any.
pub(super) fn steps(
    backend: &mut dyn Backend,
    config: &ModelConfig,
    limits: &Limits,
) -> Result<(), StartError> {
    prompt(backend, config, limits)?;
    let again = backend.warm_up_steps();
    let most = limits.max_num_seqs.min(limits.num_blocks);
    for batch in backend.warm_up_batches() {
        for _ in 1..again {
            tokens(backend, batch.min(most))?;
        }
        if batch >= most {
            break;
        }
    }
    Ok(())
}

/// Computes a token of each of so many sequences, in a block each.
fn tokens(backend: &mut dyn Backend, batch: usize) -> Result<(), StartError> {
    let sampling = greedy();
    let tables: Vec<[BlockId; 1]> = (0..batch).map(|block| [block as BlockId]).collect();
    let row = |table| Row {
        known: &[0],
        past: 0,
        len: 1,
        table,
        adapter: None,
        prompt_logprobs: None,
        sample: Some(Context {
            sampling: &sampling,
            prompt: &[0],
            generated: &[],
            banned: &[],
        }),
    };
    let step = StepInput {
        load: StepLoad {
            decodes: batch as u32,
            decode_past: 0,
            chunks: &[],
        },
        adapters: 0,
        continues: false,
        ahead: 0,
        rows: tables.iter().map(|table| row(table)).collect(),
    };
    backend.step(&step).map_err(StartError::WarmUp)?;
    Ok(())
}

fn greedy() -> Sampling {
    Sampling {
        temperature: 0.0,
        ..Sampling::default()
    }
}

/// Computes a short prompt.
fn prompt(
    backend: &mut dyn Backend,
    config: &ModelConfig,
    limits: &Limits,
) -> Result<(), StartError> {
    let len = TOKENS_MAX
        .min(limits.max_batched_tokens)
        .min(limits.max_model_len);
    let known: Vec<u32> = (0..len)
        .map(|place| (place % config.vocab_size) as u32)
        .collect();
    let blocks = 0..len.div_ceil(limits.block_size);
    let table: Vec<_> = blocks.map(|block| block as BlockId).collect();
    let sampling = greedy();
    let chunk = Chunk {
        past: 0,
        len: len as u32,
        sample: true,
    };
    let row = Row {
        known: &known,
        past: 0,
        len,
        table: &table,
        adapter: None,
        prompt_logprobs: None,
        sample: Some(Context {
            sampling: &sampling,
            prompt: &known,
            generated: &[],
            banned: &[],
        }),
    };
    let step = StepInput {
        load: StepLoad {
            decodes: 0,
            decode_past: 0,
            chunks: &[chunk],
        },
        adapters: 0,
        continues: false,
        ahead: 0,
        rows: vec![row],
    };
    let outputs = backend.step(&step).map_err(StartError::WarmUp)?;
    match outputs.into_iter().find_map(|output| output.failure) {
        Some(failure) => Err(StartError::WarmUp(StepError(failure.to_string()))),
        None => Ok(()),
    }
}
