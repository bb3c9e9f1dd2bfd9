//! What requests took, and the figures that they come to.

use crate::objectives::Unit;
use crate::records::{Outcome, RequestRecord};

/// What one completed request took, as its client saw it or would have seen it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// When it was due (ns).
    pub due_ns: u64,
    /// When its last token came (ns).
    pub last_ns: u64,
    /// From due to first token (s).
    pub ttft_s: f64,
    /// Mean time of a token after the first (s); `None` of a single token.
    pub tpot_s: Option<f64>,
    /// From due to last token (s).
    pub e2e_s: f64,
    /// Tokens generated.
    pub output_tokens: u32,
    /// What of the time to its first token it did not wait for others (s): outside the engine, and in prefill;
    /// `None` of a measured one.
    pub service_s: Option<f64>,
}

impl Times {
    /// Those of a record, whose client counted so many output tokens; `None` unless it completed.
    #[must_use]
    pub fn of(record: &RequestRecord, output_tokens: u32) -> Option<Self> {
        if record.outcome != Outcome::Completed {
            return None;
        }
        let (first_ns, last_ns) = (record.first_token_ns?, record.last_token_ns());
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9;
        let service_ns = record
            .parts
            .map(|parts| parts.outside_ns + parts.prefill_ns);
        Some(Self {
            due_ns: record.due_ns,
            last_ns,
            ttft_s: seconds(record.due_ns, first_ns),
            tpot_s: (output_tokens > 1)
                .then(|| seconds(first_ns, last_ns) / f64::from(output_tokens - 1)),
            e2e_s: seconds(record.due_ns, last_ns),
            output_tokens,
            service_s: service_ns.map(|ns| ns as f64 / 1e9),
        })
    }
}

/// One of the times of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOf {
    /// To the first token.
    Ttft,
    /// Of a token after the first.
    Tpot,
    /// To the last token.
    E2e,
}

impl TimeOf {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ttft, Self::Tpot, Self::E2e];

    /// The name in metrics, such as `ttft`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Tpot => "tpot",
            Self::E2e => "e2e",
        }
    }

    /// That of a request (s), if it has it.
    #[must_use]
    pub fn of(self, times: &Times) -> Option<f64> {
        match self {
            Self::Ttft => Some(times.ttft_s),
            Self::Tpot => times.tpot_s,
            Self::E2e => Some(times.e2e_s),
        }
    }

    /// Those of requests, in their order.
    #[must_use]
    pub fn values(self, times: &[Times]) -> Vec<f64> {
        times.iter().filter_map(|each| self.of(each)).collect()
    }
}

/// What is told of the times of many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// The mean.
    Mean,
    /// The median.
    P50,
    /// What nine of ten are below.
    P90,
    /// What 99 of 100 are below.
    P99,
}

impl Statistic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mean, Self::P50, Self::P90, Self::P99];

    /// The name in metrics, such as `p99`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
        }
    }

    fn percent(self) -> Option<f64> {
        match self {
            Self::Mean => None,
            Self::P50 => Some(50.0),
            Self::P90 => Some(90.0),
            Self::P99 => Some(99.0),
        }
    }

    /// Fewer values than this do not have it: nothing would lie above the percentile.
    #[must_use]
    pub fn values_min(self) -> usize {
        match self {
            Self::Mean => 1,
            Self::P50 => 2,
            Self::P90 => 10,
            Self::P99 => 100,
        }
    }

    /// Of these values, by nearest rank; `None` of none. They may be put in another order.
    #[must_use]
    pub fn of(self, values: &mut [f64]) -> Option<f64> {
        if values.is_empty() {
            return None;
        }
        let count = values.len();
        let Some(percent) = self.percent() else {
            return Some(values.iter().sum::<f64>() / count as f64);
        };
        let rank = (percent * count as f64 / 100.0).ceil().max(1.0) as usize;
        let (_, value, _) = values.select_nth_unstable_by(rank - 1, f64::total_cmp);
        Some(*value)
    }
}

/// One figure of a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: Unit,
    /// Which time it is of, and which statistic; `None` of a throughput.
    pub(super) of: Option<(TimeOf, Statistic)>,
    pub(super) value: Option<f64>,
    /// How many values it is of.
    pub(super) count: usize,
}

/// All figures of requests, in a fixed order: latencies of `times`, throughput of `completed`, from when the first
/// of all requests was due (ns).
pub(super) fn figures(times: &[Times], completed: &[Times], began_ns: u64) -> Vec<Figure> {
    let mut figures = Vec::new();
    for time in TimeOf::ALL {
        let mut values = time.values(times);
        for statistic in Statistic::ALL {
            figures.push(Figure {
                name: format!("{}.{}", time.name(), statistic.name()),
                unit: Unit::Seconds,
                of: Some((time, statistic)),
                value: statistic.of(&mut values),
                count: values.len(),
            });
        }
    }
    let duration_s = duration_s(completed, began_ns);
    let tokens = completed.iter().map(|each| f64::from(each.output_tokens));
    let tokens: f64 = tokens.sum();
    let rates = [
        (
            "requests_per_s",
            Unit::RequestsPerSecond,
            completed.len() as f64,
        ),
        ("output_tokens_per_s", Unit::TokensPerSecond, tokens),
    ];
    for (name, unit, amount) in rates {
        figures.push(Figure {
            name: name.to_owned(),
            unit,
            of: None,
            value: duration_s.map(|duration_s| amount / duration_s),
            count: completed.len(),
        });
    }
    figures
}

/// Until the last had its last token (s); `None` if no time passes.
fn duration_s(times: &[Times], began_ns: u64) -> Option<f64> {
    let last = times.iter().map(|each| each.last_ns).max()?;
    (last > began_ns).then(|| (last - began_ns) as f64 / 1e9)
}
