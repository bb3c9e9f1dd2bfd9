//! Exponentials of many logits, with additions, multiplications and divisions
//! only: the same bits on every machine, and a loop that compilers vectorise.
//! The `exp` of the system's library has neither.

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
    fn sums_are_of_all_values() {
        let values: Vec<f32> = (0..1003).map(|value| value as f32).collect();
        assert_eq!(sum(&values), 1003.0 * 1002.0 / 2.0);
    }
}
