//! Virtual time: a deployment under a workload, as a discrete-event simulation.
//!
//! The machines that decide are the core's, the same that run live. This crate
//! gives them a clock that jumps: from one request, step end, phase of a
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
use foresail_core::time::Nanos;
use foresail_reports::records::{RecordSink, RunTotals};
use foresail_scenarios::scenario::{Scenario, StepTimeModel};
use foresail_scenarios::workload::{Request, WorkloadError};

pub use conservation::Violation;

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
