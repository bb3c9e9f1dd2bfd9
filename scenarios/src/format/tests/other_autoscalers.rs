//! The policies of Kubernetes, KEDA, llm-d and Dynamo: their own names and bounds.

use foresail_core::control::autoscaler::{
    AutoscalerConfig, DynamoLoadConfig, HpaConfig, HpaMetric, KedaConfig, Measure, MetricSource,
    OptimizationTarget, ScalingRules, SelectPolicy, WvaSaturationConfig,
};
use foresail_core::time::SECOND;

use super::{BASE, broken_by, set};

fn autoscaler(arguments: &[&str]) -> AutoscalerConfig {
    set(BASE, arguments).deployment.autoscaler
}

#[test]
fn the_defaults_are_those_of_the_originals() {
    let default = |policy: &str| autoscaler(&[&format!("autoscaler.policy={policy}")]);
    assert_eq!(
        default("k8s-hpa"),
        AutoscalerConfig::Hpa(HpaConfig::default())
    );
    assert_eq!(
        default("keda"),
        AutoscalerConfig::Keda(KedaConfig::default())
    );
    let wva = WvaSaturationConfig::default();
    assert_eq!(
        default("wva-saturation"),
        AutoscalerConfig::WvaSaturation(wva)
    );
    let dynamo = DynamoLoadConfig::default();
    assert_eq!(default("dynamo-load"), AutoscalerConfig::DynamoLoad(dynamo));
}

#[test]
fn an_hpa_as_its_yaml_has_it() {
    let config = autoscaler(&[
        "autoscaler={ policy = \"k8s-hpa\", minReplicas = 2, maxReplicas = 8, metrics = [\
         { metric = \"queue\", averageValue = 20 }, { metric = \"kv-usage\", averageValue = 0.5, type = \"External\" }], \
         behavior = { scaleDown = { stabilizationWindowSeconds = 60, selectPolicy = \"Min\" } } }",
    ]);
    let AutoscalerConfig::Hpa(config) = config else {
        panic!("{config:?}");
    };
    assert_eq!((config.min_replicas, config.max_replicas), (2, 8));
    let queue = HpaMetric {
        measure: Measure::Queue,
        source: MetricSource::Pods,
        average_value_milli: 20_000,
    };
    let kv_usage = HpaMetric {
        measure: Measure::KvUsage,
        source: MetricSource::External,
        average_value_milli: 500,
    };
    assert_eq!(config.metrics, [queue, kv_usage]);
    let behavior = config.behavior.expect("it is written");
    assert_eq!(behavior.scale_up, ScalingRules::scale_up());
    let scale_down = ScalingRules {
        stabilization_window_seconds: Some(60),
        select_policy: SelectPolicy::Min,
        ..ScalingRules::scale_down()
    };
    assert_eq!(behavior.scale_down, scale_down);
}

#[test]
fn the_replica_counts_of_the_deployment_are_the_bounds_of_any_policy() {
    let counts = [
        "deployment.min_replica_count=1",
        "deployment.max_replica_count=5",
    ];
    let with = |policy: &str| {
        let policy = format!("autoscaler.policy={policy}");
        autoscaler(&[counts[0], counts[1], &policy])
    };
    let AutoscalerConfig::Hpa(hpa) = with("k8s-hpa") else {
        panic!("another policy");
    };
    assert_eq!((hpa.min_replicas, hpa.max_replicas), (1, 5));
    let AutoscalerConfig::DynamoLoad(dynamo) = with("dynamo-load") else {
        panic!("another policy");
    };
    assert_eq!((dynamo.min_endpoint, dynamo.replicas_max()), (1, 5));
}

#[test]
fn keda_counts_in_seconds_and_dynamo_has_targets() {
    let AutoscalerConfig::Keda(keda) = autoscaler(&[
        "autoscaler.policy=keda",
        "autoscaler.cooldownPeriod=60",
        "autoscaler.metric=queue",
    ]) else {
        panic!("another policy");
    };
    assert_eq!(keda.cooldown_period, 60 * SECOND);
    assert_eq!(keda.threshold_milli, 5000);
    let AutoscalerConfig::DynamoLoad(dynamo) = autoscaler(&[
        "autoscaler.policy=dynamo-load",
        "autoscaler.optimization_target=load",
        "autoscaler.decode_scale_up_kv_rate=80",
        "autoscaler.decode_scale_down_kv_rate=40",
        "autoscaler.max_gpu_budget=-1",
    ]) else {
        panic!("another policy");
    };
    let target = OptimizationTarget::Load {
        scale_up_kv_rate: 80.0,
        scale_down_kv_rate: 40.0,
    };
    assert_eq!(dynamo.optimization_target, target);
    assert_eq!(dynamo.max_gpu_budget, None);
}

/// The first line of what a person sees.
fn message(arguments: &[&str]) -> String {
    let text = broken_by(arguments);
    let line = text.lines().find(|line| line.contains('×'));
    line.unwrap_or_default()
        .trim()
        .trim_start_matches("× ")
        .to_owned()
}

#[test]
fn what_the_originals_refuse_is_refused_with_their_bounds() {
    let refused =
        |policy: &str, argument: &str| message(&[&format!("autoscaler.policy={policy}"), argument]);
    assert_eq!(
        refused("k8s-hpa", "autoscaler.minReplicas=0"),
        "`autoscaler.minReplicas` must be greater than or equal to 1"
    );
    assert_eq!(
        refused("k8s-hpa", "deployment.min_replica_count=0"),
        "`autoscaler.minReplicas` must be greater than or equal to 1"
    );
    assert_eq!(
        refused("keda", "autoscaler.idleReplicaCount=0"),
        "`autoscaler.idleReplicaCount` must be less than minReplicaCount"
    );
    assert_eq!(
        refused("wva-saturation", "autoscaler.kvCacheThreshold=0.05"),
        "`autoscaler.kvCacheThreshold` must be >= kvSpareTrigger"
    );
    assert_eq!(
        refused("dynamo-load", "autoscaler.optimization_target=load"),
        "`[autoscaler]` has no `decode_scale_up_kv_rate`"
    );
    assert_eq!(
        refused("dynamo-load", "deployment.initial_replica_count=0"),
        "this policy does nothing at 0 replicas, so the run would never have any"
    );
}

#[test]
fn a_window_that_the_api_server_refuses() {
    insta::assert_snapshot!(
        broken_by(&[
            "autoscaler.policy=k8s-hpa",
            "autoscaler.behavior.scaleUp.stabilizationWindowSeconds=3601"
        ]),
        @r"
    scenario::range

      × `autoscaler.behavior.scaleUp.stabilizationWindowSeconds` must be 0 to 3600
       ╭─[--set:1:56]
     1 │ autoscaler.behavior.scaleUp.stabilizationWindowSeconds=3601
       ·                                                        ──┬─
       ·                                                          ╰── this is 3601
       ╰────
      help: write a whole number from 0 to 3600
    "
    );
}
