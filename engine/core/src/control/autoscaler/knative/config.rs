//! The parameters of the policy, by the names that Knative gives them in its
//! ConfigMap `config-autoscaler` and in the annotations of a revision.

use super::super::ConfigError;
use crate::time::{HOUR, MINUTE, Nanos, SECOND};

/// The smallest target there is (`autoscaling.TargetMin`).
const TARGET_MIN: f64 = 0.01;

/// What an instance should have a share of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnativeMetric {
    /// Requests in flight.
    Concurrency,
    /// Requests a second.
    Rps,
}

/// How the seconds of a window become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricAggregation {
    /// Their mean.
    Linear,
    /// Their mean with weights that fall with age.
    WeightedExponential,
}

/// The parameters of Knative's autoscaler (knative/serving 98e5ef90). Where a
/// ConfigMap key and an annotation are about the same, both their bounds hold.
#[derive(Clone, Debug, PartialEq)]
pub struct KnativeKpaConfig {
    /// What is measured.
    pub metric: KnativeMetric,
    /// How a window becomes one number.
    pub metric_aggregation_algorithm: MetricAggregation,
    /// Requests in flight that an instance can have.
    pub container_concurrency_target_default: f64,
    /// The share of them it should have, in percent; up to 1 it is a fraction.
    pub container_concurrency_target_percentage: f64,
    /// Requests a second that an instance can have.
    pub requests_per_second_target_default: f64,
    /// What an instance can have of either metric, in place of the defaults.
    pub target: Option<f64>,
    /// The share of it that it should have, in percent, in place of the default.
    pub target_utilization_percentage: Option<f64>,
    /// Requests at once that must find room, or the activator stays in the path; -1 is any number.
    pub target_burst_capacity: f64,
    /// The window of the usual decisions.
    pub stable_window: Nanos,
    /// The window of decisions in panic, in percent of the stable window.
    pub panic_window_percentage: f64,
    /// From what share of the ready instances' capacity on there is panic, in percent.
    pub panic_threshold_percentage: f64,
    /// At most this many times the ready instances are wanted.
    pub max_scale_up_rate: f64,
    /// At least the ready instances divided by this are wanted.
    pub max_scale_down_rate: f64,
    /// Fewest instances.
    pub min_scale: u32,
    /// Most instances; 0 is unlimited.
    pub max_scale: u32,
    /// The most that `max_scale` may be; 0 is unlimited.
    pub max_scale_limit: u32,
    /// Instances of a new revision, which it must reach once.
    pub initial_scale: u32,
    /// Whether `initial_scale` may be 0.
    pub allow_zero_initial_scale: bool,
    /// Fewest instances when there are any.
    pub activation_scale: Option<u32>,
    /// Whether the last instance may go.
    pub enable_scale_to_zero: bool,
    /// How long the activator must be in the path before the last instance goes.
    pub scale_to_zero_grace_period: Nanos,
    /// How long the last instance stays after it is inactive.
    pub scale_to_zero_pod_retention_period: Nanos,
    /// How long a lower number must be wanted.
    pub scale_down_delay: Nanos,
    /// How long instances may take to start from zero, less 30 s.
    pub progress_deadline: Nanos,
}

impl Default for KnativeKpaConfig {
    /// `defaultConfig` in `pkg/autoscaler/config/config.go`; no annotations; and
    /// `ProgressDeadlineDefault` in `pkg/deployment/config.go`.
    fn default() -> Self {
        KnativeKpaConfig {
            metric: KnativeMetric::Concurrency,
            metric_aggregation_algorithm: MetricAggregation::Linear,
            container_concurrency_target_default: 100.0,
            container_concurrency_target_percentage: 70.0,
            requests_per_second_target_default: 200.0,
            target: None,
            target_utilization_percentage: None,
            target_burst_capacity: 211.0,
            stable_window: MINUTE,
            panic_window_percentage: 10.0,
            panic_threshold_percentage: 200.0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            min_scale: 0,
            max_scale: 0,
            max_scale_limit: 0,
            initial_scale: 1,
            allow_zero_initial_scale: false,
            activation_scale: None,
            enable_scale_to_zero: true,
            scale_to_zero_grace_period: 30 * SECOND,
            scale_to_zero_pod_retention_period: 0,
            scale_down_delay: 0,
            progress_deadline: 10 * MINUTE,
        }
    }
}

