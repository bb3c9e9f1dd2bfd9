//! Distributions of lengths, gaps and stage times.

use rand::Rng;
use rand_distr::{Distribution as _, Exp1, StandardNormal};
use serde::{Deserialize, Serialize};

/// A distribution over non-negative numbers, in the unit of whoever uses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Always the same value.
    Fixed {
        /// The value.
        value: f64,
    },
    /// Uniform between two values.
    Uniform {
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// Exponential.
    Exponential {
        /// The mean.
        mean: f64,
    },
    /// Log-normal, as `exp(mu + sigma * N(0, 1))`.
    LogNormal {
        /// Mean of the logarithm.
        mu: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Values with weights, drawn by inversion of the cumulative weights.
    Empirical {
        /// The values.
        values: Vec<f64>,
        /// For each value, the total weight up to and including it; the last is 1.
        cumulative: Vec<f64>,
    },
}

impl Distribution {
    /// Log-normal with this mean and coefficient of variation.
    #[must_use]
    pub fn log_normal_mean(mean: f64, cv: f64) -> Self {
        let variance = libm::log(1.0 + cv * cv);
        Self::LogNormal {
            mu: libm::log(mean) - variance / 2.0,
            sigma: libm::sqrt(variance),
        }
    }

    /// Log-normal with this median and coefficient of variation.
    #[must_use]
    pub fn log_normal_median(median: f64, cv: f64) -> Self {
        Self::LogNormal {
            mu: libm::log(median),
            sigma: libm::sqrt(libm::log(1.0 + cv * cv)),
        }
    }

    /// One draw.
    pub fn sample(&self, rng: &mut impl Rng) -> f64 {
        match self {
            Self::Fixed { value } => *value,
            Self::Uniform { min, max } => min + (max - min) * unit(rng),
            Self::Exponential { mean } => {
                let draw: f64 = Exp1.sample(rng);
                mean * draw
            }
            Self::LogNormal { mu, sigma } => {
                let draw: f64 = StandardNormal.sample(rng);
                libm::exp(mu + sigma * draw)
            }
            Self::Empirical { values, cumulative } => {
                let draw = unit(rng);
                let index = cumulative.partition_point(|&c| c <= draw);
                values[index.min(values.len() - 1)]
            }
        }
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed { value } => *value,
            Self::Uniform { min, max } => (min + max) / 2.0,
            Self::Exponential { mean } => *mean,
            Self::LogNormal { mu, sigma } => libm::exp(mu + sigma * sigma / 2.0),
            Self::Empirical { values, cumulative } => {
                let mut before = 0.0;
                let mut sum = 0.0;
                for (value, &upto) in values.iter().zip(cumulative) {
                    sum += value * (upto - before);
                    before = upto;
                }
                sum
            }
        }
    }
}

/// Uniform in [0, 1), with 53 bits.
pub(crate) fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}
