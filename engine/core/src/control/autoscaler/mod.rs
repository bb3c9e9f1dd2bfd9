//! How many replicas a deployment should have.
//!
//! Drive it so: send every event with its time; whenever `next_deadline` has
//! come, take an [`Observation`] of the deployment and send that. At equal
//! times, events precede deadlines. A policy never asks for a clock.

use crate::time::Nanos;

/// Which policy, with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum AutoscalerConfig {
    /// The specification's policy (autoscaling windows, scale to zero).
    Fireworks(FireworksConfig),
    /// Always this many.
    Fixed {
        /// How many.
        replicas: u32,
    },
    /// What a script says, whatever the load.
    Scripted {
        /// (from when, how many), in order of time; before the first entry, `initial`.
        steps: Vec<(Nanos, u32)>,
        /// How many before the first entry.
        initial: u32,
    },
}

/// The parameters of the specification's policy, with its names.
#[derive(Clone, Debug, PartialEq)]
pub struct FireworksConfig {
    /// Fewest replicas.
    pub min_replica_count: u32,
    /// Most replicas.
    pub max_replica_count: u32,
    /// How long load must be higher before replicas are added.
    pub scale_up_window: Nanos,
    /// How long load must be lower before replicas are removed.
    pub scale_down_window: Nanos,
    /// How long without requests before the last replicas go; ignored if the minimum is above 0.
    pub scale_to_zero_window: Nanos,
    /// Targets per replica; the largest replica count over them wins.
    pub load_targets: LoadTargets,
    /// What "wait after observing" means.
    pub window_semantics: WindowSemantics,
    /// Time between two looks at the load.
    pub tick: Nanos,
    /// Length of a trailing mean applied to the load before it is compared; 0 is none.
    pub signal_smoothing: Nanos,
    /// Count at most one full batch a replica, so that queues do not count (to study the trap).
    pub occupancy_capped: bool,
    /// What the scale-to-zero window counts from.
    pub idle_from: IdleFrom,
}

/// Load a replica should have (B01). `None` does not take part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadTargets {
    /// Batch occupancy, in full batches, between 0 and 1.
    pub default: Option<f64>,
    /// Output tokens a second.
    pub tokens_generated_per_second: Option<f64>,
    /// Prompt tokens a second.
    pub prompt_tokens_per_second: Option<f64>,
    /// Requests a second.
    pub requests_per_second: Option<f64>,
    /// Requests received and not ended.
    pub concurrent_requests: Option<f64>,
}

/// Five readings of "wait X before scaling after observing a change of load".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowSemantics {
    /// A timer that a single dip resets; the level at the moment it fires (Ray Serve).
    Sustained,
    /// Clamp between the minimum over the up window and the maximum over the down window (Kubernetes HPA).
    Stabilized,
    /// From the mean load over each window (Knative).
    Average,
    /// Act at once, then rest for a window.
    Cooldown,
    /// The first difference starts a timer; what holds at its end is applied.
    Oneshot,
}

/// What the scale-to-zero window counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleFrom {
    /// The last request received.
    LastReceived,
    /// The last moment a request was received or in flight.
    LastActive,
}

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
