//! What a run comes to: the content of `summary.json`.
//!
//! The same value comes from a simulation and from a measurement, is written
//! and read here, and is described by `schema/summary.schema.json`. Its
//! fields have a fixed order, its floats are the shortest that read back the
//! same, and the file holds nothing that differs between two runs of one seed.

use crate::objectives::Objective;
use crate::seeds::Seeds;
use crate::series::TimeSeries;
use serde::{Deserialize, Serialize};
use thiserror::Error;

mod measured;

pub use measured::{
    Client, Connections, Counters, Degraded, Excluded, Load, Measured, Rates, Server, Shard,
    Steadiness, Window,
};

/// The version of the form of `summary.json`.
pub const SCHEMA: &str = "foresail.summary/1";

/// What a run comes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What wrote it.
    pub tool: Tool,
    /// Whether it was computed or measured.
    pub source: Source,
    /// What was run.
    pub scenario: ScenarioFacts,
    /// Seed of all random streams.
    pub seed: u64,
    /// From the start of the run to its last event (s).
    pub duration_s: f64,
    /// What came of the objectives.
    pub objectives: Vec<Objective>,
    /// Requests by how they ended.
    pub requests: Requests,
    /// What became of the deployment as a whole, after the run began.
    pub lifecycle: Vec<LifecycleChange>,
    /// Tokens.
    pub tokens: Tokens,
    /// Time to first token, from the intended send, of completed requests.
    pub ttft_s: Option<LatencySummary>,
    /// Time between successive output tokens, one value a token.
    pub itl_s: Option<LatencySummary>,
    /// Mean time an output token after the first, one value a completed
    /// request of two tokens or more.
    pub tpot_s: Option<LatencySummary>,
    /// Intended send to last token, of completed requests.
    pub e2e_s: Option<LatencySummary>,
    /// Waiting for the first step although a replica was ready, of completed
    /// requests. The cold start is not in it.
    pub queue_s: Option<LatencySummary>,
    /// What was done a second.
    pub throughput: Throughput,
    /// Requests a second that completed within every latency limit; `null` if
    /// no objective limits a latency.
    pub goodput_per_s: Option<f64>,
    /// What the adapters of the replicas did; absent if none were deployed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub adapters: Option<Adapters>,
    /// Replicas over the whole run; `null` of a measured run if nothing is known of them.
    pub replicas: Option<Replicas>,
    /// GPU-time by what the GPUs did; `null` as the replicas are.
    pub gpu_seconds: Option<GpuSeconds>,
    /// Money; `null` as the replicas are.
    pub cost: Option<Cost>,
    /// Where the time of the requests went; `null` of a measured run.
    pub parts: Option<PartsSummary>,
    /// When the slowest requests were sent, and what was going on; `null` of a measured run.
    pub why: Option<Why>,
    /// How it was measured; absent of a simulated run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub measured: Option<Box<Measured>>,
    /// The run over time.
    pub series: TimeSeries,
    /// What several seeds say together, if several were run; all other fields
    /// are those of one run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seeds: Option<Seeds>,
    /// The work that the run was.
    pub run: Run,
}

/// What wrote a summary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Version of foresail.
    pub version: String,
    /// Commit it was built from, where known.
    pub commit: Option<String>,
}

/// Where records come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Computed by the simulator.
    #[default]
    Simulated,
    /// Measured at an endpoint.
    Measured,
}

/// What is known of a run before it begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunDescription {
    /// What runs it.
    pub tool: Tool,
    /// Whether it is computed or measured.
    pub source: Source,
    /// What is run.
    pub scenario: ScenarioFacts,
    /// Seed of all random streams.
    pub seed: u64,
}

