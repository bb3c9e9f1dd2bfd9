//! The JSON that AIPerf writes as `profile_export_aiperf.json`: names, units and meanings of its
//! `JsonExportData`, schema 1.4 (AIPerf 0.13, `aiperf/common/models/export_models.py` and `aiperf/metrics/types/`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::date::Date;
use super::distribution::{Samples, std_ms};
use super::{Flight, MeasuredRun, duration_s, per_second};
use crate::histogram::Histogram;
use crate::records::{Outcome, RequestRecord};

/// The version of AIPerf's form.
pub const SCHEMA_VERSION: &str = "1.4";

/// What AIPerf tells of each metric that requests have values of (`STAT_KEYS`).
const PERCENTILES: [u32; 9] = [1, 5, 10, 25, 50, 75, 90, 95, 99];

/// The run in AIPerf's form: the requests of the window, each from when it was sent.
///
/// What only AIPerf's own configuration has (`input_config`, `run_info`) is left out, and so is
/// `time_to_second_token`, which no run records. Without streaming there is one chunk, so that the time to it is the whole.
#[must_use]
pub fn to_json(run: &MeasuredRun) -> Value {
    let counted =
        |record: &&RequestRecord| record.wire.as_ref().is_none_or(|wire| wire.is_in_window);
    let requests: Vec<&RequestRecord> = run.requests.iter().filter(counted).collect();
    let flights: Vec<Flight> = requests
        .iter()
        .filter_map(|record| Flight::of(record))
        .collect();
    let mut fields = head(run, &flights);
    fields.extend(of_requests(&flights));
    let gaps = &run.histograms.itl;
    if gaps.count() > 0 {
        fields.insert("inter_chunk_latency".into(), of_histogram(gaps));
    }
    fields.extend(of_run(run, &flights));
    fields.extend(errors(&requests));
    Value::Object(fields)
}

fn head(run: &MeasuredRun, flights: &[Flight]) -> Map<String, Value> {
    let at = |ns: Option<u64>| {
        let unix_s = run.began_unix_s() + ns.unwrap_or(0) as f64 / 1e9;
        Date::of_unix_s(unix_s).rfc_3339()
    };
    let tool = &run.summary.tool;
    let mut fields = Map::new();
    fields.insert("schema_version".into(), json!(SCHEMA_VERSION));
    fields.insert(
        "generated_by".into(),
        json!(format!("foresail {}", tool.version)),
    );
    let start = flights.iter().map(|flight| flight.sent_ns).min();
    let end = flights.iter().map(|flight| flight.last_ns).max();
    fields.insert("start_time".into(), json!(at(start)));
    fields.insert("end_time".into(), json!(at(end)));
    if let Some(measured) = &run.summary.measured {
        fields.insert("was_cancelled".into(), json!(measured.is_interrupted));
        let reasons: Vec<&str> = measured
            .degraded
            .iter()
            .map(|reason| reason.text.as_str())
            .collect();
        fields.insert("is_complete".into(), json!(reasons.is_empty()));
        if !reasons.is_empty() {
            fields.insert("incomplete_reason".into(), json!(reasons.join("; ")));
        }
    }
    fields
}

/// Metrics that each request has a value of.
fn of_requests(flights: &[Flight]) -> Map<String, Value> {
    let of =
        |value: &dyn Fn(&Flight) -> Option<f64>| Samples::new(flights.iter().filter_map(value));
    let per_user = |flight: &Flight| {
        let tpot_ms = flight.tpot_ms().filter(|tpot_ms| *tpot_ms > 0.0)?;
        Some(1e3 / tpot_ms)
    };
    let metrics = [
        ("request_latency", "ms", of(&|flight| Some(flight.e2e_ms()))),
        (
            "time_to_first_token",
            "ms",
            of(&|flight| Some(flight.ttft_ms())),
        ),
        ("inter_token_latency", "ms", of(&Flight::tpot_ms)),
        (
            "output_token_throughput_per_user",
            "tokens/sec/user",
            of(&per_user),
        ),
        (
            "output_sequence_length",
            "tokens",
            of(&|flight| Some(flight.output_tokens as f64)),
        ),
        (
            "input_sequence_length",
            "tokens",
            of(&|flight| Some(flight.prompt_tokens as f64)),
        ),
    ];
    let told = metrics
        .into_iter()
        .filter(|(_, _, samples)| samples.count() > 0);
    told.map(|(name, unit, samples)| (name.to_owned(), of_samples(unit, &samples)))
        .collect()
}

fn of_samples(unit: &str, samples: &Samples) -> Value {
    let mut fields = statistics(unit, |percentile| samples.percentile(percentile));
    fields.insert("avg".into(), json!(samples.mean()));
    fields.insert("min".into(), json!(samples.min()));
    fields.insert("max".into(), json!(samples.max()));
    fields.insert("std".into(), json!(samples.std()));
    fields.insert("count".into(), json!(samples.count()));
    fields.insert("sum".into(), json!(samples.sum()));
    Value::Object(fields)
}

fn of_histogram(histogram: &Histogram) -> Value {
    let ms = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1e6);
    let mut fields = statistics("ms", |percentile| ms(histogram.percentile_ns(percentile)));
    fields.insert(
        "avg".into(),
        json!(histogram.mean_s().map(|mean_s| mean_s * 1e3)),
    );
    fields.insert("min".into(), json!(ms(histogram.min_ns())));
    fields.insert("max".into(), json!(ms(histogram.max_ns())));
    fields.insert("std".into(), json!(std_ms(histogram)));
    fields.insert("count".into(), json!(histogram.count()));
    fields.insert("sum".into(), json!(histogram.sum_ps() as f64 / 1e9));
    Value::Object(fields)
}

