//! What goes wrong in a deployment, and how often.

use foresail_core::control::retry::RetryConfig;
use foresail_core::time::Nanos;

use crate::distribution::Distribution;

/// What goes wrong with replicas. By default nothing does.
#[derive(Clone, Debug, PartialEq)]
pub struct Failures {
    /// Starts that fail.
    pub start_failure: Option<StartFailure>,
    /// How long a start may take before it has failed; `None` is for ever.
    pub start_timeout: Option<Nanos>,
    /// How a replica that failed to start is started again, and when it is given up.
    pub start_retry: RetryConfig,
    /// Starts that take longer than others.
    pub slow_start: Option<SlowStart>,
    /// Replicas that crash.
    pub crash: Option<Crash>,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            start_failure: None,
            start_timeout: None,
            start_retry: RetryConfig::START,
            slow_start: None,
            crash: None,
        }
    }
}

/// Some starts fail.
#[derive(Clone, Debug, PartialEq)]
pub struct StartFailure {
    /// Probability for each start, and for each time that it is tried again.
    pub probability: f64,
    /// How far into the start it fails: a share of the time that it would have taken.
    pub at: Distribution,
}

/// Some starts are slow: a disk, a network or a registry with a bad day.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowStart {
    /// Probability for each start, and for each time that it is tried again.
    pub probability: f64,
    /// What the duration of every stage is multiplied by.
    pub factor: Distribution,
}

/// Replicas crash, and are replaced at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Crash {
    /// How long a replica lives once it is ready (s).
    pub time_to_failure: Distribution,
    /// What becomes of the requests that it had.
    pub on_crash: OnCrash,
}

/// What becomes of the requests of a replica that crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCrash {
    /// The deployment serves them again from the beginning, elsewhere or later.
    Retry {
        /// How often it does that for one request. After that the request fails, so
        /// that one which outlasts every replica does not go on for ever.
        retries_max: u32,
    },
    /// They fail; a client may send them again.
    Fail,
}