impl KnativeKpaConfig {
    /// Fewest and most instances. A maximum of 0 is no maximum in Knative; a
    /// deployment has 1000 replicas at most (B03).
    #[must_use]
    pub fn replica_counts(&self) -> (u32, u32) {
        let max = match self.max_scale {
            0 => 1000,
            max => max,
        };
        (self.min_scale, max)
    }

    /// What an instance should have, and what it can have
    /// (`ResolveMetricTarget` in `pkg/reconciler/autoscaling/resources/target.go`).
    pub(super) fn target_and_total(&self) -> (f64, f64) {
        let (default, utilization) = match self.metric {
            KnativeMetric::Concurrency => (
                self.container_concurrency_target_default,
                self.container_concurrency_fraction(),
            ),
            // `defaultTargetUtilization`, which cannot be configured for this metric.
            KnativeMetric::Rps => (self.requests_per_second_target_default, 0.7),
        };
        let total = self.target.unwrap_or(default);
        let utilization = self
            .target_utilization_percentage
            .map_or(utilization, |percent| percent / 100.0);
        (f64::max(TARGET_MIN, total * utilization), total)
    }

    /// Percentages above 1, fractions up to it, "for legacy reasons" (`NewConfigFromMap`).
    fn container_concurrency_fraction(&self) -> f64 {
        let written = self.container_concurrency_target_percentage;
        if written > 1.0 {
            written / 100.0
        } else {
            written
        }
    }

    /// `MakeMetric` in `pkg/reconciler/autoscaling/resources/metric.go`: whole
    /// seconds, at least one.
    pub(super) fn panic_window(&self) -> Nanos {
        let nanos = self.stable_window as f64 * self.panic_window_percentage / 100.0;
        // A duration in Go is a whole number of nanoseconds, rounded half up to seconds.
        let seconds = (nanos as Nanos + SECOND / 2) / SECOND;
        seconds.max(1) * SECOND
    }

    /// Finds the first parameter that Knative would refuse, in a ConfigMap
    /// (`validate` in `pkg/autoscaler/config/config.go`) or in an annotation
    /// (`pkg/apis/autoscaling/annotation_validation.go`).
    pub(in super::super) fn validate(&self) -> Result<(), ConfigError> {
        self.validate_targets()?;
        self.validate_windows()?;
        self.validate_rates()?;
        self.validate_scales()
    }

    fn validate_targets(&self) -> Result<(), ConfigError> {
        let percentage = self.container_concurrency_target_percentage;
        number(
            "container-concurrency-target-percentage",
            "in the valid range of (0, 100]",
            percentage,
            percentage > 0.0 && percentage <= 100.0,
        )?;
        let default = self.container_concurrency_target_default;
        number(
            "container-concurrency-target-default",
            "such that container-concurrency-target-percentage of it is at least 0.01",
            default,
            default.is_finite() && self.container_concurrency_fraction() * default >= TARGET_MIN,
        )?;
        at_least_the_smallest_target(
            "requests-per-second-target-default",
            self.requests_per_second_target_default,
        )?;
        if let Some(target) = self.target {
            at_least_the_smallest_target("target", target)?;
        }
        if let Some(percentage) = self.target_utilization_percentage {
            between(
                "target-utilization-percentage",
                percentage,
                1.0,
                100.0,
                "1 <= 100",
            )?;
        }
        let burst = self.target_burst_capacity;
        number(
            "target-burst-capacity",
            "either non-negative or -1 (for unlimited)",
            burst,
            burst.is_finite() && (burst >= 0.0 || burst == -1.0),
        )
    }

