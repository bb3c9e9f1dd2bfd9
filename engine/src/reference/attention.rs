//! Attention of one head of one token.

use std::ops::Range;

use super::kv_cache::History;
use super::linear::dot;

/// `a = Σ softmax(q · k / sqrt(head_dim)) v` over the keys and values at the positions `seen`
/// (Vaswani et al. 2017, equation 1).
pub(super) fn attend(query: &[f32], history: &History<'_>, seen: Range<usize>, a: &mut [f32]) {
    let scale = 1.0 / (query.len() as f64).sqrt();
    let scores: Vec<f64> = seen
        .clone()
        .map(|position| dot(query, history.key(position)) * scale)
        .collect();
    let weights = softmax(&scores);
    let mut sums = vec![0.0; query.len()];
    for (weight, position) in weights.iter().zip(seen) {
        for (sum, value) in sums.iter_mut().zip(history.value(position)) {
            *sum += weight * f64::from(*value);
        }
    }
    for (a, sum) in a.iter_mut().zip(sums) {
        *a = sum as f32;
    }
}

/// `exp(zᵢ) / Σ exp(zⱼ)`, with the largest taken from all first, which changes nothing but the range.
fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores
        .iter()
        .map(|score| libm::exp(score - largest))
        .collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_is_a_distribution_at_any_size() {
        assert_eq!(softmax(&[5.0]), [1.0]);
        assert_eq!(softmax(&[1000.0, 1000.0]), [0.5, 0.5]);
        let odds = softmax(&[0.0, 3.0_f64.ln()]);
        assert!((odds[1] / odds[0] - 3.0).abs() < 1e-12);
    }
}
