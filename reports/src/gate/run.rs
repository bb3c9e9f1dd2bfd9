//! What a gate knows of a run: its figures, whether it may be trusted, and what
//! makes it a partner of another run.

use super::metric;
use crate::histogram::Histogram;
use crate::objectives::{Latency, Objective, ObjectiveMetric, Statistic};
use crate::summary::{LatencySummary, Source, Summary};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A run of the baseline or of the candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct GateRun {
    /// What it is called: its folder.
    pub name: String,
    /// Seed of its requests.
    pub seed: u64,
    /// Whether it was computed or measured.
    pub source: Source,
    /// What was run.
    pub scenario: String,
    /// The traffic, in one line.
    pub workload: String,
    /// Requests offered by the workload.
    pub offered: u64,
    /// Requests that completed.
    pub completed: u64,
    /// Its figures, by the names of their metrics.
    pub values: BTreeMap<String, f64>,
    /// What percentiles beside the usual ones, and intervals within the run, are read from.
    pub histograms: BTreeMap<LatencyName, Histogram>,
    /// Its own verdict of its objectives.
    pub objectives: Vec<Objective>,
    /// Why its figures are not to be trusted; empty if they are.
    pub degraded: Vec<String>,
}

/// The name of a latency, as in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatencyName {
    /// Time to first token.
    Ttft,
    /// Between successive chunks of output.
    Itl,
    /// Mean time an output token after the first.
    Tpot,
    /// Intended send to end.
    E2e,
    /// Waiting for the first step.
    Queue,
}

impl From<Latency> for LatencyName {
    fn from(latency: Latency) -> Self {
        match latency {
            Latency::Ttft => Self::Ttft,
            Latency::Itl => Self::Itl,
            Latency::Tpot => Self::Tpot,
            Latency::E2e => Self::E2e,
            Latency::Queue => Self::Queue,
        }
    }
}

impl GateRun {
    /// What a summary says of its run.
    #[must_use]
    pub fn of(name: impl Into<String>, summary: &Summary) -> Self {
        Self {
            name: name.into(),
            seed: summary.seed,
            source: summary.source,
            scenario: summary.scenario.name.clone(),
            workload: summary.scenario.workload.clone(),
            offered: summary.requests.offered,
            completed: summary.requests.completed,
            values: values(summary),
            histograms: BTreeMap::new(),
            objectives: summary.objectives.clone(),
            degraded: degraded(summary),
        }
    }

    /// Its value of a metric; `None` if it is not known.
    #[must_use]
    pub fn value(&self, metric: ObjectiveMetric) -> Option<f64> {
        let known = self.values.get(&metric::name(metric)).copied();
        known.or_else(|| match metric {
            ObjectiveMetric::Latency(latency, statistic) => {
                statistic.of(self.histograms.get(&latency.into())?)
            }
            _ => None,
        })
    }
}

fn degraded(summary: &Summary) -> Vec<String> {
    let Some(measured) = &summary.measured else {
        return Vec::new();
    };
    let interrupted = measured
        .is_interrupted
        .then(|| "it was ended before its plan was".to_owned());
    let part = measured.shard.as_ref().and_then(|shard| {
        let is_part = shard.parts.len() < shard.of as usize;
        is_part.then(|| {
            format!(
                "it has {} of {} shards; merge them",
                shard.parts.len(),
                shard.of
            )
        })
    });
    let reasons = measured.degraded.iter().map(|reason| reason.text.clone());
    interrupted.into_iter().chain(part).chain(reasons).collect()
}

fn values(summary: &Summary) -> BTreeMap<String, f64> {
    let latencies = [
        (Latency::Ttft, summary.ttft_s),
        (Latency::Itl, summary.itl_s),
        (Latency::Tpot, summary.tpot_s),
        (Latency::E2e, summary.e2e_s),
        (Latency::Queue, summary.queue_s),
    ];
    let latencies = latencies.into_iter().flat_map(of_latency);
    latencies
        .chain(others(summary))
        .filter_map(|(metric, value)| Some((metric::name(metric), value?)))
        .collect()
}

/// A statistic, and how it is read from a summary.
type Figure = (Statistic, fn(LatencySummary) -> f64);

fn of_latency(
    (latency, summary): (Latency, Option<LatencySummary>),
) -> [(ObjectiveMetric, Option<f64>); 6] {
    let percentile = Statistic::Percentile;
    let figures: [Figure; 6] = [
        (Statistic::Mean, |s| s.mean),
        (percentile(50.0), |s| s.p50),
        (percentile(90.0), |s| s.p90),
        (percentile(95.0), |s| s.p95),
        (percentile(99.0), |s| s.p99),
        (Statistic::Max, |s| s.max),
    ];
    figures.map(|(statistic, of)| {
        (
            ObjectiveMetric::Latency(latency, statistic),
            summary.map(of),
        )
    })
}

fn others(summary: &Summary) -> [(ObjectiveMetric, Option<f64>); 6] {
    let throughput = &summary.throughput;
    let requests = &summary.requests;
    let cost = summary.cost.as_ref();
    let success =
        (requests.offered > 0).then(|| requests.completed as f64 / requests.offered as f64);
    [
        (
            ObjectiveMetric::RequestsPerSecond,
            Some(throughput.requests_per_s),
        ),
        (
            ObjectiveMetric::OutputTokensPerSecond,
            Some(throughput.output_tokens_per_s),
        ),
        (ObjectiveMetric::SuccessRate, success),
        (ObjectiveMetric::Goodput, goodput(summary)),
        (ObjectiveMetric::CostUsd, cost.map(|cost| cost.usd)),
        (
            ObjectiveMetric::CostUsdPerMillionOutputTokens,
            cost.and_then(|cost| cost.usd_per_million_output_tokens),
        ),
    ]
}

/// The share of the requests offered that completed within every limit. The
/// summary has it as a rate over the same time as the completed ones.
fn goodput(summary: &Summary) -> Option<f64> {
    let requests = &summary.requests;
    let good_per_s = summary.goodput_per_s.filter(|_| requests.offered > 0)?;
    let completed_per_s = summary.throughput.requests_per_s;
    if completed_per_s == 0.0 {
        return Some(0.0);
    }
    let good = (good_per_s / completed_per_s * requests.completed as f64).round();
    Some(good / requests.offered as f64)
}
