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
//! What every policy can do is in `policy.rs`; the other policies each replicate
//! the autoscaler that they are named after.

mod aibrix;
mod config;
mod dynamo_load;
mod fireworks;
mod fixed;
mod foreseen;
mod hpa;
mod keda;
mod knative;
mod load;
mod policy;
mod ray_serve;
mod reason;
mod reconfigure;
mod scripted;
pub mod trace;
mod trailing;
mod windows;
mod wva_saturation;

#[cfg(test)]
mod anchors_tests;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod properties;

pub use aibrix::{AibrixApaConfig, AibrixMetric, AibrixMetricSource};
pub use config::{
    AutoscalerConfig, ConfigError, FireworksConfig, Foreseen, IdleFrom, LoadTargets, OracleConfig,
    WindowSemantics,
};
pub use dynamo_load::{DynamoLoadConfig, OptimizationTarget};
pub use hpa::{
    HpaBehavior, HpaConfig, HpaMetric, Measure, MetricSource, ScalingPolicy, ScalingPolicyKind,
    ScalingRules, SelectPolicy,
};
pub use keda::KedaConfig;
pub use knative::{KnativeKpaConfig, KnativeMetric, MetricAggregation};
pub use load::{Load, Signal};
pub use ray_serve::{AggregationFunction, Delays, RayServeConfig};
pub use reason::{LoadChange, Reason};
pub use reconfigure::ReconfigureError;
pub use wva_saturation::WvaSaturationConfig;

use crate::time::Nanos;
use aibrix::AibrixApa;
use dynamo_load::DynamoLoad;
use fireworks::Fireworks;
use fixed::Fixed;
use foreseen::Oracle;
use hpa::Hpa;
use keda::Keda;
use knative::KnativeKpa;
use policy::Policy;
use ray_serve::RayServe;
use scripted::Scripted;
use trace::{Row, Verdict};
use wva_saturation::WvaSaturation;

/// What the deployment looks like at a tick. Counters are totals since the start of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Sequences in batches, over all replicas.
    pub running: u64,
    /// Requests received and not in a batch: queued at replicas, or held while none is ready.
    pub queued: u64,
    /// Of those queued, requests that no replica has: they wait for one.
    pub held: u64,
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
    /// Requests received and not ended, integrated over time (requests × ns):
    /// its growth over an interval, divided by that, is the mean number in flight.
    pub in_flight_request_ns: u128,
}

/// What one replica that takes requests looks like at a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaLoad {
    /// Which.
    pub replica: u32,
    /// Sequences in its batch.
    pub running: u32,
    /// Sequences that wait at it.
    pub waiting: u32,
    /// KV blocks that sequences hold.
    pub kv_blocks_used: u32,
    /// KV blocks there are.
    pub kv_blocks: u32,
    /// Tokens in one block.
    pub kv_block_tokens: u32,
    /// Prompt tokens of the sequences that wait, and what is left of prompts under way.
    pub prompt_tokens_waiting: u64,
    /// Tokens in the caches of the sequences that decode.
    pub context_tokens: u64,
    /// Tokens generated since it was ready.
    pub tokens_generated: u64,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// How many replicas there should be from now on; never what it was before.
    pub target: u32,
    /// Why, for the timeline.
    pub reason: Reason,
}

/// Decides how many replicas a deployment should have.
#[derive(Clone, Debug)]
pub struct Autoscaler {
    policy: AnyPolicy,
}

#[derive(Clone, Debug)]
enum AnyPolicy {
    AibrixApa(Box<AibrixApa>),
    Fireworks(Box<Fireworks>),
    Fixed(Fixed),
    KnativeKpa(Box<KnativeKpa>),
    Scripted(Scripted),
    Oracle(Oracle),
    RayServe(Box<RayServe>),
    Hpa(Box<Hpa>),
    Keda(Box<Keda>),
    WvaSaturation(Box<WvaSaturation>),
    DynamoLoad(Box<DynamoLoad>),
}

/// The same call of whichever policy it is.
macro_rules! of_policy {
    ($any:expr, $policy:ident => $call:expr) => {
        match $any {
            AnyPolicy::AibrixApa($policy) => $call,
            AnyPolicy::Fireworks($policy) => $call,
            AnyPolicy::Fixed($policy) => $call,
            AnyPolicy::KnativeKpa($policy) => $call,
            AnyPolicy::Scripted($policy) => $call,
            AnyPolicy::Oracle($policy) => $call,
            AnyPolicy::RayServe($policy) => $call,
            AnyPolicy::Hpa($policy) => $call,
            AnyPolicy::Keda($policy) => $call,
            AnyPolicy::WvaSaturation($policy) => $call,
            AnyPolicy::DynamoLoad($policy) => $call,
        }
    };
}

