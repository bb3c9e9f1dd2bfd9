//! What a request comes to: a generation for each answer to each prompt.

use std::sync::Arc;

use crate::generation::Generation;
use crate::server::app::Engine;
use crate::server::error::ApiError;
use crate::server::generate::choice::{Choice, Echo, Rules};
use crate::server::request::completion::check_min_tokens;
use crate::server::request::options::Options;

/// What a request asks for, beside its prompts.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) options: Options,
    /// Most tokens of an answer; as many as the context has room for if `None`.
    pub(crate) max_tokens: Option<u32>,
    /// The answers begin with the prompt.
    pub(crate) echo: bool,
}

/// A prompt, in tokens; its text if answers are to begin with it.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    pub(crate) tokens: Arc<[u32]>,
    pub(crate) text: Option<String>,
}

/// What is to be generated, and how it becomes text.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<(Generation, Choice)>,
    pub(crate) prompt_tokens: u64,
    /// So many parts in a row have the same prompt.
    pub(crate) answers_per_prompt: usize,
}

impl Plan {
    pub(crate) fn new(
        engine: &Engine,
        id: &str,
        adapter: Option<&str>,
        wanted: &Wanted,
        prompts: Vec<Prompt>,
    ) -> Result<Self, ApiError> {
        let options = &wanted.options;
        let checked = options.sampling.validate(engine.vocab_size());
        checked.map_err(|error| ApiError::invalid_param(error.parameter(), error.to_string()))?;
        check_stop_tokens(options, engine.vocab_size())?;
        let mut parts = Vec::new();
        for prompt in &prompts {
            check_not_empty(prompt)?;
            for _ in 0..options.n {
                let index = parts.len();
                let generation = generation(engine, id, adapter, wanted, prompt, index)?;
                let choice = choice(engine, wanted, prompt, index, &generation)?;
                parts.push((generation, choice));
            }
        }
        let prompt_tokens = prompts
            .iter()
            .map(|prompt| prompt.tokens.len() as u64)
            .sum();
        Ok(Self {
            parts,
            prompt_tokens,
            answers_per_prompt: options.n as usize,
        })
    }
}

fn generation(
    engine: &Engine,
    id: &str,
    adapter: Option<&str>,
    wanted: &Wanted,
    prompt: &Prompt,
    index: usize,
) -> Result<Generation, ApiError> {
    let options = &wanted.options;
    let max_new = max_new(engine, wanted, prompt.tokens.len())?;
    let mut sampling = options.sampling.clone();
    // Answers of one request differ, and each is the same whenever it is asked for.
    sampling.seed = sampling.seed.wrapping_add(index as u64);
    let echo_logprobs = wanted.echo.then_some(sampling.logprobs).flatten();
    Ok(Generation {
        id: if index == 0 {
            id.to_owned()
        } else {
            format!("{id}-{index}")
        },
        prompt: Arc::clone(&prompt.tokens),
        max_new,
        min_new: options.min_tokens,
        stop_tokens: stop_tokens(engine, options),
        sampling,
        prompt_logprobs: echo_logprobs,
        adapter: adapter.map(str::to_owned),
        cache_salt: options.cache_salt.clone(),
    })
}

fn choice(
    engine: &Engine,
    wanted: &Wanted,
    prompt: &Prompt,
    index: usize,
    generation: &Generation,
) -> Result<Choice, ApiError> {
    let options = &wanted.options;
    let mut rules = Rules::new(options, generation.stop_tokens.clone(), generation.max_new);
    if wanted.max_tokens == Some(0) {
        rules = rules.hiding_output();
    }
    let text = prompt.text.clone();
    let echo = text.map(|text| Echo::new(text, prompt.tokens.first().copied()));
    Choice::new(index, &engine.tokenizer, options, rules, echo)
}

fn check_not_empty(prompt: &Prompt) -> Result<(), ApiError> {
    if prompt.tokens.is_empty() {
        let message = "the prompt is empty and has to have at least one token";
        return Err(ApiError::invalid_param("prompt", message));
    }
    Ok(())
}

/// Checked here, where it is still known that they are not of the prompt.
fn check_stop_tokens(options: &Options, vocab_size: usize) -> Result<(), ApiError> {
    let stops = &options.stop_token_ids;
    match stops.iter().find(|&&token| token as usize >= vocab_size) {
        Some(token) => {
            let message = format!(
                "`stop_token_ids` has token {token}, which is not in the vocabulary of {vocab_size}"
            );
            Err(ApiError::invalid_param("stop_token_ids", message))
        }
        None => Ok(()),
    }
}

/// What a generation is told to stop at.
fn stop_tokens(engine: &Engine, options: &Options) -> Vec<u32> {
    let mut tokens = options.stop_token_ids.clone();
    if !options.ignore_eos {
        tokens.extend(&engine.eos_token_ids);
    }
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

/// Nothing can be computed without a token to sample, so asking for none is asking for one that is hidden.
fn max_new(engine: &Engine, wanted: &Wanted, prompt: usize) -> Result<u32, ApiError> {
    if let Some(max_tokens) = wanted.max_tokens {
        return Ok(max_tokens.max(1));
    }
    let context = engine.max_model_len();
    let room = context.saturating_sub(prompt);
    if room == 0 {
        let message = format!(
            "the prompt has {prompt} tokens and the context is {context}, \
             which leaves no room for an answer; shorten the prompt"
        );
        return Err(ApiError::invalid(message).with_code("context_length_exceeded"));
    }
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    check_min_tokens(wanted.options.min_tokens, room)?;
    Ok(room)
}
