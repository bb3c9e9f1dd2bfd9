//! A workload out of a few numbers, as the flags of other load generators say it.

use foresail_core::time::{Nanos, SECOND};
use foresail_scenarios::distribution::Distribution;
use foresail_scenarios::workload::{
    Adapters, Arrivals, Generator, Growth, GrowthLaw, Lengths, Process, Sessions, Shape, Source,
    Transforms, Workload,
};

/// Requests a second that are as good as all at once: one each nanosecond, the
/// shortest time there is. Not all at 0, because conversations that start at one time are drawn together.
const AT_ONCE_PER_S: f64 = 1e9;

/// Synthetic traffic in the words of vLLM's `bench serve` (v0.11), AIPerf and GuideLLM.
///
/// Lengths and arrivals are drawn by the generators of a scenario, from its named random streams.
/// One thing differs from vLLM: without a ramp, that scales all arrivals so that
/// the last is due at exactly `requests / rate`, which takes some of the chance out of the
/// process; here they are as drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// How many requests a second (`--request-rate`, the ramp-up flags).
    pub rate: Rate,
    /// How they are spaced (`--arrival-pattern`, `--burstiness`).
    pub pattern: Pattern,
    /// How many there are at most (`--num-prompts`, `--request-count`).
    pub requests: Option<u64>,
    /// When they end, if that is earlier (ns).
    pub duration: Option<Nanos>,
    /// Tokens of a prompt behind the shared prefix (`--random-input-len`, `--isl`), at least 1.
    pub prompt_tokens: u32,
    /// Tokens of an answer (`--random-output-len`, `--osl`), at least 1.
    pub output_tokens: u32,
    /// Both lengths are whole numbers drawn evenly from `length * (1 - ratio)`,
    /// rounded down, to `length * (1 + ratio)`, rounded up; from 0 to below 1
    /// (`--random-range-ratio`).
    pub range_ratio: f64,
    /// Tokens at the beginning of each prompt that all have in common, besides
    /// `prompt_tokens` (`--random-prefix-len`).
    pub prefix_tokens: u32,
}

/// How many requests a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many on average (`--request-rate 10`); above 0.
    PerSecond(f64),
    /// All at once, a nanosecond apart (`--request-rate inf`).
    AtOnce,
    /// More from request to request.
    RampUp(RampUp),
}

/// A rate that changes with each request, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RampUp {
    /// How (`--ramp-up-strategy linear|exponential`).
    pub strategy: GrowthLaw,
    /// Requests a second at the first request (`--ramp-up-start-rps`); above 0.
    pub start_per_s: f64,
    /// Requests a second at the last one (`--ramp-up-end-rps`); above 0.
    pub end_per_s: f64,
}

/// How requests are spaced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// Evenly.
    Constant,
    /// As from independent users.
    Poisson,
    /// Gaps of a gamma law of this shape: 1 is Poisson, less is burstier, more is
    /// steadier, infinity is even (`--burstiness`, AIPerf's `--arrival-smoothness`).
    Gamma {
        /// The shape of the law; above 0. The coefficient of variation is one by its root.
        burstiness: f64,
    },
}

/// What is wrong with [`Traffic`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrafficError {
    /// A number is out of its range.
    #[error("{option}: expected {expected}, found {found}")]
    OutOfRange {
        /// Which one, as a flag.
        option: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: f64,
    },
    /// Nothing ends the traffic. Set a number of requests or a duration.
    #[error("the traffic has no end: give --num-prompts or --duration")]
    Endless,
    /// A ramp goes over a number of requests.
    #[error("a ramp goes from the first request to the last: give --num-prompts, at least 2")]
    RampWithoutRequests,
    /// All at once has no gaps to be spaced.
    #[error(
        "--request-rate inf sends everything at once: give --num-prompts, and no --arrival-pattern or --burstiness"
    )]
    AtOnceSpaced,
}

impl Default for Traffic {
    /// vLLM's defaults of the random dataset: 1000 prompts of 1024 tokens, answers of 128, all at once.
    fn default() -> Self {
        Self {
            rate: Rate::AtOnce,
            pattern: Pattern::Poisson,
            requests: Some(1000),
            duration: None,
            prompt_tokens: 1024,
            output_tokens: 128,
            range_ratio: 0.0,
            prefix_tokens: 0,
        }
    }
}

impl Traffic {
    /// The workload that this stands for: the simulator takes it as well.
    ///
    /// # Errors
    /// What is wrong with the numbers, one by one or together.
    pub fn workload(&self) -> Result<Workload, TrafficError> {
        self.check()?;
        let (arrivals, shape) = self.arrivals()?;
        let generator = Generator {
            duration: self.duration,
            requests: self.requests,
            arrivals,
            shape,
            prompt_tokens: self.lengths(self.prompt_tokens),
            output_tokens: self.lengths(self.output_tokens),
            sessions: self.prefix(),
        };
        Ok(Workload {
            source: Source::Generated(generator),
            transforms: Transforms::default(),
            adapters: Adapters::default(),
        })
    }

