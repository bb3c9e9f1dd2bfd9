//! Kubernetes' Horizontal Pod Autoscaler.
//!
//! ```text
//! each metric ── mean / target ──> replicas ─┐ most
//!  (replicas.rs)   tolerance                 v
//!             recommendation ──> stabilised ──> rate-limited ──> [min, max]
//!                                (behavior.rs)
//! ```
//!
//! It looks every 15 s, and holds no timer: a stabilisation window is a memory of
//! what was recommended. It never goes to zero, and does nothing at zero.
//! Source: `pkg/controller/podautoscaler/{horizontal,replica_calculator}.go` of
//! Kubernetes 1.33.

mod behavior;
mod config;
mod replicas;

pub use config::{
    HpaBehavior, HpaConfig, HpaMetric, Measure, MetricSource, ScalingPolicy, ScalingPolicyKind,
    ScalingRules, SelectPolicy,
};

use std::fmt::Write;

use super::policy::Policy;
use super::reason::{Decimal, Span};
use super::trace::{Column, Row, Verdict};
use super::{Decision, Observation, Reason, ReplicaLoad};
use crate::time::Nanos;
use behavior::{History, Normalized, Scale};
use replicas::{Sample, Tolerances, proposal};

/// What a row holds: what the controller finds when it looks.
pub(super) const COLUMNS: &[Column] = &[
    Column::required(
        "load",
        "the first metric: its sum over the replicas that have it, or its one value",
    ),
    Column::required("ready", "replicas that have the metric"),
    Column::optional("unready", "replicas that are not running yet (0)"),
    Column::optional("missing", "replicas that run, without the metric (0)"),
    Column::optional(
        "replicas",
        "replicas of the scale target; left out: what was decided last",
    ),
    Column::optional("concurrent_requests", "that metric, if it is a further one"),
    Column::optional("queue", "that metric, if it is a further one"),
    Column::optional("kv_usage", "that metric, if it is a further one"),
];

/// The controller, for one deployment.
#[derive(Clone, Debug)]
pub(super) struct Hpa {
    config: HpaConfig,
    history: History,
    target: u32,
    next: Nanos,
}

/// What the controller finds when it looks.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// `spec.replicas` of the scale target.
    pub(super) replicas: u32,
    /// One for each metric; `None` if it cannot be had.
    samples: Vec<Option<Sample>>,
}

/// How many replicas the metrics call for, and which of them does.
struct Called {
    replicas: u32,
    metric: usize,
}

impl Hpa {
    pub(super) fn new(config: &HpaConfig, initial_replicas: u32) -> Self {
        Hpa {
            config: config.clone(),
            history: History::default(),
            target: initial_replicas,
            next: 0,
        }
    }

    /// The replica count was changed by someone else.
    pub(super) fn scaled_to(&mut self, replicas: u32) {
        self.target = replicas;
    }

    /// The first metric as one value for all.
    pub(super) fn external_load(&self, seen: &Observation, replicas: &[ReplicaLoad]) -> f64 {
        external(self.config.metrics[0].measure, seen, replicas) as f64 / 1000.0
    }

    fn wants_pods(&self) -> bool {
        let mut metrics = self.config.metrics.iter();
        metrics.any(|metric| metric.source == MetricSource::Pods)
    }

    /// What there is to see of a deployment. A replica that starts runs long
    /// before it serves metrics, as loading a model takes longer than pulling
    /// an image that is there: it is one without the metric.
    pub(super) fn look_at(&self, seen: &Observation, replicas: &[ReplicaLoad]) -> Look {
        let pods = seen.ready + seen.starting;
        let sample = |metric: &HpaMetric| match metric.source {
            MetricSource::External => Sample::External {
                total_milli: external(metric.measure, seen, replicas),
                pods,
            },
            MetricSource::Pods => Sample::Pods {
                total_milli: replicas.iter().map(|pod| of_pod(metric.measure, pod)).sum(),
                ready: seen.ready,
                unready: 0,
                missing: seen.starting,
            },
        };
        Look {
            replicas: self.target,
            samples: self.config.metrics.iter().map(sample).map(Some).collect(),
        }
    }

