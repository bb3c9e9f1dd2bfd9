//! How far a prediction is from what was measured, for people: the verdict first, then each metric
//! with its error, then where errors come from.

use super::Style;
use super::compared::{WIDTH_MAX, wrapped};
use super::units::{count, counted, duration, value};
use crate::objectives::Unit;
use crate::validation::{MetricVerdict, SourceOfError, Validation, Verdict};

/// Below this share of the mean, nothing is worth a sentence.
const WORTH_TELLING: f64 = 0.01;

/// A validation as text, ending with a newline.
#[must_use]
pub fn validation(report: &Validation, style: Style) -> String {
    let sections = [
        title(report, style),
        degraded(report, style),
        metrics(report, style),
        sources(report, style),
        report
            .notes
            .iter()
            .flat_map(|note| wrapped(&format!("note: {note}"), style.width.min(WIDTH_MAX)))
            .collect(),
    ];
    let sections: Vec<_> = sections
        .iter()
        .filter(|lines| !lines.is_empty())
        .map(|lines| lines.join("\n"))
        .collect();
    sections.join("\n\n") + "\n"
}

fn title(report: &Validation, style: Style) -> Vec<String> {
    let verdict = match report.verdict {
        Verdict::Within => style.good("WITHIN TOLERANCE"),
        Verdict::Beyond => style.bad("BEYOND TOLERANCE"),
        Verdict::NotJudged => style.quiet("NOT JUDGED"),
    };
    let (scenario, measured) = (&report.scenario, &report.measured);
    let beyond = report.metrics.iter();
    let beyond = beyond.filter(|metric| metric.verdict == Verdict::Beyond);
    let judged = report.metrics.iter();
    let judged = judged.filter(|metric| metric.verdict != Verdict::NotJudged);
    let mut lines = vec![
        format!(
            "{}  {verdict} · {} of {} metrics beyond",
            style.heading("VALIDATION"),
            beyond.count(),
            judged.count(),
        ),
        format!("  measured   {}, {}", measured.name, measured.format),
        format!(
            "  predicted  {}: {} on {} × {}, {}",
            scenario.name, scenario.model, scenario.world_size, scenario.gpu, scenario.step_times,
        ),
    ];
    let mut requests = format!(
        "  requests   {} compared of {}",
        count(measured.compared),
        count(measured.requests)
    );
    let others = [
        (measured.outside_window, "outside the window"),
        (measured.failed, "failed"),
        (measured.not_predicted, "completed only in the measurement"),
    ];
    for (number, what) in others.into_iter().filter(|(number, _)| *number > 0) {
        requests += &format!(", {} {what}", count(number));
    }
    lines.push(requests);
    lines.push(format!("  intervals  {}", said_of_intervals(report)));
    lines
}

fn said_of_intervals(report: &Validation) -> String {
    let draws = counted(report.draws, "draw");
    match (report.draws, report.include_calibration_error) {
        (0, _) => {
            "none of the prediction: add --seeds 20, and its calibration's error is told".to_owned()
        }
        (_, true) => format!("of the prediction by {draws} of its calibration"),
        (_, false) => format!(
            "of the prediction by {draws} without any error of its step times, which are taken as exact"
        ),
    }
}

fn degraded(report: &Validation, style: Style) -> Vec<String> {
    let reasons = &report.measured.degraded;
    if reasons.is_empty() {
        return Vec::new();
    }
    let heading = style.heading("DEGRADED");
    let mut lines = vec![format!("{heading}  do not trust what was measured")];
    let reasons = reasons.iter().flat_map(|reason| {
        let text = format!("  ✗ {}: {}", reason.code, reason.text);
        wrapped(&text, style.width.min(WIDTH_MAX))
    });
    lines.extend(reasons.map(|line| style.bad(&line)));
    lines
}

fn metrics(report: &Validation, style: Style) -> Vec<String> {
    let heading = format!(
        "{:<24}{:>12}{:>12}{:>10}  {:<10}{}",
        "ERRORS", "measured", "predicted", "error", "tolerance", "explained by"
    );
    let mut lines = vec![style.heading(heading.trim_end())];
    lines.extend(report.metrics.iter().map(|each| metric(each, style)));
    lines
}

fn metric(metric: &MetricVerdict, style: Style) -> String {
    let mark = match metric.verdict {
        Verdict::Within => style.good("✓"),
        Verdict::Beyond => style.bad("✗"),
        Verdict::NotJudged => style.quiet("–"),
    };
    let shown =
        |figure: Option<f64>| figure.map_or("–".to_owned(), |it| of_unit(it, metric.unit));
    let error = metric.error.map_or("–".to_owned(), signed_percent);
    let rest = match &metric.problem {
        Some(problem) => problem.clone(),
        None => format!(
            "{:<10}{}",
            format!("±{}", plain_percent(metric.tolerance)),
            explained(metric)
        ),
    };
    let line = format!(
        "  {mark} {:<20}{:>12}{:>12}{error:>10}  {rest}",
        metric.name,
        shown(metric.measured),
        shown(metric.predicted),
    );
    line.trim_end().to_owned()
}

