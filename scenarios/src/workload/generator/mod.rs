//! Generated workloads: arrivals, lengths and conversations drawn from distributions.
//!
//! Each of them has its own random stream, so that another length distribution
//! leaves the arrivals as they were (common random numbers).

mod arrivals;
mod growth;
mod lengths;
mod process;
mod sessions;
mod shape;
mod steps;

use foresail_core::time::Nanos;

use super::error::WorkloadError;
use super::{Content, Request};
pub(super) use arrivals::ArrivalTimes;
pub use arrivals::Arrivals;
pub use growth::{Growth, GrowthLaw};
pub(super) use lengths::LengthDraws;
pub use lengths::Lengths;
pub use process::Process;
pub(super) use process::UnitGaps;
pub(super) use sessions::SessionRequests;
pub use sessions::Sessions;
pub use shape::Shape;
pub use steps::Steps;

/// A workload drawn from distributions. It ends at `duration` or after
/// `requests`, whichever comes first; at least one of them is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Generator {
    /// No request is due at or after this time.
    pub duration: Option<Nanos>,
    /// At most this many requests.
    pub requests: Option<u64>,
    /// How requests (with `sessions`: conversations) arrive.
    pub arrivals: Arrivals,
    /// How the rate changes over time.
    pub shape: Shape,
    /// Tokens of a prompt (with `sessions`: of what the user adds in a turn).
    pub prompt_tokens: Lengths,
    /// Tokens of an answer.
    pub output_tokens: Lengths,
    /// Multi-turn conversations in place of single requests.
    pub sessions: Option<Sessions>,
}

impl Generator {
    /// Checks every option.
    ///
    /// # Errors
    /// [`WorkloadError::Option`] for the first one out of range.
    pub fn validate(&self) -> Result<(), WorkloadError> {
        if self.duration.is_none() && self.requests.is_none() {
            return Err(WorkloadError::option(
                "duration",
                "`duration` or `requests` to end it",
                "neither",
            ));
        }
        self.arrivals.validate()?;
        self.shape.validate()?;
        self.prompt_tokens.validate("prompt_tokens")?;
        self.output_tokens.validate("output_tokens")?;
        self.sessions.as_ref().map_or(Ok(()), Sessions::validate)
    }

    /// About how many requests there will be, for a progress bar.
    pub(super) fn expected_requests(&self, rate_scale: f64) -> u64 {
        let turns = self
            .sessions
            .as_ref()
            .map_or(1.0, |sessions| sessions.turns.mean().max(1.0));
        let rate = self.arrivals.rate_per_s * rate_scale * turns;
        let by_time = self.duration.map_or(f64::INFINITY, |duration| {
            rate * self.shape.area(foresail_core::time::seconds(duration))
        });
        // Saturates: a float above u64::MAX becomes u64::MAX.
        self.requests.unwrap_or(u64::MAX).min(by_time as u64)
    }

    pub(super) fn describe(&self) -> String {
        let Arrivals {
            process,
            rate_per_s,
        } = self.arrivals;
        let unit = if self.sessions.is_some() {
            "conversations"
        } else {
            "requests"
        };
        let mut text = format!("{} arrivals, {rate_per_s} {unit}/s", process.describe());
        if self.shape != Shape::Steady {
            text += &format!(", {}", self.shape.describe());
        }
        text += &format!(
            ", prompts of {} tokens, answers of {} tokens",
            self.prompt_tokens.describe(),
            self.output_tokens.describe()
        );
        if let Some(sessions) = &self.sessions {
            text += &format!(", {}", sessions.describe());
        }
        text
    }
}

/// Single requests of a generator.
#[derive(Debug)]
pub(super) struct SingleRequests {
    arrivals: ArrivalTimes,
    prompts: LengthDraws,
    outputs: LengthDraws,
    duration: Nanos,
    left: u64,
}

impl SingleRequests {
    pub(super) fn new(generator: &Generator, rate_scale: f64, seed: u64) -> Self {
        Self {
            arrivals: ArrivalTimes::new(
                generator.arrivals,
                generator.shape.clone(),
                rate_scale,
                seed,
            ),
            prompts: LengthDraws::new(&generator.prompt_tokens, "prompt_tokens", seed),
            outputs: LengthDraws::new(&generator.output_tokens, "output_tokens", seed),
            duration: generator.duration.unwrap_or(Nanos::MAX),
            left: generator.requests.unwrap_or(u64::MAX),
        }
    }

    pub(super) fn redrawn(&self) -> u64 {
        self.prompts.redrawn() + self.outputs.redrawn()
    }

    #[inline]
    pub(super) fn next_request(&mut self) -> Result<Option<Request>, WorkloadError> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(due) = self.arrivals.next_time().filter(|&due| due < self.duration) else {
            self.left = 0;
            return Ok(None);
        };
        self.left -= 1;
        let prompt_tokens = self.prompts.draw()?;
        let output_tokens = self.outputs.draw()?;
        let content = Content::Unique;
        Ok(Some(Request {
            due,
            prompt_tokens,
            output_tokens,
            session: None,
            adapter: None,
            content,
        }))
    }
}
