//! The policies `knative-kpa` and `aibrix-apa`: their own names, defaults and bounds.

use foresail_core::control::autoscaler::{
    AibrixApaConfig, AibrixMetric, AutoscalerConfig, KnativeKpaConfig, KnativeMetric,
    MetricAggregation,
};
use foresail_core::time::{MINUTE, SECOND};

use super::{BASE, broken_by, set};

const KNATIVE: &str = "autoscaler.policy=knative-kpa";
const AIBRIX: &str = "autoscaler.policy=aibrix-apa";

fn knative(settings: &[&str]) -> (KnativeKpaConfig, u32) {
    let deployment = set(BASE, &[&[KNATIVE], settings].concat()).deployment;
    match deployment.autoscaler {
        AutoscalerConfig::KnativeKpa(config) => (config, deployment.initial_replica_count),
        other => panic!("{other:?}"),
    }
}

fn aibrix(settings: &[&str]) -> (AibrixApaConfig, u32) {
    let deployment = set(BASE, &[&[AIBRIX], settings].concat()).deployment;
    match deployment.autoscaler {
        AutoscalerConfig::AibrixApa(config) => (config, deployment.initial_replica_count),
        other => panic!("{other:?}"),
    }
}

#[test]
fn knative_has_its_own_defaults_and_begins_with_its_initial_scale() {
    assert_eq!(knative(&[]), (KnativeKpaConfig::default(), 1));
    let (config, initial) = knative(&["autoscaler.initial-scale=3", "autoscaler.max-scale=5"]);
    assert_eq!((config.max_scale, initial), (5, 3));
    assert_eq!(knative(&["deployment.initial_replica_count=0"]).1, 0);
}

#[test]
fn the_counts_of_the_deployment_are_the_bounds_of_every_policy() {
    let counts = [
        "deployment.min_replica_count=2",
        "deployment.max_replica_count=6",
    ];
    let (config, initial) = knative(&counts);
    assert_eq!((config.min_scale, config.max_scale, initial), (2, 6, 2));
    let (config, initial) = aibrix(&counts);
    assert_eq!(
        (config.min_replicas, config.max_replicas, initial),
        (2, 6, 2)
    );
}

#[test]
fn knative_takes_the_keys_of_its_config_map_and_its_annotations() {
    let (config, _) = knative(&[
        "autoscaler.metric=rps",
        "autoscaler.metric-aggregation-algorithm=weightedExponential",
        "autoscaler.target=12.5",
        "autoscaler.stable-window=2m",
        "autoscaler.target-burst-capacity=-1",
        "autoscaler.activation-scale=2",
        "autoscaler.scale-down-delay=10m",
        "autoscaler.enable-scale-to-zero=false",
    ]);
    assert_eq!(config.metric, KnativeMetric::Rps);
    let weighted = MetricAggregation::WeightedExponential;
    assert_eq!(config.metric_aggregation_algorithm, weighted);
    assert_eq!(
        (config.target, config.target_burst_capacity),
        (Some(12.5), -1.0)
    );
    assert_eq!(
        (config.stable_window, config.scale_down_delay),
        (2 * MINUTE, 10 * MINUTE)
    );
    assert_eq!(
        (config.activation_scale, config.enable_scale_to_zero),
        (Some(2), false)
    );
}

