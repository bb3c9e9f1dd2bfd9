//! From a step to the batches that compute it.
//!
//! Almost always that is one batch. Logits take `vocab_size * 4` bytes a row,
//! and a prompt whose log-probabilities are wanted has a row for each token: so
//! a step that wants very many is computed in several passes, which gives the
//! same result, as a prompt's does not depend on how it is cut.

use foresail_core::batching::BlockId;

use crate::backend::{Limits, Row, StepError, StepInput};
use crate::batch::Batch;
use crate::choose::Want;
use crate::config::ModelConfig;
use crate::weights::Adapter;

/// Rows of logits in one pass, unless more sequences than that may sample: 39 MB at Llama 3's vocabulary.
const LOGIT_ROWS_MAX: usize = 64;

/// What a step computes, pass after pass.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) passes: Vec<Pass>,
}

/// What is computed together.
#[derive(Debug, Default)]
pub(super) struct Pass {
    pub(super) batch: Batch,
    /// What each row of logits is for, in their order.
    pub(super) wants: Vec<Want>,
}

impl Plan {
    /// The passes of a step.
    ///
    /// # Errors
    /// If the step is not one that the backend can compute: the driver and it disagree.
    pub(super) fn new(
        step: &StepInput<'_>,
        config: &ModelConfig,
        limits: &Limits,
        loaded: &[bool],
    ) -> Result<Self, StepError> {
        check(step, config, limits, loaded)?;
        let mut plan = Self { passes: Vec::new() };
        let logit_rows_max = LOGIT_ROWS_MAX.max(limits.max_num_seqs);
        for (index, row) in step.rows.iter().enumerate() {
            plan.push(index, row, logit_rows_max);
        }
        Ok(plan)
    }

    /// Adds a row, in as many pieces as it takes. Later rows come in the same
    /// pass or in later ones: they may share blocks that this one writes.
    fn push(&mut self, index: usize, row: &Row<'_>, logit_rows_max: usize) {
        let end = row.past + row.len;
        let mut past = row.past;
        while past < end {
            let full = |pass: &Pass| pass.wants.len() >= logit_rows_max;
            if self.passes.last().is_none_or(full) {
                self.passes.push(Pass::default());
            }
            let pass = self.passes.last_mut().expect("one was pushed");
            let room = logit_rows_max - pass.wants.len();
            let piece_end = match row.prompt_logprobs {
                Some(_) => end.min(past + room),
                None => end,
            };
            pass.push(index, row, past..piece_end);
            past = piece_end;
        }
    }
}

impl Pass {
    fn push(&mut self, index: usize, row: &Row<'_>, piece: std::ops::Range<usize>) {
        let first = self.batch.len();
        let tokens = &row.known[piece.clone()];
        self.batch.push(tokens, piece.start, row.table, row.adapter);
        for (offset, place) in (piece.start + 1..=piece.end).enumerate() {
            let wanted = if place < row.known.len() {
                row.prompt_logprobs.is_some()
            } else {
                row.sample.is_some()
            };
            if wanted {
                self.batch.logit_rows.push((first + offset) as u32);
                self.wants.push(Want { row: index, place });
            }
        }
    }
}

/// What the forward pass relies on, so that a driver's mistake is an error and not a wrong result.
fn check(
    step: &StepInput<'_>,
    config: &ModelConfig,
    limits: &Limits,
    loaded: &[bool],
) -> Result<(), StepError> {
    let tokens: usize = step.rows.iter().map(|row| row.len).sum();
    if tokens > limits.max_batched_tokens {
        let most = limits.max_batched_tokens;
        return refuse(format!("{tokens} tokens in a step of at most {most}"));
    }
    if step.rows.len() > limits.max_num_seqs {
        let (rows, most) = (step.rows.len(), limits.max_num_seqs);
        return refuse(format!("{rows} sequences in a step of at most {most}"));
    }
    for (index, row) in step.rows.iter().enumerate() {
        check_row(row, config, limits, loaded)
            .map_err(|StepError(reason)| StepError(format!("row {index} of the step: {reason}")))?;
    }
    Ok(())
}

fn check_row(
    row: &Row<'_>,
    config: &ModelConfig,
    limits: &Limits,
    loaded: &[bool],
) -> Result<(), StepError> {
    let (past, len, known) = (row.past, row.len, row.known.len());
    let end = past.saturating_add(len);
    if len == 0 || end > known || end > limits.max_model_len {
        let most = limits.max_model_len;
        return refuse(format!(
            "{len} tokens from {past} on, of {known} that are known, in a context of {most}"
        ));
    }
    if row.sample.is_some() && end < known {
        return refuse(format!(
            "a token is sampled after {end} of {known} known tokens"
        ));
    }
    check_table(row.table, end, limits)?;
    let unknown = |token: &&u32| **token as usize >= config.vocab_size;
    if let Some(token) = row.known[past..end].iter().find(unknown) {
        let vocab_size = config.vocab_size;
        return refuse(format!(
            "token {token} is not in the vocabulary of {vocab_size}"
        ));
    }
    match row.adapter {
        Some(slot) if loaded.get(slot) != Some(&true) => {
            refuse(format!("there is no adapter in slot {slot}"))
        }
        _ => Ok(()),
    }
}

fn check_table(table: &[BlockId], tokens: usize, limits: &Limits) -> Result<(), StepError> {
    let blocks = table.len();
    if tokens.div_ceil(limits.block_size) > blocks {
        return refuse(format!("{blocks} KV blocks for {tokens} tokens"));
    }
    match table
        .iter()
        .find(|block| **block as usize >= limits.num_blocks)
    {
        Some(block) => refuse(format!(
            "KV block {block} of {} is not there",
            limits.num_blocks
        )),
        None => Ok(()),
    }
}

/// Checks that an adapter can be put into a slot.
pub(super) fn check_adapter(
    slot: usize,
    adapter: &Adapter,
    config: &ModelConfig,
    limits: &Limits,
    loaded: &[bool],
) -> Result<(), StepError> {
    let name = &adapter.name;
    match loaded.get(slot) {
        None => refuse(format!(
            "adapter {name}: there is no slot {slot}, only {}",
            loaded.len()
        )),
        Some(true) => refuse(format!("adapter {name}: slot {slot} is not empty")),
        Some(false) if adapter.rank > limits.max_lora_rank => refuse(format!(
            "adapter {name}: its rank {} is above the largest of {}",
            adapter.rank, limits.max_lora_rank
        )),
        Some(false) if adapter.layers.len() != config.num_hidden_layers => refuse(format!(
            "adapter {name}: it has {} layers and the model has {}",
            adapter.layers.len(),
            config.num_hidden_layers
        )),
        Some(false) => Ok(()),
    }
}

fn refuse(reason: String) -> Result<(), StepError> {
    Err(StepError(reason))
}
