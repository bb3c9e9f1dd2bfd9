//! A sentence for each variant: what it saves and what that costs.

use super::differences::in_unit;
use super::{Style, WIDTH_MAX, units, wrapped};
use crate::compare::{Comparison, Difference, Variant, Verdict};
use crate::objectives::Unit;
use units::count;

/// How a difference of one figure is said.
struct Wording {
    metric: &'static str,
    /// The figure itself.
    noun: &'static str,
    /// `12 % cheaper (±2 %)` or `p99 TTFT 0.8 s shorter (±0.3 s)`.
    lower: fn(&str) -> String,
    higher: fn(&str) -> String,
}

const WORDINGS: [Wording; 7] = [
    Wording {
        metric: "cost_usd",
        noun: "cost",
        lower: |amount| format!("{amount} cheaper"),
        higher: |amount| format!("{amount} dearer"),
    },
    Wording {
        metric: "billed_gpu_s",
        noun: "billed GPU-time",
        lower: |amount| format!("{amount} less billed GPU-time"),
        higher: |amount| format!("{amount} more billed GPU-time"),
    },
    Wording {
        metric: "ttft_p99",
        noun: "p99 TTFT",
        lower: |amount| format!("p99 TTFT {amount} shorter"),
        higher: |amount| format!("p99 TTFT {amount} longer"),
    },
    Wording {
        metric: "cold_start_hits",
        noun: "cold-start hits",
        lower: |amount| format!("{amount} fewer cold-start hits"),
        higher: |amount| format!("{amount} more cold-start hits"),
    },
    Wording {
        metric: "direction_changes",
        noun: "changes of direction",
        lower: |amount| format!("{amount} fewer changes of direction"),
        higher: |amount| format!("{amount} more changes of direction"),
    },
    Wording {
        metric: "wasted_starts",
        noun: "wasted starts",
        lower: |amount| format!("{amount} fewer wasted starts"),
        higher: |amount| format!("{amount} more wasted starts"),
    },
    Wording {
        metric: "not_completed",
        noun: "failed requests",
        lower: |amount| format!("{amount} fewer failed requests"),
        higher: |amount| format!("{amount} more failed requests"),
    },
];

/// Between a figure and its unit, until lines are broken.
const NO_BREAK: &str = "\u{a0}";

pub(super) fn section(comparison: &Comparison, style: Style) -> Vec<String> {
    let Some(baseline) = comparison.variant(&comparison.baseline) else {
        return Vec::new();
    };
    let rivals = comparison
        .ranked()
        .into_iter()
        .filter(|each| each.rank.is_some());
    let mut lines = vec![style.heading("IN WORDS")];
    for variant in rivals {
        let parts = parts(variant, baseline, comparison);
        if parts.is_empty() {
            continue;
        }
        let text = format!("{}: {}", variant.name, parts.join("; "));
        let mut wrapped = wrapped(&text, style.width.clamp(40, WIDTH_MAX) - 2);
        // The name is the beginning of the first line, unless it was broken itself.
        if let Some(first) = wrapped.first_mut()
            && let Some(rest) = first.strip_prefix(&variant.name)
        {
            *first = style.heading(&variant.name) + rest;
        }
        let whole = wrapped.iter().map(|line| line.replace(NO_BREAK, " "));
        lines.extend(whole.map(|line| format!("  {line}")));
    }
    if lines.len() == 1 { Vec::new() } else { lines }
}

fn parts(variant: &Variant, baseline: &Variant, comparison: &Comparison) -> Vec<String> {
    let mut parts = Vec::new();
    if variant.name != baseline.name {
        parts.extend(differences(variant, comparison));
        parts.extend(objectives(variant, baseline));
        if !variant.same_traffic {
            parts.push("its traffic is not that of the baseline".to_owned());
        }
    }
    if comparison.oracle.is_some() {
        parts.extend(above_oracle(variant, super::cost(comparison).1));
    }
    parts
}

/// The wordings of what this comparison is about.
fn wordings(comparison: &Comparison) -> impl Iterator<Item = &'static Wording> {
    let (_, cost) = super::cost(comparison);
    let some_failed = super::some_failed(comparison);
    WORDINGS.iter().filter(move |wording| match wording.metric {
        "cost_usd" | "billed_gpu_s" => wording.metric == cost,
        "not_completed" => some_failed,
        _ => true,
    })
}

