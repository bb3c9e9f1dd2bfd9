//! What a gate says, for people: the verdict first, then each limit with its
//! interval, then what the runs do not tell.

mod markdown;
mod sentence;

pub use markdown::gate_markdown;
pub(crate) use sentence::{of_change, of_objective};

use super::Style;
use super::compared::{WIDTH_MAX, wrapped};
use super::units::{counted, value};
use crate::gate::report::{
    ChangeVerdict, Exact, GateReport, IntervalSource, ObjectiveVerdict, Pairing,
};
use crate::gate::{LEVEL, Verdict};
use crate::objectives::{Bound, Unit};

/// How many differences of simulated runs are shown.
const SHOWN_MAX: usize = 20;

/// A verdict as text, ending with a newline.
#[must_use]
pub fn gate(report: &GateReport, style: Style) -> String {
    let sections = [
        vec![title(report, style)],
        degraded(report, style),
        objectives(report, style),
        changes(report, style),
        exact(report, style),
        report
            .notes
            .iter()
            .map(|note| format!("note: {note}"))
            .collect(),
        explanation(report, style),
    ];
    let sections: Vec<_> = sections
        .iter()
        .filter(|lines| !lines.is_empty())
        .map(|lines| lines.join("\n"))
        .collect();
    sections.join("\n\n") + "\n"
}

/// `pass`, in words.
pub(crate) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Fail => "fail",
        Verdict::Degraded => "degraded",
    }
}

fn painted(verdict: Verdict, text: &str, style: Style) -> String {
    match verdict {
        Verdict::Pass => style.good(text),
        Verdict::Inconclusive => style.quiet(text),
        Verdict::Fail | Verdict::Degraded => style.bad(text),
    }
}

fn mark(verdict: Verdict, style: Style) -> String {
    let mark = match verdict {
        Verdict::Pass => "✓",
        Verdict::Inconclusive => "?",
        Verdict::Fail | Verdict::Degraded => "✗",
    };
    painted(verdict, mark, style)
}

fn title(report: &GateReport, style: Style) -> String {
    let verdict = verdict_word(report.verdict).to_uppercase();
    format!(
        "{}  {} · {} · {}",
        style.heading("GATE"),
        painted(report.verdict, &verdict, style),
        report.scenario,
        runs(report)
    )
}

/// `5 pairs of runs, by seed`.
pub(crate) fn runs(report: &GateReport) -> String {
    let (ours, theirs) = (report.baseline.len() as u64, report.candidate.len() as u64);
    if ours == 0 {
        return counted(theirs, "run");
    }
    let plural = if ours == 1 { "" } else { "s" };
    match report.pairing {
        Pairing::Seeds => format!("{ours} pair{plural} of runs, by seed"),
        Pairing::Order => format!("{ours} pair{plural} of runs, by their order"),
        Pairing::None => format!("{} against {ours} of the baseline", counted(theirs, "run")),
    }
}

fn degraded(report: &GateReport, style: Style) -> Vec<String> {
    if report.degraded.is_empty() {
        return Vec::new();
    }
    let judged = match report.verdict {
        Verdict::Degraded => "not judged",
        _ => "judged all the same",
    };
    let heading = style.heading("DEGRADED");
    let runs = counted(report.degraded.len() as u64, "run");
    let mut lines = vec![format!("{heading}  {runs} not to be trusted; {judged}")];
    for run in &report.degraded {
        let reasons = run.reasons.iter();
        lines
            .extend(reasons.flat_map(|reason| lines_of(&format!("{}: {reason}", run.name), style)));
    }
    lines
}

/// Cells of a table, the first of each row beside its mark.
struct Table {
    headings: Vec<&'static str>,
    rows: Vec<(Verdict, Vec<String>)>,
}

impl Table {
    fn lines(&self, style: Style) -> Vec<String> {
        let length = |text: &str| text.chars().count();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|(_, cells)| length(&cells[column]));
            cells
                .chain([length(self.headings[column])])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).enumerate();
            let padded = padded.map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            padded.collect::<Vec<_>>().join("  ")
        };
        let headings: Vec<String> = self.headings.iter().map(|&text| text.to_owned()).collect();
        let mut lines = vec![style.heading(&format!("  {}", line(&headings)))];
        let rows = self.rows.iter();
        lines.extend(rows.map(|(verdict, cells)| {
            format!("{} {}", mark(*verdict, style), line(cells).trim_end())
        }));
        lines
    }
}

fn objectives(report: &GateReport, style: Style) -> Vec<String> {
    if report.objectives.is_empty() {
        return Vec::new();
    }
    let rows = report.objectives.iter();
    let table = Table {
        headings: vec!["OBJECTIVES", "limit", "observed", "interval"],
        rows: rows
            .map(|each| (each.verdict, objective_cells(each)))
            .collect(),
    };
    let mut lines = table.lines(style);
    let each = report.objectives.iter();
    lines.extend(each.flat_map(|each| unclear(each.verdict, &of_objective(each), style)));
    lines
}

/// What is not a pass is explained.
fn unclear(verdict: Verdict, sentence: &str, style: Style) -> Vec<String> {
    if verdict == Verdict::Pass {
        return Vec::new();
    }
    lines_of(sentence, style)
}

/// A sentence, indented, on as many lines as it takes.
fn lines_of(sentence: &str, style: Style) -> Vec<String> {
    let lines = wrapped(sentence, style.width.clamp(40, WIDTH_MAX) - 2);
    lines.iter().map(|line| format!("  {line}")).collect()
}

