//! A rate that grows from request to request, as vLLM's `bench serve` ramps up.
//!
//! There the rate is a function of how many requests have been sent, not of the
//! time: request `k` of `n` follows the one before it at `start + (end - start) *
//! k / (n - 1)` or `start * (end / start)^(k / (n - 1))` requests a second
//! (`_get_current_request_rate` in vllm/benchmarks/serve.py). On the clock, the
//! first grows exponentially and the second like a hyperbola.

use foresail_core::time::{Nanos, seconds};

use super::super::error::WorkloadError;

/// A factor on the rate that grows with the number of arrivals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// How it grows.
    pub law: GrowthLaw,
    /// Factor at the end, which it then keeps; above 0.
    pub to_factor: f64,
    /// How long the arrivals of the growth would take at factor 1, above 0 (ns).
    pub steady: Nanos,
}

/// How a rate grows with the number of arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrowthLaw {
    /// By the same amount with each arrival.
    Linear,
    /// By the same factor with each arrival.
    Exponential,
}

impl Growth {
    pub(super) fn validate(&self) -> Result<(), WorkloadError> {
        if !(1e-6..=1e6).contains(&self.to_factor) {
            let expected = "a number from 0.000001 to 1000000";
            let found = self.to_factor;
            return Err(WorkloadError::option("shape.to_factor", expected, found));
        }
        if self.steady == 0 {
            let expected = "a duration above 0";
            return Err(WorkloadError::option("shape.steady", expected, "0s"));
        }
        Ok(())
    }

    /// What the closed forms divide by: 0 where nothing grows.
    fn slope(&self) -> f64 {
        match self.law {
            GrowthLaw::Linear => self.to_factor - 1.0,
            GrowthLaw::Exponential => libm::log(self.to_factor),
        }
    }

    /// The time (s) at which the integral of the factor becomes `area`: the
    /// integral of 1 / factor over the area.
    pub(super) fn time_at(&self, area: f64) -> f64 {
        let whole = seconds(self.steady);
        if area > whole {
            return self.time_at(whole) + (area - whole) / self.to_factor;
        }
        let x = self.slope() * area / whole;
        match self.law {
            _ if x == 0.0 => area,
            GrowthLaw::Linear => area * libm::log1p(x) / x,
            GrowthLaw::Exponential => -area * libm::expm1(-x) / x,
        }
    }

    /// The integral of the factor from 0 to `t` (s).
    pub(super) fn area(&self, t: f64) -> f64 {
        let whole = seconds(self.steady);
        let growth_time = self.time_at(whole);
        if t > growth_time {
            return whole + (t - growth_time) * self.to_factor;
        }
        let x = self.slope() * t / whole;
        match self.law {
            _ if x == 0.0 => t,
            GrowthLaw::Linear => t * libm::expm1(x) / x,
            GrowthLaw::Exponential => -t * libm::log1p(-x) / x,
        }
    }

    pub(super) fn describe(&self) -> String {
        let law = match self.law {
            GrowthLaw::Linear => "linear",
            GrowthLaw::Exponential => "exponential",
        };
        let to = self.to_factor;
        format!("{law} ramp by requests to {to} of the rate")
    }
}

#[cfg(test)]
mod tests {
    use foresail_core::time::SECOND;

    use super::*;

    /// From 1/s to `to_factor`/s over 100 gaps.
    fn growth(law: GrowthLaw, to_factor: f64) -> Growth {
        let steady = 100 * SECOND;
        Growth {
            law,
            to_factor,
            steady,
        }
    }

    /// The sum of vLLM's mean gaps up to each request, in the middle of each gap.
    fn by_hand(growth: Growth, gaps: u32) -> f64 {
        let rate = |k: f64| match growth.law {
            GrowthLaw::Linear => 1.0 + (growth.to_factor - 1.0) * k / 100.0,
            GrowthLaw::Exponential => libm::pow(growth.to_factor, k / 100.0),
        };
        (0..gaps).map(|k| 1.0 / rate(f64::from(k) + 0.5)).sum()
    }

    #[test]
    fn gaps_shrink_as_vllm_shrinks_them() {
        for law in [GrowthLaw::Linear, GrowthLaw::Exponential] {
            for to_factor in [0.25, 1.0, 8.0] {
                let growth = growth(law, to_factor);
                for gaps in [1, 10, 50, 100] {
                    let (time, expected) = (growth.time_at(f64::from(gaps)), by_hand(growth, gaps));
                    assert!((time / expected - 1.0).abs() < 1e-3, "{growth:?} {gaps}");
                }
            }
        }
    }

    #[test]
    fn the_end_rate_is_kept() {
        let growth = growth(GrowthLaw::Exponential, 4.0);
        let end = growth.time_at(100.0);
        assert!((growth.time_at(140.0) - end - 10.0).abs() < 1e-9);
    }

    #[test]
    fn options_out_of_range() {
        for to_factor in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e7] {
            assert!(growth(GrowthLaw::Linear, to_factor).validate().is_err());
        }
        let steady = Growth {
            steady: 0,
            ..growth(GrowthLaw::Linear, 2.0)
        };
        assert!(steady.validate().is_err());
    }
}
