//! The comparison as Markdown.

use std::fmt::Write as _;

use crate::Compared;
use crate::figures::{Figures, MEANS, NAMES, mean, percentile};
use crate::runs::Capacities;
use crate::systems::System;

/// The table of a system: a block a run, and what it comes to.
pub(crate) fn system(system: &System, capacities: Capacities, compared: &[Compared]) -> String {
    let repeats = compared.first().map_or(0, |run| run.measured.len());
    let mut text = format!(
        "## {}\n\nIt takes {:.2} requests/s of the one mix of prompts and {:.2} of the other. {}\n\n\
         | run | requests | | {} |\n|---|---|---|{}\n",
        capitalised(system.title),
        capacities.mix,
        capacities.other_mix,
        said_of_repeats(repeats),
        NAMES.join(" | "),
        "---:|".repeat(NAMES.len())
    );
    for run in compared {
        let requests = run.measured.first().map_or(0, |figures| figures.requests);
        row(
            &mut text,
            run.run,
            &requests.to_string(),
            "measured",
            |index| {
                let measured = of(&run.measured, index);
                let shown = shown(index, mean(&measured));
                match apart(&measured) {
                    Some(apart) => format!("{shown} ± {:.1} %", 100.0 * apart),
                    None => shown,
                }
            },
        );
        for (name, predicted) in &run.predicted {
            row(&mut text, "", "", name, |index| {
                let error = predicted.values[index] / mean(&of(&run.measured, index)) - 1.0;
                format!("{:+.1} %", 100.0 * error)
            });
        }
    }
    text + "\n" + &medians(compared)
}

fn said_of_repeats(repeats: usize) -> String {
    match repeats {
        1 => {
            "Every run was done once, so that the noise of the measurement is not known.".to_owned()
        }
        _ => format!(
            "Every run was done {repeats} times; measured figures are means of these, and ± is half of what they are \
             apart. Errors are of the prediction, against that mean."
        ),
    }
}

/// The median over runs and repeats of the magnitudes of errors, beside what repeats are from each other.
fn medians(compared: &[Compared]) -> String {
    let mut text = format!(
        "| median of the magnitudes over runs and repeats | {} |\n|---|{}\n",
        NAMES.join(" | "),
        "---:|".repeat(NAMES.len())
    );
    let names = compared.first().map_or(&[][..], |run| &run.predicted);
    for (which, (name, _)) in names.iter().enumerate() {
        line(&mut text, &format!("error, {name}"), |index| {
            let errors = compared.iter().flat_map(|run| {
                let predicted = run.predicted[which].1.values[index];
                let measured = run.measured.iter();
                measured.map(move |figures| (predicted / figures.values[index] - 1.0).abs())
            });
            percentile(errors.collect(), 0.5)
        });
    }
    if compared.iter().all(|run| run.measured.len() > 1) {
        let name = "a repeat against the mean of the others";
        line(&mut text, name, |index| {
            let noise = compared
                .iter()
                .flat_map(|run| against_others(&of(&run.measured, index)));
            percentile(noise.collect(), 0.5)
        });
    }
    let _ = writeln!(
        text,
        "\nMeans are the first {MEANS} columns; p99 of so few requests is between the largest few."
    );
    text
}

/// How far each of several values is from the mean of the others, as a share of that.
fn against_others(values: &[f64]) -> Vec<f64> {
    let all: f64 = values.iter().sum();
    let others = values.len() as f64 - 1.0;
    let of = |one: &f64| (one / ((all - one) / others) - 1.0).abs();
    values.iter().map(of).collect()
}

fn line(text: &mut String, name: &str, value: impl Fn(usize) -> f64) {
    let cells = (0..NAMES.len()).map(|index| format!("{:.1} %", 100.0 * value(index)));
    let cells: Vec<String> = cells.collect();
    // Writing to a string does not fail.
    let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
}

fn row(text: &mut String, run: &str, requests: &str, what: &str, cell: impl Fn(usize) -> String) {
    let cells: Vec<String> = (0..NAMES.len()).map(cell).collect();
    let _ = writeln!(
        text,
        "| {run} | {requests} | {what} | {} |",
        cells.join(" | ")
    );
}

fn of(repeats: &[Figures], index: usize) -> Vec<f64> {
    repeats
        .iter()
        .map(|figures| figures.values[index])
        .collect()
}

/// Half of how far values are apart, as a share of their mean; one alone does not say.
fn apart(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let largest = values.iter().copied().fold(f64::MIN, f64::max);
    let smallest = values.iter().copied().fold(f64::MAX, f64::min);
    Some((largest - smallest) / 2.0 / mean(values))
}

fn shown(index: usize, value: f64) -> String {
    match NAMES[index] {
        "tokens/s" => format!("{value:.0}"),
        _ if value < 1.0 => format!("{:.1} ms", value * 1e3),
        _ => format!("{value:.2} s"),
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}
