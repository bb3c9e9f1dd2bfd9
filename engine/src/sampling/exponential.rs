//! Exponentials of many logits, with additions, multiplications and divisions
//! only: the same bits on every machine, and a loop that compilers vectorise.
//! The `exp` of the system's library has neither.
//!
//! What is added up are exponentials in steps of 2^-34. An f64 holds any sum of up to 2^18
//! of them exactly, so the order of additions does not matter: one thread, or all of a
//! GPU's, come to the same sum, and to the same token.

/// `exp(LOWEST)` is about the smallest normal number; below, the result is 0.
const LOWEST: f32 = -87.0;

/// `exp(x)` for `x <= 0`, to within 2 units in the last place; 0 below -87.
///
/// `x = k ln 2 + r`, and a polynomial for `exp(r)`: the method and the
/// coefficients of `expf` of Cephes (Moshier, cephes/single/expf.c).
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Added to a small number, it leaves the nearest integer in the low bits of the sum.
    const TO_INTEGER: f32 = 12_582_912.0;
    let clamped = if x > LOWEST { x } else { LOWEST };
    let shifted = clamped * std::f32::consts::LOG2_E + TO_INTEGER;
    let k = shifted - TO_INTEGER;
    let r = clamped - k * LN_2_HIGH - k * LN_2_LOW;
    let mut polynomial = 1.987_569_1e-4_f32;
    polynomial = polynomial * r + 1.398_199_9e-3;
    polynomial = polynomial * r + 8.333_452e-3;
    polynomial = polynomial * r + 4.166_579_6e-2;
    polynomial = polynomial * r + 1.666_666_6e-1;
    polynomial = polynomial * r + 0.5;
    let mantissa = polynomial * r * r + r + 1.0;
    let exponent = shifted
        .to_bits()
        .wrapping_sub(TO_INTEGER.to_bits())
        .wrapping_add(127)
        << 23;
    if x > LOWEST {
        mantissa * f32::from_bits(exponent)
    } else {
        0.0
    }
}

/// `exp(x)` for `x <= 0`, in steps of 2^-34; 0 below -24.3.
///
/// It never falls where `x` rises (checked for every f32 from -30 to 0), so that the order
/// of weights is that of logits.
#[inline]
pub(super) fn weight(x: f32) -> f32 {
    // Numbers from here to the double of it are 2^-34 apart, and larger ones are further.
    const COARSE: f32 = 1.0 / (1 << 11) as f32;
    let exact = exp(x);
    if exact < COARSE {
        (exact + COARSE) - COARSE
    } else {
        exact
    }
}

/// The sum of numbers that are not negative, in an order that depends on their
/// count alone: eight running sums, then those.
pub(super) fn sum(values: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0_f64; LANES];
    let (lanes, rest) = values.as_chunks::<LANES>();
    for values in lanes {
        for lane in 0..LANES {
            sums[lane] += f64::from(values[lane]);
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        sums[lane] += f64::from(value);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_exponential() {
        for step in 0..870_000 {
            let x = -(step as f32) / 10_000.0;
            let exact = libm::exp(f64::from(x));
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.5e-7, "exp({x}) is {}, not {exact}", exp(x));
        }
    }

    #[test]
    fn its_ends_are_exact() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(-87.0), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn weights_are_exponentials_in_steps() {
        let step = (-34_f64).exp2();
        for thousandths in 0..40_000 {
            let x = -(thousandths as f32) / 1000.0;
            let weight = f64::from(weight(x));
            assert_eq!((weight / step).fract(), 0.0);
            assert!((weight - f64::from(exp(x))).abs() <= step / 2.0);
        }
        assert_eq!(weight(-24.2), step as f32);
        assert_eq!(weight(-24.3), 0.0);
    }

    #[test]
    fn weights_never_fall_where_logits_rise() {
        let bits = |x: f32| x.to_bits();
        for start in (bits(-f32::MIN_POSITIVE)..bits(-30.0)).step_by(100_003) {
            let neighbours = (start..start + 64).map(|bits| weight(f32::from_bits(bits)));
            assert!(neighbours.is_sorted_by(|a, b| a >= b), "{start:#x}");
        }
    }

    #[test]
    fn the_order_of_a_sum_of_weights_does_not_matter() {
        let weights: Vec<f32> = (0..20_000_u32)
            .map(|token| weight(-((token.wrapping_mul(2_654_435_761) >> 8) as f32) * 1.5e-6))
            .collect();
        let added = |weights: &mut dyn Iterator<Item = &f32>| {
            weights.fold(0.0, |sum, &weight| sum + f64::from(weight))
        };
        let forwards = added(&mut weights.iter());
        assert_eq!(forwards, added(&mut weights.iter().rev()));
        assert_eq!(forwards, sum(&weights));
    }

    #[test]
    fn sums_are_of_all_values() {
        let values: Vec<f32> = (0..1003).map(|value| value as f32).collect();
        assert_eq!(sum(&values), 1003.0 * 1002.0 / 2.0);
    }
}