/// What a report says of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioFacts {
    /// Its name.
    pub name: String,
    /// The traffic, in one line for people.
    pub workload: String,
    /// What the command line changed about the scenario, as written and in order.
    pub settings: Vec<String>,
    /// Name of the model.
    pub model: String,
    /// Name of the GPU.
    pub gpu: String,
    /// GPUs a replica.
    pub world_size: u32,
    /// Fewest replicas that the autoscaler may ask for, if that is known.
    pub replica_count_min: Option<u32>,
    /// Most replicas that the autoscaler may ask for, if it is bounded.
    pub replica_count_max: Option<u32>,
    /// Price of a GPU-hour (USD).
    pub usd_per_gpu_hour: f64,
    /// Where the price comes from, with its date.
    pub price_source: String,
    /// Whether the start of a replica is billed.
    pub bills_starting: bool,
    /// Whether the drain of a replica is billed.
    pub bills_draining: bool,
    /// Whether latencies are those of the engine alone: of built-in step times, and nobody said what a server takes for
    /// each request around them.
    #[serde(default)]
    pub leaves_out_request_overhead: bool,
}

/// A change of the deployment as a whole: it was updated, paused or deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifecycleChange {
    /// When (s).
    pub at_s: f64,
    /// What, and why.
    pub what: String,
}

/// Requests by how they ended. Only the completed ones have latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// Offered by the workload.
    pub offered: u64,
    /// All tokens generated.
    pub completed: u64,
    /// Broken off: the sum of the `failed_` fields.
    pub failed: u64,
    /// Refused: the sum of the `rejected_` fields.
    pub rejected: u64,
    /// Arrived while no replica was ready, and waited for one.
    pub waited_for_cold_start: u64,
    /// Longer than the model's context.
    pub rejected_too_long: u64,
    /// Needs more KV blocks than a replica has.
    pub rejected_never_fits: u64,
    /// 503: the deployment was at zero replicas.
    pub rejected_scaling_up: u64,
    /// 503: more requests waited for a replica than may.
    pub rejected_queue_full: u64,
    /// 404: the deployment had been deleted.
    pub rejected_deleted: u64,
    /// The account had reached its spend limit.
    pub rejected_paused: u64,
    /// The deployment is parked at a maximum of 0 replicas.
    pub rejected_parked: u64,
    /// Its replica's drain time ran out.
    pub failed_drain: u64,
    /// Its replica crashed.
    pub failed_crash: u64,
    /// The client gave it up.
    pub failed_timeout: u64,
    /// The run ended and no replica was allowed to start.
    pub failed_unserved: u64,
    /// What else can happen to a measured request; absent of a simulated run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub measured: Option<MeasuredEndings>,
    /// Times that a completed request was preempted.
    pub preemptions: u64,
    /// Sent more than once, however they ended.
    pub retried: u64,
    /// How often the requests were sent, all together.
    pub attempts: u64,
}

/// How requests of a measured run ended, beside those endings that a simulation has too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredEndings {
    /// Refused with 429.
    pub rejected_rate_limited: u64,
    /// Refused with 503.
    pub rejected_unavailable: u64,
    /// Refused with any other status below 500.
    pub rejected_status: u64,
    /// An error of the server, 500 or above and not 503.
    pub failed_status: u64,
    /// No connection could be had.
    pub failed_connect: u64,
    /// The connection was reset, or closed before any of the answer.
    pub failed_reset: u64,
    /// The answer ended before its end.
    pub failed_truncated: u64,
    /// Nothing arrived for too long in the middle of an answer.
    pub failed_stalled: u64,
    /// What arrived is no answer.
    pub failed_garbage: u64,
    /// The stream told of an error.
    pub failed_error: u64,
    /// In flight when the run was ended.
    pub failed_cancelled: u64,
    /// Not sent, because the run was ended before; neither failed nor rejected.
    pub unsent: u64,
}

/// Tokens of the requests that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Prompt tokens of completed requests.
    pub prompt: u64,
    /// Prompt tokens of completed requests found in the prefix cache.
    pub cached: u64,
    /// Output tokens of completed requests.
    pub output: u64,
    /// Output tokens generated for requests that then failed.
    pub output_of_failed: u64,
    /// Output tokens generated in attempts that were given up for another.
    pub output_of_retried: u64,
}

/// Statistics of a latency (s). Mean and maximum are exact; percentiles are
/// nearest ranks out of a histogram with three significant digits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencySummary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// What was done a second, between the first intended send and the last completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throughput {
    /// Completed requests a second.
    pub requests_per_s: f64,
    /// Output tokens of completed requests a second.
    pub output_tokens_per_s: f64,
}

