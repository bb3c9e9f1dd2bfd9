//! Student's t distribution.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// The probability of more than `t`.
///
/// # Panics
/// If there is no degree of freedom.
pub(super) fn upper_tail(t: f64, freedom: f64) -> f64 {
    distribution(freedom).sf(t)
}

/// What is exceeded with this probability, from 0 to 1 exclusive.
///
/// By bisection of the tail, as the closed inverse of the library is off by
/// 2 % at some places (80 %, two degrees of freedom).
///
/// # Panics
/// If there is no degree of freedom.
pub(super) fn exceeded_with(probability: f64, freedom: f64) -> f64 {
    let distribution = distribution(freedom);
    if probability > 0.5 {
        return -exceeded_with(1.0 - probability, freedom);
    }
    let (mut low, mut high) = (0.0, 1.0);
    while distribution.sf(high) > probability {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if distribution.sf(middle) > probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

fn distribution(freedom: f64) -> StudentsT {
    StudentsT::new(0.0, 1.0, freedom).expect("there is a degree of freedom")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
    #[test]
    fn quantiles_are_those_of_the_table() {
        for (upper, freedom, expected) in [
            (0.05, 1.0, 6.314),
            (0.2, 2.0, 1.061),
            (0.025, 4.0, 2.776),
            (0.05, 4.0, 2.132),
            (0.01, 8.0, 2.896),
            (0.001, 4.0, 7.173),
            (0.05, 1e6, 1.645),
        ] {
            let t = exceeded_with(upper, freedom);
            assert!((t - expected).abs() < 1e-3, "{upper} {freedom}: {t}");
            assert!((upper_tail(t, freedom) - upper).abs() < 1e-9);
            assert!((exceeded_with(1.0 - upper, freedom) + t).abs() < 1e-6);
        }
    }
}
