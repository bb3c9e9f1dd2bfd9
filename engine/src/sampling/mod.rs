//! From logits to a token.

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
