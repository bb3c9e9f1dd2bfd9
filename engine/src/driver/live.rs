//! One request that a driver has taken and that has not ended.

use std::sync::Arc;

use foresail_core::batching::{Request, Verdict};
use foresail_core::step_time::Chunk;
use tokio::sync::mpsc::UnboundedSender;

use super::contents::Contents;
use super::core::{AdapterKey, RequestKey};
use crate::backend::{Row, RowOutput};
use crate::generation::{Event, FinishReason, Generation};
use crate::sampling::{Context, SampleError, Sampled, Sampling};

/// A request, its tokens so far, and who waits for more.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) key: RequestKey,
    pub(super) adapter: Option<AdapterKey>,
    pub(super) contents: Contents,
    /// The prompt, and what was generated.
    pub(super) known: Vec<u32>,
    /// Whether it was in the batch.
    pub(super) admitted: bool,
    prompt: usize,
    max_new: u32,
    min_new: u32,
    stop_tokens: Vec<u32>,
    sampling: Sampling,
    prompt_logprobs: Option<u32>,
    /// Known tokens, from the second on, whose log-probabilities were delivered.
    prompt_logprobs_sent: usize,
    events: UnboundedSender<Event>,
    /// Why the last token is the last, if it is.
    ended: Option<FinishReason>,
    /// Why there is no next token, if it has failed.
    failure: Option<SampleError>,
}

impl Live {
    pub(super) fn new(
        key: RequestKey,
        generation: Generation,
        adapter: Option<AdapterKey>,
        events: UnboundedSender<Event>,
    ) -> Self {
        let salt = generation.cache_salt.as_deref();
        Self {
            key,
            adapter,
            contents: Contents::new(adapter, salt),
            admitted: false,
            prompt: generation.prompt.len(),
            max_new: generation.max_new,
            min_new: generation.min_new,
            stop_tokens: generation.stop_tokens,
            sampling: generation.sampling,
            prompt_logprobs: generation.prompt_logprobs,
            prompt_logprobs_sent: 0,
            known: tokens(&generation.prompt, generation.max_new),
            events,
            ended: None,
            failure: None,
        }
    }

    /// What it asks of a scheduler that has not computed any of it.
    pub(super) fn request(&self) -> Request {
        Request {
            prompt: self.known.len() as u32,
            max_new: self.max_new - self.generated(),
            adapter: self.adapter,
            // Cached tokens are not computed, and so have no log-probabilities.
            cacheable: self.prompt_logprobs.is_none(),
        }
    }

    pub(super) fn generated(&self) -> u32 {
        (self.known.len() - self.prompt) as u32
    }

    /// Its part of a step, but for its blocks and its slot.
    pub(super) fn row(&self, chunk: Chunk) -> Row<'_> {
        let (past, len) = (chunk.past as usize, chunk.len as usize);
        Row {
            known: &self.known,
            past,
            len,
            table: &[],
            adapter: None,
            prompt_logprobs: self.prompt_logprobs.filter(|_| self.due(past, len) > 0),
            sample: chunk.sample.then(|| self.context()),
        }
    }

    fn context(&self) -> Context<'_> {
        let (prompt, generated) = self.known.split_at(self.prompt);
        Context {
            sampling: &self.sampling,
            prompt,
            generated,
            banned: if self.may_stop() {
                &[]
            } else {
                &self.stop_tokens
            },
        }
    }

    /// Whether the next token may be a stop token.
    fn may_stop(&self) -> bool {
        self.generated() >= self.min_new
    }

    /// How many log-probabilities of the prompt a step tells that were not told yet.
    fn due(&self, past: usize, len: usize) -> usize {
        // The step tells those of the tokens at `past + 1 ..= past + len`.
        let end = (past + len).min(self.prompt - 1);
        end.saturating_sub(self.prompt_logprobs_sent.max(past))
    }

    /// Delivers what a step told, and says whether it goes on. The caller has
    /// checked that the output is what the row asked for.
    pub(super) fn deliver(&mut self, chunk: Chunk, output: RowOutput) {
        if output.failure.is_some() {
            self.failure = output.failure;
            return;
        }
        if self.prompt_logprobs.is_some() {
            self.deliver_prompt_logprobs(chunk, output.prompt_logprobs);
        }
        if let Some(sampled) = output.sampled {
            self.deliver_token(sampled);
        }
    }

    fn deliver_prompt_logprobs(&mut self, chunk: Chunk, mut told: Vec<crate::sampling::Logprobs>) {
        let (past, len) = (chunk.past as usize, chunk.len as usize);
        let due = self.due(past, len);
        if due == 0 {
            return;
        }
        // After a preemption the first of them were told before, and the last
        // are of tokens that were generated.
        let known_already = self.prompt_logprobs_sent.saturating_sub(past);
        told.truncate(known_already + due);
        told.drain(..known_already);
        self.prompt_logprobs_sent += due;
        self.send(Event::PromptLogprobs(told));
    }

    fn deliver_token(&mut self, sampled: Sampled) {
        let token = sampled.token;
        let stops = self.may_stop() && self.stop_tokens.contains(&token);
        self.known.push(token);
        self.ended = if stops {
            Some(FinishReason::Stop)
        } else if self.generated() == self.max_new {
            Some(FinishReason::Length)
        } else {
            None
        };
        self.send(Event::Token(sampled));
    }

    /// What the scheduler has to know of the last token.
    pub(super) fn verdict(&self) -> Verdict {
        match self.ended {
            Some(FinishReason::Stop) => Verdict::Stop,
            _ if self.failure.is_some() => Verdict::Stop,
            _ => Verdict::Continue,
        }
    }

    /// Why it has failed, if it has.
    pub(super) fn failure(&self) -> Option<&SampleError> {
        self.failure.as_ref()
    }

    /// Why it is done, once it is.
    pub(super) fn ended(&self) -> Option<FinishReason> {
        self.ended
    }

    /// Whether an output is what the row for this chunk asked for; if not, what is wrong with it.
    pub(super) fn objection(
        &self,
        chunk: Chunk,
        output: &RowOutput,
        vocab_size: usize,
    ) -> Option<String> {
        if output.failure.is_some() {
            return None;
        }
        let (past, len) = (chunk.past as usize, chunk.len as usize);
        if chunk.sample != output.sampled.is_some() {
            return Some("it sampled where nothing was due, or did not where it was".to_owned());
        }
        if let Some(sampled) = &output.sampled
            && sampled.token as usize >= vocab_size
        {
            let token = sampled.token;
            return Some(format!(
                "it sampled token {token} of a vocabulary of {vocab_size}"
            ));
        }
        let told = (self.known.len() - 1).min(past + len) - past;
        let asked = self.prompt_logprobs.is_some() && self.due(past, len) > 0;
        if asked && output.prompt_logprobs.len() != told {
            let got = output.prompt_logprobs.len();
            return Some(format!("it told {got} log-probabilities of {told} tokens"));
        }
        None
    }

    /// Tells whoever waits, without waiting. That nobody waits any more is
    /// not of interest here: a ticket that is dropped says so itself.
    pub(super) fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// The prompt, with room for as much as the request may well generate.
fn tokens(prompt: &Arc<[u32]>, max_new: u32) -> Vec<u32> {
    // Most requests end long before a large maximum.
    let room = (max_new as usize).min(256);
    let mut tokens = Vec::with_capacity(prompt.len() + room);
    tokens.extend_from_slice(prompt);
    tokens
}
