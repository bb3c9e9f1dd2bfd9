//! Virtual time: a deployment under a workload, as a discrete-event simulation.
//!
//! The machines that decide are the core's, and do not know that time is
//! virtual. This crate gives them a clock that jumps: from one request, step end, phase of a
//! starting replica, or look of the autoscaler to the next.
//!
//! ```text
//! workload ── Request ──> World ──route──> Replica ──> RecordSink
//!                        │  ▲ │               │  ▲        records, gaps, changes
//!      autoscaler, router┘  │ └── Agenda <────┘  │
//!      replica set, biller  └── cold start       └── core's Scheduler, StepTime
//! ```
//!
//! At equal times, requests come first, then step ends, then phases, then the
//! autoscaler's look: events precede deadlines.

mod agenda;
mod boundaries;
mod clock;
mod cold_start;
mod conservation;
mod fleet;
mod front;
mod integrals;
mod passage;
mod replica;
mod scene;
mod world;

use std::ops::ControlFlow;

use foresail_core::batching::ConfigError;
use foresail_core::control::biller::BillerError;
use foresail_core::control::replica_set::ReplicaError;
use foresail_core::time::{Nanos, seconds};
use foresail_reports::records::{RecordSink, RunTotals};
use foresail_scenarios::scenario::{Scenario, StepTimeModel};
use foresail_scenarios::workload::{Request, WorkloadError};

pub use conservation::Violation;

/// The longest run: half of what a time can hold (ns), which is also the longest
/// duration that a scenario can say. The other half is room for the steps and
/// starts that are under way, so that adding their times never overflows.
pub(crate) const TIME_MAX: Nanos = Nanos::MAX / 2;

/// How to run, beside what.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Seed of the simulator's own random streams.
    pub seed: u64,
    /// Whether runs of equal decode steps are done at once. Without, every step
    /// is an event: slower, and the same records, to the nanosecond.
    pub leaps: bool,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Virtual time (ns).
    pub now: Nanos,
    /// Requests received.
    pub received: u64,
}

/// Why a run ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The workload could not be read or made.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The scheduler's limits leave no room to work.
    #[error("the batching limits cannot be used: {0}")]
    Batching(#[from] ConfigError),
    /// A replica did what it cannot do. This is a defect of foresail.
    #[error("a defect of foresail: {0}")]
    Replica(#[from] ReplicaError),
    /// The bill does not add up. This is a defect of foresail.
    #[error("a defect of foresail: {0}")]
    Biller(#[from] BillerError),
    /// More requests wait than can be kept in memory.
    #[error(
        "{requests} requests wait after {} s, far more than this deployment can serve; lower the \
         rate, raise max_replica_count, or simulate a shorter time",
        seconds(*at_ns)
    )]
    Overloaded {
        /// Requests received that have not ended.
        requests: u64,
        /// When (ns).
        at_ns: Nanos,
    },
    /// Times are 64 bits of nanoseconds; half of them are kept for what has begun.
    #[error(
        "the run would last longer than 292 years; give requests earlier, or make starting \
         replicas and steps faster"
    )]
    TooLong,
    /// A request without a prompt or without output, which no reader or
    /// generator of ours gives: check where the requests come from.
    #[error(
        "request {id} has {prompt_tokens} prompt and {output_tokens} output tokens; both must be at least 1"
    )]
    EmptyRequest {
        /// Its position in the workload, from 0.
        id: u64,
        /// Tokens of its prompt.
        prompt_tokens: u32,
        /// Tokens it asks for.
        output_tokens: u32,
    },
    /// The watcher asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// Requests, tokens or GPU-time did not add up. This is a defect of foresail; please report it with the scenario.
    #[error("the run does not add up, which is a defect of foresail: {0}")]
    Conservation(#[from] Violation),
}

/// Simulates a scenario's deployment under these requests.
///
/// `sink` gets each record as it happens; `watch` is called now and then and
/// can stop the run.
///
/// # Errors
/// If a request cannot be read, the watcher stops the run, or the run does not add up.
pub fn simulate<S: RecordSink>(
    scenario: &Scenario,
    requests: impl Iterator<Item = Result<Request, WorkloadError>>,
    options: Options,
    sink: &mut S,
    watch: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<RunTotals, SimulationError> {
    match &scenario.deployment.step_time {
        StepTimeModel::Roofline(model) => {
            world::World::new(scenario, model.as_ref(), options, sink)?.run(requests, watch)
        }
        StepTimeModel::Profile(model) => {
            world::World::new(scenario, model.as_ref(), options, sink)?.run(requests, watch)
        }
    }
}