fn statistics(unit: &str, percentile: impl Fn(f64) -> Option<f64>) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("unit".into(), json!(unit));
    for asked in PERCENTILES {
        fields.insert(format!("p{asked}"), json!(percentile(asked.into())));
    }
    fields
}

/// Metrics that the run as a whole has one value of.
fn of_run(run: &MeasuredRun, flights: &[Flight]) -> Map<String, Value> {
    let duration_s = duration_s(flights);
    let input: u64 = flights.iter().map(|flight| flight.prompt_tokens).sum();
    let output: u64 = flights.iter().map(|flight| flight.output_tokens).sum();
    let completed = flights.len() as f64;
    let metrics = [
        ("request_count", "requests", Some(completed)),
        (
            "request_throughput",
            "requests/sec",
            Some(per_second(completed, duration_s)),
        ),
        (
            "output_token_throughput",
            "tokens/sec",
            Some(per_second(output as f64, duration_s)),
        ),
        ("total_isl", "tokens", Some(input as f64)),
        ("total_osl", "tokens", Some(output as f64)),
        ("benchmark_duration", "sec", Some(duration_s)),
        ("goodput", "requests/sec", run.summary.goodput_per_s),
    ];
    let told = metrics
        .into_iter()
        .filter_map(|(name, unit, value)| Some((name, unit, value?)));
    told.map(|(name, unit, value)| (name.to_owned(), json!({"unit": unit, "avg": value})))
        .collect()
}

/// Requests that were sent and did not complete.
fn errors(requests: &[&RequestRecord]) -> Map<String, Value> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for record in requests {
        if !matches!(record.outcome, Outcome::Completed | Outcome::Unsent) {
            *counts.entry(record.outcome.name()).or_default() += 1;
        }
    }
    let mut fields = Map::new();
    let all: u64 = counts.values().sum();
    if all > 0 {
        let count = json!({"unit": "requests", "avg": all as f64});
        fields.insert("error_request_count".into(), count);
        let detail = |(outcome, count): (&&str, &u64)| json!({"error_details": {"type": outcome, "message": outcome}, "count": count});
        let summary: Vec<Value> = counts.iter().map(detail).collect();
        fields.insert("error_summary".into(), json!(summary));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::super::testing::{run, sorted};
    use super::*;

    #[test]
    fn the_export_is_as_aiperf_writes_it() {
        let json = to_json(&run());
        let parts = [
            "schema_version",
            "request_count",
            "request_throughput",
            "benchmark_duration",
            "error_summary",
            "start_time",
            "end_time",
            "was_cancelled",
            "is_complete",
            "incomplete_reason",
            "time_to_first_token",
            "inter_token_latency",
        ];
        let told: Value = parts
            .iter()
            .map(|part| ((*part).to_owned(), json[*part].clone()))
            .collect();
        insta::assert_snapshot!(sorted(&told), @r#"
        benchmark_duration: {avg: 1.099, unit: "sec"}
        end_time: "2026-02-03T04:05:08.100000Z"
        error_summary: [{count: 1, error_details: {message: "failed_reset", type: "failed_reset"}}]
        incomplete_reason: "sends were 1 ms late"
        inter_token_latency: {avg: 10.0, count: 3, max: 10.0, min: 10.0, p1: 10.0, p10: 10.0, p25: 10.0, p5: 10.0, p50: 10.0, p75: 10.0, p90: 10.0, p95: 10.0, p99: 10.0, std: 0.0, sum: 30.0, unit: "ms"}
        is_complete: false
        request_count: {avg: 3.0, unit: "requests"}
        request_throughput: {avg: 2.72975432211101, unit: "requests/sec"}
        schema_version: "1.4"
        start_time: "2026-02-03T04:05:07.001000Z"
        time_to_first_token: {avg: 69.0, count: 3, max: 79.0, min: 59.0, p1: 59.2, p10: 61.0, p25: 64.0, p5: 60.0, p50: 69.0, p75: 74.0, p90: 77.0, p95: 78.0, p99: 78.8, std: 8.16496580927726, sum: 207.0, unit: "ms"}
        was_cancelled: false
        "#);
    }

    /// Of `aiperf` 0.13: `JsonExportData` without what only AIPerf can tell.
    #[test]
    fn every_name_is_one_of_aiperfs() {
        let known = [
            "schema_version",
            "request_throughput",
            "request_latency",
            "request_count",
            "time_to_first_token",
            "inter_token_latency",
            "output_token_throughput",
            "output_token_throughput_per_user",
            "output_sequence_length",
            "input_sequence_length",
            "goodput",
            "inter_chunk_latency",
            "benchmark_duration",
            "total_isl",
            "total_osl",
            "error_request_count",
            "was_cancelled",
            "is_complete",
            "incomplete_reason",
            "error_summary",
            "start_time",
            "end_time",
        ];
        let json = to_json(&run());
        let fields = json.as_object().expect("an object");
        let ours: Vec<&String> = fields
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
            .collect();
        assert_eq!(ours, ["generated_by"], "AIPerf allows further fields");
        assert_eq!(fields.len(), known.len() + 1);
    }
}
