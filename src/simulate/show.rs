//! The result of runs, for people or for machines.

use foresail_reports::seeds::Seeds;
use foresail_reports::{Style, Summary, text};

use crate::failure::Failure;
use crate::runs::Run;
use crate::terminal::OutputFormat;

/// The runs of one scenario as one summary: that of its first seed with the best step times, with what
/// all seeds say together if there are several.
pub(super) fn together(runs: &[Run]) -> Summary {
    let summaries: Vec<Summary> = runs.iter().map(|run| run.summary.clone()).collect();
    let best = runs[0].best.as_deref();
    let mut summary = best.unwrap_or(&summaries[0]).clone();
    if runs.len() > 1 {
        summary.seeds = Some(match runs.iter().any(|run| run.is_drawn) {
            true => Seeds::of_draws(&summaries),
            false => Seeds::of(&summaries),
        });
    }
    summary
}

/// Whether the objectives were met under every seed.
pub(super) fn is_met(summary: &Summary) -> bool {
    match &summary.seeds {
        Some(seeds) => seeds.met == seeds.seeds.len() as u64,
        None => summary.objectives_met(),
    }
}

/// One summary a deployment: with JSON an object if there is one, else an array;
/// as text each of them, and then all side by side. What comes from a list of
/// deployments is an array even if it is a list of one, and no choice between them.
pub(super) fn text(
    summaries: &[Summary],
    has_list: bool,
    format: OutputFormat,
    style: Style,
) -> Result<String, Failure> {
    match (format, summaries) {
        (OutputFormat::Text, [one]) => Ok(text::summary(one, style)),
        (OutputFormat::Text, _) => {
            let mut parts: Vec<_> = summaries
                .iter()
                .map(|summary| text::summary(summary, style))
                .collect();
            parts.push(match has_list {
                true => text::side_by_side(summaries, style),
                false => text::comparison(summaries, style),
            });
            Ok(parts.join("\n"))
        }
        (OutputFormat::Json, [one]) if !has_list => one.to_json().map_err(not_json),
        (OutputFormat::Json, _) => serde_json::to_string_pretty(summaries)
            .map(|json| json + "\n")
            .map_err(not_json),
    }
}

fn not_json(error: serde_json::Error) -> Failure {
    Failure::Defect(format!("the summary has no JSON form: {error}"))
}
