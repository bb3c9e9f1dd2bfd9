//! Numbers of tokens.

use super::super::error::WorkloadError;
use crate::distribution::Distribution;
use crate::random::{Stream, stream};

/// So many draws in a row above `max` are an error rather than a long wait.
const REDRAWS_MAX: u32 = 10_000;

/// The distribution of a number of tokens. Draws are rounded half up and are at least 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Lengths {
    /// The law.
    pub distribution: Distribution,
    /// Largest length, at least 1; draws above it are drawn again (a truncated
    /// law), so that no mass piles up on it, and counted.
    pub max: Option<u32>,
}

impl Lengths {
    pub(super) fn validate(&self, option: &'static str) -> Result<(), WorkloadError> {
        validate_distribution(&self.distribution, option)?;
        let smallest = match &self.distribution {
            Distribution::Fixed { value } => *value,
            Distribution::Uniform { min, .. } => *min,
            Distribution::Empirical { values, .. } => {
                values.iter().copied().fold(f64::INFINITY, f64::min)
            }
            Distribution::Exponential { .. } | Distribution::LogNormal { .. } => 0.0,
        };
        let is_within = |max: u32| max > 0 && libm::floor(smallest + 0.5) <= f64::from(max);
        match self.max {
            Some(max) if !is_within(max) => {
                let expected =
                    format!("a `max` of at least 1 and at least the smallest length, {smallest}");
                Err(WorkloadError::option(option, expected, max))
            }
            None if !is_within(u32::MAX) => {
                let expected = format!("lengths of at most {} tokens", u32::MAX);
                Err(WorkloadError::option(option, expected, smallest))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn describe(&self) -> String {
        let text = describe_distribution(&self.distribution);
        self.max
            .map_or(text.clone(), |max| format!("{text} up to {max}"))
    }
}

/// A distribution that can be drawn from: finite, not negative, with something to draw.
pub(super) fn validate_distribution(
    distribution: &Distribution,
    option: &'static str,
) -> Result<(), WorkloadError> {
    let is_good = |number: f64| number >= 0.0 && number.is_finite();
    let good = match distribution {
        Distribution::Fixed { value } => is_good(*value),
        Distribution::Uniform { min, max } => is_good(*min) && is_good(*max) && min <= max,
        Distribution::Exponential { mean } => is_good(*mean),
        Distribution::LogNormal { mu, sigma } => mu.is_finite() && is_good(*sigma),
        Distribution::Empirical { values, cumulative } => {
            !values.is_empty()
                && values.len() == cumulative.len()
                && values
                    .iter()
                    .chain(cumulative)
                    .all(|&number| is_good(number))
                && cumulative.is_sorted()
        }
    };
    if good {
        return Ok(());
    }
    let expected = "a distribution of finite numbers from 0 up";
    Err(WorkloadError::option(
        option,
        expected,
        format!("{distribution:?}"),
    ))
}

pub(super) fn describe_distribution(distribution: &Distribution) -> String {
    match distribution {
        Distribution::Fixed { value } => format!("{value}"),
        Distribution::Uniform { min, max } => format!("uniform {min} to {max}"),
        Distribution::Exponential { mean } => format!("exponential (mean {mean})"),
        Distribution::LogNormal { .. } => format!("log-normal (mean {:.1})", distribution.mean()),
        Distribution::Empirical { values, .. } => {
            format!(
                "empirical ({} values, mean {:.1})",
                values.len(),
                distribution.mean()
            )
        }
    }
}

/// Draws lengths from their own stream.
#[derive(Debug)]
pub(crate) struct LengthDraws {
    distribution: Distribution,
    option: &'static str,
    max: u32,
    stream: Stream,
    redrawn: u64,
}

impl LengthDraws {
    pub(crate) fn new(lengths: &Lengths, option: &'static str, seed: u64) -> Self {
        Self {
            distribution: lengths.distribution.clone(),
            option,
            max: lengths.max.unwrap_or(u32::MAX),
            stream: stream(seed, &format!("workload.{option}")),
            redrawn: 0,
        }
    }

    /// How many draws were above the largest length.
    pub(crate) fn redrawn(&self) -> u64 {
        self.redrawn
    }

    #[inline]
    pub(crate) fn draw(&mut self) -> Result<u32, WorkloadError> {
        for _ in 0..REDRAWS_MAX {
            // The conversion cuts off the fraction and saturates.
            let length = (self.distribution.sample(&mut self.stream) + 0.5) as u64;
            if length <= u64::from(self.max) {
                return Ok((length as u32).max(1));
            }
            self.redrawn += 1;
        }
        let (option, max) = (self.option, self.max);
        Err(WorkloadError::MaxTooSmall {
            option,
            draws: REDRAWS_MAX,
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(distribution: Distribution, max: Option<u32>) -> LengthDraws {
        LengthDraws::new(&Lengths { distribution, max }, "prompt_tokens", 5)
    }

    #[test]
    fn lengths_are_rounded_half_up_and_at_least_one() {
        for (value, length) in [
            (0.0, 1),
            (0.5, 1),
            (1.49, 1),
            (1.5, 2),
            (4_294_967_295.0, u32::MAX),
        ] {
            assert_eq!(
                draws(Distribution::Fixed { value }, None).draw().unwrap(),
                length
            );
        }
    }

    #[test]
    fn the_mean_is_the_distributions() {
        let mut draws = draws(Distribution::log_normal_mean(512.0, 1.0), None);
        let sum: f64 = (0..200_000).map(|_| f64::from(draws.draw().unwrap())).sum();
        assert!(
            (sum / 200_000.0 / 512.0 - 1.0).abs() < 0.01,
            "{}",
            sum / 200_000.0
        );
        assert_eq!(draws.redrawn(), 0);
    }

    #[test]
    fn lengths_above_the_largest_are_drawn_again_and_counted() {
        let mut draws = draws(Distribution::Exponential { mean: 100.0 }, Some(100));
        let lengths: Vec<u32> = (0..10_000).map(|_| draws.draw().unwrap()).collect();
        assert!(lengths.iter().all(|&length| length <= 100));
        // A cut would put a share of 1/e on the limit itself.
        let on_the_limit = lengths.iter().filter(|&&length| length == 100).count();
        assert!(on_the_limit < 150, "{on_the_limit}");
        assert!(
            draws.redrawn() > 4_000 && draws.redrawn() < 8_000,
            "{}",
            draws.redrawn()
        );
    }

    #[test]
    fn a_limit_that_is_never_met_is_an_error() {
        let lengths = |distribution, max| Lengths { distribution, max };
        let check = |lengths: Lengths| lengths.validate("prompt_tokens");
        assert!(check(lengths(Distribution::Fixed { value: 10.0 }, Some(9))).is_err());
        assert!(check(lengths(Distribution::Fixed { value: 10.0 }, Some(10))).is_ok());
        assert!(
            check(lengths(
                Distribution::Uniform { min: 5.0, max: 9.0 },
                Some(4)
            ))
            .is_err()
        );
        let error = check(lengths(Distribution::Fixed { value: 1e10 }, None)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "workload: prompt_tokens: expected lengths of at most 4294967295 tokens, found 10000000000"
        );
        assert!(check(lengths(Distribution::Exponential { mean: 1.0 }, Some(0))).is_err());
        let error = draws(Distribution::log_normal_mean(1e9, 0.1), Some(5))
            .draw()
            .unwrap_err();
        assert!(error.to_string().contains("raise `max`"), "{error}");
    }

    #[test]
    fn distributions_that_cannot_be_drawn_from() {
        for distribution in [
            Distribution::Fixed { value: -1.0 },
            Distribution::Fixed { value: f64::NAN },
            Distribution::Uniform { min: 2.0, max: 1.0 },
            Distribution::Exponential {
                mean: f64::INFINITY,
            },
            Distribution::LogNormal {
                mu: 1.0,
                sigma: -1.0,
            },
            Distribution::Empirical {
                values: vec![],
                cumulative: vec![],
            },
            Distribution::Empirical {
                values: vec![1.0, 2.0],
                cumulative: vec![1.0],
            },
        ] {
            assert!(
                validate_distribution(&distribution, "x").is_err(),
                "{distribution:?}"
            );
        }
    }
}
