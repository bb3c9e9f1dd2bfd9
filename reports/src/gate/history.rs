//! A line of history a gate, for those who look for changes over many commits.
//!
//! A gate compares two versions; what creeps in by half a percent a week passes
//! it for ever. A change-point detector sees it. Each line is an element of the
//! array that Apache Otava's JSON importer reads (`timestamp`, `metrics` with
//! `name` and `value`, `attributes`): `jq -s . history.jsonl > history.json`.

use super::report::GateReport;
use super::run::GateRun;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Line<'a> {
    timestamp: i64,
    metrics: Vec<Metric<'a>>,
    attributes: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Metric<'a> {
    name: &'a str,
    value: f64,
}

/// The candidate's figures as one line of JSON with its newline: the mean of
/// each metric that all its runs have. The timestamp is in Unix seconds;
/// attributes say what was measured, such as the commit.
///
/// # Errors
/// If memory for it runs out.
pub fn line(
    report: &GateReport,
    candidate: &[GateRun],
    unix_s: i64,
    attributes: &[(String, String)],
) -> Result<String, serde_json::Error> {
    let names = candidate
        .first()
        .into_iter()
        .flat_map(|run| run.values.keys());
    let mean = |name: &str| {
        let values: Option<Vec<f64>> = candidate
            .iter()
            .map(|run| run.values.get(name).copied())
            .collect();
        let values = values?;
        Some(values.iter().sum::<f64>() / values.len() as f64)
    };
    let metrics = names.filter_map(|name| {
        let value = mean(name)?;
        Some(Metric { name, value })
    });
    let own = [
        ("scenario", report.scenario.as_str()),
        ("verdict", crate::text::verdict_word(report.verdict)),
        ("version", report.tool.version.as_str()),
    ];
    let given = attributes
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let line = Line {
        timestamp: unix_s,
        metrics: metrics.collect(),
        attributes: own.into_iter().chain(given).collect(),
    };
    let mut text = serde_json::to_string(&line)?;
    text.push('\n');
    Ok(text)
}
