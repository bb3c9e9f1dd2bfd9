//! The laws of the gaps between arrivals, each with mean 1; the rate comes later.

use rand_distr::{Distribution as _, Exp1, Gamma};

use super::super::error::WorkloadError;
use crate::distribution::unit;
use crate::random::Stream;

/// The law of the gaps between arrivals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Process {
    /// Equal gaps; the first arrival is at 0.
    Constant,
    /// Exponential gaps: independent users.
    Poisson,
    /// Gamma gaps: burstier than Poisson above a coefficient of variation of 1, steadier below.
    Gamma {
        /// Coefficient of variation of the gaps, from 0.001 to 1000.
        cv: f64,
    },
    /// Weibull gaps: like Gamma, with a heavier tail above 1.
    Weibull {
        /// Coefficient of variation of the gaps, from 0.001 to 1000.
        cv: f64,
    },
}

impl Process {
    pub(crate) fn validate(self) -> Result<(), WorkloadError> {
        match self {
            Self::Gamma { cv } | Self::Weibull { cv } if !(0.001..=1000.0).contains(&cv) => Err(
                WorkloadError::option("arrivals.cv", "a number from 0.001 to 1000", cv),
            ),
            _ => Ok(()),
        }
    }

    pub(super) fn describe(self) -> String {
        match self {
            Self::Constant => "constant".to_owned(),
            Self::Poisson => "poisson".to_owned(),
            Self::Gamma { cv } => format!("gamma (cv {cv})"),
            Self::Weibull { cv } => format!("weibull (cv {cv})"),
        }
    }
}

/// Draws gaps of mean 1 under a law.
#[derive(Clone, Copy, Debug)]
pub(crate) enum UnitGaps {
    Constant,
    Exponential,
    Gamma(Gamma<f64>),
    Weibull { scale: f64, inverse_shape: f64 },
}

impl UnitGaps {
    /// The law of a process that passed [`Process::validate`].
    pub(crate) fn new(process: Process) -> Self {
        match process {
            Process::Constant => Self::Constant,
            Process::Poisson => Self::Exponential,
            // A Gamma law of shape k and scale 1/k has mean 1 and cv 1/sqrt(k).
            // Its constructor refuses only what `validate` refuses.
            Process::Gamma { cv } => {
                Gamma::new(1.0 / (cv * cv), cv * cv).map_or(Self::Exponential, Self::Gamma)
            }
            Process::Weibull { cv } => {
                let shape = weibull_shape(cv);
                // Mean of Weibull(shape, scale): scale * Gamma(1 + 1/shape).
                let scale = libm::exp(-libm::lgamma(1.0 + 1.0 / shape));
                Self::Weibull {
                    scale,
                    inverse_shape: 1.0 / shape,
                }
            }
        }
    }

    #[inline]
    pub(crate) fn draw(&self, stream: &mut Stream) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Exponential => Exp1.sample(stream),
            Self::Gamma(law) => law.sample(stream),
            // By inversion of the distribution function; 1 - u is above 0.
            Self::Weibull {
                scale,
                inverse_shape,
            } => scale * libm::pow(-libm::log(1.0 - unit(stream)), *inverse_shape),
        }
    }
}

/// The Weibull shape with this coefficient of variation: the root of
/// Gamma(1 + 2/k) / Gamma(1 + 1/k)^2 = 1 + cv^2, which falls in k, by bisection
/// on a logarithmic scale.
fn weibull_shape(cv: f64) -> f64 {
    let target = libm::log(1.0 + cv * cv);
    let (mut low, mut high) = (libm::log(0.01), libm::log(1e5));
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        let inverse = libm::exp(-middle);
        let spread = libm::lgamma(1.0 + 2.0 * inverse) - 2.0 * libm::lgamma(1.0 + inverse);
        if spread > target {
            low = middle
        } else {
            high = middle
        }
    }
    libm::exp((low + high) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    fn mean_and_cv(process: Process, draws: u32) -> (f64, f64) {
        let mut stream = stream(7, "test");
        let law = UnitGaps::new(process);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..draws {
            let gap = law.draw(&mut stream);
            assert!(gap >= 0.0 && gap.is_finite());
            sum += gap;
            squares += gap * gap;
        }
        let mean = sum / f64::from(draws);
        (
            mean,
            libm::sqrt(squares / f64::from(draws) - mean * mean) / mean,
        )
    }

    #[test]
    fn gaps_have_mean_one_and_the_given_cv() {
        for (process, cv) in [
            (Process::Poisson, 1.0),
            (Process::Gamma { cv: 0.25 }, 0.25),
            (Process::Gamma { cv: 1.0 }, 1.0),
            (Process::Gamma { cv: 3.0 }, 3.0),
            (Process::Weibull { cv: 0.25 }, 0.25),
            (Process::Weibull { cv: 1.0 }, 1.0),
            (Process::Weibull { cv: 2.0 }, 2.0),
        ] {
            let (mean, found) = mean_and_cv(process, 400_000);
            assert!((mean - 1.0).abs() < 0.02, "{process:?}: mean {mean}");
            assert!((found / cv - 1.0).abs() < 0.05, "{process:?}: cv {found}");
        }
    }

    #[test]
    fn the_weibull_shape_of_cv_one_is_one() {
        assert!((weibull_shape(1.0) - 1.0).abs() < 1e-12);
        // SciPy: weibull_min(0.5) has mean 2 and standard deviation sqrt(20).
        assert!((weibull_shape(libm::sqrt(5.0)) - 0.5).abs() < 1e-12);
        for cv in [0.001, 1000.0] {
            assert!(weibull_shape(cv) > 0.011 && weibull_shape(cv) < 9e4, "{cv}");
        }
    }

    #[test]
    fn the_limits_of_cv() {
        for cv in [0.0, -1.0, f64::NAN, f64::INFINITY, 1001.0] {
            assert!(Process::Gamma { cv }.validate().is_err());
            assert!(Process::Weibull { cv }.validate().is_err());
        }
        Process::Weibull { cv: 1000.0 }.validate().unwrap();
    }
}
