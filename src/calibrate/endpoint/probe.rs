//! The first few requests: whether the endpoint can be calibrated at all, and how long runs will take.

use std::num::NonZeroU32;

use foresail_core::time::seconds;
use foresail_loadgen::bodies::Form;
use foresail_reports::records::{Outcome, RequestRecord};

use super::design::{self, Alone};
use super::measure::{Client, Done, FIRST_TOKEN_PATIENCE_NS};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Tokens of the first answers.
const OUTPUT_TOKENS: u32 = 17;
/// The longest prompt is at least so many times as long as the shortest; otherwise nothing is learnt of prompts.
const LENGTHS_MIN: u32 = 4;

/// Less between two tokens is no engine's step: so many seconds, or such a share of the time of the first token,
/// which is a step as well. What lies between is a proxy that gathers them.
const TOKEN_S_MIN: f64 = 1e-5;
const TOKEN_SHARE_MIN: f64 = 0.002;

/// What the first requests showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Probed {
    /// Tokens of the shortest prompt that has room for text.
    pub(super) prompt_tokens_min: u32,
    /// Tokens of the longest prompt that the endpoint takes.
    pub(super) prompt_tokens_max: u32,
    /// Times of single requests.
    pub(super) alone: Alone,
}

/// Sends them.
pub(super) fn probe(
    client: &Client<'_>,
    prompt_tokens_max: NonZeroU32,
    terminal: &Terminal,
) -> Result<Probed, Failure> {
    // A chat template may take a hundred tokens itself.
    let prompt_tokens_min = match client.form {
        Form::Completions => 32,
        Form::Chat => 128,
    };
    if prompt_tokens_max.get() < LENGTHS_MIN * prompt_tokens_min {
        return Err(Failure::Input(format!(
            "--prompt-tokens-max {prompt_tokens_max}: prompts from {prompt_tokens_min} tokens on are sent, and the \
             longest has to be {LENGTHS_MIN} times as long at least"
        )));
    }
    let short = client.run(
        &design::probe(prompt_tokens_min, OUTPUT_TOKENS),
        FIRST_TOKEN_PATIENCE_NS,
    )?;
    let answer = answered(&short)?;
    streamed(answer)?;
    let mut longest = prompt_tokens_max.get();
    let long = loop {
        let done = client.run(&design::probe(longest, 2), FIRST_TOKEN_PATIENCE_NS)?;
        let is_refused = |record: &RequestRecord| record.outcome == Outcome::RejectedStatus;
        if !done.records.iter().all(is_refused) {
            break done;
        }
        if longest < 2 * LENGTHS_MIN * prompt_tokens_min {
            answered(&done)?;
        }
        terminal.note(&format!(
            "the endpoint refuses prompts of {longest} tokens; trying {} ({})",
            longest / 2,
            told(&done)
        ));
        longest /= 2;
    };
    let long = answered(&long)?;
    Ok(Probed {
        prompt_tokens_min,
        prompt_tokens_max: longest,
        alone: Alone {
            prompt_token_s: ttft_s(long) / f64::from(longest),
            output_token_s: output_token_s(answer),
        },
    })
}

/// The last request, which met no cold caches, if any was answered.
fn answered(done: &Done) -> Result<&RequestRecord, Failure> {
    let completed = |record: &&RequestRecord| record.outcome == Outcome::Completed;
    if let Some(record) = done.records.iter().rev().find(completed) {
        return Ok(record);
    }
    let text = format!("the endpoint answers no request: {}", told(done));
    let of_client = |record: &RequestRecord| record.outcome == Outcome::RejectedStatus;
    match done.records.iter().all(of_client) {
        true => Err(Failure::Input(format!(
            "{text}; check --model, --endpoint and the API key"
        ))),
        false => Err(Failure::Degraded(format!("{text}; try again when it does"))),
    }
}

fn told(done: &Done) -> String {
    let each = done
        .failures
        .iter()
        .map(|(what, count)| format!("{count} {what}"));
    each.collect::<Vec<_>>().join("; ")
}

/// What comes whole shows no first token.
fn streamed(answer: &RequestRecord) -> Result<(), Failure> {
    let chunks = answer.wire.map_or(0, |wire| wire.chunks);
    if answer.output_tokens < 2 {
        return Err(Failure::Input(format!(
            "the endpoint answered with {} tokens where {OUTPUT_TOKENS} were asked for; it has to go on to the length \
             that is asked for (`ignore_eos`)",
            answer.output_tokens
        )));
    }
    // Many chunks may still have been written at once.
    let token_s_min = TOKEN_S_MIN.max(TOKEN_SHARE_MIN * ttft_s(answer));
    if chunks < 2 || output_token_s(answer) < token_s_min {
        return Err(Failure::Input(
            "the endpoint does not stream: an answer of several tokens came in one piece, or had no text, so the time \
             of its first token cannot be told; calibrate the engine itself, or without the proxy that gathers \
             answers, and with a tokenizer that has text for every token that the model may say"
                .to_owned(),
        ));
    }
    Ok(())
}

fn ttft_s(record: &RequestRecord) -> f64 {
    let first = record.first_token_ns.unwrap_or(record.end_ns);
    seconds(first.saturating_sub(record.due_ns))
}

fn output_token_s(record: &RequestRecord) -> f64 {
    let first = record.first_token_ns.unwrap_or(record.end_ns);
    let last = record.wire.and_then(|wire| wire.last_output_ns);
    let decode = last.unwrap_or(record.end_ns).saturating_sub(first);
    seconds(decode) / f64::from(record.output_tokens.max(2) - 1)
}
