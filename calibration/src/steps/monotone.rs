//! Factors with which no step of more tokens takes less time.
//!
//! Between two knots the factor is `f + s (t - t0)`, and the derivative of its product with
//! `sqrt(k^2 + t^2)` has the sign of `factor * t + s (k^2 + t^2)`: where `s` is negative, that is a
//! parabola that opens downwards, so if it is not negative at both knots it is not between them.
//! Both conditions are of the form `next >= ratio * factor`. So the factors, each divided by the product
//! of the ratios before it, must not fall, and the nearest ones that do not are an isotonic regression.

use foresail_core::step_time::calibrated::{Factor, Knot};

use super::design::Shape;

/// What rounding may take from a ratio.
const ROUNDING: f64 = 1e-9;

/// The nearest factor with which the time of the matrices grows with tokens.
pub(super) fn monotone(factor: &Factor, knee: f64) -> Factor {
    let knots = &factor.knots;
    let mut products = Vec::with_capacity(knots.len());
    let mut product = 1.0;
    for (index, _) in knots.iter().enumerate() {
        if index > 0 {
            product *= ratio_min(knots[index - 1].at, knots[index].at, knee);
        }
        products.push(product);
    }
    // An error of a factor counts alike wherever it is.
    let scaled = knots.iter().zip(&products);
    let scaled: Vec<(f64, f64)> = scaled
        .map(|(knot, product)| (knot.factor / product, product * product))
        .collect();
    let levels = isotonic(&scaled);
    let knots = knots.iter().zip(products.iter().zip(levels));
    let knot = |(knot, (product, level)): (&Knot, (&f64, f64))| Knot {
        at: knot.at,
        factor: product * level,
    };
    Factor {
        knots: knots.map(knot).collect(),
    }
}

/// Whether the time of the matrices grows with tokens.
pub(super) fn is_monotone(shape: &Shape) -> bool {
    shape.token_factor.knots.windows(2).all(|pair| {
        let ratio = ratio_min(pair[0].at, pair[1].at, shape.knee);
        pair[1].factor >= ratio * pair[0].factor * (1.0 - ROUNDING)
    })
}

/// The least ratio of the factor at one knot to that at the knot before.
fn ratio_min(before: u64, at: u64, knee: f64) -> f64 {
    let (before, at) = (before as f64, at as f64);
    let apart = at - before;
    let square = |tokens: f64| knee * knee + tokens * tokens;
    let at_first = 1.0 - apart * before / square(before);
    let at_second = square(at) / (square(at) + at * apart);
    f64::max(at_first, at_second)
}

/// The nearest values, by weighted squares, that do not fall: pool adjacent violators (Ayer et al., "An
/// Empirical Distribution Function for Sampling with Incomplete Information", 1955).
fn isotonic(values: &[(f64, f64)]) -> Vec<f64> {
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for &(value, weight) in values {
        let mut pool = (value, weight, 1);
        while let Some(&(below, below_weight, count)) = pools.last() {
            if below <= pool.0 {
                break;
            }
            pools.pop();
            let weight = below_weight + pool.1;
            let mean = (below * below_weight + pool.0 * pool.1) / weight;
            pool = (mean, weight, pool.2 + count);
        }
        pools.push(pool);
    }
    pools
        .into_iter()
        .flat_map(|(value, _, count)| std::iter::repeat_n(value, count))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_falls_is_pooled() {
        let values = [(1.0, 1.0), (4.0, 1.0), (2.0, 3.0), (5.0, 1.0)];
        assert_eq!(isotonic(&values), [1.0, 2.5, 2.5, 5.0]);
        assert_eq!(isotonic(&[]), [0.0; 0]);
    }

    proptest! {
        #[test]
        fn no_more_tokens_take_less_time(
            factors in vec(0.1..3.0_f64, 2..8),
            gaps in vec(1_u64..200, 8),
            knee in prop_oneof![Just(0.0), 0.5..2000.0],
        ) {
            let mut at = 0;
            let knots = factors.iter().zip(&gaps).map(|(&factor, gap)| {
                at += gap;
                Knot { at, factor }
            });
            let given = Factor { knots: knots.collect() };
            let token_factor = monotone(&given, knee);
            let shape = Shape { knee, token_factor, ..Shape::default() };
            prop_assert!(is_monotone(&shape));
            let seconds = |tokens| shape.token_factor.at(tokens) * shape.matrices(tokens);
            for tokens in 2..=at {
                prop_assert!(seconds(tokens) >= seconds(tokens - 1) * (1.0 - 1e-9));
            }
            // What grows already stays.
            let again = monotone(&shape.token_factor, knee);
            for (first, second) in shape.token_factor.knots.iter().zip(&again.knots) {
                prop_assert!((first.factor / second.factor - 1.0).abs() < 1e-9);
            }
        }
    }
}
