//! A request for tokens, and what comes back: the words between whoever asks
//! (a server, a test, a bench) and the driver of a replica.

use std::sync::Arc;

use crate::sampling::{Logprobs, SampleError, Sampled, Sampling};

/// A request, in tokens.
#[derive(Clone, Debug)]
pub struct Generation {
    /// What logs and error messages call it.
    pub id: String,
    /// The tokens to go on from.
    pub prompt: Arc<[u32]>,
    /// Most tokens to generate.
    pub max_new: u32,
    /// No token of `stop_tokens` is chosen before so many were generated.
    pub min_new: u32,
    /// Tokens that end the text: those of the model unless it ignores them, and the request's own.
    pub stop_tokens: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Log-probabilities to report of the prompt's tokens, from the second on. The prefix cache is then not used.
    pub prompt_logprobs: Option<u32>,
    /// The adapter to compute with, by name.
    pub adapter: Option<String>,
    /// Requests with different salts never share KV blocks.
    pub cache_salt: Option<String>,
}

/// What happens to a request, in this order: admitted once, prompt
/// log-probabilities if asked for, tokens, and one end.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It is in the batch for the first time.
    Admitted {
        /// Tokens of the prompt that the prefix cache had.
        cached_tokens: u32,
    },
    /// The next of the prompt's log-probabilities, in order, from the second token on.
    PromptLogprobs(Vec<Logprobs>),
    /// A token was generated.
    Token(Sampled),
    /// It is done.
    Finished(FinishReason),
    /// It failed; nothing more comes.
    Failed(GenerationError),
}

/// Why a request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The last token is one of its stop tokens.
    Stop,
    /// It has as many tokens as it asked for.
    Length,
}

/// Why a request that was taken came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerationError {
    /// The step that computed it failed.
    #[error("the step that computed this request failed: {0}")]
    Step(String),
    /// The model's distribution, or what the request allows of it, leaves no token to choose.
    #[error("no token could be chosen: {0}")]
    Sample(SampleError),
    /// Its adapter could not be brought into memory.
    #[error("adapter {adapter}: {reason}")]
    Adapter {
        /// Which.
        adapter: String,
        /// Why.
        reason: String,
    },
    /// The replica ended before the request did.
    #[error("the replica is shutting down")]
    ShutDown,
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing to compute, or nothing to generate.
    #[error("the prompt and the output must be at least one token")]
    Empty,
    /// Longer than the context.
    #[error(
        "{prompt} prompt tokens and {max_new} to generate are more than the context of {max_model_len}"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_new: u32,
        /// The longest sequence.
        max_model_len: usize,
    },
    /// More KV cache than the replica has.
    #[error("the request needs {needed} KV-cache blocks and the replica has {available}")]
    NeverFits {
        /// Blocks that it needs.
        needed: usize,
        /// Blocks there are.
        available: usize,
    },
    /// A token that the model does not have.
    #[error("token {token} is not in the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Tokens in the vocabulary.
        vocab_size: usize,
    },
    /// No adapter of this name.
    #[error("there is no adapter {0}")]
    UnknownAdapter(String),
    /// As many requests wait as may; try again later.
    #[error("{waiting} requests wait already, as many as may; try again later")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// It finishes what it has, and takes nothing new.
    #[error("the replica is shutting down")]
    Draining,
}
