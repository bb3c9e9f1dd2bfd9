//! What a summary says of a measured run alone: how it was measured, and how far
//! that is to be trusted.

use serde::{Deserialize, Serialize};

use super::LatencySummary;

/// How a run was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Where the requests were sent, without any credentials.
    pub endpoint: String,
    /// When the run began: seconds since 1970, UTC, by the clock of the machine.
    pub began_unix_s: f64,
    /// How requests were sent.
    pub load: Load,
    /// Whether it was ended before its plan was.
    pub is_interrupted: bool,
    /// Why the figures are not to be trusted; empty if they are.
    pub degraded: Vec<Degraded>,
    /// The time that is measured.
    pub window: Window,
    /// Whether the system had settled in that time; `null` if there was too little to tell.
    pub steadiness: Option<Steadiness>,
    /// What was asked of the client, and what came of it.
    pub rates: Rates,
    /// What the client saw of itself.
    pub client: Client,
    /// What the server said of itself; `null` unless it was asked.
    pub server: Option<Server>,
    /// Which part of a plan this is; `null` if it is the whole.
    pub shard: Option<Shard>,
}

/// How requests were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "loop", deny_unknown_fields)]
pub enum Load {
    /// Each when it was due, whatever became of those before.
    #[default]
    Open,
    /// Each when it was due, but never more than so many at once: those beyond waited, and were late.
    Capped {
        /// Most requests in flight.
        in_flight_max: u64,
    },
    /// As many at once as was asked for, the next when one ended.
    Closed {
        /// Requests in flight.
        concurrency: u64,
    },
}

/// A reason not to trust the figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Degraded {
    /// A name for scripts, such as `sends_late`.
    pub code: String,
    /// What was seen, with numbers, and what to do about it.
    pub text: String,
}

/// The time that is measured: requests due in it count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// From here on (s).
    pub from_s: f64,
    /// Up to here, exclusive (s).
    pub until_s: f64,
    /// How the two were chosen, in words.
    pub rule: String,
    /// Requests due before it.
    pub warm_up: Excluded,
    /// Requests due after it.
    pub cool_down: Excluded,
    /// What all requests together come to, those excluded among them.
    pub whole_run: Counters,
}

/// What was left out of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Excluded {
    /// Requests.
    pub requests: u64,
    /// How long (s).
    pub duration_s: f64,
    /// Time to first token of those that completed (s).
    pub ttft_s: Option<LatencySummary>,
}

/// Figures of a set of requests, for comparison with those of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Requests that were due.
    pub requests: u64,
    /// Requests that completed.
    pub completed: u64,
    /// Output tokens of completed requests.
    pub output_tokens: u64,
    /// Requests that completed, a second.
    pub requests_per_s: f64,
    /// Output tokens of completed requests, a second.
    pub output_tokens_per_s: f64,
    /// Time to first token (s).
    pub ttft_s: Option<LatencySummary>,
    /// Mean time an output token after the first (s).
    pub tpot_s: Option<LatencySummary>,
    /// Intended send to last byte (s).
    pub e2e_s: Option<LatencySummary>,
}

/// Whether the system had settled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steadiness {
    /// Whether it had.
    pub is_steady: bool,
    /// What the test found, with numbers.
    pub text: String,
}

/// What was asked of the client, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Requests a second that the plan asks for in the window; `null` in a closed loop.
    pub asked_per_s: Option<f64>,
    /// Requests a second that were sent in the window.
    pub sent_per_s: f64,
    /// Most requests in flight at once.
    pub in_flight_max: u64,
}

/// What the client saw of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// From when a request was due until it was handed to a connection (s), of those due in the window.
    pub send_late_s: Option<LatencySummary>,
    /// How late the event loop came to a periodic tick (s).
    pub loop_lag_s: Option<LatencySummary>,
    /// Threads that sent requests.
    pub threads: u32,
    /// CPU time of the busiest of them, as a share of the run.
    pub cpu_share_max: f64,
    /// CPU time of the whole process (s).
    pub cpu_s: f64,
    /// Largest resident set of the process (bytes).
    pub rss_bytes_max: u64,
    /// Connections.
    pub connections: Connections,
    /// Chunks that carried output, of completed requests in the window.
    pub chunks: u64,
    /// Completed requests in the window whose tokens the server counted.
    pub tokens_from_usage: u64,
    /// Completed requests in the window whose tokens are the chunks that came, or what was asked for.
    pub tokens_assumed: u64,
    /// Whether prompts have exactly as many tokens as was asked, by the tokenizer that was given.
    pub prompts_are_exact: bool,
    /// How often the wall clock jumped against the monotonic one; no figure depends on it.
    pub clock_jumps: u64,
}

/// What became of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    /// Opened.
    pub opened: u64,
    /// Requests that went over one that had carried others.
    pub reused: u64,
    /// Attempts to open one that failed.
    pub failed: u64,
    /// Requests sent once more, because their idle connection was found closed before they had left.
    pub stale: u64,
}

/// What the server said of itself in the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where it was asked, without any credentials.
    pub targets: Vec<String>,
    /// Answers that could be used.
    pub samples: u64,
    /// Times that there was none.
    pub failures: u64,
    /// Sequences in the batches of all replicas, mean over samples.
    pub running_mean: Option<f64>,
    /// The same, largest.
    pub running_max: Option<f64>,
    /// Requests waiting at all replicas, mean over samples.
    pub waiting_mean: Option<f64>,
    /// The same, largest.
    pub waiting_max: Option<f64>,
    /// Share of KV blocks in use, mean over samples and replicas.
    pub kv_usage_mean: Option<f64>,
    /// The same, largest.
    pub kv_usage_max: Option<f64>,
    /// Prompt tokens that it counted in the whole run.
    pub prompt_tokens: Option<u64>,
    /// Output tokens that it counted in the whole run.
    pub output_tokens: Option<u64>,
    /// Share of prompt tokens found in the prefix cache.
    pub prefix_cache_hit_rate: Option<f64>,
    /// Preemptions.
    pub preemptions: Option<u64>,
    /// Share of time that GPUs were busy, by their own count (DCGM).
    pub gpu_utilization_mean: Option<f64>,
    /// Power of all GPUs (W), mean over samples (DCGM).
    pub gpu_power_w_mean: Option<f64>,
    /// GPU memory in use of all GPUs (bytes), largest (DCGM).
    pub gpu_memory_bytes_max: Option<f64>,
}

/// A part of a plan that several machines share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Which ones, from 1: one, or after a merge those that were there.
    pub parts: Vec<u32>,
    /// Of how many.
    pub of: u32,
    /// What makes two plans the same plan.
    pub plan_digest: String,
}
