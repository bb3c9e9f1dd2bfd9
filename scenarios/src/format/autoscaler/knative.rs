//! The policy `knative-kpa`: the keys of Knative's ConfigMap `config-autoscaler` and of a
//! revision's annotations, in one table.

use foresail_core::control::autoscaler::{
    AutoscalerConfig, KnativeKpaConfig, KnativeMetric, MetricAggregation,
};
use foresail_core::time::Nanos;

use super::counts::OwnBounds;
use super::{Chosen, Tables, replica_count};
use crate::format::decode;
use crate::format::problem::Problem;
use crate::format::reader::Reader;

/// The keys of `[autoscaler]` that are about this policy.
pub(super) const KEYS: &[&str] = &[
    "metric",
    "metric-aggregation-algorithm",
    "container-concurrency-target-default",
    "container-concurrency-target-percentage",
    "requests-per-second-target-default",
    "target",
    "target-utilization-percentage",
    "target-burst-capacity",
    "stable-window",
    "panic-window-percentage",
    "panic-threshold-percentage",
    "max-scale-up-rate",
    "max-scale-down-rate",
    "min-scale",
    "max-scale",
    "max-scale-limit",
    "initial-scale",
    "allow-zero-initial-scale",
    "activation-scale",
    "enable-scale-to-zero",
    "scale-to-zero-grace-period",
    "scale-to-zero-pod-retention-period",
    "scale-down-delay",
    "progress-deadline",
];

const METRICS: [(&str, KnativeMetric); 2] = [
    ("concurrency", KnativeMetric::Concurrency),
    ("rps", KnativeMetric::Rps),
];

/// Knative has two spellings of the second.
const AGGREGATIONS: [(&str, MetricAggregation); 3] = [
    ("linear", MetricAggregation::Linear),
    (
        "weighted-exponential",
        MetricAggregation::WeightedExponential,
    ),
    (
        "weightedExponential",
        MetricAggregation::WeightedExponential,
    ),
];

pub(super) fn decode(tables: &Tables<'_>) -> Chosen {
    let Tables {
        autoscaler, counts, ..
    } = tables;
    let own = OwnBounds {
        min_key: "min-scale",
        min: 0,
        max_key: "max-scale",
        max: 0,
    };
    let bounds = counts.bounds(autoscaler, &own);
    if bounds.max == 0 && counts.max.is_written() {
        report_parked(tables);
    }
    let config = config(autoscaler, bounds.min, bounds.max);
    // A new revision begins with its initial scale.
    let begins_with = config.initial_scale.max(config.min_scale);
    let config = AutoscalerConfig::KnativeKpa(config);
    Chosen {
        autoscaler: config,
        initial_replica_count: if counts.initial.is_written() {
            bounds.initial
        } else {
            begins_with
        },
    }
}

/// A maximum of 0 parks a deployment (B03), and lifts the limit in Knative.
fn report_parked(tables: &Tables<'_>) {
    let message = "`knative-kpa` cannot park a deployment at zero";
    let problem = Problem::new("scenario::replicas", message)
        .at_if_written(tables.counts.max.place, "no replicas at all")
        .at_if_written(
            tables.autoscaler.value_place("policy"),
            "for this policy, a maximum of 0 is none",
        )
        .help("write a maximum of 1 or more, or leave it out");
    tables.autoscaler.context.report(problem);
}

fn config(autoscaler: &Reader<'_>, min_scale: u32, max_scale: u32) -> KnativeKpaConfig {
    let default = KnativeKpaConfig::default();
    let number = |key, default| autoscaler.setting(key, default, decode::number).value;
    let window = |key, default: Nanos| autoscaler.setting(key, default, decode::duration).value;
    let switch = |key, default| autoscaler.setting(key, default, decode::boolean).value;
    let count = |key, default| autoscaler.setting(key, default, replica_count).value;
    KnativeKpaConfig {
        metric: autoscaler
            .setting("metric", default.metric, decode::choice(&METRICS))
            .value,
        metric_aggregation_algorithm: autoscaler
            .setting(
                "metric-aggregation-algorithm",
                default.metric_aggregation_algorithm,
                decode::choice(&AGGREGATIONS),
            )
            .value,
        container_concurrency_target_default: number(
            "container-concurrency-target-default",
            default.container_concurrency_target_default,
        ),
        container_concurrency_target_percentage: number(
            "container-concurrency-target-percentage",
            default.container_concurrency_target_percentage,
        ),
        requests_per_second_target_default: number(
            "requests-per-second-target-default",
            default.requests_per_second_target_default,
        ),
        target: autoscaler.optional("target", decode::number).value,
        target_utilization_percentage: autoscaler
            .optional("target-utilization-percentage", decode::number)
            .value,
        target_burst_capacity: number("target-burst-capacity", default.target_burst_capacity),
        stable_window: window("stable-window", default.stable_window),
        panic_window_percentage: number("panic-window-percentage", default.panic_window_percentage),
        panic_threshold_percentage: number(
            "panic-threshold-percentage",
            default.panic_threshold_percentage,
        ),
        max_scale_up_rate: number("max-scale-up-rate", default.max_scale_up_rate),
        max_scale_down_rate: number("max-scale-down-rate", default.max_scale_down_rate),
        min_scale,
        max_scale,
        max_scale_limit: count("max-scale-limit", default.max_scale_limit),
        initial_scale: count("initial-scale", default.initial_scale),
        allow_zero_initial_scale: switch(
            "allow-zero-initial-scale",
            default.allow_zero_initial_scale,
        ),
        activation_scale: autoscaler.optional("activation-scale", replica_count).value,
        enable_scale_to_zero: switch("enable-scale-to-zero", default.enable_scale_to_zero),
        scale_to_zero_grace_period: window(
            "scale-to-zero-grace-period",
            default.scale_to_zero_grace_period,
        ),
        scale_to_zero_pod_retention_period: window(
            "scale-to-zero-pod-retention-period",
            default.scale_to_zero_pod_retention_period,
        ),
        scale_down_delay: window("scale-down-delay", default.scale_down_delay),
        progress_deadline: window("progress-deadline", default.progress_deadline),
    }
}
