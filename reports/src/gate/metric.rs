//! What can be gated, under the names that people write: `ttft.p99`,
//! `throughput.output_tokens_per_s`, `cost.usd_per_million_output_tokens`.

use crate::objectives::{Bound, Latency, ObjectiveMetric, Statistic, Unit};

const LATENCIES: [(&str, Latency); 5] = [
    ("ttft", Latency::Ttft),
    ("itl", Latency::Itl),
    ("tpot", Latency::Tpot),
    ("e2e", Latency::E2e),
    ("queue", Latency::Queue),
];

/// The name, and that of the key in a scenario's `[objectives]`.
const OTHERS: [(&str, &str, ObjectiveMetric); 6] = [
    (
        "throughput.requests_per_s",
        "requests_per_s",
        ObjectiveMetric::RequestsPerSecond,
    ),
    (
        "throughput.output_tokens_per_s",
        "output_tokens_per_s",
        ObjectiveMetric::OutputTokensPerSecond,
    ),
    ("success_rate", "success_rate", ObjectiveMetric::SuccessRate),
    ("goodput", "goodput", ObjectiveMetric::Goodput),
    ("cost.usd", "cost_usd", ObjectiveMetric::CostUsd),
    (
        "cost.usd_per_million_output_tokens",
        "cost_usd_per_million_output_tokens",
        ObjectiveMetric::CostUsdPerMillionOutputTokens,
    ),
];

/// The statistics that are suggested; any percentile between 0 and 100 is one.
const STATISTICS: [&str; 6] = ["mean", "p50", "p90", "p95", "p99", "max"];

/// What a change of a mean or a median must exceed to be of interest, unless it
/// is said otherwise. A twentieth of a GPU's worth of latency is worth a look,
/// and a fiftieth is what quiet machines can tell apart.
const MINIMUM: f64 = 0.02;
/// Time to first token has the queue in it, which answers small causes with large effects.
const MINIMUM_QUEUEING: f64 = 0.03;
/// Tails are out of few requests.
const MINIMUM_TAIL: f64 = 0.05;
/// Of shares, in points: half a percent of all requests.
const MINIMUM_SHARE: f64 = 0.005;

/// The name of a metric.
#[must_use]
pub fn name(metric: ObjectiveMetric) -> String {
    match metric {
        ObjectiveMetric::Latency(latency, statistic) => {
            let known = LATENCIES.iter().find(|(_, other)| *other == latency);
            let latency = known.map_or("latency", |(name, _)| name);
            match statistic {
                Statistic::Mean => format!("{latency}.mean"),
                Statistic::Max => format!("{latency}.max"),
                Statistic::Percentile(percentile) => format!("{latency}.p{percentile}"),
            }
        }
        other => {
            let known = OTHERS.iter().find(|(_, _, metric)| *metric == other);
            known.map_or_else(String::new, |(name, _, _)| (*name).to_owned())
        }
    }
}

/// The metric of that name, or of that key of a scenario's `[objectives]`:
/// `ttft.p99_9` and `ttft_p99_9` are `ttft.p99.9`.
#[must_use]
pub fn find(name: &str) -> Option<ObjectiveMetric> {
    let is_named = |(dotted, key, _): &&(&str, &str, _)| [*dotted, *key].contains(&name);
    if let Some((_, _, metric)) = OTHERS.iter().find(is_named) {
        return Some(*metric);
    }
    let (latency, statistic) = name.split_once(['.', '_'])?;
    let (_, latency) = LATENCIES.iter().find(|(name, _)| *name == latency)?;
    Some(ObjectiveMetric::Latency(
        *latency,
        find_statistic(statistic)?,
    ))
}

fn find_statistic(name: &str) -> Option<Statistic> {
    match name {
        "mean" => Some(Statistic::Mean),
        "max" => Some(Statistic::Max),
        _ => {
            let digits = name.strip_prefix('p')?.replacen('_', ".", 1);
            let is_plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
            let percentile: f64 = digits.parse().ok()?;
            (digits.bytes().all(is_plain) && percentile > 0.0 && percentile < 100.0)
                .then_some(Statistic::Percentile(percentile))
        }
    }
}

/// All names, with the usual statistics of each latency.
#[must_use]
pub fn names() -> Vec<String> {
    let of =
        |(latency, _): &(&str, _)| STATISTICS.map(|statistic| format!("{latency}.{statistic}"));
    let others = OTHERS.iter().map(|(name, _, _)| (*name).to_owned());
    LATENCIES.iter().flat_map(of).chain(others).collect()
}

