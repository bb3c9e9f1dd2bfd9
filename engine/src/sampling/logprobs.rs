//! Log-probabilities of tokens.

use super::argmax::argmax;
use super::exponential::{self, sum};
use super::top::{likeliest_first, most_likely};
use super::{Logprobs, SampleError};

/// The log-probability of a token in the distribution of these logits, `[vocab_size]`,
/// and of the `top` most likely.
///
/// Impossible tokens (a logit of minus infinity) are never among the most
/// likely; the token itself may be one, and has minus infinity then.
///
/// # Errors
/// If the logits are not a distribution, or do not have the token.
pub fn logprobs(logits: &[f32], token: u32, top: u32) -> Result<Logprobs, SampleError> {
    let (_, largest) = argmax(logits)?;
    let logit = *logits
        .get(token as usize)
        .ok_or(SampleError::UnknownToken {
            token,
            vocab_size: logits.len(),
        })?;
    let log_total = libm::log(total_weight(logits, largest));
    let logprob = |logit: f32| (f64::from(logit) - f64::from(largest) - log_total) as f32;
    let mut candidates = Vec::new();
    most_likely(logits, top as usize, &mut candidates);
    candidates.sort_unstable_by(likeliest_first);
    Ok(Logprobs {
        token,
        logprob: logprob(logit),
        rank: logits.iter().map(|&other| u32::from(other >= logit)).sum(),
        top: candidates
            .iter()
            .map(|candidate| (candidate.token, logprob(candidate.logit)))
            .collect(),
    })
}

/// `sum(exp(logits - largest))`, which cannot overflow.
fn total_weight(logits: &[f32], largest: f32) -> f64 {
    const BLOCK: usize = 256;
    let mut weights = [0.0_f32; BLOCK];
    let mut total = 0.0;
    for block in logits.chunks(BLOCK) {
        for (weight, &logit) in weights.iter_mut().zip(block) {
            *weight = exponential::weight(logit - largest);
        }
        total += sum(&weights[..block.len()]);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(logits: &[f32], token: usize) -> f64 {
        let exponentials = logits.iter().map(|&logit| libm::exp(f64::from(logit)));
        f64::from(logits[token]) - libm::log(exponentials.sum())
    }

    proptest! {
        #[test]
        fn they_are_the_logarithm_of_the_softmax(
            logits in prop::collection::vec(-30.0_f32..30.0, 1..900),
            token in any::<prop::sample::Index>(),
        ) {
            let token = token.index(logits.len());
            let found = logprobs(&logits, token as u32, 5).unwrap();
            prop_assert!((f64::from(found.logprob) - exact(&logits, token)).abs() < 1e-5);
            for &(other, logprob) in &found.top {
                prop_assert!((f64::from(logprob) - exact(&logits, other as usize)).abs() < 1e-5);
            }
            prop_assert_eq!(found.top.len(), logits.len().min(5));
            prop_assert!(found.top.is_sorted_by(|a, b| a.1 >= b.1));
        }
    }

    #[test]
    fn the_rank_counts_those_at_least_as_likely() {
        let logits = [3.0, 1.0, 2.0, 2.0];
        let ranks = [0, 1, 2, 3].map(|token| logprobs(&logits, token, 0).unwrap().rank);
        assert_eq!(ranks, [1, 4, 3, 3]);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let found = logprobs(&[1e30, 1e30, -1e30], 1, 1).unwrap();
        assert!((found.logprob - 0.5_f32.ln()).abs() < 1e-6, "{found:?}");
        assert_eq!(found.top[0].0, 0);
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        let unknown = SampleError::UnknownToken {
            token: 2,
            vocab_size: 2,
        };
        assert_eq!(logprobs(&[0.0, 1.0], 2, 0), Err(unknown));
        assert_eq!(
            logprobs(&[0.0, f32::NAN], 0, 0),
            Err(SampleError::NotFinite { token: 1 })
        );
    }
}
