//! Several seeds of one scenario: the mean of each metric over them, and how
//! far off that mean may be.
//!
//! The luck of the traffic averages out: more seeds say better what the mean over all traffic is. What a calibration
//! has wrong does not, since every run of the real deployment has the one set of step times that is true. So where each seed
//! has a draw of them, the interval is that of one more run, which no number of seeds makes narrow.

use crate::objectives::Unit;
use crate::summary::{LatencySummary, Summary};
use serde::{Deserialize, Serialize};

/// What several seeds say together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    /// The seeds.
    pub seeds: Vec<u64>,
    /// Whether each run had its own draw of the step times, so that intervals include what their calibration
    /// leaves open. If not, step times were taken as exact, and intervals are of the traffic alone.
    #[serde(default)]
    pub include_calibration_error: bool,
    /// In how many of them every objective was met.
    pub met: u64,
    /// In how many of them each objective was met, in the order of
    /// [`Summary::objectives`].
    pub objectives_met: Vec<u64>,
    /// The metrics.
    pub metrics: Vec<SeedsMetric>,
}

/// One metric over several seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedsMetric {
    /// For example `ttft_p95`.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// Its value with each seed; `null` where nothing was there to measure.
    pub values: Vec<Option<f64>>,
    /// Mean of the values that there are.
    pub mean: Option<f64>,
    /// The true mean is within this of [`SeedsMetric::mean`] with 95 %
    /// confidence (Student's t); with [`Seeds::include_calibration_error`], one more run is. `null` for fewer
    /// than two values.
    pub half_width: Option<f64>,
}

/// Of what an interval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntervalOf {
    /// Of the mean over all runs that there could be.
    Mean,
    /// Of one more run like those that there are.
    AnotherRun,
}

impl IntervalOf {
    /// The variance of the mean, or of another run about it (NIST/SEMATECH e-Handbook of Statistical Methods,
    /// 1.3.5.2 and 2.3.6.7.4), and its degrees of freedom; `None` for fewer than two values.
    pub(crate) fn variance(self, values: &[f64]) -> Option<(f64, f64)> {
        let mean = mean(values)?;
        let (count, freedom) = (values.len() as f64, (values.len() - 1) as f64);
        let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
        let share = match self {
            Self::Mean => 1.0 / count,
            Self::AnotherRun => 1.0 + 1.0 / count,
        };
        (freedom > 0.0).then(|| (squares / freedom * share, freedom))
    }

    /// Half the width of the 95 % interval about the mean: `t * s / sqrt(n)`, or `t * s * sqrt(1 + 1 / n)`.
    pub(crate) fn half_width(self, values: &[f64]) -> Option<f64> {
        let (variance, _) = self.variance(values)?;
        Some(student_t(values.len() - 1) * variance.sqrt())
    }
}

impl Seeds {
    /// Puts the runs of several seeds together that have the same step times.
    #[must_use]
    pub fn of(summaries: &[Summary]) -> Self {
        Self::with(IntervalOf::Mean, summaries)
    }

    /// Puts the runs of several seeds together that have a draw of the step times each.
    #[must_use]
    pub fn of_draws(summaries: &[Summary]) -> Self {
        Self {
            include_calibration_error: true,
            ..Self::with(IntervalOf::AnotherRun, summaries)
        }
    }

    fn with(interval: IntervalOf, summaries: &[Summary]) -> Self {
        let mut metrics: Vec<SeedsMetric> = Vec::new();
        for summary in summaries {
            for (index, (name, unit, value)) in metrics_of(summary).into_iter().enumerate() {
                if index == metrics.len() {
                    let values = Vec::with_capacity(summaries.len());
                    metrics.push(SeedsMetric {
                        name,
                        unit,
                        values,
                        mean: None,
                        half_width: None,
                    });
                }
                metrics[index].values.push(value);
            }
        }
        for metric in &mut metrics {
            let values: Vec<f64> = metric.values.iter().flatten().copied().collect();
            metric.mean = mean(&values);
            metric.half_width = interval.half_width(&values);
        }
        Self {
            seeds: summaries.iter().map(|summary| summary.seed).collect(),
            include_calibration_error: false,
            met: summaries
                .iter()
                .filter(|summary| summary.objectives_met())
                .count() as u64,
            objectives_met: objectives_met(summaries),
            metrics,
        }
    }