/// Limit, observed, interval.
pub(super) fn objective_cells(objective: &ObjectiveVerdict) -> Vec<String> {
    let sign = match objective.bound {
        Bound::AtMost => "≤",
        Bound::AtLeast => "≥",
    };
    let observed = objective
        .observed
        .map(|observed| value(observed, objective.unit));
    let interval = match (objective.lower, objective.upper, objective.interval) {
        (Some(lower), Some(upper), source) => {
            let of = match source {
                IntervalSource::Requests => " within the run",
                IntervalSource::Runs | IntervalSource::None => "",
            };
            format!(
                "{}{of}",
                between(lower, upper, |v| value(v, objective.unit))
            )
        }
        _ => "–".to_owned(),
    };
    vec![
        objective.name.clone(),
        format!("{sign} {}", value(objective.limit, objective.unit)),
        observed.unwrap_or_else(|| "–".to_owned()),
        interval,
    ]
}

fn between(lower: f64, upper: f64, text: impl Fn(f64) -> String) -> String {
    format!("{} to {}", text(lower), text(upper))
}

fn changes(report: &GateReport, style: Style) -> Vec<String> {
    if report.changes.is_empty() {
        return Vec::new();
    }
    let rows = report.changes.iter();
    let table = Table {
        headings: vec![
            "CHANGES",
            "baseline",
            "candidate",
            "change",
            "interval",
            "limit",
        ],
        rows: rows
            .map(|each| (each.verdict, change_cells(each)))
            .collect(),
    };
    let mut lines = table.lines(style);
    let each = report.changes.iter();
    lines.extend(each.flat_map(|each| unclear(each.verdict, &of_change(each), style)));
    lines
}

/// Name, baseline, candidate, change, interval, limit.
pub(super) fn change_cells(each: &ChangeVerdict) -> Vec<String> {
    let dash = || "–".to_owned();
    let level = |level: Option<f64>| level.map_or_else(dash, |level| value(level, each.unit));
    let interval = match (each.lower, each.upper) {
        (Some(lower), Some(upper)) => {
            let lower = signed(lower, each.unit);
            let number = lower.split(' ').next().unwrap_or_default();
            format!("{number} to {}", signed(upper, each.unit))
        }
        _ => dash(),
    };
    vec![
        each.name.clone(),
        level(each.baseline),
        level(each.candidate),
        each.change
            .map_or_else(dash, |change| signed(change, each.unit)),
        interval,
        limit(each),
    ]
}

/// The most that it may change for the worse: `+3 %`.
pub(super) fn limit(each: &ChangeVerdict) -> String {
    let limit = each.allowed.max(each.minimum);
    match each.bound {
        Bound::AtMost => signed(limit, each.unit),
        Bound::AtLeast => signed(-limit, each.unit),
    }
}

/// A change with its sign: `+5.0 %`, and of shares `-0.5 points`.
pub(super) fn signed(change: f64, unit: Unit) -> String {
    let percent = change * 100.0;
    let decimals = match percent.abs() {
        size if size < 9.95 => 1,
        _ => 0,
    };
    // A change that rounds to nothing has no sign.
    let is_nothing = percent.abs() < 0.05;
    let number = if is_nothing {
        "0.0".to_owned()
    } else {
        format!("{percent:+.decimals$}")
    };
    match unit {
        Unit::Share => format!("{number} points"),
        _ => format!("{number} %"),
    }
}

fn exact(report: &GateReport, style: Style) -> Vec<String> {
    let Some(exact) = &report.exact else {
        return Vec::new();
    };
    let heading = style.heading("EXACT");
    if exact.count == 0 {
        return vec![format!("{heading}  simulated runs, no difference")];
    }
    let count = counted(exact.count, "difference");
    let mut lines = vec![format!("{heading}  simulated runs, {count}")];
    lines.extend(differences(exact, SHOWN_MAX));
    lines
}

/// The first differences, one a line, and how many more there are.
pub(super) fn differences(exact: &Exact, shown_max: usize) -> Vec<String> {
    let absent = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".to_owned());
    let shown = exact.differences.iter().take(shown_max);
    let mut lines: Vec<String> = shown
        .map(|each| {
            let place = match each.run.as_str() {
                "" => each.field.clone(),
                run => format!("{run} {}", each.field),
            };
            format!(
                "  {place}: {} -> {}",
                absent(&each.baseline),
                absent(&each.candidate)
            )
        })
        .collect();
    let hidden = exact.count.saturating_sub(lines.len() as u64);
    if hidden > 0 {
        lines.push(format!("  and {}", counted(hidden, "more difference")));
    }
    lines
}

/// How to read it.
fn explanation(report: &GateReport, style: Style) -> Vec<String> {
    let has_interval = report.changes.iter().any(|each| each.lower.is_some())
        || report.objectives.iter().any(|each| each.lower.is_some());
    if !has_interval {
        return Vec::new();
    }
    let tests = report
        .changes
        .iter()
        .filter(|each| each.p_value.is_some())
        .count();
    let holm = match tests {
        0 | 1 => String::new(),
        count => format!(
            "; {count} metrics together fail by luck in at most {:.0} % of gates (Holm)",
            LEVEL * 100.0
        ),
    };
    vec![style.quiet(&format!("each end of an interval holds with 95 %{holm}"))]
}
