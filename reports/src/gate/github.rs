//! A verdict for GitHub Actions: annotations, and the summary of the job.

use super::Verdict;
use super::report::GateReport;
use crate::text::{gate_markdown, of_change, of_objective};

/// GitHub shows ten annotations of a kind a step, and drops the others without a word.
const ANNOTATIONS_MAX: usize = 10;

/// A summary larger than this is dropped as a whole:
/// <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>.
const SUMMARY_BYTES_MAX: usize = 1024 * 1024;

/// Workflow commands, a line each: an error for what failed, a warning for what
/// is inconclusive; at most ten, errors first.
#[must_use]
pub fn annotations(report: &GateReport) -> String {
    let degraded = report.degraded.iter().map(|run| {
        let verdict = match report.verdict {
            Verdict::Degraded => Verdict::Degraded,
            _ => Verdict::Inconclusive,
        };
        (
            verdict,
            format!("{} is degraded: {}", run.name, run.reasons.join("; ")),
        )
    });
    let objectives = report
        .objectives
        .iter()
        .map(|each| (each.verdict, of_objective(each)));
    let changes = report
        .changes
        .iter()
        .map(|each| (each.verdict, of_change(each)));
    let exact = report
        .exact
        .iter()
        .filter(|exact| exact.count > 0)
        .map(|exact| {
            (
                Verdict::Fail,
                format!("{} differences between simulated runs", exact.count),
            )
        });
    let mut all: Vec<(Verdict, String)> = degraded
        .chain(objectives)
        .chain(changes)
        .chain(exact)
        .collect();
    all.retain(|(verdict, _)| *verdict != Verdict::Pass);
    all.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
    all.truncate(ANNOTATIONS_MAX);
    let title = escaped_property(&format!("foresail gate: {}", report.scenario));
    let lines = all.iter().map(|(verdict, text)| {
        let kind = match verdict {
            Verdict::Inconclusive => "warning",
            _ => "error",
        };
        format!("::{kind} title={title}::{}\n", escaped(text))
    });
    lines.collect()
}

/// The Markdown of a verdict, short enough to be appended to a summary of which
/// so many bytes are used up; empty if there is no room at all.
#[must_use]
pub fn step_summary(report: &GateReport, bytes_used: usize) -> String {
    const CUT: &str = "\n\n(cut: the summary of a job holds 1 MiB)\n";
    let markdown = gate_markdown(report);
    let room = SUMMARY_BYTES_MAX.saturating_sub(bytes_used);
    if markdown.len() <= room {
        return markdown;
    }
    let Some(room) = room.checked_sub(CUT.len()) else {
        return String::new();
    };
    let end = (0..=room).rev().find(|end| markdown.is_char_boundary(*end));
    format!("{}{CUT}", &markdown[..end.unwrap_or(0)])
}

/// As GitHub's own toolkit escapes the text of a command.
fn escaped(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn escaped_property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}
