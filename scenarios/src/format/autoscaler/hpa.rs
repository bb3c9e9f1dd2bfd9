//! The policies `k8s-hpa` and `keda`, with the names of their own YAML and flags.

use foresail_core::control::autoscaler::{
    AutoscalerConfig, HpaBehavior, HpaConfig, HpaMetric, KedaConfig, Measure, MetricSource,
    ScalingPolicy, ScalingPolicyKind, ScalingRules, SelectPolicy,
};
use foresail_core::time::{Nanos, SECOND};

use super::counts::OwnBounds;
use super::{Chosen, Tables};
use crate::format::decode;
use crate::format::node::Value;
use crate::format::problem::Problem;
use crate::format::reader::{Field, Reader};

/// The keys of `[autoscaler]` that are about `k8s-hpa`.
pub(super) const HPA_KEYS: &[&str] = &[
    "minReplicas",
    "maxReplicas",
    "metric",
    "type",
    "averageValue",
    "metrics",
    "behavior",
    SYNC_PERIOD,
    TOLERANCE,
    DOWNSCALE_STABILIZATION,
];

/// The keys of `[autoscaler]` that are about `keda`.
pub(super) const KEDA_KEYS: &[&str] = &[
    "minReplicaCount",
    "maxReplicaCount",
    "idleReplicaCount",
    "pollingInterval",
    "cooldownPeriod",
    "initialCooldownPeriod",
    "metric",
    "threshold",
    "activationThreshold",
    "behavior",
    SYNC_PERIOD,
    TOLERANCE,
    DOWNSCALE_STABILIZATION,
];

/// The flags of the controller that runs HPAs.
const SYNC_PERIOD: &str = "horizontal-pod-autoscaler-sync-period";
const TOLERANCE: &str = "horizontal-pod-autoscaler-tolerance";
const DOWNSCALE_STABILIZATION: &str = "horizontal-pod-autoscaler-downscale-stabilization";

const MEASURES: [(&str, Measure); 3] = [
    ("concurrent-requests", Measure::ConcurrentRequests),
    ("queue", Measure::Queue),
    ("kv-usage", Measure::KvUsage),
];

const SOURCES: [(&str, MetricSource); 2] = [
    ("Pods", MetricSource::Pods),
    ("External", MetricSource::External),
];

const SELECT_POLICIES: [(&str, SelectPolicy); 3] = [
    ("Max", SelectPolicy::Max),
    ("Min", SelectPolicy::Min),
    ("Disabled", SelectPolicy::Disabled),
];

const POLICY_TYPES: [(&str, ScalingPolicyKind); 2] = [
    ("Pods", ScalingPolicyKind::Pods),
    ("Percent", ScalingPolicyKind::Percent),
];

pub(super) fn hpa(tables: &Tables<'_>) -> Chosen {
    let autoscaler = &tables.autoscaler;
    let own = OwnBounds {
        min_key: "minReplicas",
        min: 1,
        max_key: "maxReplicas",
        max: HpaConfig::default().max_replicas,
    };
    let bounds = tables.counts.bounds(autoscaler, &own);
    let config = HpaConfig {
        min_replicas: bounds.min,
        max_replicas: bounds.max,
        metrics: metrics(autoscaler),
        behavior: behavior(autoscaler),
        ..flags(autoscaler)
    };
    tables.report_start_at_zero(bounds.initial);
    Chosen {
        autoscaler: AutoscalerConfig::Hpa(config),
        initial_replica_count: bounds.initial,
    }
}

pub(super) fn keda(tables: &Tables<'_>) -> Chosen {
    let autoscaler = &tables.autoscaler;
    let default = KedaConfig::default();
    let own = OwnBounds {
        min_key: "minReplicaCount",
        min: default.min_replica_count,
        max_key: "maxReplicaCount",
        max: default.max_replica_count,
    };
    let bounds = tables.counts.bounds(autoscaler, &own);
    let measure = autoscaler.setting("metric", default.measure, decode::choice(&MEASURES));
    let seconds = |key, default: Nanos| autoscaler.setting(key, default, seconds).value;
    let config = KedaConfig {
        min_replica_count: bounds.min,
        max_replica_count: bounds.max,
        idle_replica_count: autoscaler
            .optional("idleReplicaCount", super::replica_count)
            .value,
        polling_interval: seconds("pollingInterval", default.polling_interval),
        cooldown_period: seconds("cooldownPeriod", default.cooldown_period),
        initial_cooldown_period: seconds("initialCooldownPeriod", default.initial_cooldown_period),
        measure: measure.value,
        threshold_milli: autoscaler
            .setting("threshold", usual_target(measure.value), milli)
            .value,
        activation_threshold: autoscaler
            .setting(
                "activationThreshold",
                default.activation_threshold,
                decode::non_negative_number,
            )
            .value,
        behavior: behavior(autoscaler),
        hpa: flags(autoscaler),
    };
    Chosen {
        autoscaler: AutoscalerConfig::Keda(config),
        initial_replica_count: bounds.initial,
    }
}

/// What a replica should have: about 80 % of vLLM's default batch, a short
/// queue, or 80 % of the KV cache. Neither HPA nor KEDA has such a default.
fn usual_target(measure: Measure) -> u32 {
    match measure {
        Measure::ConcurrentRequests => 200_000,
        Measure::Queue => 5_000,
        Measure::KvUsage => 800,
    }
}

