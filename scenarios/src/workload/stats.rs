//! What a trace or a generated workload looks like: rates, burstiness, lengths.

use std::collections::BTreeMap;

use foresail_core::time::{Nanos, SECOND, seconds};

use super::{Content, Request, WorkloadError};

/// Statistics of a workload. Percentiles are exact order statistics (nearest rank).
#[derive(Clone, Debug, PartialEq)]
pub struct TraceStats {
    /// How many requests.
    pub requests: u64,
    /// From the first request to the last (ns).
    pub span: Nanos,
    /// Requests over span (1/s); `None` if all are due at once.
    pub rate_per_s_mean: Option<f64>,
    /// Most requests in one second.
    pub requests_in_1_s_max: u64,
    /// Most requests in one minute, as a rate (1/s).
    pub rate_per_s_60_s_max: f64,
    /// Coefficient of variation of the gaps between requests: 1 for Poisson
    /// arrivals. `None` below two gaps or if all are due at once.
    pub interarrival_cv: Option<f64>,
    /// Index of dispersion of counts (variance over mean) in windows of 1 s:
    /// 1 for Poisson arrivals. `None` below two full windows.
    pub dispersion_1_s: Option<f64>,
    /// The same in windows of 10 s.
    pub dispersion_10_s: Option<f64>,
    /// The same in windows of 60 s.
    pub dispersion_60_s: Option<f64>,
    /// Tokens of prompts.
    pub prompt_tokens: LengthStats,
    /// Tokens of answers.
    pub output_tokens: LengthStats,
    /// Requests that belong to a conversation.
    pub requests_in_sessions: u64,
    /// Requests of which it is known what their prompts share.
    pub requests_with_prefix: u64,
}

/// Statistics of a number of tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthStats {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: u32,
    /// 90th percentile.
    pub p90: u32,
    /// 99th percentile.
    pub p99: u32,
    /// Smallest.
    pub min: u32,
    /// Largest.
    pub max: u32,
}

impl TraceStats {
    /// The statistics of all these requests, or `None` if there are none.
    ///
    /// # Errors
    /// The first error among the requests.
    pub fn collect(
        requests: impl IntoIterator<Item = Result<Request, WorkloadError>>,
    ) -> Result<Option<Self>, WorkloadError> {
        let mut collector = StatsCollector::default();
        for request in requests {
            collector.observe(&request?);
        }
        Ok(collector.finish())
    }
}

/// Gathers [`TraceStats`] request by request, in memory that does not grow
/// with their number.
#[derive(Clone, Debug)]
pub struct StatsCollector {
    requests: u64,
    first_due: Nanos,
    last_due: Nanos,
    gap_squares: f64,
    counts: [WindowCounts; 3],
    prompt_tokens: LengthCounts,
    output_tokens: LengthCounts,
    requests_in_sessions: u64,
    requests_with_prefix: u64,
}

impl Default for StatsCollector {
    fn default() -> Self {
        Self {
            requests: 0,
            first_due: 0,
            last_due: 0,
            gap_squares: 0.0,
            counts: [1, 10, 60].map(|length_s| WindowCounts::new(length_s * SECOND)),
            prompt_tokens: LengthCounts::default(),
            output_tokens: LengthCounts::default(),
            requests_in_sessions: 0,
            requests_with_prefix: 0,
        }
    }
}

impl StatsCollector {
    /// Takes the next request; due times must not decrease.
    pub fn observe(&mut self, request: &Request) {
        if self.requests == 0 {
            self.first_due = request.due;
            self.last_due = request.due;
        }
        let gap_s = seconds(request.due.saturating_sub(self.last_due));
        self.gap_squares += gap_s * gap_s;
        self.last_due = self.last_due.max(request.due);
        self.requests += 1;
        for counts in &mut self.counts {
            counts.observe(self.last_due - self.first_due);
        }
        self.prompt_tokens.observe(request.prompt_tokens);
        self.output_tokens.observe(request.output_tokens);
        self.requests_in_sessions += u64::from(request.session.is_some());
        self.requests_with_prefix += u64::from(request.content != Content::Unique);
    }

    /// The statistics so far, or `None` without requests.
    #[must_use]
    pub fn finish(&self) -> Option<TraceStats> {
        let span = self.last_due - self.first_due;
        let [second, ten_seconds, minute] = &self.counts;
        Some(TraceStats {
            requests: self.requests,
            span,
            rate_per_s_mean: (span > 0).then(|| self.requests as f64 / seconds(span)),
            requests_in_1_s_max: second.max(),
            rate_per_s_60_s_max: minute.max() as f64 / 60.0,
            interarrival_cv: self.interarrival_cv(span),
            dispersion_1_s: second.dispersion(),
            dispersion_10_s: ten_seconds.dispersion(),
            dispersion_60_s: minute.dispersion(),
            prompt_tokens: self.prompt_tokens.finish()?,
            output_tokens: self.output_tokens.finish()?,
            requests_in_sessions: self.requests_in_sessions,
            requests_with_prefix: self.requests_with_prefix,
        })
    }

    fn interarrival_cv(&self, span: Nanos) -> Option<f64> {
        if self.requests < 3 || span == 0 {
            return None;
        }
        let gaps = (self.requests - 1) as f64;
        let mean = seconds(span) / gaps;
        let variance = (self.gap_squares / gaps - mean * mean).max(0.0);
        Some(libm::sqrt(variance) / mean)
    }
}

/// Counts of requests in windows of equal length from the first request on.
#[derive(Clone, Debug)]
struct WindowCounts {
    length: Nanos,
    /// The window of the request seen last, and its count so far.
    window: u64,
    count: u64,
    /// Over the windows before it.
    sum: u64,
    squares: u128,
    max: u64,
}

