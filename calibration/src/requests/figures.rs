//! Figures of a run, of which measured and simulated ones are compared.

use std::fmt;

use foresail_simulator::replay::Replayed;

use crate::statistics::{mean, quantile, sorted};

/// What is asked of all requests of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// From due to first token (s).
    Ttft(Statistic),
    /// From first to last token, a token after the first (s), of requests with more than one.
    Tpot(Statistic),
    /// From due to last token (s).
    EndToEnd(Statistic),
    /// Mean of the gaps between tokens, over all gaps of all requests (s).
    ItlMean,
    /// Requests, over the time from the first send to the last end (1/s).
    RequestsPerSecond,
    /// Output tokens, over the same time (1/s).
    OutputTokensPerSecond,
}

/// How many values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// Their mean.
    Mean,
    /// The value that so many percent are below, straight between the two nearest (`numpy.percentile`).
    Percentile(u8),
}

impl Figure {
    /// Whether it is less where times are more.
    pub(super) fn is_rate(self) -> bool {
        matches!(self, Self::RequestsPerSecond | Self::OutputTokensPerSecond)
    }

    /// The figure of these requests; `None` if there are none that it is about.
    #[must_use]
    pub fn of(self, requests: &[Replayed]) -> Option<f64> {
        match self {
            Self::Ttft(statistic) => statistic.of(requests.iter().map(ttft_s).collect()),
            Self::Tpot(statistic) => statistic.of(requests.iter().filter_map(tpot_s).collect()),
            Self::EndToEnd(statistic) => statistic.of(requests.iter().map(end_to_end_s).collect()),
            Self::ItlMean => {
                let gaps: u64 = requests.iter().map(gaps).sum();
                let decode_s: f64 = requests.iter().map(decode_s).sum();
                (gaps > 0).then(|| decode_s / gaps as f64)
            }
            Self::RequestsPerSecond => Some(requests.len() as f64 / span_s(requests)?),
            Self::OutputTokensPerSecond => {
                let output = |each: &Replayed| u64::from(each.output_tokens);
                let tokens: u64 = requests.iter().map(output).sum();
                Some(tokens as f64 / span_s(requests)?)
            }
        }
    }
}

impl Statistic {
    fn of(self, values: Vec<f64>) -> Option<f64> {
        match self {
            Self::Mean => (!values.is_empty()).then(|| mean(&values)),
            Self::Percentile(percent) => percentile(f64::from(percent.min(100)), &values),
        }
    }
}

/// The value that so many percent are below, straight between the two nearest.
pub(super) fn percentile(percent: f64, values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| quantile(&sorted(values), percent / 100.0))
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 * 1e-9
}

fn ttft_s(request: &Replayed) -> f64 {
    seconds(request.first_token_ns - request.due_ns)
}

fn end_to_end_s(request: &Replayed) -> f64 {
    seconds(request.end_ns - request.due_ns)
}

fn decode_s(request: &Replayed) -> f64 {
    seconds(request.end_ns - request.first_token_ns)
}

fn gaps(request: &Replayed) -> u64 {
    u64::from(request.output_tokens.saturating_sub(1))
}

fn tpot_s(request: &Replayed) -> Option<f64> {
    let gaps = gaps(request);
    (gaps > 0).then(|| decode_s(request) / gaps as f64)
}

fn span_s(requests: &[Replayed]) -> Option<f64> {
    let first = requests.iter().map(|each| each.due_ns).min()?;
    let last = requests.iter().map(|each| each.end_ns).max()?;
    (last > first).then(|| seconds(last - first))
}

impl fmt::Display for Statistic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mean => out.write_str("mean"),
            Self::Percentile(percent) => write!(out, "p{percent}"),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ttft(statistic) => write!(out, "{statistic} TTFT"),
            Self::Tpot(statistic) => write!(out, "{statistic} TPOT"),
            Self::EndToEnd(statistic) => write!(out, "{statistic} E2E"),
            Self::ItlMean => out.write_str("mean ITL"),
            Self::RequestsPerSecond => out.write_str("requests/s"),
            Self::OutputTokensPerSecond => out.write_str("output tokens/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Replayed> {
        let request = |due: u64, first: u64, end: u64, output_tokens| Replayed {
            due_ns: due * 1_000_000_000,
            first_token_ns: first * 1_000_000_000,
            end_ns: end * 1_000_000_000,
            prompt_tokens: 1,
            cached_tokens: 0,
            output_tokens,
        };
        vec![
            request(1, 2, 6, 3),
            request(2, 5, 5, 1),
            request(3, 8, 11, 4),
        ]
    }

    #[test]
    fn figures_are_as_defined() {
        let of = |figure: Figure| figure.of(&requests()).unwrap();
        assert_eq!(of(Figure::Ttft(Statistic::Mean)), 3.0);
        assert_eq!(of(Figure::Ttft(Statistic::Percentile(50))), 3.0);
        assert_eq!(of(Figure::Ttft(Statistic::Percentile(75))), 4.0);
        assert_eq!(of(Figure::Tpot(Statistic::Mean)), 1.5);
        assert_eq!(of(Figure::EndToEnd(Statistic::Percentile(100))), 8.0);
        assert!((of(Figure::ItlMean) - 7.0 / 5.0).abs() < 1e-12);
        assert!((of(Figure::RequestsPerSecond) - 0.3).abs() < 1e-12);
        assert!((of(Figure::OutputTokensPerSecond) - 0.8).abs() < 1e-12);
    }

    #[test]
    fn what_no_request_tells_is_absent() {
        let single = &requests()[1..2];
        assert_eq!(Figure::Tpot(Statistic::Mean).of(single), None);
        assert_eq!(Figure::ItlMean.of(single), None);
        assert_eq!(Figure::Ttft(Statistic::Mean).of(&[]), None);
        assert_eq!(Figure::RequestsPerSecond.of(&[]), None);
    }
}