    fn validate_windows(&self) -> Result<(), ConfigError> {
        let window = self.stable_window;
        let is_window = (6 * SECOND..=HOUR).contains(&window);
        duration("stable-window", "in [6s; 1h0m0s] range", window, is_window)?;
        whole_seconds("stable-window", window)?;
        // Only the annotation has an upper bound.
        let delay = self.scale_down_delay;
        duration("scale-down-delay", "0s <= 1h0m0s", delay, delay <= HOUR)?;
        whole_seconds("scale-down-delay", delay)?;
        let grace = self.scale_to_zero_grace_period;
        duration("scale-to-zero-grace-period", "positive", grace, grace > 0)?;
        let retention = self.scale_to_zero_pod_retention_period;
        duration(
            "scale-to-zero-pod-retention-period",
            "0s <= 1h0m0s",
            retention,
            retention <= HOUR,
        )?;
        let deadline = self.progress_deadline;
        duration("progress-deadline", "positive", deadline, deadline > 0)?;
        whole_seconds("progress-deadline", deadline)
    }

    fn validate_rates(&self) -> Result<(), ConfigError> {
        let window = self.panic_window_percentage;
        between(
            "panic-window-percentage",
            window,
            1.0,
            100.0,
            "in [1, 100] interval",
        )?;
        let threshold = self.panic_threshold_percentage;
        between(
            "panic-threshold-percentage",
            threshold,
            110.0,
            1000.0,
            "110 <= 1000",
        )?;
        for (name, rate) in [
            ("max-scale-up-rate", self.max_scale_up_rate),
            ("max-scale-down-rate", self.max_scale_down_rate),
        ] {
            number(
                name,
                "greater than 1.0",
                rate,
                rate.is_finite() && rate > 1.0,
            )?;
        }
        Ok(())
    }

    fn validate_scales(&self) -> Result<(), ConfigError> {
        let (min, max, limit) = (self.min_scale, self.max_scale, self.max_scale_limit);
        if limit > 0 {
            let expected = "in [1, max-scale-limit] range when max-scale-limit is set";
            count("max-scale", expected, max, (1..=limit).contains(&max))?;
        }
        let expected = "0 (unlimited) or at least min-scale";
        count("max-scale", expected, max, max == 0 || min <= max)?;
        let expected = "at least 0 (or at least 1 when allow-zero-initial-scale is false)";
        let initial = self.initial_scale;
        let may_begin = initial > 0 || self.allow_zero_initial_scale;
        count("initial-scale", expected, initial, may_begin)?;
        let Some(activation) = self.activation_scale else {
            return Ok(());
        };
        count(
            "activation-scale",
            "greater than 1",
            activation,
            activation > 1,
        )?;
        let is_within = min <= activation && (max == 0 || activation <= max);
        let expected = "between min-scale and max-scale";
        count("activation-scale", expected, activation, is_within)
    }
}

fn at_least_the_smallest_target(name: &'static str, value: f64) -> Result<(), ConfigError> {
    let is_target = value.is_finite() && value >= TARGET_MIN;
    number(name, "at least 0.01", value, is_target)
}

fn between(
    name: &'static str,
    value: f64,
    least: f64,
    most: f64,
    expected: &'static str,
) -> Result<(), ConfigError> {
    number(name, expected, value, value >= least && value <= most)
}

fn number(
    name: &'static str,
    expected: &'static str,
    value: f64,
    is_sound: bool,
) -> Result<(), ConfigError> {
    check(name, expected, value.to_string(), is_sound)
}

fn count(
    name: &'static str,
    expected: &'static str,
    value: u32,
    is_sound: bool,
) -> Result<(), ConfigError> {
    check(name, expected, value.to_string(), is_sound)
}

fn duration(
    name: &'static str,
    expected: &'static str,
    value: Nanos,
    is_sound: bool,
) -> Result<(), ConfigError> {
    check(name, expected, super::Span(value).to_string(), is_sound)
}

fn whole_seconds(name: &'static str, value: Nanos) -> Result<(), ConfigError> {
    let expected = "specified with at most second precision";
    duration(name, expected, value, value.is_multiple_of(SECOND))
}

fn check(
    name: &'static str,
    expected: &'static str,
    value: String,
    is_sound: bool,
) -> Result<(), ConfigError> {
    if is_sound {
        return Ok(());
    }
    Err(ConfigError::Parameter {
        name,
        expected,
        value,
    })
}
