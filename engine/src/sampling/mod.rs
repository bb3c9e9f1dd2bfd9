//! From logits to a token.
//!
//! What is done to the logits, and in which order, is what vLLM does
//! (`Sampler` in vllm/v1/sample/sampler.py, and the processors that it names):
//!
//! 1. log-probabilities are taken from the logits as they are ([`logprobs`]);
//! 2. banned tokens, then biases, then the penalties: repetition, frequency, presence;
//! 3. at temperature 0, the most likely token, and that is it;
//! 4. division by the temperature, then min-p, top-k and top-p, each of what the one before left;
//! 5. a draw from what is left.
//!
//! Tokens that are equally likely are in the order of their numbers wherever
//! an order is needed, so that exactly `top_k` tokens are left, and `top_k = 1`
//! is temperature 0. The draw inverts the cumulative distribution over tokens
//! in the order of their numbers at a point that depends on the seed and on the
//! place in the output alone: a token is a function of its logits and of its
//! own request, whatever else is computed beside it.

mod adjust;
mod argmax;
mod distribution;
mod exponential;
mod filter;
mod logprobs;
mod sample;
#[cfg(test)]
mod tests;
mod top;
mod uniform;
mod validate;

pub use logprobs::logprobs;
pub use sample::{Scratch, sample};
pub use validate::{LOGPROBS_MAX, SamplingError};

/// How tokens are chosen. The defaults are OpenAI's and vLLM's.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: f32,
    /// Only so many of the most likely tokens; 0 for all.
    pub top_k: u32,
    /// Only the most likely tokens that together have this probability.
    pub top_p: f32,
    /// Only tokens with at least this share of the most likely one's probability.
    pub min_p: f32,
    /// Taken from the logits of tokens that were generated.
    pub presence_penalty: f32,
    /// Taken as many times as they were generated.
    pub frequency_penalty: f32,
    /// By what the logits of tokens in the prompt or the output are divided, or multiplied if negative.
    pub repetition_penalty: f32,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// The token at place `n` of the output is drawn by a number that depends on this and on `n` alone.
    pub seed: u64,
    /// Log-probabilities to report: of the chosen token, and of so many of the most likely.
    pub logprobs: Option<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: 0,
            logprobs: None,
        }
    }
}

/// What a token's choice depends on beside the logits.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// How to choose.
    pub sampling: &'a Sampling,
    /// The tokens of the prompt.
    pub prompt: &'a [u32],
    /// The tokens generated so far.
    pub generated: &'a [u32],
    /// Tokens that may not be chosen now, such as the end before `min_tokens`.
    pub banned: &'a [u32],
}

/// A token that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    /// Its log-probability and those of others, if asked for.
    pub logprobs: Option<Logprobs>,
}

/// Log-probabilities (natural) at one place of a text: of the model's own
/// distribution, before temperature, penalties and filters, as vLLM reports them.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// The token that is there.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// How many tokens are at least as likely, itself included.
    pub rank: u32,
    /// The most likely tokens, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// Why no token can be chosen, or log-probability be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The model did not compute a distribution.
    #[error("the logit of token {token} is not a number, or infinite")]
    NotFinite {
        /// The first such token.
        token: u32,
    },
    /// Nothing is left to choose from.
    #[error("all tokens are impossible or banned")]
    NothingLeft,
    /// The model does not have this token.
    #[error("token {token} is not in the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Tokens there are.
        vocab_size: usize,
    },
}
