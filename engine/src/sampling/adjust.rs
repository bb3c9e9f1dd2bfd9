//! What a request changes in the logits before any token is compared: bans,
//! biases and penalties.

use super::{Context, Sampling};

/// How often the tokens of a sequence occur in it; reused from row to row.
#[derive(Debug, Default)]
pub(super) struct Occurrences {
    /// For each token of the vocabulary: 0 if it is not in the sequence, otherwise one more than it was generated.
    counts: Vec<u32>,
    /// The tokens that are in the sequence.
    tokens: Vec<u32>,
}

/// Whether the logits of this request are chosen from as they are.
pub(super) fn changes_nothing(context: &Context<'_>) -> bool {
    let sampling = context.sampling;
    context.banned.is_empty() && sampling.logit_bias.is_empty() && !has_penalties(sampling)
}

fn has_penalties(sampling: &Sampling) -> bool {
    sampling.repetition_penalty != 1.0
        || sampling.presence_penalty != 0.0
        || sampling.frequency_penalty != 0.0
}

/// Changes logits as the request asks.
pub(super) fn adjust(logits: &mut [f32], context: &Context<'_>, occurrences: &mut Occurrences) {
    for &token in context.banned {
        // The end of a text may be a token that this model does not have; it cannot be chosen then either.
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
    for &(token, bias) in &context.sampling.logit_bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = saturated(*logit + bias);
        }
    }
    if has_penalties(context.sampling) {
        occurrences.count(logits.len(), context);
        penalise(logits, context.sampling, occurrences);
    }
}

/// Penalties as in vLLM (`apply_penalties`, vllm/model_executor/layers/utils.py): that of
/// repetition as CTRL defines it (Keskar et al. 2019, section 4.1, with negative
/// logits multiplied), the others as OpenAI's API does.
fn penalise(logits: &mut [f32], sampling: &Sampling, occurrences: &Occurrences) {
    for &token in &occurrences.tokens {
        let logit = &mut logits[token as usize];
        let repeated = if *logit > 0.0 {
            *logit / sampling.repetition_penalty
        } else {
            *logit * sampling.repetition_penalty
        };
        let generated = occurrences.counts[token as usize] - 1;
        let presence = if generated > 0 {
            sampling.presence_penalty
        } else {
            0.0
        };
        *logit = saturated(repeated - sampling.frequency_penalty * generated as f32 - presence);
    }
}

/// A logit that a penalty brought out of the range of numbers is the largest there is: it stays comparable.
fn saturated(logit: f32) -> f32 {
    if logit > f32::MAX { f32::MAX } else { logit }
}

impl Occurrences {
    /// Counts the tokens of a request: the prompt's only matter to the penalty of repetition.
    fn count(&mut self, vocab_size: usize, context: &Context<'_>) {
        for token in self.tokens.drain(..) {
            self.counts[token as usize] = 0;
        }
        self.counts.resize(vocab_size, 0);
        if context.sampling.repetition_penalty != 1.0 {
            for &token in context.prompt {
                self.see(token);
            }
        }
        for &token in context.generated {
            if let Some(count) = self.see(token) {
                *count += 1;
            }
        }
    }

    /// Notes that a token is in the sequence; `None` if the model does not have it.
    fn see(&mut self, token: u32) -> Option<&mut u32> {
        let count = self.counts.get_mut(token as usize)?;
        if *count == 0 {
            *count = 1;
            self.tokens.push(token);
        }
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adjusted(
        logits: &[f32],
        sampling: &Sampling,
        prompt: &[u32],
        generated: &[u32],
    ) -> Vec<f32> {
        let context = Context {
            sampling,
            prompt,
            generated,
            banned: &[],
        };
        let mut logits = logits.to_vec();
        adjust(&mut logits, &context, &mut Occurrences::default());
        logits
    }

    /// The values that vLLM's formulas give by hand.
    #[test]
    fn penalties_are_those_of_vllm() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            frequency_penalty: 0.5,
            presence_penalty: 0.25,
            ..Sampling::default()
        };
        let logits = adjusted(&[4.0, -4.0, 4.0, 1.0], &sampling, &[0, 0, 1], &[2, 2, 1]);
        assert_eq!(logits, [2.0, -8.75, 0.75, 1.0]);
    }

    #[test]
    fn presence_and_frequency_are_of_what_was_generated() {
        let sampling = Sampling {
            frequency_penalty: 1.0,
            presence_penalty: 1.0,
            ..Sampling::default()
        };
        assert_eq!(adjusted(&[1.0, 1.0], &sampling, &[0, 0], &[]), [1.0, 1.0]);
        assert_eq!(adjusted(&[1.0, 1.0], &sampling, &[0], &[1, 1]), [1.0, -2.0]);
    }

    #[test]
    fn a_row_leaves_nothing_for_the_next() {
        let sampling = Sampling {
            frequency_penalty: 1.0,
            ..Sampling::default()
        };
        let mut occurrences = Occurrences::default();
        for (vocab_size, generated) in [(8, [7, 7]), (4, [1, 2]), (8, [0, 0])] {
            let context = Context {
                sampling: &sampling,
                prompt: &[],
                generated: &generated,
                banned: &[],
            };
            let mut logits = vec![0.0; vocab_size];
            adjust(&mut logits, &context, &mut occurrences);
            assert_eq!(
                logits,
                adjusted(&vec![0.0; vocab_size], &sampling, &[], &generated)
            );
        }
    }

    #[test]
    fn extreme_penalties_keep_logits_comparable() {
        let sampling = Sampling {
            repetition_penalty: f32::MIN_POSITIVE,
            ..Sampling::default()
        };
        let logits = adjusted(
            &[1e3, -1e3, 0.0, f32::NEG_INFINITY],
            &sampling,
            &[0, 1, 2, 3],
            &[],
        );
        assert_eq!(logits[0], f32::MAX);
        assert!(logits.iter().all(|logit| !logit.is_nan()));
    }
}