#[test]
fn knative_refuses_what_knative_refuses() {
    for (setting, bound) in [
        ("stable-window=5s", "must be in [6s; 1h0m0s] range"),
        (
            "stable-window=6500ms",
            "must be specified with at most second precision",
        ),
        (
            "panic-window-percentage=0.5",
            "must be in [1, 100] interval",
        ),
        ("panic-threshold-percentage=100", "must be 110 <= 1000"),
        ("max-scale-up-rate=1", "must be greater than 1.0"),
        ("max-scale-down-rate=0.5", "must be greater than 1.0"),
        ("target=0.001", "must be at least 0.01"),
        ("target-utilization-percentage=0", "must be 1 <= 100"),
        (
            "container-concurrency-target-percentage=101",
            "must be in the valid range of (0, 100]",
        ),
        (
            "target-burst-capacity=-2",
            "must be either non-negative or -1 (for unlimited)",
        ),
        ("scale-down-delay=2h", "must be 0s <= 1h0m0s"),
        ("scale-to-zero-grace-period=0s", "must be positive"),
        ("activation-scale=1", "must be greater than 1"),
        ("initial-scale=0", "must be at least 0 (or at least 1 when"),
        ("max-scale-limit=4", "must be in [1, max-scale-limit] range"),
    ] {
        let (key, _) = setting.split_once('=').expect("key=value");
        let text = broken_by(&[KNATIVE, &format!("autoscaler.{setting}")]);
        assert!(text.contains(bound), "{setting}: {text}");
        // `max-scale-limit` is about `max-scale`.
        assert!(text.contains(key), "{setting}: {text}");
    }
}

#[test]
fn knative_cannot_be_parked_at_zero() {
    let text = broken_by(&[KNATIVE, "deployment.max_replica_count=0"]);
    assert!(
        text.contains("`knative-kpa` cannot park a deployment at zero"),
        "{text}"
    );
}

#[test]
fn a_bound_has_one_name() {
    let text = broken_by(&[
        KNATIVE,
        "deployment.min_replica_count=1",
        "autoscaler.min-scale=1",
    ]);
    let expected = "`deployment.min_replica_count` and `autoscaler.min-scale` are the same bound";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn aibrix_needs_a_maximum_and_has_defaults_for_the_rest() {
    let text = broken_by(&[AIBRIX]);
    assert!(text.contains("has no `maxReplicas`"), "{text}");
    let (config, initial) = aibrix(&["autoscaler.maxReplicas=8"]);
    let expected = AibrixApaConfig {
        max_replicas: 8,
        ..AibrixApaConfig::default()
    };
    assert_eq!((config, initial), (expected, 1));
}

#[test]
fn aibrix_takes_the_keys_of_its_pod_autoscaler() {
    let (config, _) = aibrix(&[
        "autoscaler.minReplicas=0",
        "autoscaler.maxReplicas=4",
        "autoscaler.metricsSources=[{ targetMetric = \"num_requests_waiting\", targetValue = 10 }]",
        "autoscaler.scale-down-cooldown-window=90s",
        "autoscaler.aibrix-compat=true",
    ]);
    let source = config.metrics_sources[0];
    assert_eq!(source.target_metric, AibrixMetric::NumRequestsWaiting);
    assert_eq!((source.target_value, config.min_replicas), (10.0, 0));
    assert_eq!(config.scale_down_cooldown_window, 90 * SECOND);
    assert!(config.aibrix_compat);
}

#[test]
fn aibrix_refuses_what_aibrix_refuses() {
    let refused = |setting: &str| {
        let setting = format!("autoscaler.{setting}");
        broken_by(&[AIBRIX, "autoscaler.maxReplicas=4", &setting])
    };
    for (setting, bound) in [
        (
            "minReplicas=5",
            "`autoscaler.minReplicas` must be at most maxReplicas",
        ),
        ("observeWindowSeconds=0", "must be greater than 0"),
        (
            "observeWindowSeconds=3601",
            "must be less than or equal to 3600",
        ),
        (
            "observeWindowSeconds=59",
            "must be less than or equal to observeWindowSeconds",
        ),
        (
            "metricsSources=[]",
            "must be a list of one to three different metrics",
        ),
        ("max-scale-down-rate=0", "must be above 0"),
    ] {
        let text = refused(setting);
        assert!(text.contains(bound), "{setting}: {text}");
    }
    let text = refused("metricsSources=[{ targetMetric = \"cpu\", targetValue = 1 }]");
    assert!(text.contains("cannot be \"cpu\""), "{text}");
}

#[test]
fn the_keys_of_a_policy_that_was_not_chosen_have_no_effect() {
    let text = broken_by(&["autoscaler.stable-window=60s"]);
    assert!(
        text.contains("has no effect unless `policy = \"knative-kpa\"`"),
        "{text}"
    );
}
