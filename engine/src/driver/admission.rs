//! What is refused at once: what could never be served, and what comes to a full queue.

use foresail_core::batching::Config;

use crate::generation::{Generation, Refusal};

/// What every request has to keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) config: Config,
    pub(super) vocab_size: usize,
}

impl Rules {
    /// Whether the request could be served at all.
    pub(super) fn check(&self, generation: &Generation) -> Result<(), Refusal> {
        let (prompt, max_new) = (generation.prompt.len(), generation.max_new);
        if prompt == 0 || max_new == 0 {
            return Err(Refusal::Empty);
        }
        let max_model_len = self.config.max_model_len as usize;
        let total = prompt.saturating_add(max_new as usize);
        if total > max_model_len {
            return Err(Refusal::TooLong {
                prompt,
                max_new,
                max_model_len,
            });
        }
        // The last token is sampled but never written to the cache.
        let needed = (total - 1).div_ceil(self.config.block_size as usize);
        let available = self.config.num_blocks as usize;
        if needed > available {
            return Err(Refusal::NeverFits { needed, available });
        }
        self.check_tokens(generation)
    }

    /// Whether the model has every token that the request names.
    fn check_tokens(&self, generation: &Generation) -> Result<(), Refusal> {
        let biased = generation
            .sampling
            .logit_bias
            .iter()
            .map(|(token, _)| token);
        let named = generation.prompt.iter().chain(&generation.stop_tokens);
        let unknown = named
            .chain(biased)
            .find(|token| **token as usize >= self.vocab_size);
        match unknown {
            Some(token) => Err(Refusal::UnknownToken {
                token: *token,
                vocab_size: self.vocab_size,
            }),
            None => Ok(()),
        }
    }
}
