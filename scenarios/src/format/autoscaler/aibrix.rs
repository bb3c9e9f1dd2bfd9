//! The policy `aibrix-apa`: the keys of a PodAutoscaler's `spec`, and its annotations without
//! their prefix `autoscaling.aibrix.ai/`, in one table.

use foresail_core::control::autoscaler::{
    AibrixApaConfig, AibrixMetric, AibrixMetricSource, AutoscalerConfig,
};

use super::counts::OwnBounds;
use super::{Chosen, Tables};
use crate::format::decode;
use crate::format::node::Value;
use crate::format::problem::Problem;
use crate::format::reader::{Field, Reader};

/// The keys of `[autoscaler]` that are about this policy.
pub(super) const KEYS: &[&str] = &[
    "minReplicas",
    "maxReplicas",
    "metricsSources",
    "observeWindowSeconds",
    "panicWindowSeconds",
    "max-scale-up-rate",
    "max-scale-down-rate",
    "scale-up-tolerance",
    "scale-down-tolerance",
    "scale-up-cooldown-window",
    "scale-down-cooldown-window",
    "aibrix-compat",
];

const METRICS: [(&str, AibrixMetric); 3] = [
    ("gpu_cache_usage_perc", AibrixMetric::GpuCacheUsagePerc),
    ("num_requests_running", AibrixMetric::NumRequestsRunning),
    ("num_requests_waiting", AibrixMetric::NumRequestsWaiting),
];

pub(super) fn decode(tables: &Tables<'_>) -> Chosen {
    let Tables {
        autoscaler, counts, ..
    } = tables;
    let default = AibrixApaConfig::default();
    let own = OwnBounds {
        min_key: "minReplicas",
        min: default.min_replicas,
        max_key: "maxReplicas",
        max: default.max_replicas,
    };
    let bounds = counts.bounds(autoscaler, &own);
    if !counts.max.is_written() && !autoscaler.has("maxReplicas") {
        autoscaler.missing("maxReplicas", "8");
    }
    let config = AutoscalerConfig::AibrixApa(AibrixApaConfig {
        min_replicas: bounds.min,
        max_replicas: bounds.max,
        ..config(autoscaler, default)
    });
    Chosen {
        autoscaler: config,
        initial_replica_count: bounds.initial,
    }
}

fn config(autoscaler: &Reader<'_>, default: AibrixApaConfig) -> AibrixApaConfig {
    let number = |key, default| autoscaler.setting(key, default, decode::number).value;
    let window = |key, default| autoscaler.setting(key, default, decode::duration).value;
    let seconds = |key, default| autoscaler.setting(key, default, decode::integer).value;
    AibrixApaConfig {
        min_replicas: default.min_replicas,
        max_replicas: default.max_replicas,
        metrics_sources: autoscaler
            .setting("metricsSources", default.metrics_sources, metrics_sources)
            .value,
        observe_window_seconds: seconds("observeWindowSeconds", default.observe_window_seconds),
        panic_window_seconds: seconds("panicWindowSeconds", default.panic_window_seconds),
        max_scale_up_rate: number("max-scale-up-rate", default.max_scale_up_rate),
        max_scale_down_rate: number("max-scale-down-rate", default.max_scale_down_rate),
        scale_up_tolerance: number("scale-up-tolerance", default.scale_up_tolerance),
        scale_down_tolerance: number("scale-down-tolerance", default.scale_down_tolerance),
        scale_up_cooldown_window: window(
            "scale-up-cooldown-window",
            default.scale_up_cooldown_window,
        ),
        scale_down_cooldown_window: window(
            "scale-down-cooldown-window",
            default.scale_down_cooldown_window,
        ),
        aibrix_compat: autoscaler
            .setting("aibrix-compat", default.aibrix_compat, decode::boolean)
            .value,
    }
}

/// `[{ targetMetric = "gpu_cache_usage_perc", targetValue = 0.5 }, …]`
fn metrics_sources(field: Field<'_>) -> Result<Vec<AibrixMetricSource>, Problem> {
    const EXAMPLE: &str = "for example `metricsSources = [{ targetMetric = \
                           \"gpu_cache_usage_perc\", targetValue = 0.5 }]`";
    let Value::Array(items) = &field.node.value else {
        return Err(field.wrong_type("a list of metrics").help(EXAMPLE));
    };
    let mut sources = Vec::with_capacity(items.len());
    for item in items {
        let item_field = Field {
            node: item,
            ..field
        };
        let reader = item_field.reader()?;
        let example = "\"gpu_cache_usage_perc\"";
        let metric = reader.required("targetMetric", example, decode::choice(&METRICS));
        let value = reader.required("targetValue", "0.5", decode::positive_number);
        reader.finish();
        if let (Some(target_metric), Some(target_value)) = (metric.value, value.value) {
            sources.push(AibrixMetricSource {
                target_metric,
                target_value,
            });
        }
    }
    Ok(sources)
}
