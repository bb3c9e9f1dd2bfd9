//! NVIDIA Dynamo's planner: load-based scaling of aggregated workers by thresholds.
//!
//! ```text
//! each worker: (tokens in KV caches + prompt tokens that wait) / KV tokens there are
//!   any above 100 %   ──> one more     ("latency": 40 %)
//!   all below 60 %    ──> one less, if the rest would not be above the first ("latency": 10 %)
//!   while workers start ──> at most fewer; while one drains ──> nothing
//! ```
//!
//! Source: `planner/core/{load_scaling,state_machine,budget}.py` of ai-dynamo
//! 1.6.1 (`_advance_load_agg`, `_agg_easy_decision`, `advance_load`,
//! `guard_single_scaling_budget`). Its target `sla` predicts latencies with a
//! performance model that is a program of its own, and is not replicated.

use super::policy::Policy;
use super::reason::Decimal;
use super::trace::{Column, Row, Verdict};
use super::{ConfigError, Decision, Observation, Reason, ReplicaLoad};
use crate::time::{Nanos, SECOND};

/// What a row holds: what the planner is told at a tick.
pub(super) const COLUMNS: &[Column] = &[
    Column::per_replica(
        "kv_usage",
        "tokens in its KV cache and prompt tokens that wait at it, by KV tokens there are, of each ready replica",
    ),
    Column::optional(
        "replicas",
        "replicas asked for, ready or not; left out: what was decided last",
    ),
];

/// The parameters of the planner, with its names.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamoLoadConfig {
    /// `optimization_target`.
    pub optimization_target: OptimizationTarget,
    /// `load_adjustment_interval_seconds`, in nanoseconds.
    pub load_adjustment_interval: Nanos,
    /// `min_endpoint`.
    pub min_endpoint: u32,
    /// `min_gpu_budget`; `None` is its -1, no floor.
    pub min_gpu_budget: Option<u32>,
    /// `max_gpu_budget`; `None` is its -1, no ceiling.
    pub max_gpu_budget: Option<u32>,
    /// `decode_engine_num_gpu`: GPUs a replica.
    pub gpus_per_replica: u32,
}

/// What the planner aims at: its thresholds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizationTarget {
    /// Full KV caches: up above 100 %, down below 60 %.
    Throughput,
    /// Empty ones: up above 40 %, down below 10 %.
    Latency,
    /// Thresholds of one's own, in percent.
    Load {
        /// `decode_scale_up_kv_rate`.
        scale_up_kv_rate: f64,
        /// `decode_scale_down_kv_rate`.
        scale_down_kv_rate: f64,
    },
}

impl Default for DynamoLoadConfig {
    fn default() -> Self {
        DynamoLoadConfig {
            // `PlannerConfig`.
            optimization_target: OptimizationTarget::Throughput,
            // `SLAPlannerDefaults` has these.
            load_adjustment_interval: 5 * SECOND,
            min_endpoint: 1,
            min_gpu_budget: None,
            max_gpu_budget: Some(8),
            gpus_per_replica: 1,
        }
    }
}

impl DynamoLoadConfig {
    /// Most replicas that its budget of GPUs allows; without a budget, as many as there can be.
    #[must_use]
    pub fn replicas_max(&self) -> u32 {
        let gpus = self.gpus_per_replica.max(1);
        self.max_gpu_budget.map_or(u32::MAX, |budget| budget / gpus)
    }

    /// What `PlannerConfig` refuses.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.load_adjustment_interval == 0 {
            let name = "load_adjustment_interval_seconds";
            return Err(refused(name, "greater than 0", "0".to_owned()));
        }
        if self.gpus_per_replica == 0 {
            return Err(refused(
                "decode_engine_num_gpu",
                "greater than 0",
                "0".to_owned(),
            ));
        }
        let OptimizationTarget::Load {
            scale_up_kv_rate: up,
            scale_down_kv_rate: down,
        } = self.optimization_target
        else {
            return Ok(());
        };
        let rates = [
            ("decode_scale_up_kv_rate", up),
            ("decode_scale_down_kv_rate", down),
        ];
        for (name, rate) in rates {
            if !(0.0..=100.0).contains(&rate) {
                return Err(refused(name, "from 0 to 100", rate.to_string()));
            }
        }
        if up <= down {
            let expected = "greater than decode_scale_down_kv_rate";
            let value = format!("{up} <= {down}");
            return Err(refused("decode_scale_up_kv_rate", expected, value));
        }
        Ok(())
    }
}