impl WindowCounts {
    fn new(length: Nanos) -> Self {
        Self {
            length,
            window: 0,
            count: 0,
            sum: 0,
            squares: 0,
            max: 0,
        }
    }

    fn observe(&mut self, since_first: Nanos) {
        let window = since_first / self.length;
        if window != self.window {
            self.sum += self.count;
            self.squares += u128::from(self.count) * u128::from(self.count);
            self.max = self.max.max(self.count);
            self.window = window;
            self.count = 0;
        }
        self.count += 1;
    }

    fn max(&self) -> u64 {
        self.max.max(self.count)
    }

    /// Variance over mean of the counts of complete windows; the last one,
    /// which the trace's end cuts off, is left out.
    fn dispersion(&self) -> Option<f64> {
        let windows = self.window as f64;
        if self.window < 2 || self.sum == 0 {
            return None;
        }
        let mean = self.sum as f64 / windows;
        let variance = (self.squares as f64 - windows * mean * mean) / (windows - 1.0);
        Some(variance / mean)
    }
}

/// How often each length occurs.
#[derive(Clone, Debug, Default)]
struct LengthCounts {
    /// Indexed by length: nearly all lengths are here.
    short: Vec<u64>,
    long: BTreeMap<u32, u64>,
    total: u64,
    sum: u128,
}

/// Lengths below this are counted in a table of 1 MiB.
const SHORT_TOKENS: usize = 1 << 17;

impl LengthCounts {
    fn observe(&mut self, tokens: u32) {
        self.total += 1;
        self.sum += u128::from(tokens);
        let index = tokens as usize;
        if index >= SHORT_TOKENS {
            *self.long.entry(tokens).or_default() += 1;
            return;
        }
        if index >= self.short.len() {
            self.short.resize(index + 1, 0);
        }
        self.short[index] += 1;
    }

    fn finish(&self) -> Option<LengthStats> {
        if self.total == 0 {
            return None;
        }
        Some(LengthStats {
            mean: self.sum as f64 / self.total as f64,
            p50: self.percentile(50),
            p90: self.percentile(90),
            p99: self.percentile(99),
            min: self.percentile(0),
            max: self.percentile(100),
        })
    }

    /// The smallest length that at least `percent` of all do not exceed.
    fn percentile(&self, percent: u64) -> u32 {
        let total = u128::from(self.total) * u128::from(percent);
        let rank = total.div_ceil(100).max(1);
        let short = self
            .short
            .iter()
            .enumerate()
            .map(|(tokens, &count)| (tokens as u32, count));
        let mut below = 0_u128;
        for (tokens, count) in
            short.chain(self.long.iter().map(|(&tokens, &count)| (tokens, count)))
        {
            below += u128::from(count);
            if below >= rank {
                return tokens;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(due: Nanos, prompt_tokens: u32) -> Request {
        Request {
            due,
            prompt_tokens,
            output_tokens: 1,
            session: None,
            adapter: None,
            content: Content::Unique,
        }
    }

    fn stats(requests: impl IntoIterator<Item = Request>) -> Option<TraceStats> {
        TraceStats::collect(requests.into_iter().map(Ok)).unwrap()
    }

    #[test]
    fn nothing_has_no_statistics_and_one_request_few() {
        assert_eq!(stats([]), None);
        let one = stats([request(5 * SECOND, 7)]).unwrap();
        assert_eq!((one.requests, one.span, one.requests_in_1_s_max), (1, 0, 1));
        assert_eq!(
            (one.rate_per_s_mean, one.interarrival_cv, one.dispersion_1_s),
            (None, None, None)
        );
        assert_eq!(
            one.prompt_tokens,
            LengthStats {
                mean: 7.0,
                p50: 7,
                p90: 7,
                p99: 7,
                min: 7,
                max: 7
            }
        );
    }

    #[test]
    fn even_arrivals_have_no_dispersion() {
        let even = stats((0..601).map(|index| request(index * SECOND / 10, 1))).unwrap();
        assert_eq!(even.rate_per_s_mean, Some(601.0 / 60.0));
        assert!(even.interarrival_cv.unwrap() < 1e-6);
        assert_eq!(
            (even.dispersion_1_s, even.dispersion_10_s),
            (Some(0.0), Some(0.0))
        );
        assert_eq!(
            (even.requests_in_1_s_max, even.rate_per_s_60_s_max),
            (10, 10.0)
        );
    }

    #[test]
    fn counts_by_hand() {
        // Seconds with 3, 0, 1, and one cut off: mean 4/3, variance 7/3.
        let dues = [0, 1, 2, 2 * SECOND, 3 * SECOND + 1];
        let found = stats(dues.map(|due| request(due, 1))).unwrap();
        assert!((found.dispersion_1_s.unwrap() - 7.0 / 4.0).abs() < 1e-12);
        assert_eq!(found.requests_in_1_s_max, 3);
    }

    #[test]
    fn percentiles_are_order_statistics() {
        let found = stats((1..=1000).map(|tokens| request(0, tokens)))
            .unwrap()
            .prompt_tokens;
        assert_eq!(
            (found.p50, found.p90, found.p99, found.min, found.max),
            (500, 900, 990, 1, 1000)
        );
        let found = stats([request(0, 3), request(0, u32::MAX)])
            .unwrap()
            .prompt_tokens;
        assert_eq!((found.p50, found.p90, found.max), (3, u32::MAX, u32::MAX));
    }
}
