//! Several runs at once: seeds of one scenario, or scenarios side by side.

use super::Style;
use super::latency::LATENCIES;
use super::units::{self, count};
use crate::objectives::Unit;
use crate::seeds::{Seeds, SeedsMetric};
use crate::summary::Summary;

const LATENCY_WIDTH: usize = 21;

/// The metrics over several seeds; nothing if there is one seed.
pub(super) fn seeds(summary: &Summary, style: Style) -> Vec<String> {
    let Some(seeds) = &summary.seeds else {
        return Vec::new();
    };
    let met = if summary.objectives.is_empty() {
        String::new()
    } else {
        format!(", objectives met in {}", seeds.met)
    };
    let statistics = ["mean", "p50", "p95", "p99"];
    let names: String = statistics
        .map(|name| format!("{name:>LATENCY_WIDTH$}"))
        .concat();
    let mut lines = vec![
        format!(
            "{}  {} runs{met}; mean ± {} (Student's t)",
            style.heading("SEEDS"),
            seeds.seeds.len(),
            said_of_half_widths(seeds),
        ),
        format!("  intervals {}", said_of_intervals(seeds)),
        format!("  {:8}{names}", ""),
    ];
    for (latency, _) in LATENCIES {
        let cell = |statistic| {
            let metric = seeds.metric(&format!("{latency}_{statistic}"));
            format!("{:>LATENCY_WIDTH$}", interval(metric))
        };
        lines.push(format!("  {latency:<8}{}", statistics.map(cell).concat()));
    }
    let others = seeds
        .metrics
        .iter()
        .filter(|metric| metric.unit != Unit::Seconds);
    lines.extend(
        others
            .filter(|metric| metric.mean.is_some())
            .map(|metric| format!("  {:<34}  {}", metric.name, interval(Some(metric)))),
    );
    lines
}

/// What lies so near the mean.
fn said_of_half_widths(seeds: &Seeds) -> &'static str {
    if seeds.include_calibration_error {
        "where 95 % of other runs are"
    } else {
        "half of a 95 % interval"
    }
}

/// Of what the intervals over several seeds are.
fn said_of_intervals(seeds: &Seeds) -> &'static str {
    if seeds.include_calibration_error {
        "include the error of the step times' calibration: each run has its own draw of them"
    } else {
        "are of the traffic alone: the step times are taken as exact"
    }
}

fn interval(metric: Option<&SeedsMetric>) -> String {
    let Some((metric, mean)) = metric.and_then(|metric| Some((metric, metric.mean?))) else {
        return "–".to_owned();
    };
    units::interval(mean, metric.half_width, metric.unit)
}

/// Heading, name of the metric, width.
const COLUMNS: [(&str, &str, usize); 8] = [
    ("ttft p50", "ttft_p50", 10),
    ("ttft p95", "ttft_p95", 10),
    ("ttft p99", "ttft_p99", 10),
    ("tpot p95", "tpot_p95", 10),
    ("e2e p95", "e2e_p95", 10),
    ("replicas", "replicas", 9),
    ("cost", "cost_usd", 10),
    ("$/M tok", "cost_usd_per_million_output_tokens", 9),
];

/// Scenarios side by side, one a line, ending with a newline, and then the
/// cheapest. Where a summary has several seeds, their means are shown.
#[must_use]
pub fn comparison(summaries: &[Summary], style: Style) -> String {
    let mut text = side_by_side(summaries, style);
    if let Some(cheapest) = cheapest(summaries) {
        let name = &summaries[cheapest].scenario.name;
        text += &format!("\ncheapest that meets its objectives: {name}\n");
    }
    text
}

/// The same without the cheapest: deployments that each serve traffic of their
/// own are no alternatives.
#[must_use]
pub fn side_by_side(summaries: &[Summary], style: Style) -> String {
    let name_width = summaries
        .iter()
        .map(|summary| summary.scenario.name.chars().count())
        .max()
        .unwrap_or(0)
        .max("SCENARIO".len());
    let headings: String = COLUMNS
        .iter()
        .map(|(name, _, width)| format!("{name:>width$}"))
        .collect();
    let heading = format!("{:<name_width$}  met{headings}", "SCENARIO");
    let mut text = style.heading(&heading) + "\n";
    for summary in summaries {
        text += &comparison_line(summary, name_width, style);
        text.push('\n');
    }
    text
}

fn comparison_line(summary: &Summary, name_width: usize, style: Style) -> String {
    let metrics = metrics(summary);
    let cell = |(_, name, width): (&str, &str, usize)| {
        let metric = metrics
            .metric(name)
            .and_then(|metric| Some((metric.unit, metric.mean?)));
        let text = metric.map_or_else(|| "–".to_owned(), |(unit, mean)| units::value(mean, unit));
        format!("{text:>width$}")
    };
    let all = metrics.seeds.len() as u64;
    let met = match () {
        () if summary.objectives.is_empty() => format!("{:>3}", "–"),
        () if all > 1 => format!("{:>3}", format!("{}/{}", count(metrics.met), count(all))),
        () => format!("  {}", style.mark(summary.objectives_met())),
    };
    format!(
        "{:<name_width$}  {met}{}",
        summary.scenario.name,
        COLUMNS.map(cell).concat()
    )
}

fn metrics(summary: &Summary) -> Seeds {
    summary
        .seeds
        .clone()
        .unwrap_or_else(|| Seeds::of(std::slice::from_ref(summary)))
}

/// The cheapest of several scenarios that meet all their objectives with
/// every seed; the first of equals.
fn cheapest(summaries: &[Summary]) -> Option<usize> {
    let mut cheapest: Option<(usize, f64)> = None;
    for (index, summary) in summaries.iter().enumerate() {
        let metrics = metrics(summary);
        let meets = !summary.objectives.is_empty() && metrics.met == metrics.seeds.len() as u64;
        let Some(usd) = metrics.metric("cost_usd").and_then(|metric| metric.mean) else {
            continue;
        };
        if meets && cheapest.is_none_or(|(_, least)| usd < least) {
            cheapest = Some((index, usd));
        }
    }
    cheapest
        .filter(|_| summaries.len() > 1)
        .map(|(index, _)| index)
}
