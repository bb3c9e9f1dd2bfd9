//! `/metrics`, in Prometheus' text format.
//!
//! What vLLM has under a name, buckets included, has that name and those
//! buckets here (`vllm/v1/metrics/loggers.py`), so that dashboards, autoscalers
//! and gateways made for vLLM work as they are. What only this server has
//! begins with `foresail_`.

mod histogram;

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use histogram::Histogram;

use crate::driver::{self, Stats};

/// Buckets of `vllm:time_to_first_token_seconds`.
const FIRST_TOKEN_S: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];

/// Buckets of `vllm:inter_token_latency_seconds`.
const INTER_TOKEN_S: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];

/// Buckets of the times of whole requests.
const REQUEST_S: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

/// Buckets of token counts: 1, 2, 5, 10 and so on. vLLM ends them at the
/// longest context; these end where no context goes.
const TOKENS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5,
    5e5, 1e6,
];

/// How a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// By a stop token or a stop string.
    Stop,
    /// With as many tokens as it asked for.
    Length,
    /// The client went away.
    Abort,
    /// It failed.
    Error,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Stop, Self::Length, Self::Abort, Self::Error];

    /// vLLM's `finished_reason`.
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

/// What the server counts itself: what only shows where text is made.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) first_token_s: Histogram,
    pub(crate) inter_token_s: Histogram,
    pub(crate) request_s: Histogram,
    pub(crate) queue_s: Histogram,
    pub(crate) prompt_tokens: Histogram,
    pub(crate) output_tokens: Histogram,
    ended: [AtomicU64; 4],
    /// Answers by the first digit of their status.
    answers: [AtomicU64; 5],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            first_token_s: Histogram::new(FIRST_TOKEN_S),
            inter_token_s: Histogram::new(INTER_TOKEN_S),
            request_s: Histogram::new(REQUEST_S),
            queue_s: Histogram::new(REQUEST_S),
            prompt_tokens: Histogram::new(TOKENS),
            output_tokens: Histogram::new(TOKENS),
            ended: Default::default(),
            answers: Default::default(),
        }
    }
}

impl Metrics {
    /// A generation has ended.
    pub(crate) fn ended(&self, outcome: Outcome, took: Duration, prompt: u64, output: u64) {
        self.ended[outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.request_s.observe(took.as_secs_f64());
        self.prompt_tokens.observe(prompt as f64);
        self.output_tokens.observe(output as f64);
    }

    /// A request was answered with a status.
    pub(crate) fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.answers[class].fetch_add(1, Ordering::Relaxed);
    }
}

/// What else is known when metrics are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) model: &'a str,
    /// The replica, once there is one.
    pub(crate) stats: Option<&'a Stats>,
    /// Requests that are being answered.
    pub(crate) in_flight: usize,
    pub(crate) log_lines_left_out: u64,
    pub(crate) ready: bool,
}

/// All metrics, as text.
pub(crate) fn render(metrics: &Metrics, surroundings: Surroundings<'_>) -> String {
    let labels = format!("model_name=\"{}\",engine=\"0\"", escape(surroundings.model));
    let mut page = Page {
        text: String::with_capacity(16 * 1024),
        labels,
    };
    if let Some(stats) = surroundings.stats {
        page.of_vllm(stats);
        page.of_replica(stats);
    }
    page.of_server(metrics);
    page.gauge(
        "foresail_ready",
        "1 if requests are taken.",
        u8::from(surroundings.ready),
    );
    let help = "HTTP requests that are being answered.";
    page.gauge(
        "foresail_http_requests_in_flight",
        help,
        surroundings.in_flight,
    );
    let help = "Lines that the access log could not take.";
    let name = "foresail_access_log_lines_left_out_total";
    page.counter(name, help, surroundings.log_lines_left_out);
    page.text
}

/// A label's value may have anything but these.
fn escape(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    escaped.replace('\n', "\\n")
}

/// The text so far, and the labels that every sample has.
struct Page {
    text: String,
    labels: String,
}

