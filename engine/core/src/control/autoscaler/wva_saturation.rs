//! llm-d's Workload Variant Autoscaler, its saturation analyser (V1).
//!
//! ```text
//! each replica: KV usage and queue, the maximum over the last minute
//!   saturated: KV >= 0.80 or queue >= 5
//! the others: mean room to those two thresholds
//!   less than the triggers (0.1 or 3)   ──> one more
//!   still enough with one replica less  ──> one less
//!   while a replica starts or stops     ──> as it is
//! ```
//!
//! Source: `internal/saturation/analyzer.go`, `internal/engines` and
//! `internal/collector` of llm-d-workload-variant-autoscaler at b08b1c77. In
//! there, a Kubernetes HPA carries the decision out some seconds later; here it
//! is carried out at once.

use std::collections::VecDeque;

use super::hpa::kv_usage;
use super::policy::Policy;
use super::reason::Span;
use super::trace::{Column, Row, Verdict};
use super::{ConfigError, Decision, Observation, Reason, ReplicaLoad};
use crate::time::{MILLISECOND, MINUTE, Nanos, SECOND};

/// What a row holds: what the analyser is given.
pub(super) const COLUMNS: &[Column] = &[
    Column::per_replica("kv_usage", "share of KV blocks in use of each replica"),
    Column::per_replica("queue", "requests that wait at each replica"),
    Column::optional(
        "replicas",
        "replicas of the deployment; left out: what was decided last",
    ),
    Column::optional(
        "requests",
        "requests of the retention period, for enable_scale_to_zero (1)",
    ),
];

/// Scale-down needs two replicas that are not saturated (`constants.go`).
const NON_SATURATED_MIN_FOR_SCALE_DOWN: usize = 2;
/// The queries have `max_over_time(...[1m])` (`registration/saturation.go`).
const LOOK_BACK: Nanos = MINUTE;
/// How often the queue in front of no replicas is looked at (`scalefromzero/engine.go`).
const ZERO_POLL: Nanos = 100 * MILLISECOND;

/// `SaturationScalingConfig`, and when it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct WvaSaturationConfig {
    /// Fewest replicas, by the HPA that carries decisions out.
    pub min_replicas: u32,
    /// Most replicas, likewise.
    pub max_replicas: u32,
    /// `kvCacheThreshold`: saturated from this share of KV blocks on.
    pub kv_cache_threshold: f64,
    /// `queueLengthThreshold`: saturated from so many waiting requests on.
    pub queue_length_threshold: f64,
    /// `kvSpareTrigger`: one more replica when the mean room is below it.
    pub kv_spare_trigger: f64,
    /// `queueSpareTrigger`: one more replica when the mean room is below it.
    pub queue_spare_trigger: f64,
    /// Time between two analyses.
    pub interval: Nanos,
    /// Time between two samples of a replica's metrics.
    pub scrape_interval: Nanos,
    /// `enable_scale_to_zero`.
    pub enable_scale_to_zero: bool,
    /// `retention_period`: how long without a completed request until zero.
    pub retention_period: Nanos,
}

impl Default for WvaSaturationConfig {
    fn default() -> Self {
        WvaSaturationConfig {
            // Of the HPA in `config/samples`.
            min_replicas: 1,
            max_replicas: 10,
            // `configmap-saturation-scaling.yaml`.
            kv_cache_threshold: 0.80,
            queue_length_threshold: 5.0,
            kv_spare_trigger: 0.1,
            queue_spare_trigger: 3.0,
            // The executor's, in `engines/saturation/engine.go`: the 60 s of
            // `GLOBAL_OPT_INTERVAL` are read there, and not used.
            interval: 30 * SECOND,
            // Of the monitors of vLLM in llm-d's charts.
            scrape_interval: 15 * SECOND,
            enable_scale_to_zero: false,
            // `DefaultScaleToZeroRetentionPeriod`.
            retention_period: 10 * MINUTE,
        }
    }
}

