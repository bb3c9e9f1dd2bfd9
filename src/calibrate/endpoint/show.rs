//! What a calibration of an endpoint says: a table, the terms, what is open, and a picture.

use std::fmt::Write as _;

use foresail_calibration::requests::{Figure, Fit, FittedFigure, FittedRun};
use foresail_core::step_time::CalibratedProfile;
use foresail_core::step_time::calibrated::{TermEstimate, Terms};
use foresail_reports::picture::{Axis, Mark, Plot, Point, Series, svg};
use serde::Serialize;

use super::design::Kind;
use super::findings::FitRun;

/// What is shown.
pub(super) struct Shown<'a> {
    pub(super) profile: &'a CalibratedProfile,
    pub(super) fit: &'a Fit,
    /// The runs of the fit, in its order.
    pub(super) runs: &'a [FitRun],
    /// What is good to know beside.
    pub(super) notes: &'a [String],
    /// Where the profile is.
    pub(super) out: String,
}

/// For people.
pub(super) fn text(shown: &Shown<'_>) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{:<44} {:>10} {:>11} {:>11} {:>8}",
        "RUN", "figure", "measured", "fitted", "error"
    );
    for run in &shown.fit.runs {
        for figure in &run.figures {
            let _ = writeln!(text, "{}", row(run, figure));
        }
    }
    let _ = writeln!(
        text,
        "\n{:<17} {:>11}  {:<25} what it is",
        "TERM", "value", "95 % interval"
    );
    for fit in &shown.profile.world_sizes {
        for term in fit.terms.iter().filter(|term| term.high > 0.0) {
            let _ = writeln!(text, "{}", term_row(term));
        }
    }
    let batching = &shown.profile.batching;
    let or_open = |value: Option<u32>| value.map_or("open".to_owned(), |value| value.to_string());
    let _ = writeln!(
        text,
        "\nbatch limit {}, tokens of a step {}",
        or_open(batching.max_num_seqs),
        or_open(batching.max_num_batched_tokens)
    );
    let residuals = &shown.fit.fit.residuals;
    let _ = write!(
        text,
        "{} figures fitted, {} left out; off by {:.1} % on average, {:.1} % at most",
        residuals.fitted,
        residuals.left_out,
        residuals.mean * 100.0,
        residuals.max * 100.0
    );
    if let Some(mean) = residuals.cross_validated_mean {
        let _ = write!(
            text,
            ", {:.1} % where a run is predicted from the others",
            mean * 100.0
        );
    }
    let _ = writeln!(text);
    for note in shown.notes {
        let _ = writeln!(text, "{note}");
    }
    let _ = writeln!(text, "\nWhat the measurements leave open:");
    for sentence in &shown.profile.not_identified {
        let _ = writeln!(text, "- {sentence}");
    }
    let _ = writeln!(text, "\nwritten to {}", shown.out);
    text
}

fn row(run: &FittedRun, figure: &FittedFigure) -> String {
    let left_out = if run.is_left_out { "  left out" } else { "" };
    format!(
        "{:<44} {:>10} {:>11} {:>11} {:>+7.1}%{left_out}",
        run.name,
        figure.figure.to_string(),
        shown(figure.figure, figure.observed),
        shown(figure.figure, figure.predicted),
        figure.relative_error() * 100.0
    )
}

fn term_row(term: &TermEstimate) -> String {
    let interval = format!("{} to {}", seconds(term.low), seconds(term.high));
    let open = if term.is_identified { "" } else { " (open)" };
    let meaning = Terms::meaning(&term.name).unwrap_or_default();
    format!(
        "{:<17} {:>11}  {interval:<25} {meaning}{open}",
        term.name,
        seconds(term.value)
    )
}

fn shown(figure: Figure, value: f64) -> String {
    match figure {
        Figure::RequestsPerSecond | Figure::OutputTokensPerSecond => format!("{value:.2} /s"),
        _ => seconds(value),
    }
}

/// A duration with three digits that count.
fn seconds(value: f64) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")];
    let (unit, name) = units
        .into_iter()
        .find(|(unit, _)| value >= *unit)
        .unwrap_or((1e-12, "ps"));
    let number = value / unit;
    let digits = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.digits$} {name}")
}

