//! The table of variants, the best first.

use super::{Style, name_width, remark, row};
use crate::compare::{Comparison, Variant};
use crate::objectives::Unit;
use crate::text::units::{self, count};

/// A figure of the table: heading, name of the metric, width.
type Column = (&'static str, &'static str, usize);

const PLACE_WIDTH: usize = 4;
const MET_WIDTH: usize = 7;
const ORACLE_WIDTH: usize = 20;

pub(super) fn section(comparison: &Comparison, style: Style) -> Vec<String> {
    let columns = columns(comparison);
    let has_oracle = comparison.oracle.is_some();
    let figures: usize = columns.iter().map(|(_, _, width)| width).sum();
    let oracle_width = if has_oracle { ORACLE_WIDTH } else { 0 };
    let others = PLACE_WIDTH + figures + MET_WIDTH + oracle_width;
    let names = comparison.variants.iter().map(|each| each.name.as_str());
    let width = name_width(names, others).max("RANKED".len() - PLACE_WIDTH);
    let mut headings: String = columns
        .iter()
        .map(|(heading, _, width)| format!("{heading:>width$}"))
        .collect();
    headings += &format!("{:>MET_WIDTH$}", "met");
    if has_oracle {
        headings += &format!("{:>ORACLE_WIDTH$}", "above the oracle");
    }
    let first = format!("{:<1$}", "RANKED", PLACE_WIDTH + width);
    let mut lines = vec![style.heading(&(first + &headings))];
    for variant in comparison.ranked() {
        let place = variant.rank.map_or_else(|| "–".to_owned(), count);
        let cells = cells(variant, &columns, has_oracle, style);
        let text = row(&variant.name, width, &cells);
        let text = text.replace('\n', &format!("\n{:PLACE_WIDTH$}", ""));
        let place = format!("{place:>2}  ");
        lines.push(place + text.trim_end());
    }
    lines.extend(remarks(comparison, style));
    lines
}

/// The columns of this comparison: with requests that did not complete only
/// where there are any.
fn columns(comparison: &Comparison) -> Vec<Column> {
    let (heading, name) = super::cost(comparison);
    // `$1,234.56` is narrower than `1,234 GPU-h`.
    let width = if name == "cost_usd" { 10 } else { 13 };
    let mut columns = vec![
        (heading, name, width),
        ("ttft p99", "ttft_p99", 10),
        ("cold hits", "cold_start_hits", 11),
        ("turns", "direction_changes", 7),
        ("wasted", "wasted_starts", 8),
    ];
    if super::some_failed(comparison) {
        columns.push(("failed", "not_completed", 8));
    }
    columns
}

fn cells(variant: &Variant, columns: &[Column], has_oracle: bool, style: Style) -> String {
    let figure = |(_, name, width): &Column| {
        let metric = variant.metric(name);
        let mean = metric.and_then(|metric| Some((metric.mean?, metric.unit)));
        let text = mean.map_or_else(|| "–".to_owned(), |(mean, unit)| units::value(mean, unit));
        format!("{text:>width$}")
    };
    let mut cells: String = columns.iter().map(figure).collect();
    cells += &met(variant, style);
    if has_oracle {
        cells += &format!("{:>ORACLE_WIDTH$}", above_oracle(variant, columns[0].1));
    }
    cells
}

/// Under how many seeds all objectives are met.
fn met(variant: &Variant, style: Style) -> String {
    let all = variant.seeds.len() as u64;
    let Some(met) = variant.met else {
        return format!("{:>MET_WIDTH$}", "–");
    };
    let text = format!("{:>MET_WIDTH$}", format!("{}/{}", count(met), count(all)));
    match met == all {
        true => style.good(&text),
        false => style.bad(&text),
    }
}

/// `12.1 %, 0.81 s`: what is dearer, and how much longer it takes.
fn above_oracle(variant: &Variant, cost: &str) -> String {
    let above = |name: &str| variant.metric(name).and_then(|metric| metric.above_oracle);
    let dearer = above(cost).and_then(|difference| difference.relative);
    let longer = above("ttft_p99").map(|difference| difference.mean);
    let part = |value: Option<f64>, unit| {
        value.map_or_else(|| "–".to_owned(), |value| signed(value, None, unit))
    };
    if variant.rank.is_none() {
        return "–".to_owned();
    }
    let dearer = part(dearer, Unit::Share);
    format!("{dearer}, {}", part(longer, Unit::Seconds))
}

/// `+0.81 ±0.30 s`, or `0 s`.
pub(super) fn signed(mean: f64, half: Option<f64>, unit: Unit) -> String {
    let amount = units::amount(mean, half, unit);
    let sign = match mean {
        0.0 => "",
        mean if mean < 0.0 => "-",
        _ => "+",
    };
    let half = amount.half_width.map(|half| format!(" ±{half}"));
    format!(
        "{sign}{}{}{}",
        amount.value,
        half.unwrap_or_default(),
        amount.unit
    )
}

/// What a reader must know to read the table.
fn remarks(comparison: &Comparison, style: Style) -> Vec<String> {
    let variants = &comparison.variants;
    let then_by = match super::cost(comparison) {
        (_, "cost_usd") => "cost",
        _ => "billed GPU-time",
    };
    let mut remarks = vec![format!(
        "the baseline is {}; the order is by objectives met, then by {then_by}",
        comparison.baseline,
    )];
    if let Some(oracle) = &comparison.oracle {
        remarks.push(format!(
            "{oracle} knows the load and cold starts to come: only letting requests wait can cost less"
        ));
    }
    let unpriced: Vec<&str> = variants
        .iter()
        .filter(|variant| variant.mean("cost_usd").is_none())
        .map(|variant| variant.name.as_str())
        .collect();
    if unpriced.len() == variants.len() {
        remarks.push("there is no price: set price.usd_per_gpu_hour to see costs".to_owned());
    } else if !unpriced.is_empty() {
        let unpriced = unpriced.join("; ");
        remarks.push(format!(
            "no price, and so no cost: {unpriced}; set price.usd_per_gpu_hour"
        ));
    }
    let has_one_seed = variants.iter().all(|variant| variant.seeds.len() < 2);
    if has_one_seed {
        let remark =
            "one seed gives no interval: any difference may be chance; give --seeds 5 or more";
        remarks.push(remark.to_owned());
    }
    remarks
        .iter()
        .flat_map(|text| remark(text, style))
        .collect()
}
