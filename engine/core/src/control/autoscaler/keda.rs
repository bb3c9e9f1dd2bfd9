//! KEDA: an HPA between 1 and many, and itself between 0 and 1.
//!
//! ```text
//!            every 30 s: is the metric above its activation threshold?
//!   0 ─────────────────── yes ───────────────────> max(1, min)
//!   0 <── not for the cooldown period (300 s) ──── n
//!                                                  n <── HPA, every 15 s ──> m
//! ```
//!
//! Source: `pkg/scaling/executor/scale_scaledobjects.go` of KEDA (main of August
//! 2026), and the HPA that it makes of a `ScaledObject`.

use super::hpa::{Hpa, HpaBehavior, HpaConfig, HpaMetric, Measure, MetricSource};
use super::policy::Policy;
use super::reason::{Decimal, Span};
use super::trace::{Column, Row, Verdict};
use super::{ConfigError, Decision, Observation, Reason, ReplicaLoad};
use crate::time::{MINUTE, Nanos, SECOND};

/// What a row holds. A row is a look of KEDA, of the HPA, or of both, as their
/// periods have it; between their looks nothing changes.
pub(super) const COLUMNS: &[Column] = &[
    Column::required("load", "the metric"),
    Column::optional(
        "replicas",
        "replicas of the scale target; left out: what was decided last",
    ),
];

/// A `ScaledObject` with one trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct KedaConfig {
    /// `minReplicaCount`.
    pub min_replica_count: u32,
    /// `maxReplicaCount`.
    pub max_replica_count: u32,
    /// `idleReplicaCount`: how many there are while the trigger is not active.
    pub idle_replica_count: Option<u32>,
    /// `pollingInterval`.
    pub polling_interval: Nanos,
    /// `cooldownPeriod`.
    pub cooldown_period: Nanos,
    /// `initialCooldownPeriod`.
    pub initial_cooldown_period: Nanos,
    /// What the trigger measures.
    pub measure: Measure,
    /// `threshold` of the trigger: the target a replica, in thousandths.
    pub threshold_milli: u32,
    /// `activationThreshold` of the trigger: active is above it.
    pub activation_threshold: f64,
    /// `advanced.horizontalPodAutoscalerConfig.behavior`.
    pub behavior: Option<HpaBehavior>,
    /// The flags of the HPA's controller; its other fields are KEDA's to fill in.
    pub hpa: HpaConfig,
}

impl Default for KedaConfig {
    fn default() -> Self {
        let hpa = HpaConfig::default();
        KedaConfig {
            min_replica_count: 0,
            // `defaultHPAMaxReplicas`.
            max_replica_count: 100,
            idle_replica_count: None,
            // `defaultPollingInterval`, `defaultCooldownPeriod`, `defaultInitialCooldownPeriod`.
            polling_interval: 30 * SECOND,
            cooldown_period: 5 * MINUTE,
            initial_cooldown_period: 0,
            measure: Measure::ConcurrentRequests,
            threshold_milli: hpa.metrics[0].average_value_milli,
            activation_threshold: 0.0,
            behavior: None,
            hpa,
        }
    }
}

impl KedaConfig {
    /// `CheckReplicaCountBoundsAreValid`, and what the HPA's own validation says.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        // A minimum of 0 is compared as the HPA's, 1.
        let (min, max) = (self.min_replica_count.max(1), self.max_replica_count);
        if min > max {
            return Err(ConfigError::Parameter {
                name: "minReplicaCount",
                expected: "less than maxReplicaCount",
                value: format!("{min} > {max}"),
            });
        }
        if let Some(idle) = self.idle_replica_count
            && idle >= self.min_replica_count
        {
            return Err(ConfigError::Parameter {
                name: "idleReplicaCount",
                expected: "less than minReplicaCount",
                value: format!("{idle} >= {}", self.min_replica_count),
            });
        }
        if self.polling_interval == 0 {
            return Err(ConfigError::Parameter {
                name: "pollingInterval",
                expected: "greater than 0",
                value: "0".to_owned(),
            });
        }
        self.hpa().validate_but_min()
    }

    /// The HPA that KEDA makes.
    fn hpa(&self) -> HpaConfig {
        HpaConfig {
            min_replicas: self.min_replica_count.max(1),
            max_replicas: self.max_replica_count,
            // KEDA's metrics server has one value for all, whatever it measures.
            metrics: vec![HpaMetric {
                measure: self.measure,
                source: MetricSource::External,
                average_value_milli: self.threshold_milli,
            }],
            behavior: self.behavior.clone(),
            ..self.hpa.clone()
        }
    }
}

