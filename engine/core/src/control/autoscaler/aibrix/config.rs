//! The parameters of the policy, by the names that a PodAutoscaler of AIBrix gives them.

use super::super::ConfigError;
use crate::time::{MINUTE, Nanos, SECOND};

/// What is measured of each replica, by the names of vLLM's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AibrixMetric {
    /// The share of KV blocks in use.
    GpuCacheUsagePerc,
    /// Sequences in the batch.
    NumRequestsRunning,
    /// Sequences that wait.
    NumRequestsWaiting,
}

impl AibrixMetric {
    /// The metric's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AibrixMetric::GpuCacheUsagePerc => "gpu_cache_usage_perc",
            AibrixMetric::NumRequestsRunning => "num_requests_running",
            AibrixMetric::NumRequestsWaiting => "num_requests_waiting",
        }
    }
}

/// A metric and what a replica should have of it: an entry of `metricsSources`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AibrixMetricSource {
    /// `targetMetric`.
    pub target_metric: AibrixMetric,
    /// `targetValue`, of one replica.
    pub target_value: f64,
}

/// The parameters of AIBrix's own autoscaler, scaling strategy `APA` (vllm-project/aibrix
/// e3e10f9e).
#[derive(Clone, Debug, PartialEq)]
pub struct AibrixApaConfig {
    /// Fewest replicas.
    pub min_replicas: u32,
    /// Most replicas.
    pub max_replicas: u32,
    /// One to three metrics; the one that calls for most replicas counts.
    pub metrics_sources: Vec<AibrixMetricSource>,
    /// The window of the mean, in seconds.
    pub observe_window_seconds: u32,
    /// A window that this strategy does not read. It must not be longer than the other.
    pub panic_window_seconds: u32,
    /// At most this many times the replicas are wanted.
    pub max_scale_up_rate: f64,
    /// At least the replicas divided by this are wanted.
    pub max_scale_down_rate: f64,
    /// How far above its target a metric may be.
    pub scale_up_tolerance: f64,
    /// How far below.
    pub scale_down_tolerance: f64,
    /// How long more must be wanted.
    pub scale_up_cooldown_window: Nanos,
    /// How long fewer must be wanted.
    pub scale_down_cooldown_window: Nanos,
    /// Do as AIBrix does within the cooldown windows, rather than as it says.
    pub aibrix_compat: bool,
}

impl Default for AibrixApaConfig {
    /// `NewBaseScalingContext` in `context/context.go`, the windows of
    /// `metrics/client.go`, and `BaseBounds` in `paschedules/schedules.go`. Without
    /// defaults there are `maxReplicas`, which is 1 here, and the metric, which is that
    /// of `samples/autoscaling/apa.yaml`.
    fn default() -> Self {
        AibrixApaConfig {
            min_replicas: 1,
            max_replicas: 1,
            metrics_sources: vec![AibrixMetricSource {
                target_metric: AibrixMetric::GpuCacheUsagePerc,
                target_value: 0.5,
            }],
            observe_window_seconds: 180,
            panic_window_seconds: 60,
            max_scale_up_rate: 2.0,
            max_scale_down_rate: 2.0,
            scale_up_tolerance: 0.1,
            scale_down_tolerance: 0.1,
            scale_up_cooldown_window: 0,
            scale_down_cooldown_window: 5 * MINUTE,
            aibrix_compat: false,
        }
    }
}

impl AibrixApaConfig {
    /// The window of the mean.
    pub(super) fn observe_window(&self) -> Nanos {
        Nanos::from(self.observe_window_seconds) * SECOND
    }

    /// Finds the first parameter that AIBrix would refuse (`validateSpec` in
    /// `podautoscaler_controller.go`). It takes any number as a rate or a
    /// tolerance; here those must be such that there is a number of replicas.
    pub(in super::super) fn validate(&self) -> Result<(), ConfigError> {
        let (min, max) = (self.min_replicas, self.max_replicas);
        check("maxReplicas", "positive", max, max > 0)?;
        check("minReplicas", "at most maxReplicas", min, min <= max)?;
        self.validate_windows()?;
        self.validate_metrics()?;
        for (name, rate) in [
            ("max-scale-up-rate", self.max_scale_up_rate),
            ("max-scale-down-rate", self.max_scale_down_rate),
        ] {
            check(name, "above 0", rate, rate.is_finite() && rate > 0.0)?;
        }
        for (name, tolerance) in [
            ("scale-up-tolerance", self.scale_up_tolerance),
            ("scale-down-tolerance", self.scale_down_tolerance),
        ] {
            check(name, "a number", tolerance, tolerance.is_finite())?;
        }
        Ok(())
    }

    fn validate_windows(&self) -> Result<(), ConfigError> {
        let (observe, panic) = (self.observe_window_seconds, self.panic_window_seconds);
        for (name, window) in [
            ("observeWindowSeconds", observe),
            ("panicWindowSeconds", panic),
        ] {
            check(name, "greater than 0", window, window > 0)?;
            check(name, "less than or equal to 3600", window, window <= 3600)?;
        }
        let expected = "less than or equal to observeWindowSeconds";
        check("panicWindowSeconds", expected, panic, panic <= observe)
    }

    fn validate_metrics(&self) -> Result<(), ConfigError> {
        let sources = &self.metrics_sources;
        let expected = "a list of one to three different metrics";
        let is_listed = |index: usize| {
            let metric = sources[index].target_metric;
            sources[..index]
                .iter()
                .any(|each| each.target_metric == metric)
        };
        let is_sound = !sources.is_empty() && !(1..sources.len()).any(is_listed);
        check("metricsSources", expected, sources.len(), is_sound)?;
        for source in sources {
            let value = source.target_value;
            let is_sound = value.is_finite() && value > 0.0;
            check(
                "metricsSources",
                "of targetValues greater than 0",
                value,
                is_sound,
            )?;
        }
        Ok(())
    }
}

fn check(
    name: &'static str,
    expected: &'static str,
    value: impl std::fmt::Display,
    is_sound: bool,
) -> Result<(), ConfigError> {
    if is_sound {
        return Ok(());
    }
    Err(ConfigError::Parameter {
        name,
        expected,
        value: value.to_string(),
    })
}
