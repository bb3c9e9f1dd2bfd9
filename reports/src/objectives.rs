//! Objectives: limits that a run is judged by, and the goodput that they imply.

use crate::gate::metric;
use crate::histogram::Histogram;
use serde::{Deserialize, Serialize};

/// A limit that a run must meet.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectiveSpec {
    /// What the scenario calls it, for example `ttft_p95`.
    pub name: String,
    /// What is measured.
    pub metric: ObjectiveMetric,
    /// The limit, in the unit of the metric.
    pub limit: f64,
}

impl ObjectiveSpec {
    /// What an objective was judged by, if its name is that of a metric: `ttft_p99` as in scenarios, or `ttft.p99` as in expressions.
    #[must_use]
    pub fn from_objective(objective: &Objective) -> Option<Self> {
        Some(Self {
            name: objective.name.clone(),
            metric: metric::find(&objective.name)?,
            limit: objective.limit,
        })
    }
}

/// What an objective is about. Latencies and costs are met at or below the
/// limit; rates and shares at or above it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ObjectiveMetric {
    /// A statistic of a latency of the completed requests (s).
    Latency(Latency, Statistic),
    /// Requests a second that completed.
    RequestsPerSecond,
    /// Output tokens a second.
    OutputTokensPerSecond,
    /// Completed requests among those offered, 0 to 1.
    SuccessRate,
    /// Requests that completed within every latency limit, among those offered, 0 to 1.
    Goodput,
    /// Cost of the whole run (USD).
    CostUsd,
    /// Cost of a million output tokens (USD).
    CostUsdPerMillionOutputTokens,
}

/// The latencies of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Latency {
    /// Intended send to first token.
    Ttft,
    /// Between successive tokens.
    Itl,
    /// (last - first token) / (output tokens - 1).
    Tpot,
    /// Intended send to last token.
    E2e,
    /// Waiting for the first step although a replica was ready: the cold
    /// start is not in it.
    Queue,
}

/// A statistic of a distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    /// Arithmetic mean.
    Mean,
    /// Percentile, 0 to 100.
    Percentile(f64),
    /// Largest.
    Max,
}

impl Statistic {
    /// The statistic of a histogram (s); `None` if it is empty.
    #[must_use]
    pub fn of(self, histogram: &Histogram) -> Option<f64> {
        let seconds = |ns: u64| ns as f64 / 1e9;
        match self {
            Statistic::Mean => histogram.mean_s(),
            Statistic::Percentile(percentile) => histogram.percentile_ns(percentile).map(seconds),
            Statistic::Max => histogram.max_ns().map(seconds),
        }
    }
}

impl ObjectiveMetric {
    /// The unit of the limit and of what is observed.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            ObjectiveMetric::Latency(..) => Unit::Seconds,
            ObjectiveMetric::RequestsPerSecond => Unit::RequestsPerSecond,
            ObjectiveMetric::OutputTokensPerSecond => Unit::TokensPerSecond,
            ObjectiveMetric::SuccessRate | ObjectiveMetric::Goodput => Unit::Share,
            ObjectiveMetric::CostUsd | ObjectiveMetric::CostUsdPerMillionOutputTokens => Unit::Usd,
        }
    }

    /// Which side of the limit meets it.
    #[must_use]
    pub fn bound(self) -> Bound {
        match self.unit() {
            Unit::Seconds | Unit::Usd | Unit::Count | Unit::GpuSeconds => Bound::AtMost,
            Unit::RequestsPerSecond | Unit::TokensPerSecond | Unit::Share | Unit::Replicas => {
                Bound::AtLeast
            }
        }
    }
}

/// A unit of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Requests a second.
    RequestsPerSecond,
    /// Tokens a second.
    TokensPerSecond,
    /// A share of 1.
    Share,
    /// US dollars.
    Usd,
    /// Replicas.
    Replicas,
    /// How many.
    Count,
    /// GPUs times seconds.
    GpuSeconds,
}

/// Which side of a limit meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The limit or less.
    AtMost,
    /// The limit or more.
    AtLeast,
}

/// What came of an objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// What the scenario calls it.
    pub name: String,
    /// What was measured; `null` if nothing was there to measure.
    pub observed: Option<f64>,
    /// The limit.
    pub limit: f64,
    /// Whether it was met. What could not be measured was not met.
    pub met: bool,
    /// Unit of observed and limit.
    pub unit: Unit,
    /// Which side of the limit meets it.
    pub bound: Bound,
}

impl Objective {
    /// Judges what was observed.
    #[must_use]
    pub fn judge(spec: &ObjectiveSpec, observed: Option<f64>) -> Self {
        let bound = spec.metric.bound();
        let met = observed.is_some_and(|observed| match bound {
            Bound::AtMost => observed <= spec.limit,
            Bound::AtLeast => observed >= spec.limit,
        });
        Self {
            name: spec.name.clone(),
            observed,
            limit: spec.limit,
            met,
            unit: spec.metric.unit(),
            bound,
        }
    }
}

