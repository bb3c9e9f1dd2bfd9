//! A scenario, resolved: every default filled in, every name looked up, every
//! rule checked. This is what the simulator runs and what a report names.

use foresail_core::batching::{self, AdapterSource};
use foresail_core::control::autoscaler::AutoscalerConfig;
use foresail_core::control::biller::{BillingRule, Price};
use foresail_core::control::lifecycle::{AccountId, DeploymentSpec, GpuKind, Settings, Tier};
use foresail_core::control::router::RouterConfig;
use foresail_core::step_time::{
    AdapterOverhead, Calibrated, Gpu, ModelShape, Precision, Profile, Roofline,
};
use foresail_core::time::{Nanos, SECOND};

use crate::clients::Clients;
use crate::distribution::Distribution;
use crate::drawn::SaidOverheads;
use crate::failures::Failures;
use crate::random;
use crate::workload::Workload;

/// One deployment, the traffic it gets, and what is asked of it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Short name; the file's stem unless the file says otherwise.
    pub name: String,
    /// One sentence on what the scenario is for.
    pub description: String,
    /// Seed of all random streams.
    pub seed: u64,
    /// The deployment.
    pub deployment: Deployment,
    /// The requests.
    pub workload: Workload,
    /// What those who send them do when things take long or go wrong.
    pub clients: Clients,
    /// What the run is judged by.
    pub objectives: Vec<Objective>,
    /// The GPUs that it shares with the other deployments of its file; without
    /// a pool there are always enough.
    pub gpu_pool: Option<GpuPool>,
    /// The account that it shares with them.
    pub account: Account,
    /// What is done to it while it runs, in order of time.
    pub operations: Vec<Operation>,
    /// The same deployment at each other world size that an operation asks for.
    pub other_world_sizes: Vec<Deployment>,
}

/// Whose the deployments are.
#[derive(Clone, Debug)]
pub struct Account {
    /// As in `accounts/<id>/deployments/<name>`.
    pub id: AccountId,
    /// What it has subscribed to; `None` is one that may use the GPUs of the file.
    pub tier: Option<Tier>,
    /// The most that it may spend [1e-9 USD]; `None` is no limit.
    pub spend_limit_nanodollars: Option<u128>,
    /// The most GPUs of a kind that its deployments may hold.
    pub gpu_quota: Vec<(GpuKind, u32)>,
}

/// Something that is done to a deployment while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When.
    pub at: Nanos,
    /// What.
    pub action: Action,
}

/// What can be done to a deployment while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Change these settings (S14, S18, S31, S32).
    Update(Settings),
    /// Set the number of replicas now (B10).
    Scale(u32),
    /// Delete it (S17).
    Delete,
    /// Take its deletion back (B10).
    Undelete,
}

/// The deployments of one file, which run together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Short name; the file's stem unless the file says otherwise.
    pub name: String,
    /// One sentence on what the file is for.
    pub description: String,
    /// Seed of all random streams.
    pub seed: u64,
    /// At least one. Each has the file's seed; what it draws is under [`Group::seed_of`].
    pub deployments: Vec<Scenario>,
    /// Whether the file is a list of deployments with a name each.
    pub is_list: bool,
}

impl Group {
    /// The seed of a deployment's own streams when the run's is `seed`: if
    /// there are several, each draws something else.
    #[must_use]
    pub fn seed_of(&self, deployment: &Scenario, seed: u64) -> u64 {
        if self.is_list {
            random::derived(seed, &deployment.name)
        } else {
            seed
        }
    }
}

/// The GPUs that all deployments of a run share.
#[derive(Clone, Debug, Default)]
pub struct GpuPool {
    /// Each kind of GPU that a deployment of the run is on, by catalogue name.
    pub kinds: Vec<GpuStock>,
    /// When none can be had, whatever is free.
    pub stock_outs: StockOuts,
}

/// How many GPUs of a kind there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuStock {
    /// Catalogue name.
    pub gpu: String,
    /// How many; `None` is enough for all.
    pub gpus: Option<u32>,
}

/// Times at which no GPU can be had.
#[derive(Clone, Debug, Default)]
pub struct StockOuts {
    /// At known times, in order.
    pub fixed: Vec<StockOut>,
    /// At random times.
    pub random: Option<RandomStockOuts>,
}

/// A time at which no GPU can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockOut {
    /// When it begins.
    pub at: Nanos,
    /// How long it lasts.
    pub lasts: Nanos,
}

/// Stock-outs at random times.
#[derive(Clone, Debug)]
pub struct RandomStockOuts {
    /// From the end of one, or the start of the run, to the beginning of the next (s).
    pub every_s: Distribution,
    /// How long each lasts (s).
    pub lasts_s: Distribution,
}