fn refused(name: &'static str, expected: &'static str, value: String) -> ConfigError {
    ConfigError::Parameter {
        name,
        expected,
        value,
    }
}

impl OptimizationTarget {
    /// Above which share of its KV tokens a worker has too much, and below which it has too little.
    fn thresholds(self) -> (f64, f64) {
        match self {
            // `_DECODE_THROUGHPUT_SCALE_UP` and so on.
            OptimizationTarget::Throughput => (1.0, 0.6),
            OptimizationTarget::Latency => (0.4, 0.1),
            OptimizationTarget::Load {
                scale_up_kv_rate,
                scale_down_kv_rate,
            } => (scale_up_kv_rate / 100.0, scale_down_kv_rate / 100.0),
        }
    }

    /// Whether a share at the threshold is beyond it.
    fn includes_thresholds(self) -> bool {
        matches!(self, OptimizationTarget::Load { .. })
    }
}

/// The planner, for one deployment of aggregated workers.
#[derive(Clone, Debug)]
pub(super) struct DynamoLoad {
    config: DynamoLoadConfig,
    target: u32,
    next: Nanos,
}

/// `WorkerCounts`: workers that are ready, and that start.
#[derive(Clone, Copy, Debug)]
struct Workers {
    ready: u32,
    pending: u32,
    /// Whether the count changes in another way than by workers that start.
    is_unstable: bool,
}

impl Workers {
    fn of(ready: u32, expected: u32) -> Self {
        Workers {
            ready,
            pending: expected.saturating_sub(ready),
            is_unstable: ready > expected,
        }
    }
}

impl DynamoLoad {
    pub(super) fn new(config: &DynamoLoadConfig, initial_replicas: u32) -> Self {
        DynamoLoad {
            next: config.load_adjustment_interval,
            config: config.clone(),
            target: initial_replicas,
        }
    }

    /// `advance_load`: a new target, if there is one, and why.
    fn advance(&mut self, workers: Workers, usage: &[f64]) -> String {
        let (decision, words) = self.aggregated(workers, usage);
        let Some(target) = decision else {
            return words;
        };
        if workers.pending == 0 {
            self.target = target;
            return words;
        }
        // `_startup_reduction`: workers that start may be cancelled, and no
        // more asked for until they are there.
        let there_will_be = workers.ready + workers.pending;
        if target > workers.ready || target >= there_will_be {
            return format!("{words}; {} still start", workers.pending);
        }
        self.target = target;
        words
    }

    /// `_advance_load_agg`.
    fn aggregated(&self, workers: Workers, usage: &[f64]) -> (Option<u32>, String) {
        if usage.is_empty() {
            return (None, "no worker reports".to_owned());
        }
        if workers.is_unstable {
            return (None, "scaling in progress".to_owned());
        }
        if usage.len() != workers.ready as usize {
            let words = format!("{} of {} workers report", usage.len(), workers.ready);
            return (None, words);
        }
        let (desired, words) = self.easy(workers, usage);
        let Some(desired) = desired else {
            return (None, words);
        };
        if workers.pending > 0 && desired > workers.ready {
            return (None, format!("{words}; {} still start", workers.pending));
        }
        let desired = desired.max(self.config.min_endpoint);
        let fits = self.within_budget(workers.ready, desired);
        let words = if fits == desired {
            words
        } else {
            format!("{words}; limited to {fits} by the GPU budget")
        };
        (Some(fits), words)
    }

    /// `_agg_easy_decision`.
    fn easy(&self, workers: Workers, usage: &[f64]) -> (Option<u32>, String) {
        let ready = workers.ready;
        let aim = self.config.optimization_target;
        let (up, down) = aim.thresholds();
        let at = aim.includes_thresholds();
        let highest = usage.iter().copied().fold(0.0, f64::max);
        let percent = |share: f64| Decimal(share * 100.0);
        let above = |&share: &f64| share > up || at && share >= up;
        if usage.iter().any(above) {
            let words = format!("KV usage {} % > {} %", percent(highest), percent(up));
            return (Some(ready + 1), words);
        }
        let below = |&share: &f64| share < down || at && share <= down;
        if (ready > 1 || workers.pending > 0) && usage.iter().all(below) {
            let words = format!("KV usage {} % < {} %", percent(highest), percent(down));
            let fewer = ready.saturating_sub(1).max(self.config.min_endpoint);
            // `_consolidation_safe_easy_target`: not if that called for one more at once.
            if 0 < fewer && fewer < ready {
                let share = highest * f64::from(ready) / f64::from(fewer);
                if share >= up {
                    let words = format!("{words}; on {fewer} it would be {} %", percent(share));
                    return (Some(ready), words);
                }
            }
            return (Some(fewer), words);
        }
        let words = format!(
            "KV usage {} % is between {} % and {} %",
            percent(highest),
            percent(down),
            percent(up)
        );
        (None, words)
    }

