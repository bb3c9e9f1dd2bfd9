//! How many replicas a deployment should have.
//!
//! Drive it so: send every request with its time; whenever `next_deadline` has
//! come, take an [`Observation`] of the deployment and send that. At equal
//! times, events precede deadlines. A policy never asks for a clock, and the
//! times it is given never go back.
//!
//! ```text
//! observation -> load per target -> replicas needed -> window -> target
//!                (load.rs)          (trailing mean)   (windows.rs)
//! ```
//!
//! The policy `fireworks` puts these together with the rules around zero replicas.

mod config;
mod fireworks;
mod fixed;
mod load;
mod reason;
mod scripted;
mod trailing;
mod windows;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod properties;

pub use config::{
    AutoscalerConfig, ConfigError, FireworksConfig, IdleFrom, LoadTargets, WindowSemantics,
};
pub use load::{Load, Signal};
pub use reason::{LoadChange, Reason};

use crate::time::Nanos;
use fireworks::Fireworks;
use fixed::Fixed;
use scripted::Scripted;

/// What the deployment looks like at a tick. Counters are totals since the start of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Sequences in batches, over all replicas.
    pub running: u64,
    /// Requests received and not in a batch: queued at replicas, or held while none is ready.
    pub queued: u64,
    /// The largest batch of one replica.
    pub batch_slots: u32,
    /// Replicas that take requests.
    pub ready: u32,
    /// Replicas asked for and not ready.
    pub starting: u32,
    /// Output tokens generated.
    pub tokens_generated: u64,
    /// Prompt tokens received.
    pub prompt_tokens: u64,
    /// Requests received.
    pub requests_received: u64,
}

/// What happens to an autoscaler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A request was received (before it is routed, held or refused).
    RequestReceived,
    /// The deadline came: this is the load.
    Observed(Observation),
}

/// Another number of replicas, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// How many replicas there should be from now on; never what it was before.
    pub target: u32,
    /// Why, for the timeline.
    pub reason: Reason,
}

/// Decides how many replicas a deployment should have.
#[derive(Clone, Debug)]
pub struct Autoscaler {
    policy: Policy,
}

#[derive(Clone, Debug)]
enum Policy {
    Fireworks(Box<Fireworks>),
    Fixed(Fixed),
    Scripted(Scripted),
}

impl Autoscaler {
    /// An autoscaler at time 0, of a deployment that has `initial_replicas`.
    ///
    /// # Panics
    /// If the parameters were not valid: check what people write with
    /// [`AutoscalerConfig::validate`] first.
    #[must_use]
    pub fn new(config: &AutoscalerConfig, initial_replicas: u32) -> Self {
        if let Err(error) = config.validate() {
            panic!("an autoscaler needs valid parameters: {error}");
        }
        let policy = match config {
            AutoscalerConfig::Fireworks(config) => {
                Policy::Fireworks(Box::new(Fireworks::new(config, initial_replicas)))
            }
            AutoscalerConfig::Fixed { replicas } => {
                Policy::Fixed(Fixed::new(*replicas, initial_replicas))
            }
            AutoscalerConfig::Scripted { steps, initial } => {
                Policy::Scripted(Scripted::new(steps, *initial, initial_replicas))
            }
        };
        Autoscaler { policy }
    }

    /// Takes in what happened. `Some` when the number of replicas must change.
    #[inline]
    pub fn on_event(&mut self, now: Nanos, event: Event) -> Option<Decision> {
        match event {
            Event::RequestReceived => self.on_request(now),
            Event::Observed(observation) => self.on_observation(now, &observation),
        }
    }

    /// When to observe the deployment next; `None` while only a request could
    /// change the target, or nothing could.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        match &self.policy {
            Policy::Fireworks(policy) => policy.next_deadline(),
            Policy::Fixed(policy) => policy.next_deadline(),
            Policy::Scripted(policy) => policy.next_deadline(),
        }
    }

    /// How many replicas there should be now.
    #[must_use]
    pub fn target(&self) -> u32 {
        match &self.policy {
            Policy::Fireworks(policy) => policy.target(),
            Policy::Fixed(policy) => policy.target(),
            Policy::Scripted(policy) => policy.target(),
        }
    }

    #[inline]
    fn on_request(&mut self, now: Nanos) -> Option<Decision> {
        match &mut self.policy {
            Policy::Fireworks(policy) => policy.on_request(now),
            // These two follow a plan, not the traffic.
            Policy::Fixed(_) | Policy::Scripted(_) => None,
        }
    }

    fn on_observation(&mut self, now: Nanos, observation: &Observation) -> Option<Decision> {
        match &mut self.policy {
            Policy::Fireworks(policy) => policy.on_observation(now, observation),
            Policy::Fixed(policy) => policy.on_deadline(),
            Policy::Scripted(policy) => policy.on_deadline(now),
        }
    }
}
