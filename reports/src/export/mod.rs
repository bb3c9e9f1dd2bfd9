//! A measured run in the files of other tools, so that scripts and dashboards made for them read it.
//!
//! Where a tool means something else by a name, its meaning is kept:
//!
//! | | here | [vLLM](vllm::to_json) | [AIPerf](aiperf::to_json) |
//! |---|---|---|---|
//! | requests | due in the window | all | due in the window |
//! | TTFT, E2E from | when it was due | when it was sent | when it was sent |
//! | the end of a request | its last byte | its last chunk | its last chunk |
//! | percentiles | nearest rank, three digits | between ranks, exact | between ranks, exact |
//! | throughput over | first due to last completion, in the window | first send to last chunk | first send to last chunk |
//! | time a token | `tpot` | `tpot` | `inter_token_latency` |
//! | time between chunks | `itl` | `itl` | `inter_chunk_latency` |
//!
//! What a run does not record is left out or said where it stands: when chunks between the first
//! and the last came, and what they said. Times between chunks so come from the histogram of the
//! window, three digits exact.

pub mod aiperf;
mod date;
mod distribution;
pub mod hdr;
pub mod table;
#[cfg(test)]
mod testing;
pub mod vllm;

use std::path::Path;

use crate::files::{ReadError, read_histograms, read_requests, read_summary};
use crate::histograms::Histograms;
use crate::records::{Outcome, RequestRecord};
use crate::summary::Summary;

/// All that is kept of a measured run, in memory.
#[derive(Clone, Debug)]
pub struct MeasuredRun {
    /// What it comes to.
    pub summary: Summary,
    /// Its histograms.
    pub histograms: Histograms,
    /// Its requests, in the window or not, by their positions in the plan.
    pub requests: Vec<RequestRecord>,
}

impl MeasuredRun {
    /// Reads the folder of a run.
    ///
    /// # Errors
    /// If it is not that of a measured run.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, ReadError> {
        let folder = folder.as_ref();
        let mut requests = read_requests(folder)?.collect::<Result<Vec<_>, _>>()?;
        requests.sort_by_key(|record| record.id);
        Ok(Self {
            summary: read_summary(folder)?,
            histograms: read_histograms(folder)?,
            requests,
        })
    }

    /// When it began: seconds since 1970.
    fn began_unix_s(&self) -> f64 {
        let measured = self.summary.measured.as_ref();
        measured.map_or(0.0, |measured| measured.began_unix_s)
    }
}

/// A request as its client saw it go: from when it was sent, not from when it was due.
#[derive(Clone, Copy, Debug)]
struct Flight {
    sent_ns: u64,
    first_ns: u64,
    /// When the last chunk that carried output came.
    last_ns: u64,
    prompt_tokens: u64,
    output_tokens: u64,
}

impl Flight {
    /// Of a request that completed with output.
    fn of(record: &RequestRecord) -> Option<Self> {
        let is_completed = record.outcome == Outcome::Completed;
        let sent_ns = record.wire.as_ref().and_then(|wire| wire.sent_ns);
        let sent_ns = sent_ns.unwrap_or(record.due_ns);
        let first_ns = is_completed.then_some(record.first_token_ns?)?.max(sent_ns);
        Some(Self {
            sent_ns,
            first_ns,
            last_ns: record.last_token_ns().max(first_ns),
            prompt_tokens: record.prompt_tokens.into(),
            output_tokens: record.output_tokens.into(),
        })
    }

    fn ttft_ms(&self) -> f64 {
        (self.first_ns - self.sent_ns) as f64 / 1e6
    }

    fn e2e_ms(&self) -> f64 {
        (self.last_ns - self.sent_ns) as f64 / 1e6
    }

    /// Mean time a token after the first, if there are others.
    fn tpot_ms(&self) -> Option<f64> {
        let others = self
            .output_tokens
            .checked_sub(1)
            .filter(|others| *others > 0)?;
        Some((self.e2e_ms() - self.ttft_ms()) / others as f64)
    }
}

/// From the first send to the last output (s).
fn duration_s(flights: &[Flight]) -> f64 {
    let first = flights.iter().map(|flight| flight.sent_ns).min();
    let last = flights.iter().map(|flight| flight.last_ns).max();
    let duration_ns = last.unwrap_or(0) - first.unwrap_or(0);
    duration_ns as f64 / 1e9
}

/// A count over a time; 0 over none.
fn per_second(count: f64, duration_s: f64) -> f64 {
    if duration_s > 0.0 {
        count / duration_s
    } else {
        0.0
    }
}