impl Page {
    /// The state of the replica, under vLLM's names.
    fn of_vllm(&mut self, stats: &Stats) {
        let usage = stats.kv_blocks_used as f64 / stats.kv_blocks.max(1) as f64;
        let help = "Requests in the batch.";
        self.gauge("vllm:num_requests_running", help, stats.running);
        self.gauge(
            "vllm:num_requests_waiting",
            "Requests that wait.",
            stats.waiting,
        );
        let help = "Share of the KV cache that requests hold; 1 is all.";
        self.gauge("vllm:kv_cache_usage_perc", help, usage);
        let help = "The older name of vllm:kv_cache_usage_perc.";
        self.gauge("vllm:gpu_cache_usage_perc", help, usage);
        let help = "Times that a request lost its KV blocks to another.";
        self.counter("vllm:num_preemptions_total", help, stats.preemptions);
        let help = "Prompt tokens of admitted requests.";
        self.counter("vllm:prompt_tokens_total", help, stats.prompt_tokens);
        let help = "Tokens generated.";
        self.counter("vllm:generation_tokens_total", help, stats.generated_tokens);
        let help = "Tokens that were looked for in the prefix cache.";
        self.counter("vllm:prefix_cache_queries_total", help, stats.prompt_tokens);
        let help = "Of those, tokens that were there.";
        self.counter(
            "vllm:prefix_cache_hits_total",
            help,
            stats.prompt_tokens_cached,
        );
        let help = "Tokens computed in a step.";
        self.histogram("vllm:iteration_tokens_total", help, &stats.step_tokens);
    }

    /// The state of the replica that vLLM has no name for.
    fn of_replica(&mut self, stats: &Stats) {
        self.counter(
            "foresail_steps_total",
            "Steps, failed ones included.",
            stats.steps,
        );
        self.counter(
            "foresail_failed_steps_total",
            "Steps that failed.",
            stats.failed_steps,
        );
        let help = "How long the device took for a step.";
        self.histogram("foresail_step_seconds", help, &stats.step_s);
        let help = "Sequences in a step.";
        self.histogram("foresail_batch_size", help, &stats.step_sequences);
        let help = "Time between steps that deciding took.";
        self.counter("foresail_driver_seconds_total", help, stats.driver_s);
        let help = "Prompt tokens that were computed, those computed again included.";
        self.counter(
            "foresail_prompt_tokens_computed_total",
            help,
            stats.prompt_tokens_computed,
        );
        self.gauge("foresail_kv_blocks", "KV blocks.", stats.kv_blocks);
        let help = "KV blocks that requests hold.";
        self.gauge("foresail_kv_blocks_used", help, stats.kv_blocks_used);
        let help = "Requests that were given up by their client.";
        self.counter("foresail_requests_cancelled_total", help, stats.cancelled);
        let help = "Adapters loaded into slots of the device.";
        self.counter("foresail_adapter_loads_total", help, stats.adapter_loads);
        let help = "Adapters that gave their slot to another.";
        self.counter(
            "foresail_adapter_evictions_total",
            help,
            stats.adapter_evictions,
        );
    }