/// The name that was meant, if one is like it.
#[must_use]
pub fn nearest(name: &str) -> Option<String> {
    let distance = |known: &String| strsim::damerau_levenshtein(known, name);
    let nearest = names().into_iter().min_by_key(distance)?;
    // A third of it may be wrong; beyond that it is another word.
    (distance(&nearest) * 3 <= nearest.len()).then_some(nearest)
}

/// The smallest change for the worse that is of interest, unless it is said
/// otherwise: a share of what it was, and of shares the points.
#[must_use]
pub fn minimum_effect(metric: ObjectiveMetric) -> f64 {
    match metric {
        _ if metric.unit() == Unit::Share => MINIMUM_SHARE,
        ObjectiveMetric::Latency(_, Statistic::Max) => MINIMUM_TAIL,
        ObjectiveMetric::Latency(_, Statistic::Percentile(percentile)) if percentile >= 90.0 => {
            MINIMUM_TAIL
        }
        ObjectiveMetric::Latency(Latency::Ttft | Latency::Queue, _) => MINIMUM_QUEUEING,
        _ => MINIMUM,
    }
}

/// Whether more of it is worse.
pub(super) fn is_worse_above(metric: ObjectiveMetric) -> bool {
    metric.bound() == Bound::AtMost
}

/// Values on a scale on which differences are changes: the higher, the worse.
/// Logarithms, so that a difference is a ratio, and shares as they are. `None`
/// of what has no ratio.
pub(super) fn badness(metric: ObjectiveMetric, value: f64) -> Option<f64> {
    let sign = if is_worse_above(metric) { 1.0 } else { -1.0 };
    match metric.unit() {
        Unit::Share => Some(sign * value),
        _ => (value > 0.0).then(|| sign * value.ln()),
    }
}

/// The value that is so bad: [`badness`] the other way round.
pub(super) fn level(metric: ObjectiveMetric, badness: f64) -> f64 {
    let sign = if is_worse_above(metric) { 1.0 } else { -1.0 };
    match metric.unit() {
        Unit::Share => (sign * badness).clamp(0.0, 1.0),
        _ => (sign * badness).exp(),
    }
}

/// A difference on that scale as people write it: `0.05` is 5 % more, or of
/// shares 5 points more.
pub(super) fn change(metric: ObjectiveMetric, difference: f64) -> f64 {
    let sign = if is_worse_above(metric) { 1.0 } else { -1.0 };
    let change = match metric.unit() {
        Unit::Share => sign * difference,
        _ => (sign * difference).exp_m1(),
    };
    // No change is none for the worse: never -0.
    change + 0.0
}

/// How far on that scale a change for the worse of so much is.
pub(super) fn reach(metric: ObjectiveMetric, worse_by: f64) -> f64 {
    match metric.unit() {
        Unit::Share => worse_by,
        _ if is_worse_above(metric) => worse_by.ln_1p(),
        _ => -(-worse_by).ln_1p(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_under_its_own() {
        for known in names() {
            let metric = find(&known).unwrap_or_else(|| panic!("{known}"));
            assert_eq!(name(metric), known);
        }
        assert_eq!(name(find("ttft_p99_9").unwrap()), "ttft.p99.9");
        assert_eq!(find("cost_usd"), Some(ObjectiveMetric::CostUsd));
    }

    #[test]
    fn what_is_no_metric_is_none() {
        for wrong in [
            "",
            "ttft",
            "ttft.",
            "ttft.p0",
            "ttft.p100",
            "ttft.p-5",
            "x.p99",
            "ttft.p9e1",
        ] {
            assert_eq!(find(wrong), None, "{wrong}");
        }
        assert_eq!(nearest("tfft.p99").as_deref(), Some("ttft.p99"));
        assert_eq!(nearest("sucess_rate").as_deref(), Some("success_rate"));
        assert_eq!(nearest("colour"), None);
    }

    #[test]
    fn worse_is_more_latency_and_less_throughput() {
        let latency = find("ttft.p50").unwrap();
        let worse = badness(latency, 1.05).unwrap() - badness(latency, 1.0).unwrap();
        assert!((worse - reach(latency, 0.05)).abs() < 1e-12);
        assert!((change(latency, worse) - 0.05).abs() < 1e-12);
        let rate = find("requests_per_s").unwrap();
        let worse = badness(rate, 0.95).unwrap() - badness(rate, 1.0).unwrap();
        assert!((worse - reach(rate, 0.05)).abs() < 1e-12);
        assert!((change(rate, worse) + 0.05).abs() < 1e-12);
        let share = find("success_rate").unwrap();
        let worse = badness(share, 0.95).unwrap() - badness(share, 1.0).unwrap();
        assert!((worse - 0.05).abs() < 1e-12 && (change(share, worse) + 0.05).abs() < 1e-12);
        assert_eq!(badness(latency, 0.0), None);
    }
}
