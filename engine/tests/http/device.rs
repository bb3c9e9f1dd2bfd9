//! A device whose tokens are a function of what it is shown, so that a mix-up shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use foresail_engine::backend::{Backend, Limits, Row, RowOutput, StepError, StepInput};
use foresail_engine::sampling::{Context, Logprobs, Sampled};
use foresail_engine::text::Tokenizer;
use foresail_engine::weights::Adapter;

/// In a prompt: the step that computes it fails.
pub(crate) const FAIL: char = '\u{1}';
/// In a prompt: the step that computes it panics.
pub(crate) const PANIC: char = '\u{2}';
/// In a prompt: the text ends after three tokens, if it may.
pub(crate) const SHORT: char = '$';

pub(crate) const VOCAB_SIZE: usize = 300;

#[derive(Debug)]
pub(crate) struct ScriptedDevice {
    /// How long a step takes.
    pub(crate) step: Duration,
    /// While it is set, steps wait.
    pub(crate) held: Arc<AtomicBool>,
}

pub(crate) fn limits() -> Limits {
    Limits {
        block_size: 16,
        num_blocks: 2048,
        max_num_seqs: 32,
        max_batched_tokens: 512,
        max_model_len: 2048,
        max_loras: 2,
        max_lora_rank: 8,
    }
}

impl Backend for ScriptedDevice {
    fn step(&mut self, step: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        while self.held.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        if !self.step.is_zero() {
            thread::sleep(self.step);
        }
        step.rows.iter().map(compute).collect()
    }

    fn load_adapter(&mut self, _: usize, adapter: &Adapter) -> Result<(), StepError> {
        if adapter.name == "broken" {
            return Err(StepError("the adapter is broken".to_owned()));
        }
        Ok(())
    }

    fn unload_adapter(&mut self, _: usize) {}
}

fn compute(row: &Row<'_>) -> Result<RowOutput, StepError> {
    let has = |mark: char| row.known.contains(&u32::from(mark));
    if has(FAIL) {
        return Err(StepError("the device is out of order".to_owned()));
    }
    assert!(!has(PANIC), "the device panics");
    let places = row.past + 1..(row.past + row.len + 1).min(row.known.len());
    let of_prompt = |top: u32| {
        places
            .map(move |place| logprobs(row.known[place], top))
            .collect()
    };
    Ok(RowOutput {
        prompt_logprobs: row.prompt_logprobs.map_or_else(Vec::new, of_prompt),
        sampled: row.sample.map(|context| sample(row, &context)),
        failure: None,
    })
}

fn sample(row: &Row<'_>, context: &Context<'_>) -> Sampled {
    let token = next_token(row, context);
    let top = context.sampling.logprobs;
    Sampled {
        token,
        logprobs: top.map(|top| logprobs(token, top)),
    }
}

/// Letters and spaces, by what was there before; by the seed too, unless the likeliest is asked for.
fn next_token(row: &Row<'_>, context: &Context<'_>) -> u32 {
    let is_short = context.prompt.contains(&u32::from(SHORT)) && context.generated.len() >= 3;
    if is_short && !context.banned.contains(&Tokenizer::BYTES_EOS) {
        return Tokenizer::BYTES_EOS;
    }
    let seed = match context.sampling.temperature {
        0.0 => 0,
        _ => context.sampling.seed,
    };
    let adapter = row.adapter.map_or(0, |slot| slot as u64 + 1);
    let mix = |hash: u64, value: u64| (hash ^ value).wrapping_mul(0x100_0000_01b3);
    let known = row.known.iter().map(|&token| u64::from(token));
    let hash = known
        .chain([seed, adapter])
        .fold(0xcbf2_9ce4_8422_2325, mix);
    match hash % 27 {
        26 => u32::from(' '),
        letter => u32::from('a') + letter as u32,
    }
}

fn logprobs(token: u32, top: u32) -> Logprobs {
    let others = (1..).map(|other| ((token + other) % 256, -0.5 - other as f32));
    let own = (token, -0.5);
    Logprobs {
        token,
        logprob: own.1,
        rank: 1,
        top: [own].into_iter().chain(others).take(top as usize).collect(),
    }
}
