//! What those who send the requests do when things take long or go wrong.

use foresail_core::control::retry::RetryConfig;

use crate::distribution::Distribution;

/// The patience of clients. By default they wait for ever, and send nothing twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clients {
    /// How long a client waits for the first token, from each send (s).
    pub first_token_timeout: Option<Distribution>,
    /// How long a client waits for the last token, from each send (s).
    pub timeout: Option<Distribution>,
    /// Whether and how clients send again what was refused or failed.
    pub retry: Option<ClientRetry>,
}

impl Clients {
    /// Whether they ever give an attempt up.
    #[must_use]
    pub fn have_timeouts(&self) -> bool {
        self.first_token_timeout.is_some() || self.timeout.is_some()
    }
}

/// How clients send requests again.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientRetry {
    /// How often a request is sent, and the waits in between.
    pub config: RetryConfig,
    /// What each wait is multiplied by.
    pub jitter: Distribution,
    /// What makes a client send again.
    pub retry_on: RetryOn,
}

/// What makes a client send a request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// A 503: the deployment had no replica.
    pub unavailable: bool,
    /// The client's own timeout.
    pub timeout: bool,
    /// An answer that was broken off: the replica crashed, or its time to drain was up.
    pub failure: bool,
}

impl RetryOn {
    /// Everything that may go better the next time.
    pub const ALL: Self = Self {
        unavailable: true,
        timeout: true,
        failure: true,
    };
}