impl WvaSaturationConfig {
    /// `SaturationScalingConfig.Validate`, with its own bounds.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let share = "between 0 and 1";
        let not_negative = ">= 0";
        let checks = [
            ("kvCacheThreshold", self.kv_cache_threshold, share),
            (
                "queueLengthThreshold",
                self.queue_length_threshold,
                not_negative,
            ),
            ("kvSpareTrigger", self.kv_spare_trigger, share),
            ("queueSpareTrigger", self.queue_spare_trigger, not_negative),
        ];
        for (name, value, expected) in checks {
            let most = if expected == share { 1.0 } else { f64::MAX };
            if !(0.0..=most).contains(&value) {
                return Err(refused(name, expected, value.to_string()));
            }
        }
        let (threshold, trigger) = (self.kv_cache_threshold, self.kv_spare_trigger);
        if threshold < trigger {
            let value = format!("{threshold:.2} < {trigger:.2}");
            return Err(refused("kvCacheThreshold", ">= kvSpareTrigger", value));
        }
        let positive = [
            ("interval", self.interval),
            ("scrape_interval", self.scrape_interval),
            ("retention_period", self.retention_period),
        ];
        if let Some((name, _)) = positive.into_iter().find(|&(_, period)| period == 0) {
            return Err(refused(name, "positive", "0s".to_owned()));
        }
        let (min, max) = (self.min_replicas, self.max_replicas);
        if min > max {
            let value = format!("{max} < {min}");
            let expected = "greater than or equal to `minReplicas`";
            return Err(refused("maxReplicas", expected, value));
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

/// The controller, for a model with one variant.
#[derive(Clone, Debug)]
pub(super) struct WvaSaturation {
    config: WvaSaturationConfig,
    target: u32,
    /// The samples of each replica within the look-back, the oldest first.
    samples: Vec<(u32, VecDeque<Sample>)>,
    /// Requests that had been completed, and when it was last seen to be more.
    completed: (u64, Nanos),
    next_scrape: Nanos,
    next_analysis: Nanos,
    /// When a request that waits at zero replicas is found.
    wake: Option<Nanos>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Nanos,
    kv_usage: f64,
    queue: f64,
}

/// What the analyser is told of the deployment.
#[derive(Clone, Copy, Debug)]
struct State {
    /// `status.replicas` of the deployment.
    current: u32,
    /// Replicas with metrics.
    reporting: u32,
    /// What the controller wanted last.
    desired: u32,
    /// Whether a request was completed within the retention period.
    is_used: bool,
}

/// What the analyser finds.
struct Analysis {
    not_saturated: usize,
    spare_kv: f64,
    spare_queue: f64,
}

impl WvaSaturation {
    pub(super) fn new(config: &WvaSaturationConfig, initial_replicas: u32) -> Self {
        WvaSaturation {
            config: config.clone(),
            target: initial_replicas,
            samples: Vec::new(),
            completed: (0, 0),
            next_scrape: 0,
            next_analysis: 0,
            wake: None,
        }
    }

    /// `CalculateSaturationTargets` for one variant, then the enforcer's rules
    /// of zero replicas, then the bounds of the HPA.
    fn decide(&mut self, kv_usage: &[f64], queue: &[f64], state: State) -> String {
        let (target, words) = self.saturation_target(kv_usage, queue, state);
        let is_idle = self.config.enable_scale_to_zero && !state.is_used;
        if is_idle && self.config.min_replicas == 0 {
            self.target = 0;
            return format!("no request in {}", Span(self.config.retention_period));
        }
        // `ensureMinimumReplicas`, and the HPA's own bounds.
        let least = self.config.min_replicas.max(1);
        self.target = target.clamp(least, self.config.max_replicas.max(least));
        words
    }

    fn saturation_target(&self, kv_usage: &[f64], queue: &[f64], state: State) -> (u32, String) {
        if let Some(words) = in_transition(state) {
            let waits_for_desired = state.desired != 0 && state.desired != state.current;
            let target = if waits_for_desired {
                state.desired
            } else {
                state.current
            };
            return (target, words);
        }
        let analysis = self.analyze(kv_usage, queue);
        if let Some(words) = self.scale_up_reason(&analysis) {
            return (state.reporting + 1, words);
        }
        let room = format!(
            "KV spare {:.3} and queue spare {:.1} of {} replicas",
            analysis.spare_kv, analysis.spare_queue, analysis.not_saturated
        );
        if state.reporting > 1 && self.is_scale_down_safe(&analysis) {
            return (
                state.reporting - 1,
                format!("{room} are enough for one less"),
            );
        }
        (state.reporting, format!("{room} are right"))
    }

    /// `AnalyzeModelSaturation`: the mean room of those that are not saturated.
    fn analyze(&self, kv_usage: &[f64], queue: &[f64]) -> Analysis {
        let (kv_threshold, queue_threshold) = (
            self.config.kv_cache_threshold,
            self.config.queue_length_threshold,
        );
        let (mut spare_kv, mut spare_queue, mut not_saturated) = (0.0, 0.0, 0);
        for (&kv, &queue) in kv_usage.iter().zip(queue) {
            if kv >= kv_threshold || queue >= queue_threshold {
                continue;
            }
            spare_kv += kv_threshold - kv;
            spare_queue += queue_threshold - queue;
            not_saturated += 1;
        }
        if not_saturated > 0 {
            let count = not_saturated as f64;
            // The mean of the variant, times its replicas, by all replicas, as
            // it is computed there: rounding may differ from the plain mean.
            spare_kv = spare_kv / count * count / count;
            spare_queue = spare_queue / count * count / count;
        }
        Analysis {
            not_saturated,
            spare_kv,
            spare_queue,
        }
    }

    /// `shouldScaleUp`, in its own words.
    fn scale_up_reason(&self, analysis: &Analysis) -> Option<String> {
        let (kv, kv_trigger) = (analysis.spare_kv, self.config.kv_spare_trigger);
        let (queue, queue_trigger) = (analysis.spare_queue, self.config.queue_spare_trigger);
        match (kv < kv_trigger, queue < queue_trigger) {
            (false, false) => None,
            (true, true) => Some(format!(
                "KV spare {kv:.3} < {kv_trigger:.3} and queue spare {queue:.1} < {queue_trigger:.1}"
            )),
            (true, false) => Some(format!("KV spare {kv:.3} < {kv_trigger:.3}")),
            (false, true) => Some(format!("queue spare {queue:.1} < {queue_trigger:.1}")),
        }
    }

    /// `isScaleDownSafe`: the load of all on one replica less.
    fn is_scale_down_safe(&self, analysis: &Analysis) -> bool {
        let count = analysis.not_saturated;
        if count < NON_SATURATED_MIN_FOR_SCALE_DOWN {
            return false;
        }
        let (kv_threshold, queue_threshold) = (
            self.config.kv_cache_threshold,
            self.config.queue_length_threshold,
        );
        let factor = count as f64 / (count - 1) as f64;
        let kv = (kv_threshold - analysis.spare_kv) * factor;
        let queue = (queue_threshold - analysis.spare_queue) * factor;
        kv_threshold - kv >= self.config.kv_spare_trigger
            && queue_threshold - queue >= self.config.queue_spare_trigger
    }

    /// Takes a sample of each replica, and forgets those that are gone.
    fn scrape(&mut self, now: Nanos, replicas: &[ReplicaLoad]) {
        let mut before = std::mem::take(&mut self.samples);
        for pod in replicas {
            let known = before.iter_mut().find(|(id, _)| *id == pod.replica);
            let mut samples =
                known.map_or_else(VecDeque::new, |(_, samples)| std::mem::take(samples));
            samples.push_back(Sample {
                at: now,
                kv_usage: kv_usage(pod),
                queue: f64::from(pod.waiting),
            });
            self.samples.push((pod.replica, samples));
        }
    }

    /// The maximum of each replica over the look-back, of those that are there
    /// and have been sampled.
    fn maxima(&mut self, now: Nanos, replicas: &[ReplicaLoad]) -> (Vec<f64>, Vec<f64>) {
        let (mut kv, mut queue) = (Vec::new(), Vec::new());
        for (id, samples) in &mut self.samples {
            // A range of Prometheus is open at its beginning.
            while samples.front().is_some_and(|s| s.at + LOOK_BACK <= now) {
                samples.pop_front();
            }
            if samples.is_empty() || !replicas.iter().any(|pod| pod.replica == *id) {
                continue;
            }
            kv.push(samples.iter().map(|s| s.kv_usage).fold(0.0, f64::max));
            queue.push(samples.iter().map(|s| s.queue).fold(0.0, f64::max));
        }
        (kv, queue)
    }

    fn analysis(&mut self, now: Nanos, seen: &Observation, replicas: &[ReplicaLoad]) -> String {
        let (kv_usage, queue) = self.maxima(now, replicas);
        let state = State {
            current: seen.ready + seen.starting,
            reporting: u32::try_from(kv_usage.len()).unwrap_or(u32::MAX),
            desired: self.target,
            is_used: self.completed.1 + self.config.retention_period > now,
        };
        if state.reporting == 0 {
            return "no replica has metrics".to_owned();
        }
        self.decide(&kv_usage, &queue, state)
    }

    /// `scalefromzero`: a request waits, so there has to be a replica.
    fn wake_up(&mut self) -> String {
        self.wake = None;
        self.target = self.config.min_replicas.max(1);
        "a request waits at 0 replicas".to_owned()
    }
}

impl Policy for WvaSaturation {
    #[inline]
    fn on_request(&mut self, now: Nanos) -> Option<Decision> {
        if self.target == 0 && self.wake.is_none() {
            self.wake = Some((now / ZERO_POLL + 1) * ZERO_POLL);
        }
        None
    }

    fn observe(
        &mut self,
        now: Nanos,
        deployment: &Observation,
        replicas: &[ReplicaLoad],
    ) -> Option<Decision> {
        let before = self.target;
        if now >= self.next_scrape {
            self.next_scrape = after(now, self.config.scrape_interval);
            self.scrape(now, replicas);
            let in_flight = deployment.running + deployment.queued;
            let completed = deployment.requests_received.saturating_sub(in_flight);
            if completed > self.completed.0 {
                self.completed = (completed, now);
            }
        }
        let mut words = None;
        if self.wake.is_some_and(|at| at <= now) {
            words = Some(self.wake_up());
        } else if now >= self.next_analysis && self.target > 0 {
            words = Some(self.analysis(now, deployment, replicas));
        }
        if now >= self.next_analysis {
            self.next_analysis = after(now, self.config.interval);
        }
        if self.target == 0 && deployment.queued > 0 {
            self.wake = Some(after(now, ZERO_POLL));
        }
        (self.target != before).then(|| Decision {
            target: self.target,
            reason: Reason::words(words.unwrap_or_default()),
        })
    }

    fn wants_each_replica(&self) -> bool {
        true
    }

    fn next_deadline(&self) -> Option<Nanos> {
        if self.target == 0 {
            return self.wake;
        }
        Some(self.next_scrape.min(self.next_analysis))
    }

    fn target(&self) -> u32 {
        self.target
    }

    fn look(&mut self, _: Nanos, row: &Row) -> Verdict {
        let list = |column| row.list(column).unwrap_or_default();
        let (kv_usage, queue) = (list("kv_usage"), list("queue"));
        let replicas = row.number("replicas").map_or(self.target, |n| n as u32);
        let state = State {
            current: replicas,
            reporting: u32::try_from(kv_usage.len()).unwrap_or(u32::MAX),
            desired: self.target,
            is_used: row.number("requests").is_none_or(|count| count > 0.0),
        };
        let words = if kv_usage.len() != queue.len() {
            "kv_usage and queue are of different replicas".to_owned()
        } else if self.target == 0 {
            self.look_at_zero(queue)
        } else if state.reporting == 0 {
            "no replica has metrics".to_owned()
        } else {
            self.decide(kv_usage, queue, state)
        };
        Verdict {
            desired: self.target,
            reason: Reason::words(words),
        }
    }
}

impl WvaSaturation {
    /// At zero replicas, what waits is the queue of a row.
    fn look_at_zero(&mut self, queue: &[f64]) -> String {
        if queue.iter().any(|&waiting| waiting > 0.0) {
            self.wake_up()
        } else {
            "nothing waits".to_owned()
        }
    }
}

/// Why nothing may change: replicas start or stop, so the metrics are not those
/// of what there will be.
fn in_transition(state: State) -> Option<String> {
    let State {
        current,
        reporting,
        desired,
        ..
    } = state;
    if desired != 0 && desired != current {
        Some(format!("in transition: {desired} desired, {current} there"))
    } else if reporting != current {
        Some(format!(
            "in transition: {reporting} of {current} report metrics"
        ))
    } else {
        None
    }
}

/// The next multiple of `period` after `now`.
fn after(now: Nanos, period: Nanos) -> Nanos {
    (now / period + 1) * period
}
