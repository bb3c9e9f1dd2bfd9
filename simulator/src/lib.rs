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
//! autoscaler's look: events precede deadlines. Several deployments that share
//! GPUs run as one (`group.rs`).

mod adapters;
mod agenda;
mod boundaries;
mod clients;
mod clock;
mod cold_start;
mod conservation;
mod fleet;
mod front;
mod group;
mod integrals;
mod oracle;
mod outside;
mod passage;
mod pool;
mod provider;
pub mod replay;
mod replica;
mod scene;
mod start;
mod world;

use std::ops::ControlFlow;

use foresail_core::batching::ConfigError;
use foresail_core::control::autoscaler::ReconfigureError;
use foresail_core::control::biller::BillerError;
use foresail_core::control::lifecycle::LifecycleError;
use foresail_core::control::replica_set::ReplicaError;
use foresail_core::step_time::{Calibrated, Profile, Roofline, StepTime};
use foresail_core::time::{Nanos, seconds};
use foresail_reports::records::{RecordSink, RunTotals};
use foresail_scenarios::scenario::{Scenario, StepTimeModel};
use foresail_scenarios::workload::{Request, WorkloadError};

pub use conservation::Violation;
use group::{Group, Joined, Member};
pub use oracle::foresee;
use provider::{Provider, Share};
use world::World;

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
    /// A request for an adapter that the scenario does not deploy, which no
    /// reader or generator of ours gives: check where the requests come from.
    #[error(
        "request {id} asks for adapter {adapter}, and {deployed} are deployed, numbered from 0"
    )]
    UnknownAdapter {
        /// Its position in the workload, from 0.
        id: u64,
        /// The adapter.
        adapter: u32,
        /// How many are deployed.
        deployed: usize,
    },
    /// The pool has fewer GPUs than the replicas that are there when the run begins.
    #[error(
        "the GPU pool is too small for the replicas that are there when the run begins; enlarge it, or \
         lower initial_replica_count"
    )]
    PoolTooSmall,
    /// The provider refuses what the scenario asks of it.
    #[error("the provider refuses what is asked of it at {} s: {error}", seconds(*at_ns))]
    Refused {
        /// When (ns).
        at_ns: Nanos,
        /// Why, and what would change that.
        error: Box<LifecycleError>,
    },
    /// An autoscaler cannot be changed as the provider has allowed. This is a defect of foresail.
    #[error("a defect of foresail: {0}")]
    Reconfigure(#[from] ReconfigureError),
    /// The oracle has to be told the future first, by [`foresee`].
    #[error("the policy oracle has no plan: it has to foresee this seed's requests first")]
    NotForeseen,
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
    if scenario.gpu_pool.is_some() {
        let member = Deployed {
            scenario,
            requests,
            sink,
            seed: options.seed,
        };
        let totals = simulate_together(vec![member], options, watch)?;
        return Ok(totals.into_iter().next().unwrap_or_default());
    }
    let provider = Provider::new(&[scenario], options.seed)?;
    let share = Share::new(&provider, 0, scenario);
    match &scenario.deployment.step_time {
        StepTimeModel::Roofline(_) => {
            let models = models(scenario, roofline);
            let world = World::new(scenario, models, options, sink, share)?;
            Member::new(world, requests).run_alone(&provider, watch)
        }
        StepTimeModel::Profile(_) => {
            let models = models(scenario, profile);
            let world = World::new(scenario, models, options, sink, share)?;
            Member::new(world, requests).run_alone(&provider, watch)
        }
        StepTimeModel::Calibrated(_) => {
            let models = models(scenario, calibrated);
            let world = World::new(scenario, models, options, sink, share)?;
            Member::new(world, requests).run_alone(&provider, watch)
        }
    }
}