/// The metrics, or the one metric of a scenario that has no list.
fn metrics(autoscaler: &Reader<'_>) -> Vec<HpaMetric> {
    let metrics = autoscaler.optional("metrics", metric_list);
    let one = metric(autoscaler);
    let Some(list) = metrics.value else {
        return vec![one];
    };
    autoscaler.unused(
        &["metric", "type", "averageValue"],
        "beside `metrics`, which has them for each metric",
    );
    list
}

fn metric(reader: &Reader<'_>) -> HpaMetric {
    let default = Measure::ConcurrentRequests;
    let measure = reader.setting("metric", default, decode::choice(&MEASURES));
    let measure = measure.value;
    let source = reader.setting("type", measure.usual_source(), decode::choice(&SOURCES));
    let target = reader.setting("averageValue", usual_target(measure), milli);
    HpaMetric {
        measure,
        source: source.value,
        average_value_milli: target.value,
    }
}

/// `[{ metric = "queue", averageValue = 20 }, …]`.
fn metric_list(field: Field<'_>) -> Result<Vec<HpaMetric>, Problem> {
    const EXAMPLE: &str = "for example `metrics = [{ metric = \"queue\", averageValue = 20 }]`";
    list(field, EXAMPLE, |reader| {
        let read = metric(&reader);
        reader.finish();
        Some(read)
    })
}

fn flags(autoscaler: &Reader<'_>) -> HpaConfig {
    let default = HpaConfig::default();
    HpaConfig {
        sync_period: autoscaler
            .setting(SYNC_PERIOD, default.sync_period, decode::tick)
            .value,
        tolerance: autoscaler
            .setting(TOLERANCE, default.tolerance, decode::non_negative_number)
            .value,
        downscale_stabilization: autoscaler
            .setting(
                DOWNSCALE_STABILIZATION,
                default.downscale_stabilization,
                decode::duration,
            )
            .value,
        ..default
    }
}

/// `[autoscaler.behavior]`; what it leaves out is as the API server fills it in.
fn behavior(autoscaler: &Reader<'_>) -> Option<HpaBehavior> {
    let behavior = autoscaler.table("behavior");
    let read = HpaBehavior {
        scale_up: rules(&behavior, "scaleUp", ScalingRules::scale_up()),
        scale_down: rules(&behavior, "scaleDown", ScalingRules::scale_down()),
    };
    behavior.finish();
    autoscaler.has("behavior").then_some(read)
}

fn rules(behavior: &Reader<'_>, key: &'static str, default: ScalingRules) -> ScalingRules {
    let reader = behavior.table(key);
    let window = reader.optional("stabilizationWindowSeconds", |field| {
        // `MaxStabilizationWindowSeconds`.
        decode::integer_between(field, 0, 3600)
    });
    let select = reader.setting(
        "selectPolicy",
        default.select_policy,
        decode::choice(&SELECT_POLICIES),
    );
    let tolerance = reader.optional("tolerance", decode::non_negative_number);
    let policies = reader.setting("policies", default.policies, scaling_policies);
    reader.finish();
    ScalingRules {
        stabilization_window_seconds: window.value.or(default.stabilization_window_seconds),
        select_policy: select.value,
        policies: policies.value,
        tolerance: tolerance.value,
    }
}

/// `[{ type = "Pods", value = 4, periodSeconds = 15 }, …]`.
fn scaling_policies(field: Field<'_>) -> Result<Vec<ScalingPolicy>, Problem> {
    const EXAMPLE: &str =
        "for example `policies = [{ type = \"Pods\", value = 4, periodSeconds = 15 }]`";
    list(field, EXAMPLE, |reader| {
        let kind = reader.required("type", "\"Pods\"", decode::choice(&POLICY_TYPES));
        let value = reader.required("value", "4", decode::positive_integer);
        let period = reader.required("periodSeconds", "15", |field| {
            // `MaxPeriodSeconds`.
            decode::integer_between(field, 1, 1800)
        });
        reader.finish();
        Some(ScalingPolicy {
            kind: kind.value?,
            value: value.value?,
            period_seconds: period.value?,
        })
    })
}

/// A list of tables, at least one.
fn list<T>(
    field: Field<'_>,
    example: &str,
    read: impl Fn(Reader<'_>) -> Option<T>,
) -> Result<Vec<T>, Problem> {
    let Value::Array(items) = &field.node.value else {
        return Err(field
            .wrong_type("a list of tables")
            .help(example.to_owned()));
    };
    if items.is_empty() {
        return Err(field
            .problem("scenario::empty", "must have at least one entry", "empty")
            .help(example.to_owned()));
    }
    let mut list = Vec::with_capacity(items.len());
    for node in items {
        list.extend(read(Field { node, ..field }.reader()?));
    }
    Ok(list)
}

/// A target above 0, in thousandths, rounded up as a Kubernetes quantity is.
fn milli(field: Field<'_>) -> Result<u32, Problem> {
    let value = decode::positive_number(field)?;
    let milli = (value * 1000.0).ceil();
    if milli <= f64::from(u32::MAX) {
        return Ok(milli as u32);
    }
    Err(field
        .problem("scenario::range", "is too large", "above 4 million")
        .help("write what one replica should have"))
}

/// Whole seconds, as in KEDA's YAML.
fn seconds(field: Field<'_>) -> Result<Nanos, Problem> {
    // A day and more of a poll or cooldown is a slip.
    let seconds = decode::integer_between(field, 0, 7 * 24 * 3600)?;
    Ok(u64::from(seconds) * SECOND)
}