/// What the adapters of the replicas did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapters {
    /// Completed requests that asked for one.
    pub requests: u64,
    /// Those of them that waited at a replica for theirs.
    pub waited: u64,
    /// Adapters loaded into a replica's GPU memory.
    pub loads: u64,
    /// Loads for which another adapter gave its slot up.
    pub evictions: u64,
}

/// Replicas over the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replicas {
    /// Replicas that held GPUs, averaged over time.
    pub mean: f64,
    /// Most replicas that held GPUs at once.
    pub max: u32,
    /// Replicas asked for.
    pub starts: u64,
    /// Cancelled before ready, or ready and never given a request.
    pub wasted_starts: u64,
    /// Times the target turned from rising to falling or back.
    pub direction_changes: u64,
    /// Attempts to start a replica that failed.
    pub start_failures: u64,
    /// Given up because they failed to start too often.
    pub starts_given_up: u64,
    /// Crashed.
    pub crashes: u64,
    /// Asked for while there were no GPUs for them, and waited for some.
    pub waited_for_gpus: u64,
    /// How long those waited, all together, cancelled ones included (s).
    pub waited_for_gpus_s: f64,
}

/// GPU-time [GPU s]; starting, idle, busy and draining add up to all that was held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuSeconds {
    /// What is paid for.
    pub billed: f64,
    /// Ready, with a step in flight; `null` where nobody tells.
    pub busy: Option<f64>,
    /// Ready, with nothing to do; `null` where nobody tells.
    pub idle: Option<f64>,
    /// Ready, whatever they did; absent where busy and idle are known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ready: Option<f64>,
    /// Asked for and not ready yet.
    pub starting: f64,
    /// From the order to drain until gone.
    pub draining: f64,
}

/// Money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// The whole run (USD).
    pub usd: f64,
    /// A million output tokens (USD); `null` without output.
    pub usd_per_million_output_tokens: Option<f64>,
    /// A completed request (USD); `null` if none completed.
    pub usd_per_request: Option<f64>,
}

/// Where the time of completed requests went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartsSummary {
    /// All of them, from intended send to last token.
    pub all: PartsMean,
    /// The slowest 1 % by TTFT, at least one, from intended send to first
    /// token: without decode and without later preemptions.
    pub slowest: PartsMean,
}

/// The mean parts of some requests (s); they add up to the mean E2E or, of the
/// slowest requests, to the mean TTFT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartsMean {
    /// How many requests.
    pub requests: u64,
    /// Earlier attempts, and waiting to try again (s).
    pub retry_s: f64,
    /// Outside the engine: what server and client do for a request beside its steps (s); absent
    /// if the step times know of no such time.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub outside_s: f64,
    /// Waiting while no replica was ready (s).
    pub cold_start_s: f64,
    /// Waiting for the first step although a replica was ready (s).
    pub queue_s: f64,
    /// Waiting at a replica for an adapter to be loaded (s).
    pub adapter_s: f64,
    /// From the first step to the first token (s).
    pub prefill_s: f64,
    /// From each preemption to the next token after it (s).
    pub preemption_s: f64,
    /// From the first token to the end, less preemption (s).
    pub decode_s: f64,
}

/// Whether there is none of it.
fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

/// The parts of a request's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Earlier attempts, and waiting to try again.
    Retry,
    /// Outside the engine: what server and client do for it beside its steps.
    Outside,
    /// Waiting while no replica was ready.
    ColdStart,
    /// Waiting for the first step although a replica was ready.
    Queue,
    /// Waiting at a replica for an adapter to be loaded.
    Adapter,
    /// From the first step to the first token.
    Prefill,
    /// From each preemption to the next token after it.
    Preemption,
    /// From the first token to the end, less preemption.
    Decode,
}

/// When the slowest requests were sent, and what was going on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// How many of the slowest requests by TTFT were looked at: 1 % of the
    /// completed ones, at least one, at most 200.
    pub slowest: u64,
    /// The episodes in which they were sent, in the order of time.
    pub episodes: Vec<Episode>,
}

