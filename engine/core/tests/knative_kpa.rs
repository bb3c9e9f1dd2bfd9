//! The policy `knative-kpa` against decisions that Knative itself made
//! (`anchors/knative-kpa/README.md` says how they were recorded).

use foresail_core::control::autoscaler::trace::Row;
use foresail_core::control::autoscaler::{
    Autoscaler, AutoscalerConfig, KnativeKpaConfig, KnativeMetric, MetricAggregation,
};
use foresail_core::time::SECOND;

const TRACES: [&str; 6] = [
    include_str!("anchors/knative-kpa/decisions-0.csv"),
    include_str!("anchors/knative-kpa/decisions-1.csv"),
    include_str!("anchors/knative-kpa/decisions-2.csv"),
    include_str!("anchors/knative-kpa/decisions-3.csv"),
    include_str!("anchors/knative-kpa/decisions-4.csv"),
    include_str!("anchors/knative-kpa/decisions-5.csv"),
];

#[test]
fn every_recorded_decision_is_made_again() {
    let mut decisions = 0;
    for (index, trace) in TRACES.iter().enumerate() {
        let mut lines = trace.lines();
        let parameters = lines.next().expect("the parameters come first");
        let config = AutoscalerConfig::KnativeKpa(config(parameters));
        let mut autoscaler = Autoscaler::new(&config, 0);
        for line in lines.skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let number = |cell: usize| cells[cell].parse::<f64>().ok().map(|value| vec![value]);
            let row = Row::new(config.columns(), (1..5).map(number).collect()).expect("a row");
            let at = cells[0].parse::<f64>().expect("a time") * SECOND as f64;
            let verdict = autoscaler.look(at as u64, &row);
            assert_eq!(
                verdict.desired.to_string(),
                cells[5],
                "trace {index}: {line}"
            );
            let reason = verdict.reason.to_string();
            if !reason.starts_with("no data") {
                let burst = format!("excess burst capacity {}", cells[6]);
                assert!(reason.ends_with(&burst), "trace {index}: {line}: {reason}");
            }
            decisions += 1;
        }
    }
    assert_eq!(decisions, 410);
}

/// `# knative-kpa name=value …`
fn config(line: &str) -> KnativeKpaConfig {
    let mut config = KnativeKpaConfig::default();
    for parameter in line.split_whitespace().skip(2) {
        let (name, value) = parameter.split_once('=').expect("name=value");
        set(&mut config, name, value);
    }
    config
}

fn set(config: &mut KnativeKpaConfig, name: &str, text: &str) {
    let number = || text.parse::<f64>().expect("a number");
    let seconds = || {
        let digits = text.strip_suffix('s').expect("seconds");
        digits.parse::<u64>().expect("whole seconds") * SECOND
    };
    match name {
        "metric" if text == "rps" => config.metric = KnativeMetric::Rps,
        "metric-aggregation-algorithm" if text == "weighted-exponential" => {
            config.metric_aggregation_algorithm = MetricAggregation::WeightedExponential;
        }
        "container-concurrency-target-default" => {
            config.container_concurrency_target_default = number();
        }
        "container-concurrency-target-percentage" => {
            config.container_concurrency_target_percentage = number();
        }
        "requests-per-second-target-default" => {
            config.requests_per_second_target_default = number();
        }
        "target" => config.target = Some(number()),
        "target-utilization-percentage" => config.target_utilization_percentage = Some(number()),
        "target-burst-capacity" => config.target_burst_capacity = number(),
        "stable-window" => config.stable_window = seconds(),
        "panic-window-percentage" => config.panic_window_percentage = number(),
        "panic-threshold-percentage" => config.panic_threshold_percentage = number(),
        "max-scale-up-rate" => config.max_scale_up_rate = number(),
        "max-scale-down-rate" => config.max_scale_down_rate = number(),
        "scale-down-delay" => config.scale_down_delay = seconds(),
        "activation-scale" => config.activation_scale = Some(number() as u32),
        _ => panic!("a parameter that no trace should have: {name}={text}"),
    }
}
