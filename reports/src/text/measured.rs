//! What only a measured run has to say: whether it can be trusted, what was
//! measured of it, and what client and server saw of themselves.

use super::Style;
use super::units::{count, counted, duration, percent, rate, significant};
use crate::summary::{
    Client, Counters, Excluded, LatencySummary, Load, Measured, MeasuredEndings, Server, Summary,
    Window,
};

/// Columns of the labels on the left.
const LABEL_WIDTH: usize = 11;

/// Where and how, under the title.
pub(super) fn target(summary: &Summary) -> Option<String> {
    let measured = summary.measured.as_ref()?;
    let load = match measured.load {
        Load::Open => "open loop".to_owned(),
        Load::Capped { in_flight_max } => {
            format!("open loop, at most {} in flight", count(in_flight_max))
        }
        Load::Closed { concurrency } => format!("closed loop of {}", count(concurrency)),
    };
    let shard = measured.shard.as_ref().map(|shard| {
        let parts: Vec<_> = shard.parts.iter().map(u32::to_string).collect();
        let noun = if parts.len() == 1 { "shard" } else { "shards" };
        format!(" · {noun} {} of {}", parts.join(", "), shard.of)
    });
    let endpoint = &measured.endpoint;
    Some(format!(
        "at {endpoint}, {load}{}",
        shard.unwrap_or_default()
    ))
}

/// What stands between the figures and the trust in them.
pub(super) fn doubts(summary: &Summary, style: Style) -> Vec<String> {
    let Some(measured) = &summary.measured else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    if !measured.degraded.is_empty() {
        let heading = style.heading("DEGRADED");
        lines.push(format!("{heading}  do not trust these figures"));
        let reasons = measured.degraded.iter();
        let reasons = reasons.flat_map(|reason| {
            let text = format!("{}: {}", reason.code, reason.text);
            wrapped("  ✗ ", &text, style.width)
        });
        lines.extend(reasons.map(|line| style.bad(&line)));
    }
    if measured.is_interrupted {
        let heading = style.heading("INTERRUPTED");
        lines.push(format!(
            "{heading}  before the plan was done; the figures are of what was sent until then"
        ));
    }
    lines
}

