//! The policy `aibrix-apa`: AIBrix's own autoscaler, scaling strategy `APA`
//! (vllm-project/aibrix e3e10f9e).
//!
//! ```text
//! every 10 s:  mean over replicas -> mean over a window -> replicas x mean / target -> cooldown
//!                                    (window.rs)           within rates and bounds     (cooldown.rs)
//! ```
//!
//! A pod that does not answer yet counts as 0 in AIBrix (`fetchFromPod`), so each starting
//! replica does here. AIBrix never leaves zero: its strategy multiplies the
//! number of replicas. Here a request at zero starts one, and while none
//! is ready nothing is decided.

mod config;
mod cooldown;
mod window;

pub use config::{AibrixApaConfig, AibrixMetric, AibrixMetricSource};

use super::policy::Policy;
use super::reason::{Decimal, Span};
use super::trace::{Column, Row, Verdict};
use super::{Decision, Observation, Reason, ReplicaLoad};
use crate::time::{Nanos, SECOND};
use cooldown::Cooldown;
use window::Window;

/// `DefaultResyncInterval`.
const RESYNC_INTERVAL: Nanos = 10 * SECOND;

/// What a trace has for this policy. A row is one reconciliation.
pub(super) const COLUMNS: &[Column] = &[
    Column::required(
        "load",
        "the first of metricsSources at this instant, mean over the replicas",
    ),
    Column::required("ready", "replicas there are, starting ones included"),
    Column::optional("load_2", "the second of metricsSources; empty if it failed"),
    Column::optional("load_3", "the third of metricsSources; empty if it failed"),
];

/// The columns of the metrics, in the order of `metricsSources`.
const LOADS: [&str; 3] = ["load", "load_2", "load_3"];

/// AIBrix's autoscaler.
#[derive(Clone, Debug)]
pub(super) struct AibrixApa {
    config: AibrixApaConfig,
    metrics: Vec<Metric>,
    cooldown: Cooldown,
    target: u32,
    next_look: Nanos,
}

/// A metric with its window.
#[derive(Clone, Debug)]
struct Metric {
    source: AibrixMetricSource,
    window: Window,
}

/// What a metric calls for.
#[derive(Clone, Copy, Debug)]
struct Recommendation {
    source: AibrixMetricSource,
    average: f64,
    desired: i32,
}

impl AibrixApa {
    pub(super) fn new(config: &AibrixApaConfig, initial_replicas: u32) -> Self {
        let metric = |&source: &AibrixMetricSource| Metric {
            source,
            window: Window::new(config.observe_window()),
        };
        AibrixApa {
            metrics: config.metrics_sources.iter().map(metric).collect(),
            cooldown: Cooldown::new(config),
            config: config.clone(),
            target: initial_replicas,
            next_look: RESYNC_INTERVAL,
        }
    }

    /// One reconciliation (`computeScaleDecision`). `loads` are the means over
    /// the replicas, `None` for a metric that failed.
    fn reconcile(&mut self, now: Nanos, current: u32, loads: &[Option<f64>]) -> (u32, String) {
        let (min, max) = (self.config.min_replicas, self.config.max_replicas);
        if current == 0 && min != 0 {
            return (0, "scaling disabled: there are 0 replicas".to_owned());
        }
        if current > max {
            return (max, format!("at most {max} (maxReplicas)"));
        }
        if current < min {
            return (min, format!("at least {min} (minReplicas)"));
        }
        let count = i32::try_from(current).unwrap_or(i32::MAX);
        let Some(most) = self.recommend(now, count, loads) else {
            return (current, "all metrics failed".to_owned());
        };
        let cooled = self.cooldown.apply(now, most.desired, count);
        let desired = u32::try_from(cooled).unwrap_or(0).clamp(min, max);
        (desired, self.explain(count, most, cooled))
    }

    /// `ComputeDesiredReplicas`: of several metrics, the first that calls for most.
    fn recommend(
        &mut self,
        now: Nanos,
        current: i32,
        loads: &[Option<f64>],
    ) -> Option<Recommendation> {
        let mut most: Option<Recommendation> = None;
        for (metric, load) in self.metrics.iter_mut().zip(loads) {
            let Some(load) = *load else { continue };
            metric.window.record(now, load);
            let average = metric.window.average();
            let desired = apa(&self.config, current, average / metric.source.target_value);
            if most.is_none_or(|most| desired > most.desired) {
                most = Some(Recommendation {
                    source: metric.source,
                    average,
                    desired,
                });
            }
        }
        most
    }

    fn explain(&self, current: i32, most: Recommendation, cooled: i32) -> String {
        let Recommendation {
            source,
            average,
            desired,
        } = most;
        let name = source.target_metric.name();
        let window = Span(self.config.observe_window());
        let (average, target) = (Decimal(average), Decimal(source.target_value));
        let load = format!("{name} {average} over {window}, at {target} a replica");
        if desired == current {
            return format!("{load}; {desired} will do, within tolerance, rates and bounds");
        }
        if cooled == desired {
            return load;
        }
        let (name, window) = if desired > current {
            ("scale-up", self.config.scale_up_cooldown_window)
        } else {
            ("scale-down", self.config.scale_down_cooldown_window)
        };
        format!(
            "{load}; wants {desired}, {name}-cooldown-window of {}",
            Span(window)
        )
    }

