//! Variants side by side, as text: the ranking at first glance, then what is
//! different from the baseline and how sure that is, then a sentence each.

mod differences;
mod ranking;
mod requests;
mod sentence;

use super::{Style, broken, units};
use crate::compare::{Comparison, Pairing, Variant};
use crate::summary::{ScenarioFacts, Source};
use units::counted;

/// The widest that lines are set, tables included.
pub(super) const WIDTH_MAX: usize = 100;

/// A comparison as text, ending with a newline.
#[must_use]
pub fn compared(comparison: &Comparison, style: Style) -> String {
    let sections = [
        title(comparison, style),
        ranking::section(comparison, style),
        differences::section(comparison, style),
        requests::section(comparison, style),
        sentence::section(comparison, style),
    ];
    let sections: Vec<_> = sections
        .iter()
        .filter(|lines| !lines.is_empty())
        .map(|lines| lines.join("\n"))
        .collect();
    sections.join("\n\n") + "\n"
}

fn title(comparison: &Comparison, style: Style) -> Vec<String> {
    let variants = &comparison.variants;
    let Some(first) = comparison.variant(&comparison.baseline) else {
        return Vec::new();
    };
    let of = match shared(variants, |facts| facts.name.as_str()) {
        Some(name) => format!(" of {name}"),
        None => String::new(),
    };
    let rivals = variants.iter().filter(|variant| variant.rank.is_some());
    let oracle = comparison.oracle.as_ref().map_or("", |_| " and the oracle");
    let mut lines = vec![format!(
        "{}  {}{of}{oracle} · {} · {}",
        style.heading("COMPARISON"),
        counted(rivals.count() as u64, "variant"),
        seeds(comparison),
        source(variants),
    )];
    if let Some(hardware) = shared(variants, hardware) {
        lines.push(hardware);
    }
    if comparison.include_calibration_error {
        let drawn = "each seed has its own draw of the step times, the same for all variants: differences are \
                     means over what their calibration leaves open";
        lines.extend(broken(drawn, style.width));
    }
    if let Some(workload) = shared(variants, |facts| facts.workload.as_str()) {
        lines.extend(broken(workload, style.width));
    }
    let common = common_settings(first, variants);
    if !common.is_empty() {
        let common = format!("all with {}", common.join(", "));
        lines.extend(broken(&common, style.width));
    }
    lines
}

/// What the command line changed about each of them.
fn common_settings<'a>(first: &'a Variant, variants: &[Variant]) -> Vec<&'a str> {
    let settings = first.scenario.settings.iter();
    let has = |variant: &Variant, setting| variant.scenario.settings.contains(setting);
    let common = settings.filter(|setting| variants.iter().all(|variant| has(variant, setting)));
    common.map(String::as_str).collect()
}

/// What all variants have in common, if they do.
fn shared<'a, T: PartialEq>(
    variants: &'a [Variant],
    of: impl Fn(&'a ScenarioFacts) -> T,
) -> Option<T> {
    let mut all = variants.iter().map(|variant| of(&variant.scenario));
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

fn hardware(facts: &ScenarioFacts) -> String {
    let ScenarioFacts {
        model,
        gpu,
        world_size,
        ..
    } = facts;
    format!("{model} on {world_size} × {gpu} a replica")
}

fn source(variants: &[Variant]) -> &'static str {
    let is = |source: Source| variants.iter().all(|variant| variant.source == source);
    match () {
        () if is(Source::Simulated) => "simulated",
        () if is(Source::Measured) => "measured",
        () => "some simulated, some measured",
    }
}

fn seeds(comparison: &Comparison) -> String {
    if comparison.pairing == Pairing::None {
        return "not under the same seeds".to_owned();
    }
    let seeds = comparison
        .variants
        .first()
        .map(|first| first.seeds.as_slice());
    match seeds {
        Some([seed]) => format!("each under seed {seed}"),
        Some([first, .., last]) if is_in_a_row(seeds.unwrap_or_default()) => {
            format!("each under seeds {first} to {last}")
        }
        _ => format!("each under {} seeds", seeds.map_or(0, <[u64]>::len)),
    }
}

fn is_in_a_row(seeds: &[u64]) -> bool {
    seeds
        .windows(2)
        .all(|pair| pair[0].checked_add(1) == Some(pair[1]))
}

/// Heading and name of what is paid: the cost, or GPU-time if nobody has a price.
fn cost(comparison: &Comparison) -> (&'static str, &'static str) {
    let is_known = |variant: &Variant| variant.mean("cost_usd").is_some();
    match comparison.variants.iter().any(is_known) {
        true => ("cost", "cost_usd"),
        false => ("billed", "billed_gpu_s"),
    }
}

/// Whether any variant left requests undone.
fn some_failed(comparison: &Comparison) -> bool {
    let has_failed = |variant: &Variant| variant.mean("not_completed") > Some(0.0);
    comparison.variants.iter().any(has_failed)
}

/// Broken between words; all lines but the first are indented.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("  {word}")),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Something to know about a table, below it.
fn remark(text: &str, style: Style) -> Vec<String> {
    let lines = wrapped(text, style.width.clamp(40, WIDTH_MAX) - 2);
    let quiet = |line: &String| style.quiet(&format!("  {line}"));
    lines.iter().map(quiet).collect()
}

/// A row of a table: its name, on a line of its own if the column is too narrow
/// for it, and then its cells.
fn row(name: &str, width: usize, cells: &str) -> String {
    if name.chars().count() <= width {
        format!("{name:<width$}{cells}")
    } else {
        format!("{name}\n{:width$}{cells}", "")
    }
}

/// The width of the column of names, where the others take this much.
fn name_width<'a>(names: impl Iterator<Item = &'a str>, others: usize) -> usize {
    let longest = names.map(|name| name.chars().count()).max().unwrap_or(0);
    longest.min(WIDTH_MAX.saturating_sub(others))
}
