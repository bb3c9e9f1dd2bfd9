//! A token, from logits.

use super::adjust::{Occurrences, adjust, changes_nothing};
use super::argmax::argmax;
use super::distribution::{block_sums, invert, weigh};
use super::filter::{few, keeps_all, many, top_k};
use super::logprobs::logprobs;
use super::top::Candidate;
use super::uniform::uniform;
use super::{Context, SampleError, Sampled};

/// Memory to sample in, kept from row to row. What is in it never matters.
#[derive(Debug, Default)]
pub struct Scratch {
    adjusted: Vec<f32>,
    occurrences: Occurrences,
    candidates: Vec<Candidate>,
    weights: Vec<f32>,
    sums: Vec<f64>,
}

/// Chooses a token from its logits, `[vocab_size]`.
///
/// # Errors
/// If the logits are not a distribution, or nothing is left that may be chosen.
pub fn sample(
    logits: &[f32],
    context: &Context<'_>,
    scratch: &mut Scratch,
) -> Result<Sampled, SampleError> {
    let largest = argmax(logits)?;
    let token = if changes_nothing(context) {
        choose(logits, largest, context, scratch)
    } else {
        let mut adjusted = std::mem::take(&mut scratch.adjusted);
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        adjust(&mut adjusted, context, &mut scratch.occurrences);
        let chosen = argmax(&adjusted).map(|largest| choose(&adjusted, largest, context, scratch));
        scratch.adjusted = adjusted;
        chosen?
    };
    let logprobs = match context.sampling.logprobs {
        Some(top) => Some(logprobs(logits, token, top)?),
        None => None,
    };
    Ok(Sampled { token, logprobs })
}

/// Chooses from logits that are as the request wants them.
fn choose(
    logits: &[f32],
    (likeliest, largest): (u32, f32),
    context: &Context<'_>,
    scratch: &mut Scratch,
) -> u32 {
    let sampling = context.sampling;
    if sampling.temperature <= 0.0 {
        return likeliest;
    }
    let Scratch {
        candidates,
        weights,
        sums,
        ..
    } = scratch;
    let point = uniform(sampling.seed, context.generated.len() as u64);
    if let Some(count) = top_k(sampling, logits.len()) {
        few(logits, largest, count, sampling, candidates);
        weights.clear();
        weights.extend(candidates.iter().map(|candidate| candidate.weight));
        block_sums(weights, sums);
        return candidates[invert(weights, sums, point)].token;
    }
    weigh(logits, largest, sampling.temperature, weights, sums);
    if !keeps_all(sampling) {
        many(logits, sampling, weights, candidates, sums);
        block_sums(weights, sums);
    }
    invert(weights, sums, point) as u32
}
