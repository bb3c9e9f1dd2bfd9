//! A batch of whole requests through scheduler and driver: what serving adds to the steps.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use foresail_reports::bench::WholeRequests;

use super::steps::BenchError;
use crate::backend::{Backend, Limits};
use crate::driver::{Replica, Settings, Ticket};
use crate::generation::{Event, Generation};
use crate::sampling::Sampling;

/// How long a thread that waits for the driver to end sleeps between looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// How many requests there are, and how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSizes {
    /// Requests, all at the same time.
    pub batch: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens that each generates.
    pub output_tokens: usize,
}

impl RequestSizes {
    /// KV blocks that they hold together in the end.
    #[must_use]
    pub fn num_blocks(&self, block_size: usize) -> usize {
        self.batch * (self.prompt_tokens + self.output_tokens).div_ceil(block_size)
    }
}

/// Runs the requests on a replica of the backend, which is gone afterwards.
/// Their prompts have nothing in common, and the prefix cache is off.
///
/// # Errors
/// If the driver does not start or take them, or one fails.
pub fn measure_requests(
    backend: Box<dyn Backend>,
    limits: Limits,
    vocab_size: usize,
    sizes: RequestSizes,
) -> Result<WholeRequests, BenchError> {
    let mut settings = Settings::new(limits, vocab_size);
    settings.prefix_caching = false;
    let replica = Replica::start(backend, settings)?;
    let began = Instant::now();
    let submit = |request| replica.submit(generation(request, sizes, vocab_size));
    let tickets: Result<Vec<Ticket>, _> = (0..sizes.batch).map(submit).collect();
    let mut tokens = 0;
    for mut ticket in tickets? {
        tokens += wait(&mut ticket)?;
    }
    let wall_seconds = began.elapsed().as_secs_f64();
    replica.drain();
    // Its counts are complete once it has ended.
    while !replica.is_ended() {
        thread::sleep(LOOK_INTERVAL);
    }
    let stats = replica.stats();
    let step_seconds = stats.step_s.sum;
    Ok(WholeRequests {
        batch: sizes.batch as u32,
        prompt_tokens: sizes.prompt_tokens as u32,
        output_tokens: sizes.output_tokens as u32,
        wall_seconds,
        step_seconds,
        steps: stats.steps,
        output_tokens_per_s: tokens as f64 / wall_seconds,
        // The last step may end after its tokens were heard of.
        outside_share: (1.0 - step_seconds / wall_seconds).max(0.0),
    })
}

/// The request of this number: greedy, and as long as it may be.
fn generation(request: usize, sizes: RequestSizes, vocab_size: usize) -> Generation {
    let token = |place: usize| ((request * 31 + place * 7919) % vocab_size) as u32;
    let prompt: Arc<[u32]> = (0..sizes.prompt_tokens).map(token).collect();
    Generation {
        id: format!("bench-{request}"),
        prompt,
        max_new: sizes.output_tokens as u32,
        min_new: 0,
        stop_tokens: Vec::new(),
        sampling: Sampling {
            temperature: 0.0,
            ..Sampling::default()
        },
        prompt_logprobs: None,
        adapter: None,
        cache_salt: None,
    }
}

/// Waits for a request's end, and counts its tokens.
fn wait(ticket: &mut Ticket) -> Result<u64, BenchError> {
    let mut tokens = 0;
    while let Some(event) = ticket.next_blocking() {
        match event {
            Event::Token(_) => tokens += 1,
            Event::Failed(error) => return Err(error.into()),
            Event::Admitted { .. } | Event::PromptLogprobs(_) | Event::Finished(_) => {}
        }
    }
    Ok(tokens)
}