/// A stretch of time in which some of the slowest requests were sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Episode {
    /// How many of the slowest requests.
    pub requests: u64,
    /// When the first of them was sent (s).
    pub from_s: f64,
    /// When the last of them was sent (s).
    pub until_s: f64,
    /// Their mean TTFT (s).
    pub ttft_s_mean: f64,
    /// Their largest TTFT (s).
    pub ttft_s_max: f64,
    /// What most of their TTFT was.
    pub part: Part,
    /// How much of their TTFT it was on average (s).
    pub part_s_mean: f64,
    /// The deployment meanwhile; `null` if none of its changes were recorded.
    pub replicas: Option<EpisodeReplicas>,
}

/// The deployment from the first send of an episode to the last of its first tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeReplicas {
    /// Replicas ready at its start.
    pub ready_at_start: u32,
    /// Replicas ready at its end.
    pub ready_at_end: u32,
    /// Largest target of the autoscaler.
    pub target_max: u32,
    /// Most replicas that were starting at once.
    pub starting_max: u32,
    /// When the first of the starts that overlap the episode was ordered (s);
    /// `null` without any.
    pub starting_from_s: Option<f64>,
    /// For how long some replica was starting, each start from its order until
    /// ready or cancelled, also where that is outside the episode (s).
    pub starting_s: f64,
    /// Whether at any time no replica was ready.
    pub was_at_zero: bool,
    /// Whether the target was at the most that is allowed.
    pub at_max: bool,
    /// Replicas that crashed.
    pub crashes: u32,
    /// Attempts to start a replica that failed.
    pub start_failures: u32,
}

/// The work that a run was. Wall time differs from run to run: it is for
/// people and for standard output, and never written to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// How long it took to run (s); of deployments that ran together, all of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wall_s: Option<f64>,
    /// Requests a second of that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requests_per_wall_s: Option<f64>,
    /// Engine steps computed.
    pub steps: u64,
    /// Events handled; a leap over many steps is one.
    pub events: u64,
}

/// Why a text is not a summary.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SummaryError {
    /// Not JSON, or not of the form of a summary.
    #[error("not a summary: {0}; expected the summary.json of a run of foresail")]
    Form(#[from] serde_json::Error),
    /// A summary of another version.
    #[error("its schema is `{found}` where this version reads `{SCHEMA}`; run the scenario again")]
    Schema {
        /// What it says it is.
        found: String,
    },
}

impl MeasuredEndings {
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected_rate_limited + self.rejected_unavailable + self.rejected_status
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed_status
            + self.failed_connect
            + self.failed_reset
            + self.failed_truncated
            + self.failed_stalled
            + self.failed_garbage
            + self.failed_error
            + self.failed_cancelled
    }
}

impl Summary {
    /// Adds how long the run took (s).
    #[must_use]
    pub fn with_wall_s(mut self, wall_s: f64) -> Self {
        self.run.wall_s = Some(wall_s);
        let ended = self.requests.completed + self.requests.failed + self.requests.rejected;
        self.run.requests_per_wall_s = (wall_s > 0.0).then(|| ended as f64 / wall_s);
        self
    }

    /// The same without wall time: what two runs of one seed have in common.
    #[must_use]
    pub fn without_wall(mut self) -> Self {
        self.run.wall_s = None;
        self.run.requests_per_wall_s = None;
        self
    }

    /// Whether every objective was met.
    #[must_use]
    pub fn objectives_met(&self) -> bool {
        self.objectives.iter().all(|objective| objective.met)
    }

    /// As indented JSON that ends with a newline.
    ///
    /// # Errors
    /// If memory for it runs out; every summary has a JSON form.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        Ok(json)
    }

    /// Reads what [`Summary::to_json`] wrote.
    ///
    /// # Errors
    /// If it is no summary, or one of another schema.
    pub fn from_json(json: &str) -> Result<Self, SummaryError> {
        #[derive(Deserialize)]
        struct Version {
            schema: String,
        }
        // The version first: another version may well have other fields.
        let version: Version = serde_json::from_str(json)?;
        if version.schema != SCHEMA {
            return Err(SummaryError::Schema {
                found: version.schema,
            });
        }
        Ok(serde_json::from_str(json)?)
    }
}