/// KEDA's executor with its HPA, for one deployment.
#[derive(Clone, Debug)]
pub(super) struct Keda {
    config: KedaConfig,
    hpa: Hpa,
    target: u32,
    /// When a poll last found the trigger active.
    last_active: Option<Nanos>,
    next_poll: Nanos,
    next_sync: Nanos,
}

impl Keda {
    pub(super) fn new(config: &KedaConfig, initial_replicas: u32) -> Self {
        Keda {
            config: config.clone(),
            hpa: Hpa::new(&config.hpa(), initial_replicas),
            target: initial_replicas,
            last_active: None,
            next_poll: 0,
            next_sync: 0,
        }
    }

    /// `RequestScale`, with what it did, if anything.
    fn poll(&mut self, now: Nanos, load: f64) -> Option<String> {
        let (min, idle) = (
            self.config.min_replica_count,
            self.config.idle_replica_count,
        );
        let current = self.target;
        if load > self.config.activation_threshold {
            // The time counts where it did not have to scale, too.
            self.last_active = Some(now);
            if current > 0 && (idle.is_none() || current >= min) {
                return None;
            }
            self.target = min.max(1);
            let name = self.config.measure.name();
            return Some(format!("active: {name} {}", Decimal(load)));
        }
        let goes_idle = idle.is_some_and(|idle| current > idle) || (current > 0 && min == 0);
        if goes_idle {
            return self.go_idle(now);
        }
        if idle.is_none() && current < min {
            self.target = min;
            return Some(format!("below minReplicaCount {min}"));
        }
        None
    }

    /// `scaleToZeroOrIdle`: only after the cooldown period has passed, strictly.
    fn go_idle(&mut self, now: Nanos) -> Option<String> {
        // A `ScaledObject` that was never active was created at time 0.
        let (since, period) = match self.last_active {
            Some(at) => (at, self.config.cooldown_period),
            None => (0, self.config.initial_cooldown_period),
        };
        if since.saturating_add(period) >= now {
            return None;
        }
        let floor = self.config.min_replica_count;
        self.target = self.config.idle_replica_count.unwrap_or(floor);
        Some(format!("not active for {}", Span(now - since)))
    }

    /// What is due, in the order of a poll and then a look of the HPA, which
    /// takes what the poll made of the replica count for granted.
    fn act(
        &mut self,
        now: Nanos,
        load: f64,
        sync: impl FnOnce(&mut Hpa) -> Verdict,
    ) -> Option<String> {
        let mut polled = None;
        if now >= self.next_poll {
            self.next_poll = after(now, self.config.polling_interval);
            polled = self.poll(now, load);
        }
        self.hpa.scaled_to(self.target);
        if now >= self.next_sync {
            self.next_sync = after(now, self.config.hpa.sync_period);
            let before = self.target;
            let verdict = sync(&mut self.hpa);
            self.target = verdict.desired;
            if self.target != before || polled.is_none() {
                return Some(verdict.reason.to_string());
            }
        }
        polled
    }
}

impl Policy for Keda {
    fn observe(
        &mut self,
        now: Nanos,
        deployment: &Observation,
        replicas: &[ReplicaLoad],
    ) -> Option<Decision> {
        let before = self.target;
        let load = self.hpa.external_load(deployment, replicas);
        let words = self.act(now, load, |hpa| {
            let look = hpa.look_at(deployment, replicas);
            hpa.sync(now, &look)
        })?;
        (self.target != before).then(|| Decision {
            target: self.target,
            reason: Reason::words(words),
        })
    }

    fn wants_each_replica(&self) -> bool {
        self.config.measure == Measure::KvUsage
    }

    fn next_deadline(&self) -> Option<Nanos> {
        Some(self.next_poll.min(self.next_sync))
    }

    fn target(&self) -> u32 {
        self.target
    }

    fn look(&mut self, now: Nanos, row: &Row) -> Verdict {
        self.target = row.number("replicas").map_or(self.target, |n| n as u32);
        let words = self.act(now, row.required("load"), |hpa| {
            let look = hpa.look_of(row, hpa.target());
            hpa.sync(now, &look)
        });
        let words = words.unwrap_or_else(|| "between two looks".to_owned());
        Verdict {
            desired: self.target,
            reason: Reason::words(words),
        }
    }
}

/// The next multiple of `period` after `now`.
fn after(now: Nanos, period: Nanos) -> Nanos {
    (now / period + 1) * period
}
