//! What a gate says as Markdown: for the summary of a job, or a comment.

use super::{
    change_cells, differences, objective_cells, of_change, of_objective, runs, verdict_word,
};
use crate::gate::Verdict;
use crate::gate::report::GateReport;

/// How many differences of simulated runs are shown.
const SHOWN_MAX: usize = 50;

/// A verdict as Markdown, ending with a newline.
#[must_use]
pub fn gate_markdown(report: &GateReport) -> String {
    let mut lines = vec![
        format!(
            "## Gate: {} {}",
            sign(report.verdict),
            verdict_word(report.verdict)
        ),
        String::new(),
        format!("{} · {}", escaped(&report.scenario), runs(report)),
    ];
    for run in &report.degraded {
        lines.push(String::new());
        lines.push(format!(
            "**`{}` is degraded:** {}",
            run.name,
            escaped(&run.reasons.join("; "))
        ));
    }
    let objectives = report.objectives.iter();
    let rows: Vec<_> = objectives
        .map(|each| (each.verdict, objective_cells(each)))
        .collect();
    lines.extend(table(
        &["objective", "limit", "observed", "interval"],
        &rows,
    ));
    let changes = report.changes.iter();
    let rows: Vec<_> = changes
        .map(|each| (each.verdict, change_cells(each)))
        .collect();
    let headings = [
        "metric",
        "baseline",
        "candidate",
        "change",
        "interval",
        "limit",
    ];
    lines.extend(table(&headings, &rows));
    lines.extend(exact(report));
    lines.extend(list(&sentences(report)));
    lines.join("\n") + "\n"
}

fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✅",
        Verdict::Inconclusive => "❔",
        Verdict::Fail | Verdict::Degraded => "❌",
    }
}

fn table(headings: &[&str], rows: &[(Verdict, Vec<String>)]) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![
        String::new(),
        format!("| | {} |", headings.join(" | ")),
        format!("|---|---|{}", "--:|".repeat(headings.len() - 1)),
    ];
    for (verdict, cells) in rows {
        let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
        lines.push(format!("| {} | {} |", sign(*verdict), cells.join(" | ")));
    }
    lines
}

fn exact(report: &GateReport) -> Vec<String> {
    let Some(exact) = &report.exact else {
        return Vec::new();
    };
    if exact.count == 0 {
        return vec![String::new(), "Simulated runs, no difference.".to_owned()];
    }
    let mut lines = vec![String::new(), "```".to_owned()];
    // What ends the block early would be Markdown again.
    lines.extend(
        differences(exact, SHOWN_MAX)
            .iter()
            .map(|line| line.replace("```", "'''")),
    );
    lines.push("```".to_owned());
    lines
}

/// Whatever is no pass, and the notes.
fn sentences(report: &GateReport) -> Vec<String> {
    let objectives = report.objectives.iter();
    let objectives = objectives
        .filter(|each| each.verdict != Verdict::Pass)
        .map(of_objective);
    let changes = report.changes.iter();
    let changes = changes
        .filter(|each| each.verdict != Verdict::Pass)
        .map(of_change);
    objectives
        .chain(changes)
        .chain(report.notes.iter().cloned())
        .collect()
}

fn list(sentences: &[String]) -> Vec<String> {
    let items = sentences
        .iter()
        .map(|sentence| format!("- {}", escaped(sentence)));
    let blank = (!sentences.is_empty()).then(String::new);
    blank.into_iter().chain(items).collect()
}

/// What Markdown and HTML would take for theirs. Backticks are ours.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('*', "\\*")
        .replace('_', "\\_")
        .replace('<', "&lt;")
        .replace(['\n', '\r'], " ")
}