impl AnyPolicy {
    fn new(config: &AutoscalerConfig, initial_replicas: u32) -> Self {
        match config {
            AutoscalerConfig::AibrixApa(config) => {
                AnyPolicy::AibrixApa(Box::new(AibrixApa::new(config, initial_replicas)))
            }
            AutoscalerConfig::Fireworks(config) => {
                AnyPolicy::Fireworks(Box::new(Fireworks::new(config, initial_replicas)))
            }
            AutoscalerConfig::Fixed { replicas } => {
                AnyPolicy::Fixed(Fixed::new(*replicas, initial_replicas))
            }
            AutoscalerConfig::KnativeKpa(config) => {
                AnyPolicy::KnativeKpa(Box::new(KnativeKpa::new(config, initial_replicas)))
            }
            AutoscalerConfig::Scripted { steps, initial } => {
                AnyPolicy::Scripted(Scripted::new(steps, *initial, initial_replicas))
            }
            AutoscalerConfig::Oracle(config) => {
                let plan = config.plan.as_deref().unwrap_or_default();
                AnyPolicy::Oracle(Oracle::new(plan, initial_replicas))
            }
            AutoscalerConfig::RayServe(config) => {
                AnyPolicy::RayServe(Box::new(RayServe::new(config, initial_replicas)))
            }
            AutoscalerConfig::Hpa(config) => {
                AnyPolicy::Hpa(Box::new(Hpa::new(config, initial_replicas)))
            }
            AutoscalerConfig::Keda(config) => {
                AnyPolicy::Keda(Box::new(Keda::new(config, initial_replicas)))
            }
            AutoscalerConfig::WvaSaturation(config) => {
                AnyPolicy::WvaSaturation(Box::new(WvaSaturation::new(config, initial_replicas)))
            }
            AutoscalerConfig::DynamoLoad(config) => {
                AnyPolicy::DynamoLoad(Box::new(DynamoLoad::new(config, initial_replicas)))
            }
        }
    }
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
        let policy = AnyPolicy::new(config, initial_replicas);
        Autoscaler { policy }
    }

    /// Takes in what happened. `Some` when the number of replicas must change.
    #[inline]
    pub fn on_event(&mut self, now: Nanos, event: Event) -> Option<Decision> {
        match event {
            Event::RequestReceived => of_policy!(&mut self.policy, p => p.on_request(now)),
            Event::Observed(observation) => self.observe(now, &observation, &[]),
        }
    }

    /// The deadline came: this is the load, and that of each ready replica if
    /// the policy [asks for it](Self::wants_each_replica). `Some` when the
    /// number of replicas must change.
    pub fn observe(
        &mut self,
        now: Nanos,
        deployment: &Observation,
        replicas: &[ReplicaLoad],
    ) -> Option<Decision> {
        of_policy!(&mut self.policy, p => p.observe(now, deployment, replicas))
    }

    /// Replicas have begun or ceased to take requests: tell it of each such
    /// time, as it may call for a look.
    pub fn replicas_changed(&mut self, now: Nanos) {
        of_policy!(&mut self.policy, p => p.replicas_changed(now));
    }

    /// Whether the policy compares the replicas with one another.
    #[must_use]
    pub fn wants_each_replica(&self) -> bool {
        of_policy!(&self.policy, p => p.wants_each_replica())
    }

    /// When to observe the deployment next; `None` while only a request could
    /// change the target, or nothing could.
    #[inline]
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        of_policy!(&self.policy, p => p.next_deadline())
    }

    /// How many replicas there should be now.
    #[must_use]
    pub fn target(&self) -> u32 {
        of_policy!(&self.policy, p => p.target())
    }

    /// One look at what was measured: a row of a trace with the
    /// [columns](AutoscalerConfig::columns) of the policy. An autoscaler is
    /// driven either by rows or by events.
    pub fn look(&mut self, now: Nanos, row: &Row) -> Verdict {
        of_policy!(&mut self.policy, p => p.look(now, row))
    }
}
