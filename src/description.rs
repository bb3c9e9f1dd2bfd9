//! A scenario in the words of the reports, which know nothing of scenarios.

use foresail_core::control::autoscaler::AutoscalerConfig;
use foresail_reports::summary::{ScenarioFacts, Source};
use foresail_reports::{Latency, ObjectiveMetric, ObjectiveSpec, RunDescription, Statistic};
use foresail_scenarios::scenario::{self, LatencyMetric, Metric, Objective, Scenario};

use crate::cli;

/// What a summary says of a simulation of this scenario under this seed.
/// `workload` is the traffic in words, `settings` what the command line changed.
pub(crate) fn of_run(
    scenario: &Scenario,
    seed: u64,
    workload: String,
    settings: &[String],
) -> RunDescription {
    RunDescription {
        tool: cli::tool(),
        source: Source::Simulated,
        scenario: ScenarioFacts {
            workload,
            leaves_out_request_overhead: scenario.deployment.leaves_out_request_overhead(),
            ..facts(scenario, settings)
        },
        seed,
    }
}

/// What is known of a scenario, but for its traffic. `settings` is what the command line changed.
pub(crate) fn facts(scenario: &Scenario, settings: &[String]) -> ScenarioFacts {
    let deployment = &scenario.deployment;
    let (min, max) = replica_counts(&deployment.autoscaler);
    ScenarioFacts {
        name: scenario.name.clone(),
        settings: settings.to_vec(),
        model: deployment.model.clone(),
        gpu: deployment.gpu.clone(),
        world_size: deployment.world_size,
        replica_count_min: Some(min),
        replica_count_max: Some(max),
        usd_per_gpu_hour: deployment.price.nanodollars_per_gpu_hour as f64 / 1e9,
        price_source: deployment.price_source.clone(),
        bills_starting: deployment.billing.starting,
        bills_draining: deployment.billing.draining,
        ..ScenarioFacts::default()
    }
}

/// The fewest and the most replicas that the autoscaler may ask for.
pub(crate) fn replica_counts(autoscaler: &AutoscalerConfig) -> (u32, u32) {
    match autoscaler {
        AutoscalerConfig::AibrixApa(config) => (config.min_replicas, config.max_replicas),
        AutoscalerConfig::Fireworks(config) => (config.min_replica_count, config.max_replica_count),
        AutoscalerConfig::Oracle(config) => (config.min_replica_count, config.max_replica_count),
        AutoscalerConfig::Fixed { replicas } => (*replicas, *replicas),
        AutoscalerConfig::RayServe(config) => (config.min_replicas, config.max_replicas),
        AutoscalerConfig::KnativeKpa(config) => config.replica_counts(),
        AutoscalerConfig::Hpa(config) => (config.min_replicas, config.max_replicas),
        AutoscalerConfig::Keda(config) => (config.min_replica_count, config.max_replica_count),
        AutoscalerConfig::WvaSaturation(config) => (config.min_replicas, config.max_replicas),
        AutoscalerConfig::DynamoLoad(config) => (config.min_endpoint, config.replicas_max()),
        AutoscalerConfig::Scripted { steps, initial } => steps
            .iter()
            .map(|(_, count)| *count)
            .fold((*initial, *initial), |(min, max), count| {
                (min.min(count), max.max(count))
            }),
    }
}

/// What the scenario asks for.
pub(crate) fn objectives(scenario: &Scenario) -> Vec<ObjectiveSpec> {
    scenario.objectives.iter().map(objective).collect()
}

fn objective(objective: &Objective) -> ObjectiveSpec {
    let (name, metric) = metric(objective.metric);
    ObjectiveSpec {
        name,
        metric,
        limit: objective.limit,
    }
}

/// A metric, under the name of its key in a scenario file.
fn metric(metric: Metric) -> (String, ObjectiveMetric) {
    let (name, metric) = match metric {
        Metric::Latency(latency, statistic) => return latency_metric(latency, statistic),
        Metric::RequestsPerSecond => ("requests_per_s", ObjectiveMetric::RequestsPerSecond),
        Metric::OutputTokensPerSecond => (
            "output_tokens_per_s",
            ObjectiveMetric::OutputTokensPerSecond,
        ),
        Metric::SuccessRate => ("success_rate", ObjectiveMetric::SuccessRate),
        Metric::CostUsd => ("cost_usd", ObjectiveMetric::CostUsd),
        Metric::CostUsdPerMillionOutputTokens => (
            "cost_usd_per_million_output_tokens",
            ObjectiveMetric::CostUsdPerMillionOutputTokens,
        ),
    };
    (name.to_owned(), metric)
}

fn latency_metric(
    latency: LatencyMetric,
    statistic: scenario::Statistic,
) -> (String, ObjectiveMetric) {
    let (latency_name, latency) = self::latency(latency);
    let (statistic_name, statistic) = self::statistic(statistic);
    (
        format!("{latency_name}_{statistic_name}"),
        ObjectiveMetric::Latency(latency, statistic),
    )
}

fn latency(latency: LatencyMetric) -> (&'static str, Latency) {
    match latency {
        LatencyMetric::Ttft => ("ttft", Latency::Ttft),
        LatencyMetric::Itl => ("itl", Latency::Itl),
        LatencyMetric::Tpot => ("tpot", Latency::Tpot),
        LatencyMetric::E2e => ("e2e", Latency::E2e),
        LatencyMetric::Queue => ("queue", Latency::Queue),
    }
}

/// A percentile with decimals is `p99_9` for 99.9.
fn statistic(statistic: scenario::Statistic) -> (String, Statistic) {
    match statistic {
        scenario::Statistic::Mean => ("mean".to_owned(), Statistic::Mean),
        scenario::Statistic::Max => ("max".to_owned(), Statistic::Max),
        scenario::Statistic::Percentile(percentile) => {
            let digits = percentile.to_string().replace('.', "_");
            (format!("p{digits}"), Statistic::Percentile(percentile))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_called_what_the_file_calls_them() {
        let percentile =
            |p| Metric::Latency(LatencyMetric::Ttft, scenario::Statistic::Percentile(p));
        let mean = Metric::Latency(LatencyMetric::Queue, scenario::Statistic::Mean);
        let metrics = [
            percentile(95.0),
            percentile(99.9),
            mean,
            Metric::SuccessRate,
        ];
        let names = metrics.map(|metric| super::metric(metric).0);
        assert_eq!(
            names,
            ["ttft_p95", "ttft_p99_9", "queue_mean", "success_rate"]
        );
    }

    #[test]
    fn a_script_is_bounded_by_its_smallest_and_largest_count() {
        let script = AutoscalerConfig::Scripted {
            steps: vec![(1, 5), (2, 3)],
            initial: 2,
        };
        assert_eq!(replica_counts(&script), (2, 5));
        let falling = AutoscalerConfig::Scripted {
            steps: vec![(1, 1)],
            initial: 2,
        };
        assert_eq!(replica_counts(&falling), (1, 2));
    }
}
