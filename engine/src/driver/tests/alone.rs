//! What the test device says to a request that is alone: the clear form of what
//! it has to say to one among others.

use super::device::{Chain, logprobs};
use crate::generation::{Event, FinishReason, Generation};
use crate::sampling::Sampled;

/// All events after the admission.
pub(super) fn alone(generation: &Generation) -> Vec<Event> {
    let mut events = Vec::new();
    let mut known = generation.prompt.to_vec();
    let root = generation.adapter.as_deref();
    if let Some(top) = generation.prompt_logprobs.filter(|_| known.len() > 1) {
        let told = (1..known.len()).map(|place| {
            let before = Chain::of(root, &known[..place]);
            logprobs(before, known[place], top)
        });
        events.push(Event::PromptLogprobs(told.collect()));
    }
    for generated in 0..generation.max_new {
        let may_stop = generated >= generation.min_new;
        let banned: &[u32] = if may_stop {
            &[]
        } else {
            &generation.stop_tokens
        };
        let chain = Chain::of(root, &known);
        let token = chain.token(banned);
        known.push(token);
        let top = generation.sampling.logprobs;
        events.push(Event::Token(Sampled {
            token,
            logprobs: top.map(|top| logprobs(chain, token, top)),
        }));
        if may_stop && generation.stop_tokens.contains(&token) {
            events.push(Event::Finished(FinishReason::Stop));
            return events;
        }
    }
    events.push(Event::Finished(FinishReason::Length));
    events
}

/// Events with the log-probabilities of the prompt put together, however they were cut.
pub(super) fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Event::PromptLogprobs(told)), Event::PromptLogprobs(more)) => told.extend(more),
            (_, event) => joined.push(event),
        }
    }
    joined
}