    /// The metric of that name.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<&SeedsMetric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }
}

/// In how many runs each objective was met. They are runs of one scenario, so
/// that they have the same objectives in the same order.
fn objectives_met(summaries: &[Summary]) -> Vec<u64> {
    let objectives = summaries.first().map_or(0, |first| first.objectives.len());
    let met = |index: usize, summary: &&Summary| {
        let objective = summary.objectives.get(index);
        objective.is_some_and(|objective| objective.met)
    };
    (0..objectives)
        .map(|index| summaries.iter().filter(|run| met(index, run)).count() as u64)
        .collect()
}

pub(crate) fn metrics_of(summary: &Summary) -> Vec<(String, Unit, Option<f64>)> {
    let latencies = [
        ("ttft", summary.ttft_s),
        ("itl", summary.itl_s),
        ("tpot", summary.tpot_s),
        ("e2e", summary.e2e_s),
        ("queue", summary.queue_s),
    ];
    let cost = summary.cost.as_ref();
    let others = [
        (
            "requests_per_s",
            Unit::RequestsPerSecond,
            Some(summary.throughput.requests_per_s),
        ),
        (
            "output_tokens_per_s",
            Unit::TokensPerSecond,
            Some(summary.throughput.output_tokens_per_s),
        ),
        (
            "goodput_per_s",
            Unit::RequestsPerSecond,
            summary.goodput_per_s,
        ),
        (
            "replicas",
            Unit::Replicas,
            summary.replicas.map(|replicas| replicas.mean),
        ),
        ("cost_usd", Unit::Usd, cost.map(|cost| cost.usd)),
        (
            "cost_usd_per_million_output_tokens",
            Unit::Usd,
            cost.and_then(|cost| cost.usd_per_million_output_tokens),
        ),
    ];
    let latencies = latencies.into_iter().flat_map(latency_metrics);
    latencies
        .chain(others.map(|(name, unit, value)| (name.to_owned(), unit, value)))
        .collect()
}

fn latency_metrics(
    (latency, summary): (&str, Option<LatencySummary>),
) -> [(String, Unit, Option<f64>); 6] {
    let metric = |statistic: &str, of: fn(LatencySummary) -> f64| {
        (
            format!("{latency}_{statistic}"),
            Unit::Seconds,
            summary.map(of),
        )
    };
    [
        metric("mean", |s| s.mean),
        metric("p50", |s| s.p50),
        metric("p90", |s| s.p90),
        metric("p95", |s| s.p95),
        metric("p99", |s| s.p99),
        metric("max", |s| s.max),
    ]
}

pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The 97.5 % quantile of Student's t distribution.
pub(crate) fn student_t(freedom: usize) -> f64 {
    match T_QUANTILES.get(freedom - 1) {
        Some(quantile) => *quantile,
        None => student_t_expansion(freedom as f64),
    }
}

/// Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5, first
/// three terms: right to 1e-5 beyond the table.
fn student_t_expansion(freedom: f64) -> f64 {
    const Z: f64 = 1.959_963_984_540_054;
    const Z3: f64 = Z * Z * Z;
    const Z5: f64 = Z3 * Z * Z;
    Z + (Z3 + Z) / (4.0 * freedom) + (5.0 * Z5 + 16.0 * Z3 + 3.0 * Z) / (96.0 * freedom * freedom)
}

