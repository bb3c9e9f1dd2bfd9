//! What a scenario says of Ray Serve's autoscaler.

use foresail_core::control::autoscaler::{
    AggregationFunction, AutoscalerConfig, Delays, RayServeConfig,
};

use super::{BASE, render, set, try_set};
use crate::scenario::Scenario;

const RAY_SERVE: &str = "autoscaler.policy=ray-serve";

fn ray_serve(scenario: &Scenario) -> &RayServeConfig {
    match &scenario.deployment.autoscaler {
        AutoscalerConfig::RayServe(config) => config,
        other => panic!("{other:?}"),
    }
}

fn refused(settings: &[&str]) -> String {
    let settings = [&[RAY_SERVE], settings].concat();
    render(&try_set(BASE, &settings).unwrap_err())
}

#[test]
fn the_defaults_are_the_anchors() {
    let scenario = set(BASE, &[RAY_SERVE]);
    let expected = RayServeConfig {
        initial_replicas: Some(1),
        ..RayServeConfig::default()
    };
    assert_eq!(ray_serve(&scenario), &expected);
    assert_eq!(scenario.deployment.initial_replica_count, 1);
    let legacy = set(BASE, &["autoscaler.policy=ray-serve-legacy"]);
    assert_eq!(ray_serve(&legacy).delays, Delays::Looks);
}

#[test]
fn every_parameter_can_be_set() {
    let settings = [
        RAY_SERVE,
        "autoscaler.min_replicas=2",
        "autoscaler.max_replicas=9",
        "autoscaler.initial_replicas=3",
        "autoscaler.target_ongoing_requests=32",
        "autoscaler.look_back_period_s=20.5",
        "autoscaler.metrics_interval_s=5",
        "autoscaler.upscale_delay_s=0",
        "autoscaler.downscale_delay_s=60",
        "autoscaler.downscale_to_zero_delay_s=90",
        "autoscaler.upscaling_factor=0.5",
        "autoscaler.downscaling_factor=0.25",
        "autoscaler.aggregation_function=max",
    ];
    let expected = RayServeConfig {
        delays: Delays::Clock,
        min_replicas: 2,
        max_replicas: 9,
        initial_replicas: Some(3),
        target_ongoing_requests: 32.0,
        look_back_period_s: 20.5,
        metrics_interval_s: 5.0,
        upscale_delay_s: 0.0,
        downscale_delay_s: 60.0,
        downscale_to_zero_delay_s: Some(90.0),
        upscaling_factor: Some(0.5),
        downscaling_factor: Some(0.25),
        aggregation_function: AggregationFunction::Max,
    };
    let scenario = set(BASE, &settings);
    assert_eq!(ray_serve(&scenario), &expected);
    assert_eq!(scenario.deployment.initial_replica_count, 3);
}

#[test]
fn counts_of_the_deployment_are_the_bounds() {
    let settings = [
        RAY_SERVE,
        "deployment.min_replica_count=0",
        "deployment.max_replica_count=4",
    ];
    let config = ray_serve(&set(BASE, &settings)).clone();
    assert_eq!((config.min_replicas, config.max_replicas), (0, 4));
    assert_eq!(config.initial(), 0);
}

#[test]
fn what_ray_serve_refuses_points_at_the_value() {
    let text = refused(&["autoscaler.min_replicas=3", "autoscaler.max_replicas=2"]);
    assert!(
        text.contains("max_replicas must be greater than or equal to min_replicas: 2 < 3"),
        "{text}"
    );
    assert!(text.contains("autoscaler.max_replicas=2"), "{text}");
    let text = refused(&["autoscaler.metrics_interval_s=0.0001"]);
    assert!(
        text.contains("metrics_interval_s must be at least 0.001"),
        "{text}"
    );
    let text = refused(&["autoscaler.look_back_period_s=0"]);
    assert!(text.contains("must be above 0"), "{text}");
    let twice = [
        "deployment.initial_replica_count=1",
        "autoscaler.initial_replicas=1",
    ];
    assert!(refused(&twice).contains("write one of them"));
}

#[test]
fn a_parameter_of_two_policies_is_reported_once() {
    let error = try_set(BASE, &["autoscaler.upscale_delay_s=5"]).unwrap_err();
    let text = render(&error);
    assert_eq!(text.matches("has no effect").count(), 1, "{text}");
    // The line breaks after that.
    let policies = "unless `policy = \"ray-serve\"` or `policy =";
    assert!(text.contains(policies), "{text}");
}