    /// The mean of each metric over the replicas; a starting one has 0.
    fn loads(&self, replicas: &[ReplicaLoad], starting: u32) -> Vec<Option<f64>> {
        let count = replicas.len() as f64 + f64::from(starting);
        let mean = |metric: &Metric| {
            let of = |load: &ReplicaLoad| value(metric.source.target_metric, load);
            let sum = replicas.iter().fold(0.0, |sum, load| sum + of(load));
            Some(sum / count)
        };
        self.metrics.iter().map(mean).collect()
    }
}

/// What vLLM reports.
fn value(metric: AibrixMetric, load: &ReplicaLoad) -> f64 {
    match metric {
        AibrixMetric::GpuCacheUsagePerc => {
            f64::from(load.kv_blocks_used) / f64::from(load.kv_blocks.max(1))
        }
        AibrixMetric::NumRequestsRunning => f64::from(load.running),
        AibrixMetric::NumRequestsWaiting => f64::from(load.waiting),
    }
}

/// `computeTargetReplicas` and `applyConstraints` (`algorithm/apa.go`).
fn apa(config: &AibrixApaConfig, current: i32, usage: f64) -> i32 {
    let count = f64::from(current);
    let expected = (count * usage).ceil() as i32;
    let desired = if usage > 1.0 + config.scale_up_tolerance {
        expected.min((config.max_scale_up_rate * count).ceil() as i32)
    } else if usage < 1.0 - config.scale_down_tolerance {
        expected.max((count / config.max_scale_down_rate).floor() as i32)
    } else {
        current
    };
    let bound = |replicas: u32| i32::try_from(replicas).unwrap_or(i32::MAX);
    desired.clamp(bound(config.min_replicas), bound(config.max_replicas))
}

impl Policy for AibrixApa {
    #[inline]
    fn on_request(&mut self, _: Nanos) -> Option<Decision> {
        if self.target > 0 {
            return None;
        }
        self.target = self.config.min_replicas.max(1);
        Some(Decision {
            target: self.target,
            reason: Reason::WokenByRequest,
        })
    }

    fn observe(
        &mut self,
        now: Nanos,
        deployment: &Observation,
        replicas: &[ReplicaLoad],
    ) -> Option<Decision> {
        self.next_look = (now / RESYNC_INTERVAL + 1) * RESYNC_INTERVAL;
        if replicas.is_empty() {
            return None;
        }
        let loads = self.loads(replicas, deployment.starting);
        let (target, words) = self.reconcile(now, self.target, &loads);
        if target == self.target {
            return None;
        }
        self.target = target;
        Some(Decision {
            target,
            reason: Reason::words(words),
        })
    }

    fn wants_each_replica(&self) -> bool {
        true
    }

    fn next_deadline(&self) -> Option<Nanos> {
        Some(self.next_look)
    }

    fn target(&self) -> u32 {
        self.target
    }

    fn look(&mut self, now: Nanos, row: &Row) -> Verdict {
        let loads = LOADS.map(|name| row.number(name));
        let (desired, words) = self.reconcile(now, row.count("ready"), &loads);
        self.target = desired;
        Verdict {
            desired,
            reason: Reason::words(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_replicas: u32) -> AibrixApaConfig {
        AibrixApaConfig {
            min_replicas: 0,
            max_replicas,
            ..AibrixApaConfig::default()
        }
    }

    #[test]
    fn the_count_follows_the_share_of_the_target_within_rates() {
        let of = |current, usage| apa(&config(100), current, usage);
        assert_eq!((of(4, 1.1), of(4, 0.9)), (4, 4));
        assert_eq!((of(4, 1.2), of(4, 0.8)), (5, 4));
        // At most twice, at least half as many at once.
        assert_eq!((of(4, 9.0), of(4, 0.1)), (8, 2));
        assert_eq!((of(1, 0.1), of(1, 0.0)), (1, 0));
        assert_eq!(of(0, 5.0), 0);
        assert_eq!(apa(&config(6), 4, 9.0), 6);
    }

    #[test]
    fn a_request_at_zero_starts_one_which_is_awaited() {
        let mut policy = AibrixApa::new(&config(4), 0);
        let woken = policy.on_request(SECOND).expect("there is none");
        assert_eq!((woken.target, policy.on_request(SECOND)), (1, None));
        let starting = Observation {
            starting: 1,
            queued: 1,
            ..Observation::default()
        };
        assert_eq!(policy.observe(10 * SECOND, &starting, &[]), None);
        assert_eq!(policy.target(), 1);
    }

    #[test]
    fn starting_replicas_pull_the_mean_down() {
        let mut policy = AibrixApa::new(&config(8), 1);
        let full = ReplicaLoad {
            kv_blocks_used: 90,
            kv_blocks: 100,
            ..ReplicaLoad::default()
        };
        let observation = |starting| Observation {
            ready: 1,
            starting,
            ..Observation::default()
        };
        let first = policy
            .observe(10 * SECOND, &observation(0), &[full])
            .expect("0.9 is above 0.5");
        assert_eq!(first.target, 2);
        assert_eq!(
            first.reason.to_string(),
            "gpu_cache_usage_perc 0.9 over 3m, at 0.5 a replica"
        );
        assert_eq!(
            policy.observe(20 * SECOND, &observation(1), &[full]),
            Some(Decision {
                target: 3,
                reason: Reason::words("gpu_cache_usage_perc 0.675 over 3m, at 0.5 a replica")
            })
        );
    }
}
