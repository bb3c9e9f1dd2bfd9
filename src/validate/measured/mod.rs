//! What was measured, out of whatever file it is in.
//!
//! A request of a measurement is a request of a workload (when it was sent, with how many tokens) and what it took.
//! Files that only have aggregates (means and percentiles of a run) are refused: without the arrivals, the
//! same traffic cannot be simulated.

mod jsonl;
mod run_folder;
#[cfg(test)]
mod tests;
mod vllm;

use std::fs;
use std::path::Path;

use foresail_reports::summary::{Degraded, Summary};
use foresail_reports::validation::Times;
use foresail_scenarios::workload::{Content, Request};

use crate::failure::Failure;

/// The largest result file that is read (bytes): the details of a million requests.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A measured run.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// What kind of file it is from, in words.
    pub(super) format: &'static str,
    /// Requests that completed, in the order of time.
    pub(super) requests: Vec<MeasuredRequest>,
    /// Requests that did not complete.
    pub(super) failed: u64,
    /// When those that did not complete were in the system (ns), as far as is known.
    pub(super) failed_spans: Vec<(u64, u64)>,
    /// Why its figures are not to be trusted.
    pub(super) degraded: Vec<Degraded>,
    /// The summary of a run of ours.
    pub(super) summary: Option<Box<Summary>>,
    /// As many times as many prompt and output tokens as in the records, the server counted.
    pub(super) server_tokens: Option<TokenRatios>,
    /// Why throughput is not a prediction; `None` if it is.
    pub(super) throughput_is_given: Option<String>,
    /// What a reader should know.
    pub(super) notes: Vec<String>,
}

/// A request that completed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MeasuredRequest {
    /// Its place in the plan.
    pub(super) id: u64,
    /// When it was to be sent by the plan (ns).
    pub(super) planned_ns: u64,
    /// What was asked.
    pub(super) request: Request,
    /// What it took.
    pub(super) times: Times,
    /// Whether it was due in the window that is measured.
    pub(super) is_in_window: bool,
}

/// The server's counts over those of the records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TokenRatios {
    pub(super) prompt: f64,
    pub(super) output: f64,
}

/// Reads a folder of ours, or a public result file.
pub(super) fn read(path: &Path) -> Result<Measured, Failure> {
    let mut measured = if path.is_dir() {
        run_folder::read(path)?
    } else {
        of_file(path)?
    };
    // Stable, so that requests of one time stay in the order of the file.
    measured.requests.sort_by_key(|each| each.request.due);
    if measured.requests.is_empty() {
        return Err(Failure::Input(format!(
            "{} has no request that completed, so there is nothing to compare",
            path.display()
        )));
    }
    if measured.requests.iter().all(|each| !each.is_in_window) {
        return Err(Failure::Input(format!(
            "the window of {} is empty: no request that completed was due in it; measure for longer, or with a \
             shorter warm-up",
            path.display()
        )));
    }
    Ok(measured)
}

fn of_file(path: &Path) -> Result<Measured, Failure> {
    let text = text_of(path)?;
    let first = text.trim_start();
    if !first.starts_with('{') {
        return Err(no_arrivals(path, "it is no JSON"));
    }
    // A file of lines has an object a line; one object may be spread over lines.
    let first_line = first.lines().next().unwrap_or_default();
    match serde_json::from_str::<serde_json::Value>(first_line) {
        Ok(line) if line.get("arrival_time").is_some() => jsonl::read(path, &text),
        _ => vllm::read(path, &text),
    }
}

fn text_of(path: &Path) -> Result<String, Failure> {
    let unreadable = |what: &dyn ToString| {
        Failure::Input(format!(
            "cannot read {}: {}",
            path.display(),
            what.to_string()
        ))
    };
    let metadata = fs::metadata(path).map_err(|error| unreadable(&error))?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(unreadable(&"it is larger than 1 GiB"));
    }
    fs::read_to_string(path).map_err(|error| unreadable(&error))
}

/// What is not read, and what is.
fn no_arrivals(path: &Path, why: &str) -> Failure {
    Failure::Input(format!(
        "{} cannot be validated against: {why}. It takes when each request was sent, its tokens and its times: \
         the folder of `foresail load --out`, the JSON of `vllm bench serve --save-result --save-detailed` with \
         `start_times`, or requests.jsonl of LLMServingSim. Of a table of means and percentiles the arrivals \
         are unknown; describe its traffic in a scenario, and compare by hand",
        path.display()
    ))
}

/// A request of which nothing more is known than its tokens.
fn request(due: u64, prompt_tokens: u32, output_tokens: u32) -> Request {
    Request {
        due,
        prompt_tokens,
        output_tokens,
        session: None,
        adapter: None,
        content: Content::Unique,
    }
}

/// Seconds after a beginning, as nanoseconds.
fn nanos(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9).round() as u64
}

/// What a request took, all of it seconds after the same beginning.
fn times(due_s: f64, first_s: f64, last_s: f64, output_tokens: u32) -> Times {
    Times {
        due_ns: nanos(due_s),
        last_ns: nanos(last_s),
        ttft_s: first_s - due_s,
        tpot_s: (output_tokens > 1).then(|| (last_s - first_s) / f64::from(output_tokens - 1)),
        e2e_s: last_s - due_s,
        output_tokens,
        service_s: None,
    }
}
