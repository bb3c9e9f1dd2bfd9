//! `[objectives]`: what a run is judged by, one limit a key.

use foresail_core::time::seconds;

use super::decode;
use super::node::Entry;
use super::problem::Problem;
use super::reader::{Field, Reader, nearest};
use crate::scenario::{LatencyMetric, Metric, Objective, Statistic};

const LATENCIES: [(&str, LatencyMetric); 5] = [
    ("ttft", LatencyMetric::Ttft),
    ("itl", LatencyMetric::Itl),
    ("tpot", LatencyMetric::Tpot),
    ("e2e", LatencyMetric::E2e),
    ("queue", LatencyMetric::Queue),
];

const OTHERS: [(&str, Metric); 5] = [
    ("requests_per_s", Metric::RequestsPerSecond),
    ("output_tokens_per_s", Metric::OutputTokensPerSecond),
    ("success_rate", Metric::SuccessRate),
    ("cost_usd", Metric::CostUsd),
    (
        "cost_usd_per_million_output_tokens",
        Metric::CostUsdPerMillionOutputTokens,
    ),
];

/// The objectives in the order in which they are written.
pub(super) fn decode(reader: &Reader<'_>) -> Vec<Objective> {
    reader
        .entries()
        .iter()
        .filter_map(|entry| objective(reader, entry))
        .collect()
}

fn objective(reader: &Reader<'_>, entry: &Entry) -> Option<Objective> {
    let path = reader.path_of(&entry.key);
    let field = Field {
        context: reader.context,
        node: &entry.node,
        path: &path,
    };
    let decoded = match metric(&entry.key) {
        Some(metric) => limit(metric, field).map(|limit| Objective { metric, limit }),
        None => Err(unknown(entry)),
    };
    decoded
        .map_err(|problem| reader.context.report(problem))
        .ok()
}

fn metric(key: &str) -> Option<Metric> {
    let other = OTHERS
        .iter()
        .find(|(name, _)| *name == key)
        .map(|(_, metric)| *metric);
    other.or_else(|| {
        let (latency, statistic) = key.split_once('_')?;
        let (_, latency) = LATENCIES.iter().find(|(name, _)| *name == latency)?;
        Some(Metric::Latency(*latency, self::statistic(statistic)?))
    })
}

/// `mean`, `max`, `p95`, or `p99_9` for 99.9.
fn statistic(name: &str) -> Option<Statistic> {
    match name {
        "mean" => Some(Statistic::Mean),
        "max" => Some(Statistic::Max),
        _ => {
            let digits = name.strip_prefix('p')?;
            let is_plain = digits
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'_');
            let percentile: f64 = digits.replacen('_', ".", 1).parse().ok()?;
            (is_plain && percentile > 0.0 && percentile < 100.0)
                .then_some(Statistic::Percentile(percentile))
        }
    }
}

fn limit(metric: Metric, field: Field<'_>) -> Result<f64, Problem> {
    match metric {
        Metric::Latency(..) => decode::positive_duration(field).map(seconds),
        Metric::SuccessRate => decode::share(field),
        Metric::RequestsPerSecond
        | Metric::OutputTokensPerSecond
        | Metric::CostUsd
        | Metric::CostUsdPerMillionOutputTokens => decode::positive_number(field),
    }
}

fn unknown(entry: &Entry) -> Problem {
    let latencies = LATENCIES
        .iter()
        .flat_map(|(name, _)| ["mean", "p50", "p95", "p99", "max"].map(|s| format!("{name}_{s}")));
    let names: Vec<String> = latencies
        .chain(OTHERS.iter().map(|(name, _)| (*name).to_owned()))
        .collect();
    let nearest = nearest(&entry.key, names.iter().map(String::as_str));
    let question = nearest.map_or(String::new(), |name| format!("did you mean `{name}`? "));
    let others = OTHERS.map(|(name, _)| name).join(", ");
    Problem::new(
        "scenario::unknown_key",
        format!("unknown objective `{}`", entry.key),
    )
    .at(entry.key_place, "not an objective")
    .help(format!(
        "{question}objectives are ttft, itl, tpot, e2e or queue with _mean, _max or a \
             percentile such as _p95 or _p99_9, and: {others}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numbers_between_0_and_100() {
        assert_eq!(statistic("p95"), Some(Statistic::Percentile(95.0)));
        assert_eq!(statistic("p99_9"), Some(Statistic::Percentile(99.9)));
        for name in [
            "p100", "p0", "p", "p-5", "p9e1", "p999", "median", "p_", "pnan", "p9_9_9",
        ] {
            assert_eq!(statistic(name), None, "{name}");
        }
    }
}
