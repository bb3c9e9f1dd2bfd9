//! Lengths and gaps of requests that a source describes by a distribution.

use foresail_scenarios::random;
use rand::Rng;

/// Numbers from 0 to 1, without 1.
pub(super) struct Uniform(Box<dyn Rng>);

impl Uniform {
    /// The stream of this name.
    pub(super) fn new(name: &str) -> Self {
        Self(Box::new(random::stream(7, name)))
    }

    pub(super) fn next(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A gap of a Poisson process whose mean is 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -libm::log(1.0 - self.next())
    }
}

/// What 2.5 %, 7.5 %, … 97.5 % of the lengths are below (tokens).
pub(super) struct Quantiles(pub(super) [u32; 20]);

impl Quantiles {
    /// The length that so large a share is below: straight between the quantiles, and beyond the last
    /// as between the two before it.
    pub(super) fn at(&self, share: f64) -> u32 {
        let place = share * 20.0 - 0.5;
        let below = (place.max(0.0) as usize).min(18);
        let (low, high) = (f64::from(self.0[below]), f64::from(self.0[below + 1]));
        (low + (high - low) * (place - below as f64))
            .round()
            .max(1.0) as u32
    }
}