/// As [`simulate`], with step times from this model, whatever the scenario says:
/// for a model that is no file's, or one that looks on.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_timed_by<S: RecordSink>(
    model: &impl StepTime,
    scenario: &Scenario,
    requests: impl Iterator<Item = Result<Request, WorkloadError>>,
    options: Options,
    sink: &mut S,
    watch: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<RunTotals, SimulationError> {
    let provider = Provider::new(&[scenario], options.seed)?;
    let share = Share::new(&provider, 0, scenario);
    let models = vec![model; 1 + scenario.other_world_sizes.len()];
    let world = World::new(scenario, models, options, sink, share)?;
    let member: Box<dyn Joined + '_> = Box::new(Member::new(world, requests));
    let totals = Group::new(vec![member], provider).run(watch)?;
    Ok(totals.into_iter().next().unwrap_or_default())
}

/// The step-time model of the deployment at each world size: that with which
/// the run begins, then the others.
fn models<M>(scenario: &Scenario, of: fn(&StepTimeModel) -> Option<&M>) -> Vec<&M> {
    let first = std::iter::once(&scenario.deployment);
    let all = first.chain(&scenario.other_world_sizes);
    let models = all.map(|deployment| of(&deployment.step_time));
    let same_kind: Option<Vec<_>> = models.collect();
    same_kind.expect("one table of the scenario says what kind of model all have")
}

fn roofline(model: &StepTimeModel) -> Option<&Roofline> {
    match model {
        StepTimeModel::Roofline(roofline) => Some(roofline),
        _ => None,
    }
}

fn profile(model: &StepTimeModel) -> Option<&Profile> {
    match model {
        StepTimeModel::Profile(profile) => Some(profile),
        _ => None,
    }
}

fn calibrated(model: &StepTimeModel) -> Option<&Calibrated> {
    match model {
        StepTimeModel::Calibrated(calibrated) => Some(calibrated),
        _ => None,
    }
}

/// One deployment of several that are simulated together.
#[derive(Debug)]
pub struct Deployed<'a, R, S> {
    /// The deployment.
    pub scenario: &'a Scenario,
    /// The requests that it gets.
    pub requests: R,
    /// Gets its records.
    pub sink: &'a mut S,
    /// Seed of its own random streams; those of the pool are under [`Options::seed`].
    pub seed: u64,
}

/// Simulates several deployments that share the GPUs of the first scenario's
/// pool, and nothing else. Returns the totals of each, in their order.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_together<'a, R, S>(
    deployed: Vec<Deployed<'a, R, S>>,
    options: Options,
    watch: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Vec<RunTotals>, SimulationError>
where
    R: Iterator<Item = Result<Request, WorkloadError>> + 'a,
    S: RecordSink,
{
    let scenarios: Vec<_> = deployed.iter().map(|each| each.scenario).collect();
    let provider = Provider::new(&scenarios, options.seed)?;
    let mut members: Vec<Box<dyn Joined + 'a>> = Vec::with_capacity(deployed.len());
    for (index, each) in (0..).zip(deployed) {
        let share = Share::new(&provider, index, each.scenario);
        members.push(joined(each, options, share)?);
    }
    Group::new(members, provider).run(watch)
}

fn joined<'a, R, S>(
    each: Deployed<'a, R, S>,
    options: Options,
    share: Share,
) -> Result<Box<dyn Joined + 'a>, SimulationError>
where
    R: Iterator<Item = Result<Request, WorkloadError>> + 'a,
    S: RecordSink,
{
    let Deployed {
        scenario,
        requests,
        sink,
        seed,
    } = each;
    let options = Options { seed, ..options };
    Ok(match &scenario.deployment.step_time {
        StepTimeModel::Roofline(_) => {
            let models = models(scenario, roofline);
            let world = World::new(scenario, models, options, sink, share)?;
            Box::new(Member::new(world, requests))
        }
        StepTimeModel::Profile(_) => {
            let models = models(scenario, profile);
            let world = World::new(scenario, models, options, sink, share)?;
            Box::new(Member::new(world, requests))
        }
        StepTimeModel::Calibrated(_) => {
            let models = models(scenario, calibrated);
            let world = World::new(scenario, models, options, sink, share)?;
            Box::new(Member::new(world, requests))
        }
    })
}
