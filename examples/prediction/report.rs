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
        "## {}\n\nIt takes {:.2} requests/s of the one mix of prompts and {:.2} of the other. Every run was done {repeats} times; \
         measured figures are means of these, and ± is half of what they are apart. Errors are of the prediction, \
         against that mean.\n\n| run | requests | | {} |\n|---|---|---|{}\n",
        capitalised(system.title),
        capacities.mix,
        capacities.other_mix,
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
                format!(
                    "{} ± {:.1} %",
                    shown(index, mean(&measured)),
                    100.0 * apart(&measured)
                )
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
    line(
        &mut text,
        "a repeat against the mean of the others",
        |index| {
            let noise = compared.iter().flat_map(|run| {
                let measured = of(&run.measured, index);
                let all = mean(&measured) * measured.len() as f64;
                let others = (measured.len() as f64 - 1.0).max(1.0);
                let noise: Vec<f64> = measured
                    .iter()
                    .map(|one| (one / ((all - one) / others) - 1.0).abs())
                    .collect();
                noise
            });
            percentile(noise.collect(), 0.5)
        },
    );
    let _ = writeln!(
        text,
        "\nMeans are the first {MEANS} columns; p99 of so few requests is between the largest few."
    );
    text
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

/// Half of how far values are apart, as a share of their mean.
fn apart(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::MIN, f64::max);
    let smallest = values.iter().copied().fold(f64::MAX, f64::min);
    (largest - smallest) / 2.0 / mean(values)
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