    /// `reconcileAutoscaler`.
    pub(super) fn sync(&mut self, now: Nanos, look: &Look) -> Verdict {
        let current = look.replicas;
        self.target = current;
        self.history.begin(now, signed(current));
        let (min, max) = (self.config.min_replicas, self.config.max_replicas);
        let words = if current == 0 && min != 0 {
            "disabled at 0 replicas".to_owned()
        } else if current > max {
            self.rescale(now, max);
            format!("{current} replicas are above maxReplicas {max}")
        } else if current < min {
            self.rescale(now, min);
            format!("{current} replicas are below minReplicas {min}")
        } else {
            match self.called_for(look) {
                Some(called) => self.follow(now, look, &called),
                None => "a metric is missing".to_owned(),
            }
        };
        Verdict {
            desired: self.target,
            reason: Reason::words(words),
        }
    }

    /// `computeReplicasForMetrics`: the most that any metric calls for. If one
    /// cannot be had, the others may only add replicas.
    fn called_for(&self, look: &Look) -> Option<Called> {
        let mut best: Option<Called> = None;
        let mut is_partial = false;
        for (index, metric) in self.config.metrics.iter().enumerate() {
            let sample = look.samples.get(index).copied().flatten();
            let tolerances = self.tolerances();
            let target = metric.average_value_milli;
            let proposed = sample.and_then(|s| proposal(s, look.replicas, target, tolerances));
            let Some(replicas) = proposed else {
                is_partial = true;
                continue;
            };
            if best.as_ref().is_none_or(|best| replicas > best.replicas) {
                best = Some(Called {
                    replicas,
                    metric: index,
                });
            }
        }
        best.filter(|best| !is_partial || best.replicas >= look.replicas)
    }

    /// `tolerancesForHpa`.
    fn tolerances(&self) -> Tolerances {
        let flag = self.config.tolerance;
        let behavior = self.config.behavior.as_ref();
        let own = |rules: &ScalingRules| rules.tolerance.unwrap_or(flag);
        Tolerances {
            scale_down: behavior.map_or(flag, |behavior| own(&behavior.scale_down)),
            scale_up: behavior.map_or(flag, |behavior| own(&behavior.scale_up)),
        }
    }

    /// From what the metrics call for to what is done, in words.
    fn follow(&mut self, now: Nanos, look: &Look, called: &Called) -> String {
        let current = look.replicas;
        let scale = Scale {
            current: signed(current),
            min: signed(self.config.min_replicas),
            max: signed(self.config.max_replicas),
        };
        let recommended = signed(called.replicas);
        let window = self.config.downscale_stabilization;
        let normalized = match &self.config.behavior {
            None => self.history.normalize(now, recommended, scale, window),
            Some(behavior) => {
                self.history
                    .normalize_with(now, recommended, scale, behavior, window)
            }
        };
        let words = self.words(look, called, normalized);
        let desired = normalized.desired.max(0).unsigned_abs();
        if desired != current {
            self.rescale(now, desired);
        }
        words
    }

    fn rescale(&mut self, now: Nanos, desired: u32) {
        if let Some(behavior) = &self.config.behavior {
            let (from, to) = (signed(self.target), signed(desired));
            self.history.store(now, from, to, behavior);
        }
        self.target = desired;
    }

    /// Such as "queue 41.5 a replica / 20 calls for 3; the highest of 5m is 4".
    fn words(&self, look: &Look, called: &Called, normalized: Normalized) -> String {
        let metric = &self.config.metrics[called.metric];
        let (name, target) = (metric.measure.name(), decimal(metric.average_value_milli));
        let mut words = match look.samples[called.metric] {
            Some(Sample::Pods {
                total_milli, ready, ..
            }) => {
                let mean = Decimal(total_milli as f64 / f64::from(ready) / 1000.0);
                format!("{name} {mean} a replica / {target}")
            }
            Some(Sample::External { total_milli, .. }) => {
                format!(
                    "{name} {} / {target} a replica",
                    Decimal(total_milli as f64 / 1000.0)
                )
            }
            None => name.to_owned(),
        };
        let Normalized {
            stabilized,
            desired,
        } = normalized;
        let recommended = signed(called.replicas);
        // Writing to a string cannot fail.
        let _ = write!(words, " calls for {recommended}");
        if stabilized != recommended {
            let (kind, window) = self.window_of(stabilized > recommended);
            let _ = write!(words, "; the {kind} of {} is {stabilized}", Span(window));
        }
        if desired != stabilized {
            let _ = write!(words, "; limited to {desired}");
        }
        words
    }