/// How requests ended, beside those endings that a simulation has too.
pub(super) fn endings(endings: &MeasuredEndings) -> [(u64, &'static str); 12] {
    [
        (
            endings.rejected_rate_limited,
            "rejected with 429: too many requests",
        ),
        (
            endings.rejected_unavailable,
            "rejected with 503: the server was not available",
        ),
        (
            endings.rejected_status,
            "rejected with another status below 500",
        ),
        (
            endings.failed_status,
            "failed: an error of the server, 500 or above",
        ),
        (endings.failed_connect, "failed: no connection could be had"),
        (
            endings.failed_reset,
            "failed: the connection was reset, or closed before an answer",
        ),
        (
            endings.failed_truncated,
            "failed: the answer ended before its end",
        ),
        (
            endings.failed_stalled,
            "failed: nothing came for too long in the middle of an answer",
        ),
        (endings.failed_garbage, "failed: what came is no answer"),
        (endings.failed_error, "failed: the stream told of an error"),
        (
            endings.failed_cancelled,
            "failed: in flight when the run was ended",
        ),
        (endings.unsent, "not sent: the run was ended before"),
    ]
}

/// What was asked, what was sent, what came back.
pub(super) fn load(summary: &Summary, style: Style) -> Vec<String> {
    let Some(measured) = &summary.measured else {
        return Vec::new();
    };
    let rates = &measured.rates;
    let asked = rates.asked_per_s;
    let asked = asked.map_or_else(String::new, |asked| {
        format!("{}/s asked · ", significant(asked))
    });
    vec![format!(
        "{}  {asked}{}/s sent · {}/s completed · {} output tokens/s · most {} in flight",
        style.heading("LOAD"),
        significant(rates.sent_per_s),
        significant(summary.throughput.requests_per_s),
        rate(summary.throughput.output_tokens_per_s),
        count(rates.in_flight_max),
    )]
}

/// What is measured, and what would come of the run without leaving anything out.
pub(super) fn window(summary: &Summary, style: Style) -> Vec<String> {
    let Some(measured) = &summary.measured else {
        return Vec::new();
    };
    let Window {
        from_s,
        until_s,
        rule,
        warm_up,
        cool_down,
        whole_run,
    } = &measured.window;
    let mut lines = vec![format!(
        "{}  {} to {} of {}",
        style.heading("WINDOW"),
        duration(*from_s),
        duration(*until_s),
        duration(summary.duration_s),
    )];
    lines.extend(wrapped("  ", rule, style.width));
    lines.push(line("before it", &excluded(warm_up)));
    lines.push(line("after it", &excluded(cool_down)));
    lines.push(line("whole run", &counters(whole_run)));
    lines.extend(steadiness(measured, style));
    lines
}

fn excluded(excluded: &Excluded) -> String {
    let said = format!(
        "{} in {}, not counted",
        counted(excluded.requests, "request"),
        duration(excluded.duration_s)
    );
    match &excluded.ttft_s {
        Some(ttft) => format!("{said} · {}", spread("ttft", ttft)),
        None => said,
    }
}

fn counters(counters: &Counters) -> String {
    let mut said = format!(
        "{} of {} completed, {}/s, {} output tokens/s",
        count(counters.completed),
        counted(counters.requests, "request"),
        significant(counters.requests_per_s),
        rate(counters.output_tokens_per_s),
    );
    let latencies = [
        ("ttft", &counters.ttft_s),
        ("tpot", &counters.tpot_s),
        ("e2e", &counters.e2e_s),
    ];
    let known = latencies.into_iter().filter_map(|(name, latency)| {
        let LatencySummary { p50, p99, .. } = (*latency)?;
        Some(format!("{name} {}, {}", duration(p50), duration(p99)))
    });
    let known: Vec<_> = known.collect();
    if !known.is_empty() {
        // Under the text of the line above.
        said += &format!("\n  {:LABEL_WIDTH$} p50, p99: {}", "", known.join(" · "));
    }
    said
}

fn steadiness(measured: &Measured, style: Style) -> Vec<String> {
    let Some(steadiness) = &measured.steadiness else {
        return Vec::new();
    };
    match steadiness.is_steady {
        true => wrapped("  steady      ", &steadiness.text, style.width),
        false => {
            let lines = wrapped("  not steady  ", &steadiness.text, style.width);
            lines.iter().map(|line| style.bad(line)).collect()
        }
    }
}

/// What the client saw of itself.
pub(super) fn client(summary: &Summary, style: Style) -> Vec<String> {
    let Some(measured) = &summary.measured else {
        return Vec::new();
    };
    let client = &measured.client;
    let mut lines = vec![format!(
        "{}  {}, the busiest at {} of a CPU · {} of CPU time · {}",
        style.heading("CLIENT"),
        counted(client.threads.into(), "thread"),
        percent(client.cpu_share_max),
        duration(client.cpu_s),
        bytes_of(client.rss_bytes_max as f64),
    )];
    let late = |late: &Option<LatencySummary>| late.as_ref().map(|late| spread("late", late));
    lines.extend(late(&client.send_late_s).map(|late| line("sends", &late)));
    lines.extend(late(&client.loop_lag_s).map(|late| line("event loop", &late)));
    lines.push(line("connections", &connections(client)));
    lines.push(line("tokens", &tokens(summary, client)));
    lines.push(line(
        "prompts",
        match client.prompts_are_exact {
            true => "as long as was asked, by the tokenizer",
            false => "of about the length that was asked: no tokenizer counted them",
        },
    ));
    if client.clock_jumps > 0 {
        let jumps = counted(client.clock_jumps, "jump");
        let said = format!("{jumps} of the time of day, on which no figure depends");
        lines.push(line("clock", &said));
    }
    lines
}

fn connections(client: &Client) -> String {
    let connections = &client.connections;
    let mut said = format!(
        "{} opened · {} over one that was open",
        count(connections.opened),
        counted(connections.reused, "request"),
    );
    if connections.stale > 0 {
        said += &format!(
            " · {} found closed and sent again",
            count(connections.stale)
        );
    }
    if connections.failed > 0 {
        said += &format!(" · {} failed", count(connections.failed));
    }
    said
}

/// Who counted the tokens, and how many came at once: a chunk of several is one gap.
fn tokens(summary: &Summary, client: &Client) -> String {
    let mut said = match (client.tokens_from_usage, client.tokens_assumed) {
        (_, 0) => "counted by the server".to_owned(),
        (0, _) => "assumed: the server counted none".to_owned(),
        (usage, assumed) => format!(
            "counted by the server in {}, assumed in {}",
            counted(usage, "request"),
            count(assumed)
        ),
    };
    if client.chunks > 0 {
        let per_chunk = summary.tokens.output as f64 / client.chunks as f64;
        let chunks = counted(client.chunks, "chunk");
        said += &format!(" · {} a chunk in {chunks}", significant(per_chunk));
    }
    said
}

/// What the server said of itself, if it was asked.
pub(super) fn server(summary: &Summary, style: Style) -> Vec<String> {
    let server = summary
        .measured
        .as_ref()
        .and_then(|measured| measured.server.as_ref());
    let Some(server) = server else {
        return Vec::new();
    };
    let mut lines = vec![format!(
        "{}  {} · {}, {} missing",
        style.heading("SERVER"),
        server.targets.join(", "),
        counted(server.samples, "answer"),
        count(server.failures),
    )];
    let figures = [
        (
            "running",
            mean_and_most(server.running_mean, server.running_max, whole),
        ),
        (
            "waiting",
            mean_and_most(server.waiting_mean, server.waiting_max, whole),
        ),
        (
            "KV cache",
            mean_and_most(server.kv_usage_mean, server.kv_usage_max, percent),
        ),
        ("tokens", served(server)),
        ("preemptions", server.preemptions.map(count)),
        ("GPUs", gpus(server)),
    ];
    let known = figures.into_iter();
    lines.extend(known.filter_map(|(label, said)| said.map(|said| line(label, &said))));
    lines
}

fn mean_and_most(mean: Option<f64>, most: Option<f64>, text: fn(f64) -> String) -> Option<String> {
    let said = [("mean", mean), ("most", most)];
    listed(said.map(|(name, value)| value.map(|value| format!("{name} {}", text(value)))))
}

fn served(server: &Server) -> Option<String> {
    let hits = server.prefix_cache_hit_rate;
    listed([
        server
            .prompt_tokens
            .map(|tokens| format!("{} in prompts", count(tokens))),
        hits.map(|share| format!("{} of them cached", percent(share))),
        server
            .output_tokens
            .map(|tokens| format!("{} generated in the whole run", count(tokens))),
    ])
}

fn gpus(server: &Server) -> Option<String> {
    listed([
        server
            .gpu_utilization_mean
            .map(|share| format!("busy {}", percent(share))),
        server
            .gpu_power_w_mean
            .map(|watts| format!("{} W", rate(watts))),
        server
            .gpu_memory_bytes_max
            .map(|bytes| format!("{} in use at most", bytes_of(bytes))),
    ])
}

fn listed<const N: usize>(said: [Option<String>; N]) -> Option<String> {
    let known: Vec<_> = said.into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.join(", "))
}

fn spread(name: &str, latency: &LatencySummary) -> String {
    let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(duration);
    format!("{name} p50 {p50}, p99 {p99}, max {max}")
}

fn line(label: &str, text: &str) -> String {
    format!("  {label:LABEL_WIDTH$} {text}")
}

/// As few digits as say it: most of these are whole numbers.
fn whole(value: f64) -> String {
    match value.fract() {
        0.0 => count(value as u64),
        _ => significant(value),
    }
}

fn bytes_of(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 999.5e6 => format!("{} MB", rate(bytes / 1e6)),
        bytes => format!("{} GB", rate(bytes / 1e9)),
    }
}

/// A text in lines of that width, broken between words and set under its beginning.
fn wrapped(start: &str, text: &str, width: usize) -> Vec<String> {
    let indent = " ".repeat(start.chars().count());
    let mut lines = vec![start.to_owned()];
    let mut is_fresh = true;
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if !is_fresh && last + 1 + word.chars().count() > width {
            lines.push(indent.clone());
            is_fresh = true;
        }
        if let Some(line) = lines.last_mut() {
            *line += if is_fresh { "" } else { " " };
            *line += word;
        }
        is_fresh = false;
    }
    lines
}