/// The limits that goodput asks of each single request.
///
/// Goodput is what vLLM's `bench serve --goodput ttft:500 tpot:50` reports:
/// requests a second that completed within every latency limit. The limits
/// are those of the objectives, whatever statistic they are about, applied to
/// each request, so of several about one latency (`ttft_p50`, `ttft_p99`) the
/// tightest counts. ITL is judged by the request's TPOT, its mean ITL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestLimits {
    ttft_ns: Option<u64>,
    tpot_ns: Option<u64>,
    e2e_ns: Option<u64>,
    queue_ns: Option<u64>,
}

/// The latencies of one request (ns).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLatencies {
    pub(crate) ttft_ns: Option<u64>,
    pub(crate) tpot_ns: Option<u64>,
    pub(crate) e2e_ns: u64,
    pub(crate) queue_ns: u64,
}

impl RequestLimits {
    pub(crate) fn new(objectives: &[ObjectiveSpec]) -> Self {
        let tightest = |wanted: &[Latency]| {
            objectives
                .iter()
                .filter_map(|objective| match objective.metric {
                    ObjectiveMetric::Latency(latency, _) if wanted.contains(&latency) => {
                        // `as` saturates, which is right for an infinite limit.
                        Some((objective.limit * 1e9).round() as u64)
                    }
                    _ => None,
                })
                .min()
        };
        Self {
            ttft_ns: tightest(&[Latency::Ttft]),
            tpot_ns: tightest(&[Latency::Tpot, Latency::Itl]),
            e2e_ns: tightest(&[Latency::E2e]),
            queue_ns: tightest(&[Latency::Queue]),
        }
    }

    /// Whether any objective says anything about a single request.
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }

    #[inline]
    pub(crate) fn met_by(&self, request: &RequestLatencies) -> bool {
        let within =
            |observed: u64, limit: Option<u64>| limit.is_none_or(|limit| observed <= limit);
        within(request.ttft_ns.unwrap_or(0), self.ttft_ns)
            && within(request.tpot_ns.unwrap_or(0), self.tpot_ns)
            && within(request.e2e_ns, self.e2e_ns)
            && within(request.queue_ns, self.queue_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(metric: ObjectiveMetric, limit: f64) -> ObjectiveSpec {
        ObjectiveSpec {
            name: "an objective".into(),
            metric,
            limit,
        }
    }

    #[test]
    fn latencies_are_bounded_above_and_rates_below() {
        let latency = ObjectiveMetric::Latency(Latency::Ttft, Statistic::Mean);
        assert!(Objective::judge(&spec(latency, 2.0), Some(2.0)).met);
        assert!(!Objective::judge(&spec(latency, 2.0), Some(2.1)).met);
        assert!(Objective::judge(&spec(ObjectiveMetric::SuccessRate, 0.9), Some(0.95)).met);
        assert!(!Objective::judge(&spec(ObjectiveMetric::SuccessRate, 0.9), Some(0.85)).met);
    }

    #[test]
    fn what_was_not_observed_is_not_met() {
        let objective = Objective::judge(
            &spec(ObjectiveMetric::CostUsdPerMillionOutputTokens, 1.0),
            None,
        );
        assert!(!objective.met);
        assert_eq!(objective.observed, None);
    }

    #[test]
    fn the_tightest_limit_of_a_latency_is_the_one_for_every_request() {
        let limits = RequestLimits::new(&[
            spec(
                ObjectiveMetric::Latency(Latency::Ttft, Statistic::Percentile(50.0)),
                0.5,
            ),
            spec(
                ObjectiveMetric::Latency(Latency::Ttft, Statistic::Percentile(99.0)),
                2.0,
            ),
            spec(ObjectiveMetric::Latency(Latency::Itl, Statistic::Max), 0.05),
            spec(ObjectiveMetric::CostUsd, 0.0),
        ]);
        let mut request = RequestLatencies {
            ttft_ns: Some(500_000_000),
            tpot_ns: None,
            e2e_ns: u64::MAX,
            queue_ns: 0,
        };
        assert!(limits.met_by(&request));
        request.tpot_ns = Some(50_000_001);
        assert!(!limits.met_by(&request));
        request.tpot_ns = Some(50_000_000);
        assert!(limits.met_by(&request));
        request.ttft_ns = Some(500_000_001);
        assert!(!limits.met_by(&request));
    }

    #[test]
    fn without_latency_objectives_there_is_no_limit() {
        assert!(!RequestLimits::new(&[spec(ObjectiveMetric::SuccessRate, 1.0)]).any());
    }
}
