//! A mean out of few values, and what it may be told to be above or below.

use super::student;

/// A mean, and how far off it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Degrees of freedom of the standard error.
    pub freedom: f64,
}

impl Estimate {
    /// The mean of values that are independent of each other: of runs, or of
    /// the differences of pairs of runs. `None` for fewer than two, or for any
    /// that is not finite.
    ///
    /// NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.5.2.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let (mean, variance) = mean_and_variance(values)?;
        let count = values.len() as f64;
        Some(Self {
            mean,
            standard_error: (variance / count).sqrt(),
            freedom: count - 1.0,
        })
    }

    /// The mean of `values` less that of `others`, which are not paired and
    /// need not have one variance: Welch's interval. `None` if either has
    /// fewer than two values.
    ///
    /// NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.5.3.
    #[must_use]
    pub fn difference(values: &[f64], others: &[f64]) -> Option<Self> {
        let (values, others) = (Self::of(values)?, Self::of(others)?);
        let of_mean = |estimate: &Self| estimate.standard_error * estimate.standard_error;
        let (one, two) = (of_mean(&values), of_mean(&others));
        let both = one + two;
        let freedom = if both == 0.0 {
            values.freedom + others.freedom
        } else {
            both * both / (one * one / values.freedom + two * two / others.freedom)
        };
        Some(Self {
            mean: values.mean - others.mean,
            standard_error: both.sqrt(),
            freedom,
        })
    }

    /// The bound that the true mean is above with this confidence.
    #[must_use]
    pub fn lower(&self, confidence: f64) -> f64 {
        self.mean - self.reach(confidence)
    }

    /// The bound that the true mean is below with this confidence.
    #[must_use]
    pub fn upper(&self, confidence: f64) -> f64 {
        self.mean + self.reach(confidence)
    }

    /// How probable a mean this far above `limit` would be, or further, if the
    /// truth were no more than the limit.
    #[must_use]
    pub fn p_above(&self, limit: f64) -> f64 {
        let above = self.mean - limit;
        if self.standard_error > 0.0 {
            return student::upper_tail(above / self.standard_error, self.freedom);
        }
        // All values are equal: there is nothing to doubt.
        if above > 0.0 { 0.0 } else { 1.0 }
    }

    fn reach(&self, confidence: f64) -> f64 {
        if self.standard_error == 0.0 {
            return 0.0;
        }
        self.standard_error * student::exceeded_with(1.0 - confidence, self.freedom)
    }
}

/// `None` for fewer than two values, or for any that is not finite.
fn mean_and_variance(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    // Where all are equal, the rounding of the mean is no spread.
    let is_one_value = values.iter().all(|value| *value == values[0]);
    let variance = if is_one_value {
        0.0
    } else {
        squares / (count - 1.0)
    };
    Some((mean, variance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_interval_of_three_values() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0]).unwrap();
        // t(2) * 1 / sqrt(3), one-sided 95 %.
        let reach = 2.920 / 3.0_f64.sqrt();
        assert!((estimate.upper(0.95) - 2.0 - reach).abs() < 1e-3);
        assert!((estimate.lower(0.95) - 2.0 + reach).abs() < 1e-3);
        assert!((estimate.p_above(2.0) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn welch_of_equal_variances_is_the_pooled_interval() {
        let estimate = Estimate::difference(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0]).unwrap();
        assert_eq!(estimate.mean, -10.0);
        assert!((estimate.freedom - 4.0).abs() < 1e-12);
        assert!((estimate.standard_error - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn equal_values_leave_nothing_to_doubt() {
        let estimate = Estimate::of(&[0.1; 7]).unwrap();
        assert_eq!(
            (estimate.lower(0.95), estimate.upper(0.95)),
            (estimate.mean, estimate.mean)
        );
        assert_eq!((estimate.p_above(0.05), estimate.p_above(0.2)), (0.0, 1.0));
    }

    #[test]
    fn one_run_says_nothing_of_the_next() {
        assert_eq!(Estimate::of(&[1.0]), None);
        assert_eq!(Estimate::difference(&[1.0], &[1.0, 2.0]), None);
        assert_eq!(Estimate::of(&[1.0, f64::NAN]), None);
        assert_eq!(Estimate::of(&[1.0, f64::INFINITY]), None);
    }

    proptest! {
        #[test]
        fn bounds_and_p_values_agree(
            values in prop::collection::vec(-1.0..1.0_f64, 2..9), limit in -1.0..1.0_f64,
        ) {
            let estimate = Estimate::of(&values).unwrap();
            let lower = estimate.lower(0.95);
            prop_assume!((lower - limit).abs() > 1e-6);
            prop_assert_eq!(lower > limit, estimate.p_above(limit) < 0.05);
        }
    }
}
