//! When to try again what has failed: a replica that did not start, or a request.
//!
//! ```text
//! try ── failed ── wait first ── try ── failed ── wait first × factor ── try ── … ── give up
//! ```
//!
//! Exponential backoff, because whoever fails together and tries again at once
//! fails together again. Randomness is the caller's: it passes in the factor that
//! each wait is multiplied by.

use thiserror::Error;

use crate::time::Nanos;

/// The longest wait, so that adding one to any time of a run does not overflow.
const WAIT_MAX: Nanos = Nanos::MAX / 4;

/// How often something is tried, and how long to wait in between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryConfig {
    /// How often it is tried in all, at least 1.
    pub attempts_max: u32,
    /// The wait after the first failure.
    pub first: Nanos,
    /// What each wait is longer by than the one before, at least 1.
    pub factor: f64,
    /// The longest wait, before randomness.
    pub max: Nanos,
}

/// Why a configuration cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum RetryError {
    /// What is never tried cannot fail.
    #[error("attempts_max must be at least 1")]
    NoAttempts,
    /// Waits that shrink would end in none at all.
    #[error("factor must be a number of at least 1, not {factor}")]
    Factor {
        /// The factor.
        factor: f64,
    },
    /// The longest wait is below the first.
    #[error("max is shorter than first")]
    MaxBelowFirst,
}

impl RetryConfig {
    /// How replicas that failed to start are started again unless something else
    /// is said: as Kubernetes does with the pods of a job, after "10s, 20s, 40s …
    /// capped at six minutes", 6 times (its documentation, "Jobs", `backoffLimit`).
    pub const START: Self = Self {
        attempts_max: 7,
        first: 10_000_000_000,
        factor: 2.0,
        max: 360_000_000_000,
    };

    /// How clients send requests again unless something else is said: as OpenAI's
    /// and Anthropic's Python packages do (openai-python, `_constants.py`:
    /// `DEFAULT_MAX_RETRIES`, `INITIAL_RETRY_DELAY`, `MAX_RETRY_DELAY`).
    pub const CLIENT: Self = Self {
        attempts_max: 3,
        first: 500_000_000,
        factor: 2.0,
        max: 8_000_000_000,
    };

    /// Checks that there is an attempt, and that waits do not shrink.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn validate(&self) -> Result<(), RetryError> {
        let factor = self.factor;
        if self.attempts_max == 0 {
            Err(RetryError::NoAttempts)
        } else if !(factor.is_finite() && factor >= 1.0) {
            Err(RetryError::Factor { factor })
        } else if self.max < self.first {
            Err(RetryError::MaxBelowFirst)
        } else {
            Ok(())
        }
    }

    /// What to do once so many attempts have failed, the last of them just now.
    /// The wait is multiplied by `jitter`, at least 0; 1 leaves it as it is.
    #[must_use]
    pub fn after(&self, failed: u32, jitter: f64) -> Retry {
        if failed >= self.attempts_max {
            return Retry::GiveUp;
        }
        let wait = self.wait(failed) * jitter;
        // A float beyond the range becomes its end.
        Retry::After((wait as Nanos).min(WAIT_MAX))
    }

    /// The wait after so many failures (ns).
    fn wait(&self, failed: u32) -> f64 {
        let (mut wait, max) = (self.first as f64, self.max as f64);
        for _ in 1..failed {
            // Multiplied step by step: the same on every machine, unlike a power.
            wait *= self.factor;
            if wait >= max || self.factor == 1.0 {
                break;
            }
        }
        wait.min(max)
    }
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Try again after this wait (ns).
    After(Nanos),
    /// It has been tried often enough.
    GiveUp,
}

#[cfg(test)]
mod tests {
    use super::Retry::{After, GiveUp};
    use super::*;
    use crate::time::SECOND;
    use proptest::prelude::*;

    fn waits(config: RetryConfig) -> Vec<Retry> {
        (1..=config.attempts_max)
            .map(|failed| config.after(failed, 1.0))
            .collect()
    }

    #[test]
    fn starts_wait_as_the_pods_of_a_job_do() {
        let after = |seconds: u64| After(seconds * SECOND);
        let mut expected: Vec<_> = [10, 20, 40, 80, 160, 320].map(after).into();
        expected.push(GiveUp);
        assert_eq!(waits(RetryConfig::START), expected);
        let longer = RetryConfig {
            attempts_max: 9,
            ..RetryConfig::START
        };
        assert_eq!(longer.after(7, 1.0), after(360));
        assert_eq!(longer.after(8, 1.0), after(360));
    }

    #[test]
    fn clients_wait_half_a_second_and_then_a_second() {
        let expected = [After(SECOND / 2), After(SECOND), GiveUp];
        assert_eq!(waits(RetryConfig::CLIENT), expected);
        assert_eq!(RetryConfig::CLIENT.after(1, 0.75), After(375_000_000));
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let config = RetryConfig::CLIENT;
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(RetryConfig::START.validate(), Ok(()));
        let none = RetryConfig {
            attempts_max: 0,
            ..config
        };
        assert_eq!(none.validate(), Err(RetryError::NoAttempts));
        for factor in [0.9, -1.0, f64::INFINITY] {
            let shrinking = RetryConfig { factor, ..config };
            assert_eq!(shrinking.validate(), Err(RetryError::Factor { factor }));
        }
        let short = RetryConfig { max: 1, ..config };
        assert_eq!(short.validate(), Err(RetryError::MaxBelowFirst));
    }

    proptest! {
        #[test]
        fn waits_never_shrink_and_end(
            attempts_max in 1..40_u32, first in 0..1_u64 << 40, factor in 1.0..20.0_f64, more in 0..1_u64 << 50,
        ) {
            let config = RetryConfig { attempts_max, first, factor, max: first + more };
            prop_assert_eq!(config.validate(), Ok(()));
            let mut before = first;
            for failed in 1..attempts_max {
                let After(wait) = config.after(failed, 1.0) else {
                    return Err(TestCaseError::fail("gave up too soon"));
                };
                prop_assert!(before <= wait && wait <= config.max);
                before = wait;
            }
            for failed in [attempts_max, attempts_max + 1, u32::MAX] {
                prop_assert_eq!(config.after(failed, 1.0), GiveUp);
            }
        }

        #[test]
        fn jitter_of_any_size_overflows_nothing(jitter in 0.0..f64::MAX, failed in 1..100_u32) {
            let config = RetryConfig { attempts_max: 100, first: SECOND, factor: 3.0, max: Nanos::MAX };
            if let After(wait) = config.after(failed, jitter) {
                prop_assert!(wait <= WAIT_MAX);
            }
        }
    }
}
