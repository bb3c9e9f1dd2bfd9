//! The generations of one request under way, polled as one.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use serde::Serialize;

use crate::driver::Ticket;
use crate::generation::Event;
use crate::server::app::{App, Engine};
use crate::server::error::ApiError;
use crate::server::generate::choice::{Choice, Finish, Piece};
use crate::server::generate::plan::Plan;
use crate::server::metrics::Outcome;
use crate::server::record::Record;

/// What a request has used, in OpenAI's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) total_tokens: u64,
    pub(crate) prompt_tokens_details: PromptTokensDetails,
}

/// Of the tokens of the prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PromptTokensDetails {
    /// Those that the prefix cache had.
    pub(crate) cached_tokens: u64,
}

/// The generations of one request. Dropping it gives up those that are under way.
#[derive(Debug)]
pub(crate) struct Run {
    app: Arc<App>,
    record: Arc<Record>,
    slots: Vec<Slot>,
    /// Who is asked first, so that none waits for the others.
    turn: usize,
    prompt_tokens: u64,
    cached_tokens: u64,
    answers_per_prompt: usize,
}

#[derive(Debug)]
struct Slot {
    /// `None` once the answer is whole.
    ticket: Option<Ticket>,
    choice: Choice,
    prompt_tokens: u64,
    last_token: Option<Instant>,
}

impl Run {
    /// Hands everything to the replica, or nothing: what was taken before a refusal is given up.
    pub(crate) fn begin(
        app: &Arc<App>,
        engine: &Engine,
        record: &Arc<Record>,
        plan: Plan,
    ) -> Result<Self, ApiError> {
        let mut run = Self {
            app: Arc::clone(app),
            record: Arc::clone(record),
            slots: Vec::with_capacity(plan.parts.len()),
            turn: 0,
            prompt_tokens: plan.prompt_tokens,
            cached_tokens: 0,
            answers_per_prompt: plan.answers_per_prompt,
        };
        record.notes().prompt_tokens = plan.prompt_tokens;
        for (generation, choice) in plan.parts {
            let prompt_tokens = generation.prompt.len() as u64;
            let ticket = Some(engine.replica.submit(generation)?);
            run.slots.push(Slot {
                ticket,
                choice,
                prompt_tokens,
                last_token: None,
            });
        }
        Ok(run)
    }

    /// The next piece of any answer; `None` when all are whole. After an error, nothing more comes.
    pub(crate) async fn next(&mut self) -> Option<Result<Piece, ApiError>> {
        loop {
            let (index, event) = poll_fn(|context| self.poll_event(context)).await?;
            match self.on(index, event) {
                Ok(None) => {}
                Ok(Some(piece)) => return Some(Ok(piece)),
                Err(error) => {
                    self.fail(index);
                    return Some(Err(error));
                }
            }
        }
    }

    /// What was used so far.
    pub(crate) fn usage(&self) -> Usage {
        let completion_tokens = self.slots.iter().map(Slot::completion_tokens).sum();
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens,
            total_tokens: self.prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: self.cached_tokens,
            },
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, Event)>> {
        let count = self.slots.len();
        let mut is_open = false;
        for offset in 0..count {
            let index = (self.turn + offset) % count;
            let Some(ticket) = &mut self.slots[index].ticket else {
                continue;
            };
            is_open = true;
            // Waiting for an event and giving that up loses none.
            if let Poll::Ready(Some(event)) = pin!(ticket.next()).poll(context) {
                self.turn = (index + 1) % count;
                return Poll::Ready(Some((index, event)));
            }
        }
        if is_open {
            Poll::Pending
        } else {
            Poll::Ready(None)
        }
    }

    fn on(&mut self, index: usize, event: Event) -> Result<Option<Piece>, ApiError> {
        match &event {
            Event::Admitted { cached_tokens } => self.note_admission(index, *cached_tokens),
            Event::Token(_) => self.note_token(index),
            Event::PromptLogprobs(_) | Event::Finished(_) | Event::Failed(_) => {}
        }
        let piece = self.slots[index].choice.on(event)?;
        if let Some(finish) = piece.as_ref().and_then(|piece| piece.finish.as_ref()) {
            let outcome = match finish {
                Finish::Stop(_) => Outcome::Stop,
                Finish::Length => Outcome::Length,
            };
            self.end(index, outcome);
        }
        Ok(piece)
    }

    fn note_admission(&mut self, index: usize, cached_tokens: u32) {
        // A prompt counts once, however many answers it gets.
        if index.is_multiple_of(self.answers_per_prompt) {
            self.cached_tokens += u64::from(cached_tokens);
        }
        let waited = self.record.began.elapsed();
        self.app.metrics.queue_s.observe(waited.as_secs_f64());
        let mut notes = self.record.notes();
        notes.cached_tokens = self.cached_tokens;
        notes.queue.get_or_insert(waited);
    }

    fn note_token(&mut self, index: usize) {
        let (metrics, now) = (&self.app.metrics, Instant::now());
        self.record.add_output_token();
        match self.slots[index].last_token.replace(now) {
            Some(last) => metrics.inter_token_s.observe((now - last).as_secs_f64()),
            None => {
                let waited = now - self.record.began;
                metrics.first_token_s.observe(waited.as_secs_f64());
                self.record.notes().first_token.get_or_insert(waited);
            }
        }
    }

    /// One failed; the others would answer nobody.
    fn fail(&mut self, failed: usize) {
        self.end(failed, Outcome::Error);
        self.abort();
    }

    fn abort(&mut self) {
        for index in 0..self.slots.len() {
            self.end(index, Outcome::Abort);
        }
    }

    /// The ticket is dropped, which gives up what the replica would go on with.
    fn end(&mut self, index: usize, outcome: Outcome) {
        let slot = &mut self.slots[index];
        if slot.ticket.take().is_some() {
            let (took, output) = (self.record.began.elapsed(), slot.completion_tokens());
            self.app
                .metrics
                .ended(outcome, took, slot.prompt_tokens, output);
        }
    }
}

impl Slot {
    fn completion_tokens(&self) -> u64 {
        u64::from(self.choice.completion_tokens())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.abort();
    }
}
