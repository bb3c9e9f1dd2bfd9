//! What is asked besides completions.

use std::fmt::Write as _;

use crate::request::Asked;
use crate::stats::Stats;
use crate::templates::{error_json, response};

/// What the endpoint knows of itself, under the names that vLLM gives it
/// (<https://docs.vllm.ai/en/stable/design/metrics.html>).
pub(crate) struct Gauges<'a> {
    pub(crate) stats: &'a Stats,
    pub(crate) model: &'a str,
    pub(crate) prompt_tokens: u64,
}

/// The page asked for, whole.
pub(crate) fn page(asked: &Asked, gauges: &Gauges<'_>, keeps_alive: bool) -> Vec<u8> {
    let json = "application/json";
    let (status, content_type, body) = match asked {
        Asked::Models => (200, json, models(gauges.model)),
        Asked::Metrics => (
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics(gauges),
        ),
        Asked::Wrong(status, message) => (*status, json, error_json(*status, message)),
        Asked::Health | Asked::Generation(_) => (200, "text/plain", String::new()),
    };
    response(status, content_type, "", body.as_bytes(), keeps_alive)
}

fn models(model: &str) -> String {
    let model = serde_json::Value::from(model);
    format!(
        "{{\"object\":\"list\",\"data\":[{{\"id\":{model},\"object\":\"model\",\"created\":0,\"owned_by\":\"mock\"}}]}}"
    )
}

fn metrics(gauges: &Gauges<'_>) -> String {
    let stats = gauges.stats;
    let lines = [
        ("num_requests_running", "gauge", stats.running),
        ("num_requests_waiting", "gauge", 0),
        ("kv_cache_usage_perc", "gauge", 0),
        ("prompt_tokens_total", "counter", gauges.prompt_tokens),
        ("generation_tokens_total", "counter", stats.tokens),
        ("request_success_total", "counter", stats.answers),
    ];
    // The text format has its own escapes for values of labels.
    let model = gauges.model.replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = String::new();
    for (name, kind, value) in lines {
        let _ = write!(
            text,
            "# TYPE vllm:{name} {kind}\nvllm:{name}{{model_name=\"{model}\"}} {value}\n"
        );
    }
    text
}
