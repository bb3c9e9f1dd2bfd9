//! The table of what is different from the baseline, with its intervals.

use super::ranking::signed;
use super::{Style, name_width, remark, row};
use crate::compare::{Comparison, Difference, Pairing, Variant, VariantMetric, Verdict};
use crate::objectives::Unit;

/// Heading, name of the metric, width.
type Column = (&'static str, &'static str, usize);

/// The columns of this comparison, as those of the ranking; the cost in
/// percent of the baseline's.
fn columns(comparison: &Comparison) -> Vec<Column> {
    let (heading, name) = super::cost(comparison);
    let mut columns = vec![
        (heading, name, 18),
        ("ttft p99", "ttft_p99", 19),
        ("cold hits", "cold_start_hits", 15),
        ("turns", "direction_changes", 13),
        ("wasted", "wasted_starts", 13),
    ];
    if super::some_failed(comparison) {
        columns.push(("failed", "not_completed", 13));
    }
    columns
}

/// Of so many intervals that each hold 95 times of 100, one is likely to miss.
const INTERVALS_MANY: usize = 20;

pub(super) fn section(comparison: &Comparison, style: Style) -> Vec<String> {
    let rows: Vec<&Variant> = comparison
        .ranked()
        .into_iter()
        .filter(|variant| variant.rank.is_some() && variant.name != comparison.baseline)
        .collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let columns = columns(comparison);
    let others: usize = 2 + columns.iter().map(|(_, _, width)| width).sum::<usize>();
    let width = name_width(rows.iter().map(|variant| variant.name.as_str()), others);
    let headings: String = columns
        .iter()
        // Over the figures, not over the mark behind them.
        .map(|(heading, _, width)| format!("{heading:>0$}  ", width - 2))
        .collect();
    let mut lines = vec![format!(
        "{}  from {}",
        style.heading("DIFFERENCES"),
        comparison.baseline
    )];
    lines.push(format!("  {:width$}{}", "", headings.trim_end()));
    for variant in rows {
        let cells: String = columns
            .iter()
            .map(|(_, name, width)| cell(variant.metric(name), *width, style))
            .collect();
        let text = row(&variant.name, width, &cells).replace('\n', "\n  ");
        lines.push(format!("  {}", text.trim_end()));
    }
    lines.extend(legend(comparison, style));
    lines
}

fn differences(comparison: &Comparison) -> impl Iterator<Item = Difference> {
    let rivals = comparison
        .variants
        .iter()
        .filter(|each| each.rank.is_some());
    rivals.flat_map(|variant| {
        let columns = columns(comparison).into_iter();
        columns.filter_map(|(_, name, _)| variant.metric(name)?.difference)
    })
}

fn cell(metric: Option<&VariantMetric>, width: usize, style: Style) -> String {
    let Some((unit, difference)) =
        metric.and_then(|metric| Some((metric.unit, metric.difference?)))
    else {
        return format!("{:>1$}  ", "–", width - 2);
    };
    let (mean, half_width, unit) = in_unit(&difference, unit);
    let text = match difference.verdict {
        Verdict::Equal => "0".to_owned(),
        _ => signed(mean, half_width, unit),
    };
    // The blank keeps a figure that is wider than its column apart from the one before.
    let text = format!(" {text:>0$} {1}", width - 3, mark(difference.verdict));
    // Of everything in the table, less is better.
    match difference.verdict {
        Verdict::Lower => style.good(&text),
        Verdict::Higher => style.bad(&text),
        Verdict::Equal | Verdict::Unclear => style.quiet(&text),
        Verdict::Unknown => text,
    }
}

/// Money and GPU-time as a share of the baseline's, all else as it is.
pub(super) fn in_unit(difference: &Difference, unit: Unit) -> (f64, Option<f64>, Unit) {
    match (unit, difference.relative) {
        (Unit::Usd | Unit::GpuSeconds, Some(relative)) => {
            (relative, difference.relative_half_width, Unit::Share)
        }
        _ => (difference.mean, difference.half_width, unit),
    }
}

fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Lower => "▼",
        Verdict::Higher => "▲",
        Verdict::Equal => "=",
        Verdict::Unclear => "~",
        Verdict::Unknown => " ",
    }
}

/// What the figures and marks mean.
fn legend(comparison: &Comparison, style: Style) -> Vec<String> {
    let intervals = differences(comparison)
        .filter(|difference| difference.half_width.is_some())
        .count();
    let how = match (comparison.pairing, intervals) {
        (Pairing::Seeds, 0) => "of one seed, so that there is no interval",
        (Pairing::Seeds, _) if comparison.include_calibration_error => {
            "mean of the differences seed by seed, each with its draw ± half of its 95 % interval (Student's t)"
        }
        (Pairing::Seeds, _) => {
            "mean of the differences seed by seed ± half of its 95 % interval (Student's t)"
        }
        (Pairing::None, 0) => "of runs that are not of the same seeds; there is no interval",
        (Pairing::None, _) => {
            "difference of the means ± half of its 95 % interval (Welch's t): not the same seeds"
        }
    };
    let mut lines = remark(how, style);
    if intervals > 0 {
        let marks =
            "▼ lower  ▲ higher  = equal under every seed  ~ not told apart: 0 is in the interval";
        lines.push(style.quiet(&format!("  {marks}")));
    }
    if intervals >= INTERVALS_MANY {
        let misses = format!("of {intervals} such intervals, about one in twenty misses");
        lines.extend(remark(&misses, style));
    }
    lines
}
