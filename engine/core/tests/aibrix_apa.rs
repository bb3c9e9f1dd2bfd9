//! The policy `aibrix-apa` against decisions that AIBrix itself made
//! (`anchors/aibrix-apa/README.md` says how they were recorded).

use foresail_core::control::autoscaler::trace::Row;
use foresail_core::control::autoscaler::{
    AibrixApaConfig, AibrixMetric, AibrixMetricSource, Autoscaler, AutoscalerConfig,
};
use foresail_core::time::SECOND;

const TRACES: [&str; 4] = [
    include_str!("anchors/aibrix-apa/decisions-0.csv"),
    include_str!("anchors/aibrix-apa/decisions-1.csv"),
    include_str!("anchors/aibrix-apa/decisions-2.csv"),
    include_str!("anchors/aibrix-apa/decisions-3.csv"),
];

#[test]
fn every_recorded_decision_is_made_again() {
    let mut decisions = 0;
    for (index, trace) in TRACES.iter().enumerate() {
        let mut lines = trace.lines();
        let parameters = lines.next().expect("the parameters come first");
        let config = AutoscalerConfig::AibrixApa(config(parameters));
        let mut autoscaler = Autoscaler::new(&config, 0);
        for line in lines.skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let number = |cell: usize| cells[cell].parse::<f64>().ok().map(|value| vec![value]);
            let row = Row::new(config.columns(), (1..4).map(number).collect()).expect("a row");
            let at = cells[0].parse::<u64>().expect("whole seconds") * SECOND;
            let verdict = autoscaler.look(at, &row);
            assert_eq!(
                verdict.desired.to_string(),
                cells[4],
                "trace {index}: {line}"
            );
            decisions += 1;
        }
    }
    assert_eq!(decisions, 200);
}

/// `# aibrix-apa name=value …`
fn config(line: &str) -> AibrixApaConfig {
    let mut config = AibrixApaConfig::default();
    for parameter in line.split_whitespace().skip(2) {
        let (name, value) = parameter.split_once('=').expect("name=value");
        set(&mut config, name, value);
    }
    config
}

fn set(config: &mut AibrixApaConfig, name: &str, text: &str) {
    let number = || text.parse::<f64>().expect("a number");
    let count = || text.parse::<u32>().expect("a count");
    let seconds = || {
        let digits = text.strip_suffix('s').expect("seconds");
        digits.parse::<u64>().expect("whole seconds") * SECOND
    };
    match name {
        "aibrix-compat" => config.aibrix_compat = text == "true",
        "minReplicas" => config.min_replicas = count(),
        "maxReplicas" => config.max_replicas = count(),
        "observeWindowSeconds" => config.observe_window_seconds = count(),
        "metricsSources" => config.metrics_sources = text.split(',').map(source).collect(),
        "max-scale-up-rate" => config.max_scale_up_rate = number(),
        "max-scale-down-rate" => config.max_scale_down_rate = number(),
        "scale-up-tolerance" => config.scale_up_tolerance = number(),
        "scale-down-tolerance" => config.scale_down_tolerance = number(),
        "scale-up-cooldown-window" => config.scale_up_cooldown_window = seconds(),
        "scale-down-cooldown-window" => config.scale_down_cooldown_window = seconds(),
        _ => panic!("a parameter that no trace should have: {name}={text}"),
    }
}

/// `num_requests_waiting:10`
fn source(text: &str) -> AibrixMetricSource {
    let (name, value) = text.split_once(':').expect("metric:target");
    let metrics = [
        AibrixMetric::GpuCacheUsagePerc,
        AibrixMetric::NumRequestsRunning,
        AibrixMetric::NumRequestsWaiting,
    ];
    let is_it = |metric: &AibrixMetric| metric.name() == name;
    AibrixMetricSource {
        target_metric: metrics.into_iter().find(is_it).expect("a metric"),
        target_value: value.parse().expect("a number"),
    }
}
