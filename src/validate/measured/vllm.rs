//! The JSON of `vllm bench serve --save-result --save-detailed` (`vllm/benchmarks/serve.py`), and of
//! `benchmark_serving.py` before it.
//!
//! `ttfts` and `itls` are seconds, a list of gaps a request. `start_times` is in what newer versions write;
//! without it nobody knows when a request was sent.

use std::path::Path;

use serde::Deserialize;

use super::{Measured, MeasuredRequest, nanos, no_arrivals, request, times};
use crate::failure::Failure;

#[derive(Debug, Deserialize)]
struct Details {
    input_lens: Option<Vec<u32>>,
    output_lens: Option<Vec<u32>>,
    start_times: Option<Vec<f64>>,
    ttfts: Option<Vec<f64>>,
    itls: Option<Vec<Vec<f64>>>,
    errors: Option<Vec<String>>,
    max_concurrency: Option<u64>,
}

pub(super) fn read(path: &Path, text: &str) -> Result<Measured, Failure> {
    let details: Details = serde_json::from_str(text).map_err(|error| {
        no_arrivals(
            path,
            &format!("it is not the JSON of a benchmark ({error})"),
        )
    })?;
    let missing = |name: &str| no_arrivals(path, &format!("it has no `{name}`"));
    let input = details.input_lens.ok_or_else(|| missing("input_lens"))?;
    let output = details.output_lens.ok_or_else(|| missing("output_lens"))?;
    let ttfts = details.ttfts.ok_or_else(|| missing("ttfts"))?;
    let itls = details.itls.ok_or_else(|| missing("itls"))?;
    let starts = details.start_times.ok_or_else(|| missing("start_times"))?;
    let errors = details
        .errors
        .unwrap_or_else(|| vec![String::new(); input.len()]);
    let lengths = [
        output.len(),
        ttfts.len(),
        itls.len(),
        starts.len(),
        errors.len(),
    ];
    if lengths.iter().any(|length| *length != input.len()) {
        return Err(Failure::Input(format!(
            "{}: its lists have different lengths: {} input_lens, and {lengths:?} of output_lens, ttfts, itls, \
             start_times and errors; is the file whole?",
            path.display(),
            input.len(),
        )));
    }
    let sound = |list: &[f64]| list.iter().all(|value| value.is_finite() && *value >= 0.0);
    if !(sound(&ttfts) && sound(&starts) && itls.iter().all(|gaps| sound(gaps))) {
        return Err(Failure::Input(format!(
            "{}: a time is negative or no number",
            path.display()
        )));
    }
    let began = starts.iter().copied().fold(f64::INFINITY, f64::min);
    let mut measured = Measured {
        format: "requests of vLLM's benchmark",
        ..Measured::default()
    };
    for index in 0..input.len() {
        let due_s = starts[index] - began;
        let first_s = due_s + ttfts[index];
        let last_s = first_s + itls[index].iter().sum::<f64>();
        let is_whole = errors[index].is_empty() && input[index] > 0 && output[index] > 0;
        if !is_whole {
            measured.failed += 1;
            measured.failed_spans.push((nanos(due_s), nanos(last_s)));
            continue;
        }
        let times = times(due_s, first_s, last_s, output[index]);
        measured.requests.push(MeasuredRequest {
            id: index as u64,
            planned_ns: times.due_ns,
            request: request(times.due_ns, input[index], output[index]),
            times,
            is_in_window: true,
        });
    }
    if let Some(concurrency) = details.max_concurrency {
        measured.throughput_is_given =
            Some("of a closed loop, throughput is what its sends were".to_owned());
        measured.notes.push(format!(
            "at most {concurrency} requests were in flight: those beyond waited at the client, and count from when \
             they were sent. Sends are simulated when they were, although other latencies would have had others"
        ));
    }
    Ok(measured)
}
