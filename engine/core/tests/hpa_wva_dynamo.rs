//! Decisions that other autoscalers' own code made, replayed: `k8s-hpa`, `keda`,
//! `wva-saturation` and `dynamo-load` must decide the same in every row. The
//! folders of `anchors/` say how they were recorded.

use std::path::Path;

use foresail_core::control::autoscaler::trace::{ColumnKind, Row};
use foresail_core::control::autoscaler::{
    Autoscaler, AutoscalerConfig, DynamoLoadConfig, HpaBehavior, HpaConfig, HpaMetric, KedaConfig,
    Measure, MetricSource, OptimizationTarget, ScalingPolicy, ScalingPolicyKind, ScalingRules,
    SelectPolicy, WvaSaturationConfig,
};

/// Replays a file of `anchors/`. Returns how often the decision changed.
fn replay(file: &str, config: &AutoscalerConfig, initial: u32) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/anchors");
    let text = std::fs::read_to_string(path.join(file)).expect("the fixture is there");
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let mut autoscaler = Autoscaler::new(config, initial);
    let (mut before, mut changes) = (initial, 0);
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |name: &str| {
            let index = header.iter().position(|column| *column == name)?;
            Some(cells[index])
        };
        let seconds: u64 = cell("time_s").unwrap().parse().unwrap();
        let desired: u32 = cell("desired").unwrap().parse().unwrap();
        let verdict = autoscaler.look(seconds * 1_000_000_000, &row(config, cell));
        assert_eq!(
            verdict.desired, desired,
            "{file}: {line}: {}",
            verdict.reason
        );
        changes += usize::from(desired != before);
        before = desired;
    }
    changes
}

fn row<'a>(config: &AutoscalerConfig, cell: impl Fn(&str) -> Option<&'a str>) -> Row {
    let columns = config.columns();
    let cells = columns.iter().map(|column| {
        let text = cell(column.name)?;
        let numbers = text.split(';').filter(|number| !number.is_empty());
        let numbers: Vec<f64> = numbers.map(|number| number.parse().unwrap()).collect();
        (column.kind == ColumnKind::PerReplica || !numbers.is_empty()).then_some(numbers)
    });
    Row::new(columns, cells.collect()).expect("the fixture is sound")
}

fn hpa(source: MetricSource, behavior: Option<HpaBehavior>) -> AutoscalerConfig {
    AutoscalerConfig::Hpa(HpaConfig {
        min_replicas: 1,
        max_replicas: 20,
        metrics: vec![HpaMetric {
            measure: Measure::Queue,
            source,
            average_value_milli: 10_000,
        }],
        behavior,
        ..HpaConfig::default()
    })
}

fn policy(kind: ScalingPolicyKind, value: u32, period_seconds: u32) -> ScalingPolicy {
    ScalingPolicy {
        kind,
        value,
        period_seconds,
    }
}

#[test]
fn the_hpa_without_behavior() {
    let config = hpa(MetricSource::Pods, None);
    assert!(replay("k8s-hpa/decisions-0.csv", &config, 2) > 2);
}

#[test]
fn the_hpa_with_windows_and_rates() {
    let behavior = HpaBehavior {
        scale_up: ScalingRules {
            stabilization_window_seconds: Some(45),
            select_policy: SelectPolicy::Min,
            policies: vec![
                policy(ScalingPolicyKind::Percent, 50, 60),
                policy(ScalingPolicyKind::Pods, 3, 30),
            ],
            tolerance: None,
        },
        scale_down: ScalingRules {
            stabilization_window_seconds: Some(120),
            policies: vec![policy(ScalingPolicyKind::Pods, 2, 60)],
            ..ScalingRules::scale_down()
        },
    };
    let config = hpa(MetricSource::External, Some(behavior));
    assert!(replay("k8s-hpa/decisions-1.csv", &config, 2) > 8);
}

#[test]
fn the_hpa_that_may_not_scale_down() {
    let behavior = HpaBehavior {
        scale_up: ScalingRules::scale_up(),
        scale_down: ScalingRules {
            select_policy: SelectPolicy::Disabled,
            ..ScalingRules::scale_down()
        },
    };
    let config = hpa(MetricSource::Pods, Some(behavior));
    assert!(replay("k8s-hpa/decisions-2.csv", &config, 2) > 5);
}

#[test]
fn keda_with_its_hpa() {
    let config = AutoscalerConfig::Keda(KedaConfig {
        max_replica_count: 10,
        threshold_milli: 1000,
        ..KedaConfig::default()
    });
    assert!(replay("keda/decisions-0.csv", &config, 0) > 6);
}

#[test]
fn keda_with_idle_replicas() {
    let scale_down = ScalingRules {
        stabilization_window_seconds: Some(0),
        ..ScalingRules::scale_down()
    };
    let config = AutoscalerConfig::Keda(KedaConfig {
        min_replica_count: 3,
        max_replica_count: 6,
        idle_replica_count: Some(0),
        polling_interval: 10_000_000_000,
        initial_cooldown_period: 120_000_000_000,
        threshold_milli: 1000,
        activation_threshold: 3.0,
        behavior: Some(HpaBehavior {
            scale_up: ScalingRules::scale_up(),
            scale_down,
        }),
        ..KedaConfig::default()
    });
    assert!(replay("keda/decisions-1.csv", &config, 6) > 6);
}

#[test]
fn the_saturation_analyser() {
    let config = AutoscalerConfig::WvaSaturation(WvaSaturationConfig::default());
    assert!(replay("wva-saturation/decisions-0.csv", &config, 1) > 10);
    assert!(replay("wva-saturation/decisions-1.csv", &config, 1) > 10);
}

#[test]
fn the_planner() {
    let config = |optimization_target| {
        AutoscalerConfig::DynamoLoad(DynamoLoadConfig {
            optimization_target,
            ..DynamoLoadConfig::default()
        })
    };
    let throughput = config(OptimizationTarget::Throughput);
    assert!(replay("dynamo-load/throughput.csv", &throughput, 4) > 10);
    let latency = config(OptimizationTarget::Latency);
    assert!(replay("dynamo-load/latency.csv", &latency, 2) > 10);
}