/// Which of the two intervals hold the error; nothing of an error that cannot be seen.
fn explained(metric: &MetricVerdict) -> &'static str {
    if metric.error.is_some_and(|error| error.abs() < 5e-4) {
        return "";
    }
    match (metric.is_within_noise, metric.is_within_prediction) {
        (Some(true), Some(true)) => "noise, calibration",
        (Some(true), _) => "noise",
        (_, Some(true)) => "calibration",
        (None, None) => "",
        (Some(false), None) => "not noise",
        (None, Some(false)) => "not calibration",
        (Some(false), Some(false)) => "neither",
    }
}

fn of_unit(figure: f64, unit: Unit) -> String {
    match unit {
        Unit::Replicas => format!("{figure:.2}"),
        _ => value(figure, unit),
    }
}

fn signed_percent(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}

fn plain_percent(share: f64) -> String {
    format!("{} %", (share * 1e4).round() / 100.0)
}

fn sources(report: &Validation, style: Style) -> Vec<String> {
    if report.sources.is_empty() {
        return Vec::new();
    }
    let heading = format!(
        "{:<24}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "WHERE FROM", "error", "tokens", "step time", "overhead", "queueing"
    );
    let mut lines = vec![style.heading(&heading)];
    lines.extend(report.sources.iter().map(|source| {
        let parts = [
            Some(source.error_s),
            Some(source.tokens_s),
            Some(source.step_time_s),
            source.overhead_s,
            Some(source.queueing_s),
        ];
        let parts = parts.map(|seconds| format!("{:>12}", seconds.map_or("–".to_owned(), signed)));
        format!("    {:<20}{}", source.metric, parts.concat())
    }));
    lines.extend(sentence(report).map(|sentence| format!("  {sentence}")));
    lines
}

fn signed(seconds: f64) -> String {
    // Less than any clock tells is nothing.
    if seconds.abs() < 1e-9 {
        return "0".to_owned();
    }
    let sign = if seconds < 0.0 { '-' } else { '+' };
    format!("{sign}{}", duration(seconds.abs()))
}

/// What most of the error of the longest mean is, and how far step times are off.
fn sentence(report: &Validation) -> Option<String> {
    let source = report.sources.last()?;
    let metric = report
        .metrics
        .iter()
        .find(|each| each.name == source.metric)?;
    let measured = metric.measured?;
    let (part, seconds) = largest(source);
    // Of what another sample might not have had, or nobody knows whether it would, there is nothing to explain.
    if seconds.abs() < WORTH_TELLING * measured || metric.is_within_noise != Some(false) {
        return None;
    }
    let scale = report.step_time_scale;
    let scale = scale.filter(|scale| explains(*scale, seconds, measured));
    let long = if seconds > 0.0 {
        "too long"
    } else {
        "too short"
    };
    let what = match part {
        Part::Tokens => "the records have other tokens than the server counted".to_owned(),
        Part::StepTime => match scale {
            Some(scale) => format!(
                "steps take {} times as long as predicted",
                (scale * 1e3).round() / 1e3
            ),
            None => "steps do not take as long as predicted".to_owned(),
        },
        Part::Overhead => {
            format!("prompts' steps, or what requests take around steps, are predicted {long}")
        }
        Part::Queueing if source.overhead_s.is_none() => {
            format!(
                "waits for a step, or what requests take around their steps, are predicted {long}"
            )
        }
        Part::Queueing => format!("waits for a step are predicted {long}"),
    };
    Some(format!(
        "mostly {}: {what}",
        match part {
            Part::Tokens => "tokens",
            Part::StepTime => "step time",
            Part::Overhead => "overhead",
            Part::Queueing if source.overhead_s.is_none() => "queueing or overhead",
            Part::Queueing => "queueing",
        }
    ))
}

/// Whether steps that take so many times as long are most of an error of so many seconds, of what was measured (s).
fn explains(scale: f64, seconds: f64, measured: f64) -> bool {
    let of_scale = (1.0 / scale - 1.0) * measured;
    of_scale * seconds > 0.0 && of_scale.abs() >= seconds.abs() / 2.0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Tokens,
    StepTime,
    Overhead,
    Queueing,
}

fn largest(source: &SourceOfError) -> (Part, f64) {
    let parts = [
        (Part::StepTime, source.step_time_s),
        (Part::Overhead, source.overhead_s.unwrap_or(0.0)),
        (Part::Queueing, source.queueing_s),
        (Part::Tokens, source.tokens_s),
    ];
    let mut largest = parts[0];
    for part in parts {
        if part.1.abs() > largest.1.abs() {
            largest = part;
        }
    }
    largest
}