    /// Which window stands in the way, to fewer replicas or to more.
    fn window_of(&self, to_fewer: bool) -> (&'static str, Nanos) {
        let flag = self.config.downscale_stabilization;
        let seconds = self.config.behavior.as_ref().and_then(|behavior| {
            let rules = if to_fewer {
                &behavior.scale_down
            } else {
                &behavior.scale_up
            };
            rules.stabilization_window_seconds
        });
        let window = seconds.map_or(flag, |s| u64::from(s) * crate::time::SECOND);
        (if to_fewer { "highest" } else { "lowest" }, window)
    }

    /// What a row holds, of a scale target with so many replicas.
    pub(super) fn look_of(&self, row: &Row, replicas: u32) -> Look {
        let count = |column| row.number(column).unwrap_or(0.0) as u32;
        let sample = |(index, metric): (usize, &HpaMetric)| {
            let column = match (index, metric.measure) {
                (0, _) => "load",
                (_, Measure::ConcurrentRequests) => "concurrent_requests",
                (_, Measure::Queue) => "queue",
                (_, Measure::KvUsage) => "kv_usage",
            };
            let total_milli = milli(row.number(column)?);
            Some(match metric.source {
                MetricSource::External => Sample::External {
                    total_milli,
                    pods: replicas,
                },
                MetricSource::Pods => Sample::Pods {
                    total_milli,
                    ready: row.count("ready"),
                    unready: count("unready"),
                    missing: count("missing"),
                },
            })
        };
        let metrics = self.config.metrics.iter().enumerate();
        Look {
            replicas,
            samples: metrics.map(sample).collect(),
        }
    }
}

impl Policy for Hpa {
    fn observe(
        &mut self,
        now: Nanos,
        deployment: &Observation,
        replicas: &[ReplicaLoad],
    ) -> Option<Decision> {
        if now < self.next {
            return None;
        }
        self.next = (now / self.config.sync_period + 1) * self.config.sync_period;
        let before = self.target;
        let look = self.look_at(deployment, replicas);
        let verdict = self.sync(now, &look);
        (verdict.desired != before).then_some(Decision {
            target: verdict.desired,
            reason: verdict.reason,
        })
    }

    fn wants_each_replica(&self) -> bool {
        self.wants_pods()
    }

    fn next_deadline(&self) -> Option<Nanos> {
        Some(self.next)
    }

    fn target(&self) -> u32 {
        self.target
    }

    fn look(&mut self, now: Nanos, row: &Row) -> Verdict {
        let replicas = row.number("replicas").map_or(self.target, |n| n as u32);
        let look = self.look_of(row, replicas);
        self.sync(now, &look)
    }
}

fn external(measure: Measure, seen: &Observation, replicas: &[ReplicaLoad]) -> i64 {
    let count = match measure {
        Measure::ConcurrentRequests => seen.running + seen.queued,
        Measure::Queue => seen.queued,
        Measure::KvUsage => return replicas.iter().map(|pod| of_pod(measure, pod)).sum(),
    };
    i64::try_from(count)
        .unwrap_or(i64::MAX)
        .saturating_mul(1000)
}

fn of_pod(measure: Measure, pod: &ReplicaLoad) -> i64 {
    match measure {
        Measure::ConcurrentRequests => 1000 * (i64::from(pod.running) + i64::from(pod.waiting)),
        Measure::Queue => 1000 * i64::from(pod.waiting),
        Measure::KvUsage => milli(kv_usage(pod)),
    }
}

/// The share of a replica's KV blocks in use.
pub(super) fn kv_usage(pod: &ReplicaLoad) -> f64 {
    if pod.kv_blocks == 0 {
        return 0.0;
    }
    f64::from(pod.kv_blocks_used) / f64::from(pod.kv_blocks)
}

/// As the adapter between Prometheus and the controller has it: rounded down.
fn milli(value: f64) -> i64 {
    (value * 1000.0) as i64
}

fn decimal(milli: u32) -> Decimal {
    Decimal(f64::from(milli) / 1000.0)
}

fn signed(replicas: u32) -> i32 {
    i32::try_from(replicas).unwrap_or(i32::MAX)
}
