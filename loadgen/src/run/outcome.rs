//! What a run came to, beside its records.

use foresail_core::time::{Nanos, SECOND, seconds};
use foresail_reports::histogram::Histogram;
use foresail_reports::summary::{
    Client, Connections, Degraded, LatencySummary, Load, Measured, Rates, Steadiness,
};

use super::keeper::Kept;
use super::settings::Settings;
use super::shared::Shared;
use crate::client::ConnectionCounts;
use crate::record::{Found, Tally};
use crate::watch::{Context, Verdict, Watch};

/// What a run came to.
#[derive(Debug)]
pub struct RunOutcome<S> {
    /// What took the records.
    pub sink: S,
    /// What counts.
    pub window: Found,
    /// Whether the system had settled in it; `None` if that cannot be told.
    pub steadiness: Option<Steadiness>,
    /// Counts of requests.
    pub tally: Tally,
    /// What the client saw of itself.
    pub watch: Watch,
    /// Whether that is to be trusted.
    pub verdict: Verdict,
    /// What became of connections.
    pub connections: ConnectionCounts,
    /// Whether it was stopped before all was sent.
    pub is_interrupted: bool,
    /// What failed on this side, so that the run was stopped: a body that could not be made.
    pub failure: Option<String>,
    /// Why not all connections could be opened ahead.
    pub not_warmed: Option<String>,
    /// How requests were sent.
    pub load: Load,
    /// Threads that sent.
    pub threads: usize,
}

impl<S> RunOutcome<S> {
    pub(super) fn new(kept: Kept<S>, shared: &Shared, settings: &Settings) -> Self {
        let recorded = kept.recorded;
        let context = Context {
            sent: recorded.tally.sent,
            ttft_p50_ns: recorded.tally.ttft.percentile_ns(50.0),
            is_rate_asked: settings.load == Load::Open,
        };
        Self {
            sink: recorded.sink,
            window: recorded.window,
            steadiness: recorded.steadiness,
            tally: recorded.tally,
            verdict: kept.watch.verdict(&context),
            watch: kept.watch,
            connections: kept.connections,
            is_interrupted: shared.is_interrupted(),
            failure: shared.failure(),
            not_warmed: kept.not_warmed,
            load: settings.load,
            threads: settings.threads,
        }
    }

    /// What a summary says of how it was measured. Where, when, of which shard, what the server
    /// said of itself, and what all requests together come to is for the caller to add.
    #[must_use]
    pub fn measured(&self) -> Measured {
        let degraded = self.verdict.degraded.iter().map(|reason| Degraded {
            code: reason.code.name().to_owned(),
            text: reason.text.clone(),
        });
        Measured {
            load: self.load,
            is_interrupted: self.is_interrupted,
            degraded: degraded.collect(),
            steadiness: self.steadiness.clone(),
            rates: self.rates(),
            client: self.client(),
            ..Measured::default()
        }
    }

    fn rates(&self) -> Rates {
        let window_ns = self.window.until_ns.saturating_sub(self.window.from_ns);
        // The window ends a nanosecond after the last request, which does not begin a time of its own.
        let per_second = |count: u64| match window_ns.saturating_sub(1) {
            0 => 0.0,
            window_ns => count as f64 * SECOND as f64 / window_ns as f64,
        };
        Rates {
            asked_per_s: match self.load {
                Load::Closed { .. } => None,
                Load::Open | Load::Capped { .. } => Some(per_second(self.tally.in_window)),
            },
            sent_per_s: per_second(self.tally.in_window_sent),
            in_flight_max: self.tally.in_flight_max,
        }
    }

    fn client(&self) -> Client {
        Client {
            send_late_s: latency_summary(self.watch.lateness()),
            loop_lag_s: latency_summary(self.watch.loop_lag()),
            threads: u32::try_from(self.threads).unwrap_or(u32::MAX),
            cpu_share_max: self.watch.worker_cpu_share().unwrap_or(0.0),
            cpu_s: seconds(self.watch.process_cpu_ns()),
            rss_bytes_max: self.watch.resident_bytes_max().unwrap_or(0),
            connections: Connections {
                opened: self.connections.opened,
                reused: self.connections.reused,
                failed: self.connections.failed,
                stale: self.connections.resent,
            },
            chunks: self.tally.chunks,
            tokens_from_usage: self.tally.tokens_from_usage,
            tokens_assumed: self.tally.tokens_assumed,
            prompts_are_exact: false,
            clock_jumps: self.watch.clock_jumps().len() as u64,
        }
    }
}

fn latency_summary(histogram: &Histogram) -> Option<LatencySummary> {
    let of = |ns: Option<Nanos>| ns.map(seconds);
    let percentile = |percentile| of(histogram.percentile_ns(percentile));
    Some(LatencySummary {
        mean: histogram.mean_s()?,
        p50: percentile(50.0)?,
        p90: percentile(90.0)?,
        p95: percentile(95.0)?,
        p99: percentile(99.0)?,
        max: of(histogram.max_ns())?,
    })
}