    /// `guard_single_scaling_budget`: never in the other direction than proposed.
    fn within_budget(&self, current: u32, proposed: u32) -> u32 {
        let gpus = self.config.gpus_per_replica;
        let (floor, ceiling) = (self.config.min_gpu_budget, self.config.max_gpu_budget);
        if !self.is_in_band(current) {
            return self.clamp(current);
        }
        let total = current * gpus;
        let at_floor = floor.is_some_and(|floor| total <= floor) && proposed < current;
        let at_ceiling = ceiling.is_some_and(|ceiling| total >= ceiling) && proposed > current;
        if at_floor || at_ceiling {
            return current;
        }
        let fits = self.clamp(proposed);
        let is_between = current.min(proposed) <= fits && fits <= current.max(proposed);
        if is_between { fits } else { current }
    }

    /// `bounds_for_total`: with both bounds, the floor is a replica's GPUs lower.
    fn is_in_band(&self, replicas: u32) -> bool {
        let gpus = self.config.gpus_per_replica;
        let total = replicas * gpus;
        let (floor, ceiling) = (self.config.min_gpu_budget, self.config.max_gpu_budget);
        let slack = if ceiling.is_some() { gpus } else { 0 };
        ceiling.is_none_or(|ceiling| total <= ceiling)
            && floor.is_none_or(|floor| total >= floor.saturating_sub(slack))
    }

    /// `proportional_clamp_single`.
    fn clamp(&self, replicas: u32) -> u32 {
        if self.is_in_band(replicas) {
            return replicas;
        }
        let (gpus, least) = (self.config.gpus_per_replica, self.config.min_endpoint);
        let (floor, ceiling) = (self.config.min_gpu_budget, self.config.max_gpu_budget);
        if let Some(ceiling) = ceiling.filter(|&ceiling| replicas * gpus > ceiling) {
            return if ceiling < least * gpus {
                0
            } else {
                least.max(ceiling / gpus)
            };
        }
        least.max(floor.unwrap_or(0).div_ceil(gpus))
    }
}

impl Policy for DynamoLoad {
    fn observe(
        &mut self,
        now: Nanos,
        deployment: &Observation,
        replicas: &[ReplicaLoad],
    ) -> Option<Decision> {
        if now < self.next {
            return None;
        }
        let interval = self.config.load_adjustment_interval;
        self.next = (now / interval + 1) * interval;
        let before = self.target;
        let usage: Vec<f64> = replicas.iter().map(usage).collect();
        let words = self.advance(Workers::of(deployment.ready, before), &usage);
        (self.target != before).then(|| Decision {
            target: self.target,
            reason: Reason::words(words),
        })
    }

    fn wants_each_replica(&self) -> bool {
        true
    }

    fn next_deadline(&self) -> Option<Nanos> {
        Some(self.next)
    }

    fn target(&self) -> u32 {
        self.target
    }

    fn look(&mut self, _: Nanos, row: &Row) -> Verdict {
        let usage = row.list("kv_usage").unwrap_or_default();
        let ready = u32::try_from(usage.len()).unwrap_or(u32::MAX);
        self.target = row.number("replicas").map_or(self.target, |n| n as u32);
        let words = self.advance(Workers::of(ready, self.target), usage);
        Verdict {
            desired: self.target,
            reason: Reason::words(words),
        }
    }
}

/// A worker's share: `(sched_kv + queued_kv + queued_prefill) / max_kv`. No
/// decoding waits at an aggregated worker, so there is no `queued_kv`.
fn usage(pod: &ReplicaLoad) -> f64 {
    let tokens = u64::from(pod.kv_blocks) * u64::from(pod.kv_block_tokens);
    if tokens == 0 {
        return 0.0;
    }
    (pod.context_tokens + pod.prompt_tokens_waiting) as f64 / tokens as f64
}
