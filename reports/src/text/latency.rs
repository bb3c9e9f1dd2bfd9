//! The table of latencies.

use super::Style;
use super::units::optional_duration;
use crate::summary::{LatencySummary, Summary};

const COLUMN_WIDTH: usize = 11;

/// What is said of simulations that know nothing of the server: how much the lightly loaded ones that
/// `docs/accuracy.md` compares take besides their steps ("What a server adds to a request").
const WITHOUT_SERVER: &str =
    "published servers add 15 to 45 ms to ttft and e2e, left out here (step_time.request_overhead)";

type Statistic = (&'static str, fn(&LatencySummary) -> f64);

const STATISTICS: [Statistic; 6] = [
    ("mean", |s| s.mean),
    ("p50", |s| s.p50),
    ("p90", |s| s.p90),
    ("p95", |s| s.p95),
    ("p99", |s| s.p99),
    ("max", |s| s.max),
];

/// What each latency is called, and what it is.
pub(super) const LATENCIES: [(&str, &str); 5] = [
    ("ttft", "send to first token"),
    ("itl", "token to token"),
    ("tpot", "mean of a request"),
    ("e2e", "send to last token"),
    ("queue", "ready to first step"),
];

pub(super) fn table(summary: &Summary, style: Style) -> Vec<String> {
    let heading = style.heading("LATENCY");
    if summary.e2e_s.is_none() {
        return vec![format!("{heading}  no request completed")];
    }
    let names: String = STATISTICS
        .iter()
        .map(|(name, _)| format!("{name:>COLUMN_WIDTH$}"))
        .collect();
    // As wide as the labels below, whatever the heading is painted with.
    let mut lines = vec![format!("{heading}{:20}{names}", "")];
    let latencies = [
        summary.ttft_s,
        summary.itl_s,
        summary.tpot_s,
        summary.e2e_s,
        summary.queue_s,
    ];
    for ((name, meaning), latency) in LATENCIES.into_iter().zip(latencies) {
        // From outside, nobody can tell waiting from prefill.
        if name == "queue" && latency.is_none() && summary.measured.is_some() {
            continue;
        }
        let meaning = match name {
            // What arrives at a client are chunks, of one token or of several.
            "itl" if summary.measured.is_some() => "chunk to chunk",
            _ => meaning,
        };
        let cell = |(_, of): Statistic| {
            format!(
                "{:>COLUMN_WIDTH$}",
                optional_duration(latency.as_ref().map(of))
            )
        };
        let cells: String = STATISTICS.map(cell).concat();
        lines.push(format!(
            "  {name:<5} {}{cells}",
            style.quiet(&format!("{meaning:<19}"))
        ));
    }
    if summary.scenario.leaves_out_request_overhead {
        lines.push(format!("  {}", style.quiet(WITHOUT_SERVER)));
    }
    lines
}