/// For machines.
pub(super) fn json(shown: &Shown<'_>) -> Result<String, serde_json::Error> {
    let runs = shown.fit.runs.iter().map(|run| RunJson {
        name: &run.name,
        is_left_out: run.is_left_out,
        figures: run.figures.iter().map(figure_json).collect(),
    });
    let report = Json {
        profile: shown.profile,
        runs: runs.collect(),
        notes: shown.notes,
        out: &shown.out,
    };
    serde_json::to_string_pretty(&report).map(|text| text + "\n")
}

#[derive(Serialize)]
struct Json<'a> {
    profile: &'a CalibratedProfile,
    runs: Vec<RunJson<'a>>,
    notes: &'a [String],
    out: &'a str,
}

#[derive(Serialize)]
struct RunJson<'a> {
    name: &'a str,
    is_left_out: bool,
    figures: Vec<FigureJson>,
}

#[derive(Serialize)]
struct FigureJson {
    figure: String,
    measured: f64,
    relative_deviation: f64,
    fitted: f64,
    relative_error: f64,
}

fn figure_json(figure: &FittedFigure) -> FigureJson {
    FigureJson {
        figure: figure.figure.to_string(),
        measured: figure.observed,
        relative_deviation: figure.relative_deviation,
        fitted: figure.predicted,
        relative_error: figure.relative_error(),
    }
}

/// What was measured beside what was fitted: single prompts by their length, and all figures.
pub(super) fn picture(shown: &Shown<'_>) -> String {
    svg(&[prompts(shown), all(shown)])
}

fn prompts(shown: &Shown<'_>) -> Plot {
    let idle = shown
        .runs
        .iter()
        .zip(&shown.fit.runs)
        .filter(|(run, _)| run.kind == Kind::Idle);
    let figures: Vec<(f64, FittedFigure)> = idle
        .filter_map(|(run, fitted)| Some((f64::from(run.prompt_tokens?), *fitted.figures.first()?)))
        .collect();
    let measured = figures
        .iter()
        .map(|(tokens, figure)| measured(*tokens, figure));
    let mut fitted: Vec<Point> = figures
        .iter()
        .map(|(tokens, figure)| Point::new(*tokens, figure.predicted * 1e3))
        .collect();
    fitted.sort_by(|a, b| a.x.total_cmp(&b.x));
    Plot {
        title: "Single prompts".to_owned(),
        x: Axis::log("prompt (tokens)"),
        y: Axis::log("TTFT (ms)"),
        series: vec![
            Series::new("measured", Mark::Points, measured.collect()),
            Series::new("fitted", Mark::Line, fitted),
        ],
    }
}

/// As it was measured (ms), with the noise of two standard deviations.
fn measured(x: f64, figure: &FittedFigure) -> Point {
    let reach = 2.0 * figure.relative_deviation;
    let y = figure.observed * 1e3;
    Point::within(x, y, y * (1.0 - reach), y * (1.0 + reach))
}

fn all(shown: &Shown<'_>) -> Plot {
    let of = |name: &str, is_of: fn(Figure) -> bool| {
        let figures = shown.fit.runs.iter().flat_map(|run| &run.figures);
        let figures = figures.filter(|figure| is_of(figure.figure));
        let points = figures.map(|figure| measured(figure.predicted * 1e3, figure));
        Series::new(name, Mark::Points, points.collect())
    };
    let values = || {
        let figures = shown.fit.runs.iter().flat_map(|run| &run.figures);
        figures.map(|figure| figure.observed * 1e3)
    };
    let (least, most) = values().fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
        (least.min(value), most.max(value))
    });
    let line = [least, most].map(|value| Point::new(value, value));
    Plot {
        title: "All runs".to_owned(),
        x: Axis::log("fitted (ms)"),
        y: Axis::log("measured (ms)"),
        series: vec![
            of("TTFT", |figure| matches!(figure, Figure::Ttft(_))),
            of("TPOT", |figure| matches!(figure, Figure::Tpot(_))),
            of("E2E", |figure| matches!(figure, Figure::EndToEnd(_))),
            Series::new("equal", Mark::Line, line.to_vec()),
        ],
    }
}
