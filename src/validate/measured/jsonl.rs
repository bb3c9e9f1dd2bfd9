//! `requests.jsonl` of LLMServingSim's vLLM runs: an object a request.
//!
//! ```json
//! {"request_id": "bench-0", "input_toks": 2358, "output_toks": 531, "arrival_time": 1777142838.3,
//!  "queued_ts": 479748.3, "scheduled_ts": 479748.3, "first_token_ts": 479748.5, "last_token_ts": 479764.0}
//! ```
//!
//! Arrivals are of the wall clock and the others of a monotonic one. The two are laid over each other by the request that
//! was queued soonest after it arrived: that took it no time, so that all TTFTs are too short by what it did take.

use std::path::Path;

use serde::Deserialize;

use super::{Measured, MeasuredRequest, request, times};
use crate::failure::Failure;

#[derive(Debug, Deserialize)]
struct Line {
    input_toks: u32,
    output_toks: u32,
    arrival_time: f64,
    queued_ts: f64,
    first_token_ts: f64,
    last_token_ts: f64,
}

pub(super) fn read(path: &Path, text: &str) -> Result<Measured, Failure> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what: &dyn ToString| {
            Failure::Input(format!(
                "{}, line {}: {}; expected an object with input_toks, output_toks, arrival_time, queued_ts, \
                 first_token_ts and last_token_ts",
                path.display(),
                index + 1,
                what.to_string()
            ))
        };
        let line: Line = serde_json::from_str(line).map_err(|error| wrong(&error))?;
        let is_sound = line.input_toks > 0
            && line.output_toks > 0
            && line.arrival_time.is_finite()
            && line.queued_ts <= line.first_token_ts
            && line.first_token_ts <= line.last_token_ts;
        if !is_sound {
            return Err(wrong(&"without tokens, or its times are not in order"));
        }
        lines.push(line);
    }
    Ok(of_lines(&lines))
}

fn of_lines(lines: &[Line]) -> Measured {
    let least = |of: fn(&Line) -> f64| lines.iter().map(of).fold(f64::INFINITY, f64::min);
    let began = least(|line| line.arrival_time);
    // What the monotonic clock is ahead of the wall clock.
    let ahead = least(|line| line.queued_ts - line.arrival_time);
    let requests = lines.iter().enumerate().map(|(index, line)| {
        let due_s = line.arrival_time - began;
        let since = |at: f64| at - ahead - began;
        let first_s = since(line.first_token_ts).max(due_s);
        let last_s = since(line.last_token_ts).max(first_s);
        let times = times(due_s, first_s, last_s, line.output_toks);
        MeasuredRequest {
            id: index as u64,
            planned_ns: times.due_ns,
            request: request(times.due_ns, line.input_toks, line.output_toks),
            times,
            is_in_window: true,
        }
    });
    Measured {
        format: "requests of LLMServingSim",
        requests: requests.collect(),
        notes: vec![
            "arrivals are of another clock than tokens; the two are laid over each other by the request that was \
             queued soonest"
                .to_owned(),
        ],
        ..Measured::default()
    }
}