    /// What requests saw.
    fn of_server(&mut self, metrics: &Metrics) {
        self.histogram_of(
            "vllm:time_to_first_token_seconds",
            "From the request to its first token.",
            &metrics.first_token_s,
        );
        let help = "Between tokens of a request.";
        self.histogram_of(
            "vllm:inter_token_latency_seconds",
            help,
            &metrics.inter_token_s,
        );
        let help = "The older name of vllm:inter_token_latency_seconds.";
        self.histogram_of(
            "vllm:time_per_output_token_seconds",
            help,
            &metrics.inter_token_s,
        );
        let help = "From the request to its last token.";
        self.histogram_of("vllm:e2e_request_latency_seconds", help, &metrics.request_s);
        let help = "From the request to its place in the batch.";
        self.histogram_of("vllm:request_queue_time_seconds", help, &metrics.queue_s);
        let help = "Prompt tokens of a request.";
        self.histogram_of("vllm:request_prompt_tokens", help, &metrics.prompt_tokens);
        let help = "Tokens generated for a request.";
        self.histogram_of(
            "vllm:request_generation_tokens",
            help,
            &metrics.output_tokens,
        );
        self.head(
            "vllm:request_success_total",
            "Requests that ended, by how.",
            "counter",
        );
        for outcome in Outcome::ALL {
            let count = metrics.ended[outcome as usize].load(Ordering::Relaxed);
            let label = format!(",finished_reason=\"{}\"", outcome.name());
            self.sample("vllm:request_success_total", &label, count);
        }
        self.head(
            "foresail_http_responses_total",
            "Answers, by status.",
            "counter",
        );
        for (class, count) in metrics.answers.iter().enumerate() {
            let label = format!(",status=\"{}xx\"", class + 1);
            let count = count.load(Ordering::Relaxed);
            self.sample("foresail_http_responses_total", &label, count);
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "counter");
        self.sample(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, values: &driver::Histogram) {
        self.head(name, help, "histogram");
        let counts = values.counts.iter().copied();
        let (text, labels) = (&mut self.text, &self.labels);
        histogram::write_samples(text, name, labels, values.bounds, counts, values.sum);
    }

    fn histogram_of(&mut self, name: &str, help: &str, values: &Histogram) {
        self.head(name, help, "histogram");
        values.write(&mut self.text, name, &self.labels);
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, more: &str, value: impl Display) {
        let _ = writeln!(self.text, "{name}{{{}{more}}} {value}", self.labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics) -> String {
        let surroundings = Surroundings {
            model: "accounts/a/models/\"m\"",
            stats: None,
            in_flight: 2,
            log_lines_left_out: 0,
            ready: true,
        };
        render(metrics, surroundings)
    }

    #[test]
    fn endings_are_counted_under_the_names_of_vllm() {
        let metrics = Metrics::default();
        metrics.ended(Outcome::Stop, Duration::from_millis(700), 10, 3);
        metrics.ended(Outcome::Abort, Duration::from_millis(10), 10, 0);
        metrics.answered(200);
        metrics.answered(404);
        let page = page(&metrics);
        let shown = |line: &&str| {
            line.contains("request_success")
                || line.contains("http_responses")
                || line.contains("request_latency_seconds_bucket") && line.contains("\"0.8\"")
                || line.contains("generation_tokens_sum")
        };
        let lines: Vec<_> = page.lines().filter(shown).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        vllm:e2e_request_latency_seconds_bucket{model_name="accounts/a/models/\"m\"",engine="0",le="0.8"} 2
        vllm:request_generation_tokens_sum{model_name="accounts/a/models/\"m\"",engine="0"} 3
        # HELP vllm:request_success_total Requests that ended, by how.
        # TYPE vllm:request_success_total counter
        vllm:request_success_total{model_name="accounts/a/models/\"m\"",engine="0",finished_reason="stop"} 1
        vllm:request_success_total{model_name="accounts/a/models/\"m\"",engine="0",finished_reason="length"} 0
        vllm:request_success_total{model_name="accounts/a/models/\"m\"",engine="0",finished_reason="abort"} 1
        vllm:request_success_total{model_name="accounts/a/models/\"m\"",engine="0",finished_reason="error"} 0
        # HELP foresail_http_responses_total Answers, by status.
        # TYPE foresail_http_responses_total counter
        foresail_http_responses_total{model_name="accounts/a/models/\"m\"",engine="0",status="1xx"} 0
        foresail_http_responses_total{model_name="accounts/a/models/\"m\"",engine="0",status="2xx"} 1
        foresail_http_responses_total{model_name="accounts/a/models/\"m\"",engine="0",status="3xx"} 0
        foresail_http_responses_total{model_name="accounts/a/models/\"m\"",engine="0",status="4xx"} 1
        foresail_http_responses_total{model_name="accounts/a/models/\"m\"",engine="0",status="5xx"} 0
        "#);
    }

    /// Each name has its help and its type once, before its samples, as the format wants it.
    #[test]
    fn names_are_declared_once() {
        let page = page(&Metrics::default());
        let declared = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut names: Vec<_> = declared.filter_map(|line| line.split(' ').next()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(all > 8, "{page}");
    }
}
