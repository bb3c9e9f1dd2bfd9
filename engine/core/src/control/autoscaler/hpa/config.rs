//! The parameters of Kubernetes' HPA, with its names, and what its API server refuses.

use super::super::ConfigError;
use crate::time::{MINUTE, Nanos, SECOND};

/// The longest stabilisation window (`MaxStabilizationWindowSeconds`).
const STABILIZATION_WINDOW_SECONDS_MAX: u32 = 3600;
/// The longest period of a scaling policy (`MaxPeriodSeconds`).
const PERIOD_SECONDS_MAX: u32 = 1800;

/// A `HorizontalPodAutoscaler`, and the flags of the controller that runs it.
#[derive(Clone, Debug, PartialEq)]
pub struct HpaConfig {
    /// `minReplicas`; 0 is behind a feature gate, and refused.
    pub min_replicas: u32,
    /// `maxReplicas`.
    pub max_replicas: u32,
    /// `metrics`: the one that calls for most replicas wins.
    pub metrics: Vec<HpaMetric>,
    /// `behavior`; without it, the rules from before there was such a field.
    pub behavior: Option<HpaBehavior>,
    /// `--horizontal-pod-autoscaler-sync-period`: the time between two looks.
    pub sync_period: Nanos,
    /// `--horizontal-pod-autoscaler-tolerance`: how far from 1 the ratio of
    /// metric and target may be without an action.
    pub tolerance: f64,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`: the window of
    /// `scaleDown` where it has none.
    pub downscale_stabilization: Nanos,
}

/// One metric with a target of type `AverageValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaMetric {
    /// What is measured.
    pub measure: Measure,
    /// Where the metric comes from.
    pub source: MetricSource,
    /// The target for the mean over replicas, in thousandths, as the controller has it.
    pub average_value_milli: u32,
}

/// What an LLM deployment can be scaled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Requests received and not ended.
    ConcurrentRequests,
    /// Requests that wait for a place in a batch (vLLM's `num_requests_waiting`).
    Queue,
    /// Share of KV blocks in use (vLLM's `kv_cache_usage_perc`).
    KvUsage,
}

/// The `type` of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricSource {
    /// A value of each pod. A pod that starts has none, which the controller
    /// reckons with. What no pod has, it does not see.
    Pods,
    /// One value for all, as a gateway has it.
    External,
}

/// `behavior`.
#[derive(Clone, Debug, PartialEq)]
pub struct HpaBehavior {
    /// `scaleUp`.
    pub scale_up: ScalingRules,
    /// `scaleDown`.
    pub scale_down: ScalingRules,
}

/// How fast to go in one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalingRules {
    /// `stabilizationWindowSeconds`; for `scaleDown`, `None` is the controller's flag.
    pub stabilization_window_seconds: Option<u32>,
    /// `selectPolicy`.
    pub select_policy: SelectPolicy,
    /// `policies`.
    pub policies: Vec<ScalingPolicy>,
    /// `tolerance`; `None` is the controller's flag.
    pub tolerance: Option<f64>,
}

/// Which of the policies holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectPolicy {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// No change in this direction.
    Disabled,
}

/// How much may change in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalingPolicy {
    /// `type`.
    pub kind: ScalingPolicyKind,
    /// `value`: replicas or percent.
    pub value: u32,
    /// `periodSeconds`.
    pub period_seconds: u32,
}

/// What the value of a scaling policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalingPolicyKind {
    /// Replicas.
    Pods,
    /// Percent of the replicas at the beginning of the period.
    Percent,
}

impl Measure {
    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Measure::ConcurrentRequests => "concurrent-requests",
            Measure::Queue => "queue",
            Measure::KvUsage => "kv-usage",
        }
    }

    /// Where such a metric usually comes from: only a gateway knows all
    /// requests, and a replica its own queue and KV cache.
    #[must_use]
    pub fn usual_source(self) -> MetricSource {
        match self {
            Measure::ConcurrentRequests => MetricSource::External,
            Measure::Queue | Measure::KvUsage => MetricSource::Pods,
        }
    }
}

impl Default for HpaConfig {
    fn default() -> Self {
        HpaConfig {
            // SetDefaults_HorizontalPodAutoscaler.
            min_replicas: 1,
            // It has to be given; a choice for those who build a config in code.
            max_replicas: 10,
            // The default is 80 % of a CPU, which says nothing of an LLM. Ours
            // is about 80 % of vLLM's default batch of 256.
            metrics: vec![HpaMetric {
                measure: Measure::ConcurrentRequests,
                source: MetricSource::External,
                average_value_milli: 200_000,
            }],
            behavior: None,
            // RecommendedDefaultHPAControllerConfiguration has these three.
            sync_period: 15 * SECOND,
            tolerance: 0.1,
            downscale_stabilization: 5 * MINUTE,
        }
    }
}

impl ScalingRules {
    /// `defaultHPAScaleUpRules`: at once, by 4 or to double in 15 s, whichever is more.
    #[must_use]
    pub fn scale_up() -> Self {
        ScalingRules {
            stabilization_window_seconds: Some(0),
            select_policy: SelectPolicy::Max,
            policies: vec![
                ScalingPolicy {
                    kind: ScalingPolicyKind::Pods,
                    value: 4,
                    period_seconds: 15,
                },
                ScalingPolicy {
                    kind: ScalingPolicyKind::Percent,
                    value: 100,
                    period_seconds: 15,
                },
            ],
            tolerance: None,
        }
    }

