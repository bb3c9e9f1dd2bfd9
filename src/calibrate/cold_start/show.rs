//! The result as text, as JSON, and as a table for a scenario.

use foresail_calibration::cold_start::{Choice, StageFit, TableStage, percentile, scenario_table};
use foresail_reports::Style;
use foresail_scenarios::catalogue::cold_starts;
use foresail_scenarios::scenario::{ColdStartPhase, ColdStartStage};

use super::record::{Kind, PageCache, Record};
use crate::failure::Failure;
use crate::terminal::OutputFormat;

/// What the catalogue's stages that are not measured here are called.
const BEFORE: [&str; 2] = ["schedule", "image"];
const AFTER: &str = "route";

pub(super) fn result(
    record: &Record,
    format: OutputFormat,
    style: Style,
) -> Result<String, Failure> {
    match format {
        OutputFormat::Text => Ok(text(record, style)),
        OutputFormat::Json => serde_json::to_string_pretty(record)
            .map(|json| json + "\n")
            .map_err(|error| Failure::Defect(format!("no JSON: {error}"))),
    }
}

fn text(record: &Record, style: Style) -> String {
    let mut lines = vec![
        format!(
            "{} · on {} · measured {}",
            style.heading(&record.model),
            record.device,
            record.measured_on
        ),
        format!(
            "{}; each start is a process of its own, from when it was made until it took requests",
            record.machine
        ),
    ];
    for kind in &record.kinds {
        lines.push(String::new());
        lines.extend(kind_lines(kind, style));
    }
    lines.join("\n") + "\n"
}

fn kind_lines(kind: &Kind, style: Style) -> Vec<String> {
    let (heading, meaning) = match kind.page_cache {
        PageCache::Cold => ("COLD", "nothing of the model in the page cache"),
        PageCache::Warm => ("WARM", "everything in the page cache"),
    };
    let header = format!(
        "  {:<16}{:>4}{:>10}{:>10}{:>10}{:>10}  fitted",
        "stage", "n", "mean", "p50", "p90", "max"
    );
    let mut lines = vec![
        format!("{}  {meaning}", style.heading(heading)),
        style.quiet(&header),
    ];
    for stage in &kind.stages {
        lines.push(row(&stage.name, &stage.seconds, &fitted(stage)));
        lines.extend(outliers(stage));
    }
    let drawn = format!(
        "drawn from the fit: p50 {}, p90 {}",
        time(kind.drawn_p50_s),
        time(kind.drawn_p90_s)
    );
    lines.push(row("start", &kind.seconds, &drawn));
    let own = "a request of one token, no part of the start";
    lines.push(row("first request", &kind.first_request_s, own));
    lines.push(row(
        "second request",
        &kind.second_request_s,
        "the same again",
    ));
    lines
}

fn row(name: &str, seconds: &[f64], what: &str) -> String {
    let mean = seconds.iter().sum::<f64>() / seconds.len().max(1) as f64;
    let [p50, p90, max] = [0.5, 0.9, 1.0].map(|share| time(percentile(seconds, share)));
    format!(
        "  {name:<16}{:>4}{:>10}{p50:>10}{p90:>10}{max:>10}  {what}",
        seconds.len(),
        time(mean)
    )
}

fn fitted(stage: &StageFit) -> String {
    let first = stage.outcomes.first().map(|outcome| &outcome.seconds);
    let spread = match first {
        Some(foresail_scenarios::distribution::Distribution::LogNormal { mu, sigma }) => format!(
            "log-normal, median {}, usually within a factor of {:.2}",
            time(mu.exp()),
            sigma.exp()
        ),
        _ => String::new(),
    };
    match stage.choice {
        Choice::Short => "fixed: less than 1 % of a start".to_owned(),
        Choice::Same => "fixed: always about the same".to_owned(),
        Choice::LogNormal => spread,
        Choice::LogNormalAndOutliers => format!("{spread}; and what was far from that"),
        Choice::Measured => "as measured: no log-normal".to_owned(),
    }
}

fn outliers(stage: &StageFit) -> Option<String> {
    if stage.outliers.is_empty() {
        return None;
    }
    let told: Vec<String> = stage
        .outliers
        .iter()
        .map(|index| format!("{} in start {}", time(stage.seconds[*index]), index + 1))
        .collect();
    Some(format!(
        "  {:<16}far from the others: {}",
        "",
        told.join(", ")
    ))
}

/// A duration with three significant digits.
fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        seconds if seconds < 0.999_5e-3 => (seconds * 1e6, "µs"),
        seconds if seconds < 0.999_5 => (seconds * 1e3, "ms"),
        seconds => (seconds, "s"),
    };
    let decimals = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// The `[cold_start]` table: of cold starts if there are some, with warm ones beside it as a comment.
pub(super) fn table(record: &Record) -> String {
    let mut tables = record.kinds.iter().map(|kind| table_of(record, kind));
    let first = tables.next().unwrap_or_default();
    let others = tables.map(|table| commented(&table));
    [first]
        .into_iter()
        .chain(others)
        .collect::<Vec<_>>()
        .join("\n")
}

fn table_of(record: &Record, kind: &Kind) -> String {
    let cache = match kind.page_cache {
        PageCache::Cold => "with nothing of the model in the page cache",
        PageCache::Warm => "with all that is read in the page cache",
    };
    let heading = [
        format!(
            "Starts of {} on {}, {cache}.",
            record.model, record.device
        ),
        format!(
            "Measured {} on {} by: {}",
            record.measured_on, record.machine, record.command
        ),
        "Stages that are not measured are the catalogue's; what a download of the weights takes is in".to_owned(),
        "none of them: where they are fetched, add it as a stage of the phase `downloading`.".to_owned(),
    ];
    // Neither size nor ranks change the stages that are taken from here.
    let defaults = cold_starts::default_stages(0, 1);
    let assumed = |stage: &ColdStartStage| match stage.phase {
        ColdStartPhase::Pending => "the catalogue's, of a warm pool of nodes",
        ColdStartPhase::Downloading => "the catalogue's, of an image of 12 GB",
        ColdStartPhase::Initialising => "the catalogue's, until a health check has seen it",
    };
    let default = |name: &str| defaults.iter().find(|stage| stage.name == name);
    let default =
        |name: &str| default(name).map(|stage| TableStage::Assumed(stage, assumed(stage)));
    let stages: Vec<TableStage<'_>> = BEFORE
        .iter()
        .filter_map(|name| default(name))
        .chain(kind.stages.iter().map(TableStage::Measured))
        .chain(default(AFTER))
        .collect();
    scenario_table(&heading, &stages)
}

/// A table that a person may put in place of the other.
fn commented(table: &str) -> String {
    let lines = table.lines().map(|line| match line.strip_prefix("# ") {
        Some(line) => format!("# {line}\n"),
        None => format!("#   {line}\n"),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_has_what_is_before_and_after_what_is_measured() {
        let defaults = cold_starts::default_stages(0, 1);
        for name in BEFORE.into_iter().chain([AFTER]) {
            assert!(defaults.iter().any(|stage| stage.name == name), "{name}");
        }
    }
}
