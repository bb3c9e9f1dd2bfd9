//! The JSON that `vllm bench serve --save-result` writes: names and meanings of
//! `vllm/benchmarks/serve.py`, version 0.11.

use serde_json::{Map, Value, json};

use super::date::Date;
use super::distribution::{Samples, std_ms};
use super::{Flight, MeasuredRun, duration_s, per_second};
use crate::histogram::Histogram;
use crate::records::{Outcome, RequestRecord};
use crate::summary::Load;

/// What only who asked for the run knows, in the words of vLLM's flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// `--backend`.
    pub backend: String,
    /// `--label`.
    pub label: Option<String>,
    /// `--tokenizer`.
    pub tokenizer_id: Option<String>,
    /// `--request-rate`; `None` is what the plan asks for a second, or as fast as possible in a closed loop.
    pub request_rate: Option<f64>,
    /// `--burstiness`; `None` if arrivals are not of that kind.
    pub burstiness: Option<f64>,
    /// `--metric-percentiles`.
    pub percentiles: Vec<f64>,
    /// `--save-detailed`: a value for each request. `itls` and `generated_texts` stay out, as no run records them.
    pub with_details: bool,
    /// `--metadata`.
    pub metadata: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backend: "openai".into(),
            label: None,
            tokenizer_id: None,
            request_rate: None,
            burstiness: None,
            percentiles: vec![99.0],
            with_details: false,
            metadata: Vec::new(),
        }
    }
}

/// The run in vLLM's form, all its requests, each from when it was sent.
///
/// - `request_goodput` is this run's: over its window, from when requests were due.
/// - The `itl` figures are of the window, out of a histogram.
/// - `max_output_tokens_per_s` spreads a request's tokens evenly from its first to its last.
#[must_use]
pub fn to_json(run: &MeasuredRun, options: &Options) -> Value {
    let flights: Vec<Flight> = run.requests.iter().filter_map(Flight::of).collect();
    let mut fields = asked(run, options);
    fields.extend(totals(run, &flights));
    if options.with_details {
        fields.extend(details(&run.requests));
    }
    let percentiles = &options.percentiles;
    let of = |ms: &dyn Fn(&Flight) -> Option<f64>| Samples::new(flights.iter().filter_map(ms));
    let ttft = of(&|flight| Some(flight.ttft_ms()));
    let e2el = of(&|flight| Some(flight.e2e_ms()));
    fields.extend(of_samples("ttft", &ttft, percentiles));
    fields.extend(of_samples("tpot", &of(&Flight::tpot_ms), percentiles));
    fields.extend(of_histogram("itl", &run.histograms.itl, percentiles));
    fields.extend(of_samples("e2el", &e2el, percentiles));
    Value::Object(fields)
}

fn asked(run: &MeasuredRun, options: &Options) -> Map<String, Value> {
    let measured = run.summary.measured.as_ref();
    let rate = measured.and_then(|measured| measured.rates.asked_per_s);
    let rate = options
        .request_rate
        .or(rate)
        .filter(|rate| rate.is_finite());
    let concurrency = measured.and_then(|measured| match measured.load {
        Load::Open => None,
        Load::Capped { in_flight_max } => Some(in_flight_max),
        Load::Closed { concurrency } => Some(concurrency),
    });
    let mut fields = object(json!({
        "date": Date::of_unix_s(run.began_unix_s()).compact(),
        "endpoint_type": options.backend,
        "backend": options.backend,
        "label": options.label,
        "model_id": run.summary.scenario.model,
        "tokenizer_id": options.tokenizer_id,
        "num_prompts": run.requests.len(),
        "request_rate": rate.map_or(json!("inf"), |rate| json!(rate)),
        "burstiness": options.burstiness,
        "max_concurrency": concurrency,
    }));
    let metadata = options.metadata.iter();
    fields.extend(metadata.map(|(name, value)| (name.clone(), json!(value))));
    fields
}

fn totals(run: &MeasuredRun, flights: &[Flight]) -> Map<String, Value> {
    let duration_s = duration_s(flights);
    let input: u64 = flights.iter().map(|flight| flight.prompt_tokens).sum();
    let output: u64 = flights.iter().map(|flight| flight.output_tokens).sum();
    let rate = |count: u64| per_second(count as f64, duration_s);
    object(json!({
        "duration": duration_s,
        "completed": flights.len(),
        "total_input_tokens": input,
        "total_output_tokens": output,
        "request_throughput": rate(flights.len() as u64),
        "request_goodput": run.summary.goodput_per_s,
        "output_throughput": rate(output),
        "total_token_throughput": rate(input + output),
        "max_output_tokens_per_s": tokens_per_second_max(flights),
        "max_concurrent_requests": concurrent_max(flights),
    }))
}

