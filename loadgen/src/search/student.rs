//! Quantiles of Student's t distribution.

/// The value that Student's t exceeds with this probability; `None` unless it is
/// above 0 and at most a half, and there are degrees of freedom.
pub(super) fn quantile(exceeded: f64, freedom: u32) -> Option<f64> {
    if !(exceeded > 0.0 && exceeded <= 0.5) || freedom == 0 {
        return None;
    }
    let within = 1.0 - 2.0 * exceeded;
    // The angle whose tangent is t / sqrt(freedom): all of t is between 0 and a right angle.
    let (mut low, mut high) = (0.0, std::f64::consts::FRAC_PI_2);
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if probability_within(middle, freedom) < within {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low.tan() * f64::from(freedom).sqrt())
}

/// The probability that |t| is below `tan(angle) * sqrt(freedom)`: finite sums
/// for whole degrees of freedom (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4).
fn probability_within(angle: f64, freedom: u32) -> f64 {
    let (sine, cosine) = angle.sin_cos();
    let is_odd = freedom % 2 == 1;
    let (mut term, mut sum) = match (is_odd, freedom) {
        (true, 1) => (0.0, 0.0),
        (true, _) => (cosine, cosine),
        (false, _) => (1.0, 1.0),
    };
    // Each term has two more powers of the cosine, up to `freedom - 2` of them.
    let mut power = if is_odd { 3 } else { 2 };
    while power + 2 <= freedom {
        term *= cosine * cosine * f64::from(power - 1) / f64::from(power);
        sum += term;
        power += 2;
    }
    if is_odd {
        (angle + sine * sum) / std::f64::consts::FRAC_PI_2
    } else {
        sine * sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // R: qt(1 - p, freedom).
        for (exceeded, freedom, expected) in [
            (0.025, 1, 12.706_205),
            (0.025, 2, 4.302_653),
            (0.025, 3, 3.182_446),
            (0.025, 4, 2.776_445),
            (0.025, 7, 2.364_624),
            (0.005, 9, 3.249_836),
            (0.025, 30, 2.042_272),
            (0.001, 2, 22.327_125),
        ] {
            let found = quantile(exceeded, freedom).unwrap();
            assert!(
                (found / expected - 1.0).abs() < 1e-6,
                "{exceeded} {freedom}: {found}"
            );
        }
        assert_eq!(quantile(0.5, 5).map(|t| t.abs() < 1e-9), Some(true));
    }

    #[test]
    fn what_is_no_probability_has_no_quantile() {
        for exceeded in [0.0, 0.6, -1.0, f64::NAN] {
            assert_eq!(quantile(exceeded, 5), None);
        }
        assert_eq!(quantile(0.1, 0), None);
    }
}
