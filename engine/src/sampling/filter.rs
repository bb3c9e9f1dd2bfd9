//! Which tokens are drawn from: min-p, top-k and top-p, in this order.
//!
//! Each keeps the likeliest tokens down to some bar, so that min-p and top-k
//! may be applied in either order; top-p is a share of what they left. With
//! top-k there are few tokens to look at; without it, tokens that are left out
//! get a weight of zero.

use super::Sampling;
use super::exponential;
use super::top::{Candidate, likeliest_first, most_likely};

/// Candidates that are sorted rather than halved.
const FEW: usize = 32;

/// Weights are told apart by their exponent and the six bits after it.
const BIN_SHIFT: u32 = 17;
/// Bins for weights up to 1.
const BINS: usize = (0x3f80_0000 >> BIN_SHIFT) + 1;

/// How many tokens top-k leaves, where it leaves any out.
pub(super) fn top_k(sampling: &Sampling, vocab_size: usize) -> Option<usize> {
    let count = sampling.top_k as usize;
    (count > 0 && count < vocab_size).then_some(count)
}

/// Whether every token that is possible may be drawn.
pub(super) fn keeps_all(sampling: &Sampling) -> bool {
    sampling.top_k == 0 && sampling.top_p >= 1.0 && sampling.min_p <= 0.0
}

/// The tokens to draw from, at most `count`, with their weights, in the order of their numbers.
pub(super) fn few(
    logits: &[f32],
    largest: f32,
    count: usize,
    sampling: &Sampling,
    candidates: &mut Vec<Candidate>,
) {
    most_likely(logits, count, candidates);
    for candidate in &mut *candidates {
        candidate.weight = exponential::weight((candidate.logit - largest) / sampling.temperature);
    }
    candidates.retain(|candidate| candidate.weight >= sampling.min_p);
    if sampling.top_p < 1.0 {
        let needed = total(candidates) * f64::from(sampling.top_p);
        let count = nucleus(candidates, needed);
        candidates.truncate(count);
    }
    candidates.sort_unstable_by_key(|candidate| candidate.token);
}

/// Takes the weights of tokens away that are not drawn from, of all tokens.
pub(super) fn many(
    logits: &[f32],
    sampling: &Sampling,
    weights: &mut [f32],
    candidates: &mut Vec<Candidate>,
    bins: &mut Vec<f64>,
) {
    for weight in &mut *weights {
        *weight = if *weight >= sampling.min_p {
            *weight
        } else {
            0.0
        };
    }
    if sampling.top_p < 1.0 {
        keep_nucleus(logits, f64::from(sampling.top_p), weights, candidates, bins);
    }
}

fn total(candidates: &[Candidate]) -> f64 {
    let weights = candidates
        .iter()
        .map(|candidate| f64::from(candidate.weight));
    weights.sum()
}

/// Keeps the likeliest tokens that together have `share` of all weight.
///
/// Weights are counted into bins of nearly equal ones. Those in bins above the
/// one where the share is reached stay, those below go, and only in that bin
/// it matters which is likelier.
fn keep_nucleus(
    logits: &[f32],
    share: f64,
    weights: &mut [f32],
    candidates: &mut Vec<Candidate>,
    bins: &mut Vec<f64>,
) {
    bins.clear();
    bins.resize(BINS, 0.0);
    for &weight in &*weights {
        bins[bin(weight)] += f64::from(weight);
    }
    let needed = share * bins.iter().sum::<f64>();
    let (edge, above) = edge(bins, needed);
    candidates.clear();
    for (token, weight) in weights.iter_mut().enumerate() {
        let place = bin(*weight);
        if place == edge && *weight > 0.0 {
            candidates.push(Candidate {
                token: token as u32,
                logit: logits[token],
                weight: *weight,
            });
        }
        *weight = if place > edge { *weight } else { 0.0 };
    }
    let count = nucleus(candidates, needed - above);
    for candidate in &candidates[..count] {
        weights[candidate.token as usize] = candidate.weight;
    }
}

fn bin(weight: f32) -> usize {
    ((weight.to_bits() >> BIN_SHIFT) as usize).min(BINS - 1)
}

/// The bin in which what is needed is reached, from the heaviest down, and what those above it have.
fn edge(bins: &[f64], needed: f64) -> (usize, f64) {
    let mut above = 0.0;
    for (bin, &mass) in bins.iter().enumerate().rev() {
        if above + mass >= needed {
            return (bin, above);
        }
        above += mass;
    }
    // Everything is needed, and sums were rounded.
    (0, above)
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
        let half = total(likelier);
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