/// A value for each request, those that did not complete among them.
fn details(requests: &[RequestRecord]) -> Map<String, Value> {
    let output_lens = requests.iter().map(|record| match record.outcome {
        Outcome::Completed => record.output_tokens,
        _ => 0,
    });
    let ttfts = requests.iter().map(|record| {
        let flight = Flight::of(record);
        flight.map_or(0.0, |flight| flight.ttft_ms() / 1e3)
    });
    let errors = requests.iter().map(|record| match record.outcome {
        Outcome::Completed => "",
        outcome => outcome.name(),
    });
    object(json!({
        "input_lens": requests.iter().map(|record| record.prompt_tokens).collect::<Vec<_>>(),
        "output_lens": output_lens.collect::<Vec<_>>(),
        "ttfts": ttfts.collect::<Vec<_>>(),
        "errors": errors.collect::<Vec<_>>(),
    }))
}

/// `mean_ttft_ms` and so on. Without samples vLLM says 0.
fn of_samples(name: &str, samples: &Samples, percentiles: &[f64]) -> Map<String, Value> {
    let percentile = |percentile| samples.percentile(percentile);
    let (mean, std) = (samples.mean(), samples.std());
    latency(name, [mean, percentile(50.0), std], percentiles, percentile)
}

fn of_histogram(name: &str, histogram: &Histogram, percentiles: &[f64]) -> Map<String, Value> {
    let percentile = |percentile| {
        let ns = histogram.percentile_ns(percentile);
        ns.map(|ns| ns as f64 / 1e6)
    };
    let mean = histogram.mean_s().map(|mean_s| mean_s * 1e3);
    let figures = [mean, percentile(50.0), std_ms(histogram)];
    latency(name, figures, percentiles, percentile)
}

fn latency(
    name: &str,
    figures: [Option<f64>; 3],
    percentiles: &[f64],
    percentile: impl Fn(f64) -> Option<f64>,
) -> Map<String, Value> {
    let figures = ["mean", "median", "std"].into_iter().zip(figures);
    let figures = figures.map(|(figure, value)| (format!("{figure}_{name}_ms"), value));
    // 99.0 is `p99` and 99.9 is `p99.9`, as Rust writes floats, too.
    let percentiles = percentiles
        .iter()
        .map(|asked| (format!("p{asked}_{name}_ms"), percentile(*asked)));
    let all = figures.chain(percentiles);
    all.map(|(name, value)| (name, json!(value.unwrap_or(0.0))))
        .collect()
}

/// Most requests that were in flight in a second, counted from the first send. One that is in
/// flight for any part of a second counts in it.
fn concurrent_max(flights: &[Flight]) -> i64 {
    let start_ns = flights_start(flights);
    let mut changes = vec![0_i64; seconds(flights) + 1];
    for flight in flights {
        changes[second_of(start_ns, flight.sent_ns)] += 1;
        changes[second_of(start_ns, flight.last_ns) + 1] -= 1;
    }
    let mut present = 0;
    let counts = changes.into_iter().map(|change| {
        present += change;
        present
    });
    counts.max().unwrap_or(0)
}

fn tokens_per_second_max(flights: &[Flight]) -> f64 {
    let start_ns = flights_start(flights);
    let mut tokens = vec![0_u64; seconds(flights)];
    for flight in flights {
        let (others, span_ns) = (
            flight.output_tokens.saturating_sub(1),
            flight.last_ns - flight.first_ns,
        );
        for token in 0..flight.output_tokens {
            let after_ns = u128::from(span_ns) * u128::from(token) / u128::from(others.max(1));
            tokens[second_of(start_ns, flight.first_ns + after_ns as u64)] += 1;
        }
    }
    tokens.into_iter().max().unwrap_or(0) as f64
}

fn flights_start(flights: &[Flight]) -> u64 {
    flights
        .iter()
        .map(|flight| flight.sent_ns)
        .min()
        .unwrap_or(0)
}

fn seconds(flights: &[Flight]) -> usize {
    let end_ns = flights
        .iter()
        .map(|flight| flight.last_ns)
        .max()
        .unwrap_or(0);
    second_of(flights_start(flights), end_ns) + 1
}