    /// `defaultHPAScaleDownRules`: to what the whole window allows, at once.
    #[must_use]
    pub fn scale_down() -> Self {
        ScalingRules {
            stabilization_window_seconds: None,
            select_policy: SelectPolicy::Max,
            policies: vec![ScalingPolicy {
                kind: ScalingPolicyKind::Percent,
                value: 100,
                period_seconds: 15,
            }],
            tolerance: None,
        }
    }
}

impl HpaConfig {
    /// `validateHorizontalPodAutoscalerSpec`.
    pub(in super::super) fn validate(&self) -> Result<(), ConfigError> {
        if self.min_replicas < 1 {
            let expected = "greater than or equal to 1";
            return Err(refused("minReplicas", expected, self.min_replicas));
        }
        self.validate_but_min()
    }

    /// What holds, too, for the HPA that KEDA makes.
    pub(in super::super) fn validate_but_min(&self) -> Result<(), ConfigError> {
        let (min, max) = (self.min_replicas, self.max_replicas);
        if max < 1 {
            return Err(refused("maxReplicas", "greater than 0", max));
        }
        if max < min {
            let expected = "greater than or equal to `minReplicas`";
            return Err(refused("maxReplicas", expected, format!("{max} < {min}")));
        }
        if self.metrics.is_empty() {
            return Err(refused("metrics", "at least one metric", "none"));
        }
        if self
            .metrics
            .iter()
            .any(|each| each.average_value_milli == 0)
        {
            return Err(refused("averageValue", "positive", 0));
        }
        if self.sync_period == 0 {
            let name = "horizontal-pod-autoscaler-sync-period";
            return Err(refused(name, "greater than 0s", "0s"));
        }
        tolerance(Some(self.tolerance))?;
        let Some(behavior) = &self.behavior else {
            return Ok(());
        };
        behavior.scale_up.validate()?;
        behavior.scale_down.validate()
    }
}

impl ScalingRules {
    /// `validateScalingRules`.
    fn validate(&self) -> Result<(), ConfigError> {
        let window = self.stabilization_window_seconds.unwrap_or(0);
        if window > STABILIZATION_WINDOW_SECONDS_MAX {
            let expected = "less than or equal to 3600";
            return Err(refused("stabilizationWindowSeconds", expected, window));
        }
        tolerance(self.tolerance)?;
        if self.policies.is_empty() {
            let expected = "at least one policy, as it \"must specify at least one Policy\"";
            return Err(refused("policies", expected, "none"));
        }
        self.policies.iter().try_for_each(ScalingPolicy::validate)
    }
}

impl ScalingPolicy {
    /// `validateScalingPolicy`.
    fn validate(&self) -> Result<(), ConfigError> {
        if self.value == 0 {
            return Err(refused("value", "greater than zero", 0));
        }
        if self.period_seconds == 0 {
            return Err(refused("periodSeconds", "greater than zero", 0));
        }
        if self.period_seconds > PERIOD_SECONDS_MAX {
            let expected = "less than or equal to 1800";
            return Err(refused("periodSeconds", expected, self.period_seconds));
        }
        Ok(())
    }
}

fn tolerance(tolerance: Option<f64>) -> Result<(), ConfigError> {
    match tolerance {
        Some(value) if !(value >= 0.0 && value.is_finite()) => {
            Err(refused("tolerance", "greater than or equal to zero", value))
        }
        _ => Ok(()),
    }
}

fn refused(
    name: &'static str,
    expected: &'static str,
    value: impl std::fmt::Display,
) -> ConfigError {
    ConfigError::Parameter {
        name,
        expected,
        value: value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(edit: impl FnOnce(&mut HpaConfig)) -> String {
        let mut config = HpaConfig::default();
        edit(&mut config);
        config.validate().unwrap_err().to_string()
    }

    fn up(edit: impl FnOnce(&mut ScalingRules)) -> String {
        let mut scale_up = ScalingRules::scale_up();
        edit(&mut scale_up);
        let scale_down = ScalingRules::scale_down();
        let behavior = HpaBehavior {
            scale_up,
            scale_down,
        };
        error(|config| config.behavior = Some(behavior))
    }

    #[test]
    fn the_defaults_are_valid_with_and_without_behavior() {
        let mut config = HpaConfig::default();
        assert_eq!(config.validate(), Ok(()));
        config.behavior = Some(HpaBehavior {
            scale_up: ScalingRules::scale_up(),
            scale_down: ScalingRules::scale_down(),
        });
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn what_the_api_server_refuses_is_refused_with_its_bound() {
        assert_eq!(
            error(|config| config.min_replicas = 0),
            "minReplicas must be greater than or equal to 1: 0"
        );
        assert_eq!(
            error(|config| (config.min_replicas, config.max_replicas) = (3, 2)),
            "maxReplicas must be greater than or equal to `minReplicas`: 2 < 3"
        );
        assert_eq!(
            error(|config| config.metrics[0].average_value_milli = 0),
            "averageValue must be positive: 0"
        );
        assert_eq!(
            error(|config| config.tolerance = -0.1),
            "tolerance must be greater than or equal to zero: -0.1"
        );
        assert_eq!(
            up(|rules| rules.stabilization_window_seconds = Some(3601)),
            "stabilizationWindowSeconds must be less than or equal to 3600: 3601"
        );
        assert_eq!(
            up(|rules| rules.policies[0].period_seconds = 1801),
            "periodSeconds must be less than or equal to 1800: 1801"
        );
        assert_eq!(
            up(|rules| rules.policies[1].value = 0),
            "value must be greater than zero: 0"
        );
        assert!(up(|rules| rules.policies.clear()).starts_with("policies must be at least one"));
    }
}
