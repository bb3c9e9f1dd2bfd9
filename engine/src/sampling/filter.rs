//! Which tokens are drawn from: min-p, top-k and top-p, in this order.
//!
//! Each keeps the likeliest tokens down to some bar, so that min-p and top-k
//! may be applied in either order; top-p is a share of what they left.

use super::Sampling;
use super::distribution::weigh;
use super::exponential::exp;
use super::top::{Candidate, likeliest_first, most_likely};

/// Candidates that are sorted rather than halved.
const FEW: usize = 32;

/// Whether every token that is possible may be drawn.
pub(super) fn keeps_all(sampling: &Sampling, vocab_size: usize) -> bool {
    top_k(sampling, vocab_size).is_none() && sampling.top_p >= 1.0 && sampling.min_p <= 0.0
}

fn top_k(sampling: &Sampling, vocab_size: usize) -> Option<usize> {
    let count = sampling.top_k as usize;
    (count > 0 && count < vocab_size).then_some(count)
}

/// The tokens to draw from, with their weights, in the order of their numbers.
pub(super) fn filter(
    logits: &[f32],
    largest: f32,
    sampling: &Sampling,
    candidates: &mut Vec<Candidate>,
    weights: &mut Vec<f32>,
    sums: &mut Vec<f64>,
) {
    if let Some(count) = top_k(sampling, logits.len()) {
        most_likely(logits, count, candidates);
        for candidate in &mut *candidates {
            candidate.weight = exp((candidate.logit - largest) / sampling.temperature);
        }
        candidates.retain(|candidate| candidate.weight >= sampling.min_p);
    } else {
        weigh(logits, largest, sampling.temperature, weights, sums);
        let total: f64 = sums.iter().sum();
        let bar = sampling
            .min_p
            .max(least_in_nucleus(total, sampling, logits.len()));
        collect(logits, weights, bar, candidates);
    }
    if sampling.top_p < 1.0 {
        let total = if sampling.min_p > 0.0 || top_k(sampling, logits.len()).is_some() {
            candidates
                .iter()
                .map(|candidate| f64::from(candidate.weight))
                .sum()
        } else {
            sums.iter().sum::<f64>()
        };
        let count = nucleus(candidates, f64::from(sampling.top_p) * total);
        candidates.truncate(count);
    }
    candidates.sort_unstable_by_key(|candidate| candidate.token);
}

/// A weight below which no token is in the nucleus: all tokens with less than
/// `(1 - top_p) / vocab_size` of the total have less than `1 - top_p` together.
/// With min-p the total shrinks, and this says nothing.
fn least_in_nucleus(total: f64, sampling: &Sampling, vocab_size: usize) -> f32 {
    if sampling.min_p > 0.0 || sampling.top_p >= 1.0 {
        return 0.0;
    }
    // Half, because sums and weights are rounded.
    ((1.0 - f64::from(sampling.top_p)) * total / vocab_size as f64 / 2.0) as f32
}

/// The possible tokens with at least this weight.
fn collect(logits: &[f32], weights: &[f32], bar: f32, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    for (token, (&logit, &weight)) in logits.iter().zip(weights).enumerate() {
        if weight >= bar && weight > 0.0 {
            candidates.push(Candidate {
                token: token as u32,
                logit,
                weight,
            });
        }
    }
}

/// Brings the likeliest candidates that together have at least `needed` to the
/// front, as few as do, and returns how many they are: at least one.
///
/// Halving instead of sorting: where the likelier half of a stretch is not
/// enough it is taken whole, where it is enough the rest is left.
fn nucleus(candidates: &mut [Candidate], needed: f64) -> usize {
    let (mut taken, mut end) = (0, candidates.len());
    let mut mass = 0.0;
    while end - taken > FEW {
        let middle = (end - taken) / 2;
        let stretch = &mut candidates[taken..end];
        let (likelier, _, _) = stretch.select_nth_unstable_by(middle, likeliest_first);
        let half: f64 = likelier
            .iter()
            .map(|candidate| f64::from(candidate.weight))
            .sum();
        if mass + half < needed {
            mass += half;
            taken += middle;
        } else {
            end = taken + middle;
        }
    }
    candidates[taken..end].sort_unstable_by(likeliest_first);
    for candidate in &candidates[taken..end] {
        if mass >= needed && taken > 0 {
            break;
        }
        mass += f64::from(candidate.weight);
        taken += 1;
    }
    taken
}