fn second_of(start_ns: u64, at_ns: u64) -> usize {
    ((at_ns - start_ns) / 1_000_000_000) as usize
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::testing::{run, sorted};
    use super::*;

    #[test]
    fn the_export_is_as_vllm_writes_it() {
        let json = to_json(&run(), &Options::default());
        insta::assert_snapshot!(sorted(&json), @r#"
        backend: "openai"
        burstiness: null
        completed: 4
        date: "20260203-040506"
        duration: 1.599
        endpoint_type: "openai"
        label: null
        max_concurrency: 8
        max_concurrent_requests: 2
        max_output_tokens_per_s: 6.0
        mean_e2el_ms: 84.0
        mean_itl_ms: 10.0
        mean_tpot_ms: 10.0
        mean_ttft_ms: 64.0
        median_e2el_ms: 84.0
        median_itl_ms: 10.0
        median_tpot_ms: 10.0
        median_ttft_ms: 64.0
        model_id: "llama-3-8b"
        num_prompts: 5
        output_throughput: 7.5046904315197
        p99_e2el_ms: 98.7
        p99_itl_ms: 10.0
        p99_tpot_ms: 10.0
        p99_ttft_ms: 78.7
        request_goodput: 0.9082652134423251
        request_rate: 2.0
        request_throughput: 2.5015634771732334
        std_e2el_ms: 11.180339887498949
        std_itl_ms: 0.0
        std_tpot_ms: 0.0
        std_ttft_ms: 11.180339887498949
        tokenizer_id: null
        total_input_tokens: 400
        total_output_tokens: 12
        total_token_throughput: 257.66103814884303
        "#);
    }

    /// The fields of `vllm bench serve --save-result --percentile-metrics ttft,tpot,itl,e2el` 0.11.0, in `serve.py`.
    #[test]
    fn the_fields_are_exactly_those_of_vllm() {
        let mut expected: BTreeSet<String> = [
            "date",
            "endpoint_type",
            "backend",
            "label",
            "model_id",
            "tokenizer_id",
            "num_prompts",
            "request_rate",
            "burstiness",
            "max_concurrency",
            "duration",
            "completed",
            "total_input_tokens",
            "total_output_tokens",
            "request_throughput",
            "request_goodput",
            "output_throughput",
            "total_token_throughput",
            "max_output_tokens_per_s",
            "max_concurrent_requests",
        ]
        .map(str::to_owned)
        .into();
        for metric in ["ttft", "tpot", "itl", "e2el"] {
            expected.extend(
                ["mean", "median", "std", "p99"].map(|figure| format!("{figure}_{metric}_ms")),
            );
        }
        let fields = |json: Value| -> BTreeSet<String> {
            json.as_object()
                .expect("an object")
                .keys()
                .cloned()
                .collect()
        };
        assert_eq!(fields(to_json(&run(), &Options::default())), expected);
        let options = Options {
            with_details: true,
            metadata: vec![("gpu".into(), "h200".into())],
            percentiles: vec![50.0, 99.9],
            ..Options::default()
        };
        let detailed = to_json(&run(), &options);
        assert_eq!(detailed["gpu"], "h200");
        assert_eq!(detailed["input_lens"], json!([100, 100, 100, 100, 100]));
        assert_eq!(detailed["output_lens"], json!([3, 3, 3, 3, 0]));
        assert_eq!(detailed["ttfts"], json!([0.049, 0.059, 0.069, 0.079, 0.0]));
        assert_eq!(detailed["errors"], json!(["", "", "", "", "failed_reset"]));
        assert!(detailed.get("p50_tpot_ms").is_some() && detailed.get("p99.9_ttft_ms").is_some());
    }

    #[test]
    fn a_run_without_an_answer_has_zeros() {
        let mut run = run();
        run.requests
            .retain(|record| record.outcome != Outcome::Completed);
        run.histograms = crate::Histograms::default();
        let json = to_json(&run, &Options::default());
        for field in ["completed", "max_concurrent_requests"] {
            assert_eq!(json[field], 0, "{field}");
        }
        for field in [
            "duration",
            "request_throughput",
            "mean_ttft_ms",
            "p99_itl_ms",
            "std_tpot_ms",
        ] {
            assert_eq!(json[field], 0.0, "{field}");
        }
    }
}