/// For 1 to 30 degrees of freedom (NIST/SEMATECH e-Handbook, 1.3.6.7.2).
const T_QUANTILES: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurements::Measurements;
    use crate::objectives::{Bound, Objective};
    use crate::records::RunTotals;
    use crate::summary::RunDescription;

    fn run(seed: u64, usd: u128) -> Summary {
        let description = RunDescription {
            seed,
            ..RunDescription::default()
        };
        let totals = RunTotals {
            cost_nanodollars: usd * 1_000_000_000,
            ..RunTotals::default()
        };
        Measurements::new(&[]).summary(&description, &totals)
    }

    #[test]
    fn an_interval_of_three_runs() {
        let seeds = Seeds::of(&[run(1, 1), run(2, 2), run(3, 3)]);
        assert_eq!(seeds.seeds, [1, 2, 3]);
        assert_eq!(seeds.met, 3);
        let cost = seeds.metric("cost_usd").unwrap();
        assert_eq!(cost.mean, Some(2.0));
        // t(2) * 1 / sqrt(3).
        assert!((cost.half_width.unwrap() - 4.303 / 3.0_f64.sqrt()).abs() < 1e-12);
    }

    /// More draws of a calibration do not make it better.
    #[test]
    fn an_interval_of_draws_does_not_shrink_with_their_number() {
        let draws = |count: u64| -> Vec<Summary> {
            let pairs = (0..count).map(|seed| run(seed, 9 + 2 * u128::from(seed % 2)));
            pairs.collect()
        };
        let half = |count| {
            let seeds = Seeds::of_draws(&draws(count));
            assert!(seeds.include_calibration_error);
            let cost = seeds.metric("cost_usd").unwrap();
            assert_eq!(cost.mean, Some(10.0));
            cost.half_width.unwrap()
        };
        // All of these are 1 from the mean, and so is the best that they are draws of.
        assert!(
            half(10) > half(1_000) && half(1_000) > 1.9,
            "{}",
            half(1_000)
        );
        let of_mean = Seeds::of(&draws(1_000))
            .metric("cost_usd")
            .unwrap()
            .half_width;
        assert!(of_mean.unwrap() < 0.1, "{of_mean:?}");
        // t(1) * s * sqrt(1 + 1/2), of 9 and 11.
        assert!((half(2) - 12.706 * 2.0_f64.sqrt() * 1.5_f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn objectives_are_counted_each() {
        let objective = |met| Objective {
            name: "an objective".into(),
            observed: Some(1.0),
            limit: 1.0,
            met,
            unit: Unit::Usd,
            bound: Bound::AtMost,
        };
        let mut runs = [run(1, 1), run(2, 2)];
        runs[0].objectives = vec![objective(true), objective(false)];
        runs[1].objectives = vec![objective(true), objective(true)];
        let seeds = Seeds::of(&runs);
        assert_eq!((seeds.objectives_met, seeds.met), (vec![2, 1], 1));
    }

    #[test]
    fn one_run_has_no_interval() {
        let cost = &Seeds::of(&[run(1, 5)]).metrics[34];
        assert_eq!(
            (cost.name.as_str(), cost.mean, cost.half_width),
            ("cost_usd", Some(5.0), None)
        );
    }

    #[test]
    fn what_was_never_measured_has_no_mean() {
        let seeds = Seeds::of(&[run(1, 5), run(2, 5)]);
        let ttft = seeds.metric("ttft_p95").unwrap();
        assert_eq!((ttft.mean, ttft.half_width), (None, None));
        assert_eq!(ttft.values, [None, None]);
    }

    #[test]
    fn no_run_has_no_metric() {
        assert!(Seeds::of(&[]).metrics.is_empty());
    }

    #[test]
    fn the_expansion_continues_the_table() {
        assert!((student_t_expansion(30.0) - T_QUANTILES[29]).abs() < 5e-4);
        assert!((student_t(60) - 2.000).abs() < 5e-4);
        assert!((student_t(1_000_000) - 1.960).abs() < 5e-5);
    }
}