fn differences(variant: &Variant, comparison: &Comparison) -> Vec<String> {
    let (mut told, mut unclear, mut equal) = (Vec::new(), Vec::new(), Vec::new());
    for wording in wordings(comparison) {
        let figure = variant.metric(wording.metric);
        let Some((unit, difference)) = figure.and_then(|it| Some((it.unit, it.difference?))) else {
            continue;
        };
        match difference.verdict {
            Verdict::Equal => equal.push(wording.noun),
            Verdict::Unclear => unclear.push(wording.noun),
            _ => told.push(difference_in_words(&difference, unit, wording)),
        }
    }
    let mut parts = Vec::new();
    if !told.is_empty() {
        parts.push(told.join(", "));
    }
    if !unclear.is_empty() {
        parts.push(format!("no clear difference in {}", list(&unclear)));
    }
    if !equal.is_empty() {
        parts.push(format!("the same {}", list(&equal)));
    }
    parts
}

fn difference_in_words(difference: &Difference, unit: Unit, wording: &Wording) -> String {
    let (size, half_width) = size(difference, unit);
    let text = if difference.mean < 0.0 {
        (wording.lower)(&size)
    } else {
        (wording.higher)(&size)
    };
    match half_width {
        Some(half_width) => format!("{text} (±{half_width})"),
        None => text,
    }
}

/// How large a difference is, and half of its interval, each with its unit on
/// the same line.
fn size(difference: &Difference, unit: Unit) -> (String, Option<String>) {
    let (mean, half_width, unit) = in_unit(difference, unit);
    let amount = units::amount(mean, half_width, unit);
    let unit = amount.unit.replace(' ', NO_BREAK);
    let half_width = amount.half_width.map(|half| format!("{half}{unit}"));
    (format!("{}{unit}", amount.value), half_width)
}

/// Whether the objectives are met as often as with the baseline.
fn objectives(variant: &Variant, baseline: &Variant) -> Option<String> {
    let (met, base) = (variant.met?, baseline.met?);
    let (all, base_all) = (variant.seeds.len() as u64, baseline.seeds.len() as u64);
    if (met, all) == (base, base_all) {
        return None;
    }
    Some(match (all, base_all) {
        (1, 1) if met == 1 => "meets its objectives, the baseline does not".to_owned(),
        (1, 1) => "does not meet its objectives, the baseline does".to_owned(),
        _ => format!(
            "meets its objectives under {} of {} seeds, the baseline under {} of {}",
            count(met),
            count(all),
            count(base),
            count(base_all)
        ),
    })
}

/// How far it is from what any autoscaler could do.
fn above_oracle(variant: &Variant, cost: &str) -> Option<String> {
    let (dearer, cheaper) = match cost {
        "cost_usd" => (
            "costs AMOUNT more than the oracle",
            "costs AMOUNT less than the oracle",
        ),
        _ => (
            "bills AMOUNT more GPU-time than the oracle",
            "bills AMOUNT less GPU-time than the oracle",
        ),
    };
    let cost = above(variant, cost, [cheaper, dearer]);
    let ttft = [
        "its p99 TTFT is AMOUNT shorter",
        "its p99 TTFT is AMOUNT longer",
    ];
    let ttft = above(variant, "ttft_p99", ttft);
    let parts: Vec<String> = cost.into_iter().chain(ttft).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// One figure less the oracle's, in the words for less and for more.
fn above(variant: &Variant, name: &str, [less, more]: [&str; 2]) -> Option<String> {
    let metric = variant.metric(name)?;
    let difference = metric.above_oracle?;
    let (size, half_width) = size(&difference, metric.unit);
    let words = if difference.mean < 0.0 { less } else { more };
    let text = words.replace("AMOUNT", &size);
    Some(match (half_width, difference.verdict) {
        (None, _) | (_, Verdict::Equal) => text,
        (Some(half), Verdict::Unclear) => format!("{text} (±{half}, not clear)"),
        (Some(half), _) => format!("{text} (±{half})"),
    })
}

/// `a, b and c`.
fn list(items: &[&str]) -> String {
    match items.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => items.concat(),
    }
}