/// An on-demand deployment of one model.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Catalogue name of the model, or the name the scenario gives its own shape.
    pub model: String,
    /// The model's dimensions.
    pub shape: ModelShape,
    /// Number format of the weights.
    pub precision: Precision,
    /// Number format of the KV cache.
    pub kv_precision: Precision,
    /// Catalogue name of the GPU.
    pub gpu: String,
    /// The GPU's figures.
    pub gpu_spec: Gpu,
    /// GPUs a replica (tensor parallel).
    pub world_size: u32,
    /// What was asked for, as its provider keeps it: defaults stay defaults.
    pub spec: DeploymentSpec,
    /// Replicas that exist and are ready when the run begins.
    pub initial_replica_count: u32,
    /// How many replicas there should be, and when that changes.
    pub autoscaler: AutoscalerConfig,
    /// What happens to a request that arrives while no replica is ready.
    pub at_zero: AtZero,
    /// How long a draining replica may finish its requests; after that they fail.
    pub drain_timeout: Nanos,
    /// How requests are spread over replicas.
    pub router: RouterConfig,
    /// The batch scheduler of each replica, KV blocks included.
    pub batching: batching::Config,
    /// LoRA adapters on the model, if there are any.
    pub adapters: Option<Adapters>,
    /// How long an engine step takes.
    pub step_time: StepTimeModel,
    /// What the scenario says of overheads beside that.
    pub said_overheads: SaidOverheads,
    /// What is good to know of how this was understood.
    pub notes: Vec<String>,
    /// How long a replica takes to start.
    pub cold_start: ColdStart,
    /// What goes wrong with replicas.
    pub failures: Failures,
    /// What a GPU-hour costs.
    pub price: Price,
    /// Which part of a replica's life is billed.
    pub billing: BillingRule,
    /// Where the price comes from, with its date, for the report.
    pub price_source: String,
}

/// The LoRA adapters that are deployed on a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapters {
    /// The adapters. A request asks for one by its place in this list.
    pub deployed: Vec<Adapter>,
    /// Adapters that each replica holds in GPU memory, at least `max_loras`.
    pub slots: u32,
    /// Adapters that each replica holds in host memory, those on the GPU included.
    pub host_slots: u32,
    /// Reading an adapter from storage into the GPU (bytes/s).
    pub storage_bytes_per_s: f64,
    /// Copying an adapter from host memory into the GPU (bytes/s).
    pub host_bytes_per_s: f64,
    /// What adapters add to a step.
    pub overhead: AdapterOverhead,
}

/// One LoRA adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// What requests call it.
    pub name: String,
    /// The rank of its matrices.
    pub rank: u32,
    /// Its size (bytes).
    pub bytes: u64,
}

impl Adapters {
    /// How long a replica takes to load an adapter, a place in `deployed`.
    ///
    /// # Panics
    /// If there is no such adapter.
    #[must_use]
    pub fn load_time(&self, adapter: u32, source: AdapterSource) -> Nanos {
        let bytes_per_s = match source {
            AdapterSource::Storage => self.storage_bytes_per_s,
            AdapterSource::Host => self.host_bytes_per_s,
        };
        let seconds = self.deployed[adapter as usize].bytes as f64 / bytes_per_s;
        (seconds * SECOND as f64 + 0.5) as Nanos
    }
}

/// What happens to a request that arrives while no replica is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtZero {
    /// It waits: cold start is latency (the specification).
    Hold,
    /// It gets a 503 at once and the client must try again (profile `fireworks-2026`).
    Reject,
}

/// The step-time model of a deployment.
#[derive(Clone, Debug)]
pub enum StepTimeModel {
    /// From the model's shape and the GPU's figures.
    Roofline(Box<Roofline>),
    /// From a table of measured steps.
    Profile(Box<Profile>),
    /// From a formula fitted to an engine.
    Calibrated(Box<Calibrated>),
}

/// How long a replica takes from being asked for until it is ready.
#[derive(Clone, Debug)]
pub struct ColdStart {
    /// The stages, in order.
    pub stages: Vec<ColdStartStage>,
}

/// One stage of a cold start.
#[derive(Clone, Debug)]
pub struct ColdStartStage {
    /// For example `weights`.
    pub name: String,
    /// The public state of the replica during the stage.
    pub phase: ColdStartPhase,
    /// Mixture of outcomes, such as a cache hit and a miss; probabilities sum to 1.
    pub outcomes: Vec<ColdStartOutcome>,
}

/// The states that a starting replica reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColdStartPhase {
    /// Waiting for a machine.
    Pending,
    /// Fetching image and weights.
    Downloading,
    /// Process, weights into the GPU, compilation, graph capture, warm-up.
    Initialising,
}

/// One way a stage can go.
#[derive(Clone, Debug)]
pub struct ColdStartOutcome {
    /// How often.
    pub probability: f64,
    /// How long it takes (s).
    pub seconds: Distribution,
}

/// A limit that the run must meet.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// What is measured.
    pub metric: Metric,
    /// The limit, in the metric's unit (seconds, requests a second, US dollars, a share of 1).
    pub limit: f64,
}

/// What an objective can be about. Latencies and costs are met at or below the
/// limit; rates and shares at or above it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    /// A statistic of a latency (s).
    Latency(LatencyMetric, Statistic),
    /// Requests a second that completed.
    RequestsPerSecond,
    /// Output tokens a second.
    OutputTokensPerSecond,
    /// Completed requests among those offered.
    SuccessRate,
    /// Cost of the whole run (USD).
    CostUsd,
    /// Cost of a million output tokens (USD).
    CostUsdPerMillionOutputTokens,
}

/// The latencies of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencyMetric {
    /// Intended send to first token.
    Ttft,
    /// Between successive tokens.
    Itl,
    /// (last - first token) / (output tokens - 1).
    Tpot,
    /// Intended send to last token.
    E2e,
    /// Waiting for the first step although a replica is ready.
    Queue,
}

/// A statistic of a distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    /// Arithmetic mean.
    Mean,
    /// Percentile, 0 to 100.
    Percentile(f64),
    /// Largest.
    Max,
}