    fn check(&self) -> Result<(), TrafficError> {
        if self.requests.is_none() && self.duration.is_none() {
            return Err(TrafficError::Endless);
        }
        for (option, tokens) in [
            ("--random-input-len", self.prompt_tokens),
            ("--random-output-len", self.output_tokens),
        ] {
            if tokens == 0 {
                return Err(out_of_range(option, "at least 1 token", 0.0));
            }
        }
        if !(0.0..1.0).contains(&self.range_ratio) {
            let expected = "a number from 0 to below 1";
            let found = self.range_ratio;
            return Err(out_of_range("--random-range-ratio", expected, found));
        }
        Ok(())
    }

    fn arrivals(&self) -> Result<(Arrivals, Shape), TrafficError> {
        let (rate_per_s, shape) = match self.rate {
            Rate::AtOnce => return self.at_once(),
            Rate::PerSecond(rate) => (positive("--request-rate", rate)?, Shape::Steady),
            Rate::RampUp(ramp) => (ramp.start()?, Shape::Growth(self.growth(ramp)?)),
        };
        let process = self.pattern.process()?;
        let arrivals = Arrivals {
            process,
            rate_per_s,
        };
        Ok((arrivals, shape))
    }

    /// Everything at once. Without a number of requests that would never end.
    fn at_once(&self) -> Result<(Arrivals, Shape), TrafficError> {
        if self.requests.is_none() || self.pattern.process()? != Process::Poisson {
            return Err(TrafficError::AtOnceSpaced);
        }
        let arrivals = Arrivals {
            process: Process::Constant,
            rate_per_s: AT_ONCE_PER_S,
        };
        Ok((arrivals, Shape::Steady))
    }

    fn growth(&self, ramp: RampUp) -> Result<Growth, TrafficError> {
        let gaps = self.requests.and_then(|requests| requests.checked_sub(1));
        let gaps = gaps.filter(|gaps| *gaps > 0);
        let gaps = gaps.ok_or(TrafficError::RampWithoutRequests)? as f64;
        let end = positive("--ramp-up-end-rps", ramp.end_per_s)?;
        let start = ramp.start()?;
        Ok(Growth {
            law: ramp.strategy,
            to_factor: end / start,
            steady: (gaps / start * SECOND as f64) as Nanos,
        })
    }

    /// Whole numbers around a length, each as likely: draws are rounded half up,
    /// so half a token more on either side gives the ends their full share.
    fn lengths(&self, tokens: u32) -> Lengths {
        let mean = f64::from(tokens);
        let low = (mean * (1.0 - self.range_ratio)).floor().max(1.0);
        let high = (mean * (1.0 + self.range_ratio)).ceil();
        let distribution = match self.range_ratio {
            0.0 => Distribution::Fixed { value: mean },
            _ => Distribution::Uniform {
                min: low - 0.5,
                max: high + 0.5,
            },
        };
        Lengths {
            distribution,
            max: None,
        }
    }

    /// Conversations of one turn behind a prefix that all share.
    fn prefix(&self) -> Option<Sessions> {
        (self.prefix_tokens > 0).then_some(Sessions {
            turns: Distribution::Fixed { value: 1.0 },
            think_time_s: Distribution::Fixed { value: 0.0 },
            groups: 1,
            shared_tokens: self.prefix_tokens,
            max_context_tokens: None,
        })
    }
}

impl RampUp {
    fn start(self) -> Result<f64, TrafficError> {
        positive("--ramp-up-start-rps", self.start_per_s)
    }
}

impl Pattern {
    fn process(self) -> Result<Process, TrafficError> {
        match self {
            Self::Constant => Ok(Process::Constant),
            Self::Poisson => Ok(Process::Poisson),
            Self::Gamma { burstiness } => gamma(burstiness),
        }
    }
}

/// The process of a shape: a gamma law of shape k has a coefficient of variation of 1 / sqrt(k).
fn gamma(burstiness: f64) -> Result<Process, TrafficError> {
    match burstiness {
        1.0 => Ok(Process::Poisson),
        f64::INFINITY => Ok(Process::Constant),
        shape if (1e-6..=1e6).contains(&shape) => Ok(Process::Gamma {
            cv: 1.0 / shape.sqrt(),
        }),
        found => {
            let expected = "a number from 0.000001 to 1000000, or inf";
            Err(out_of_range("--burstiness", expected, found))
        }
    }
}

fn positive(option: &'static str, found: f64) -> Result<f64, TrafficError> {
    if found > 0.0 && found.is_finite() {
        return Ok(found);
    }
    Err(out_of_range(option, "a number above 0", found))
}

fn out_of_range(option: &'static str, expected: &'static str, found: f64) -> TrafficError {
    TrafficError::OutOfRange {
        option,
        expected,
        found,
    }
}

#[cfg(test)]
mod tests;
