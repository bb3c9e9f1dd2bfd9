//! Drawing from weights: the inverse of the cumulative distribution, in order.

use super::exponential::{self, sum};

/// Weights added up before they are looked at one by one.
const BLOCK: usize = 1024;

/// `exp((logit - largest) / temperature)` for every logit, and the sum of each block of them.
pub(super) fn weigh(
    logits: &[f32],
    largest: f32,
    temperature: f32,
    weights: &mut Vec<f32>,
    sums: &mut Vec<f64>,
) {
    weights.clear();
    weights.resize(logits.len(), 0.0);
    sums.clear();
    for (weights, logits) in weights.chunks_mut(BLOCK).zip(logits.chunks(BLOCK)) {
        for (weight, &logit) in weights.iter_mut().zip(logits) {
            *weight = exponential::weight((logit - largest) / temperature);
        }
        sums.push(sum(weights));
    }
}

/// The place where the running sum of the weights passes `point` of their
/// total. `point` is in `[0, 1)`; `sums` are those of the blocks of `weights`.
pub(super) fn invert(weights: &[f32], sums: &[f64], point: f64) -> usize {
    let mut left = point * sums.iter().sum::<f64>();
    let mut last = 0;
    for (block, &sum) in sums.iter().enumerate() {
        let start = block * BLOCK;
        let block = &weights[start..weights.len().min(start + BLOCK)];
        if left < sum {
            return start + walk(block, left);
        }
        left -= sum;
        if let Some(place) = block.iter().rposition(|&weight| weight > 0.0) {
            last = start + place;
        }
    }
    // The sum of sums was rounded up, and the point is at its very end.
    last
}

/// The same within a block. Its sum was added in another order: should the
/// point be beyond this one, the last weight that is not zero has it.
fn walk(weights: &[f32], mut left: f64) -> usize {
    let mut last = 0;
    for (place, &weight) in weights.iter().enumerate() {
        if left < f64::from(weight) {
            return place;
        }
        left -= f64::from(weight);
        if weight > 0.0 {
            last = place;
        }
    }
    last
}

/// The sums of the blocks of weights.
pub(super) fn block_sums(weights: &[f32], sums: &mut Vec<f64>) {
    sums.clear();
    sums.extend(weights.chunks(BLOCK).map(sum));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(weights: &[f32], point: f64) -> usize {
        let mut sums = Vec::new();
        block_sums(weights, &mut sums);
        invert(weights, &sums, point)
    }

    #[test]
    fn each_weight_has_its_share_of_the_points() {
        let weights = [1.0, 0.0, 2.0, 1.0];
        let places = [0.0, 0.24, 0.25, 0.5, 0.74, 0.75, 0.999].map(|point| place(&weights, point));
        assert_eq!(places, [0, 0, 2, 2, 2, 3, 3]);
    }

    #[test]
    fn blocks_do_not_show() {
        let weights = vec![1.0; 5000];
        for token in 0..5000 {
            assert_eq!(place(&weights, (token as f64 + 0.5) / 5000.0), token);
        }
    }

    proptest! {
        #[test]
        fn a_weight_of_zero_is_never_drawn(
            weights in prop::collection::vec(prop_oneof![Just(0.0_f32), 1e-30_f32..1.0], 1..3000),
            point in prop_oneof![0.0_f64..1.0, Just(0.0), Just(1.0 - f64::EPSILON / 2.0)],
        ) {
            prop_assume!(weights.iter().any(|&weight| weight > 0.0));
            prop_assert!(weights[place(&weights, point)] > 0.0);
        }
    }
}
