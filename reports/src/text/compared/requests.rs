//! The same requests on both sides, one by one.

use super::Style;
use crate::compare::{Comparison, PairedLatency, PairedRequests};
use crate::objectives::Unit;
use crate::text::units::{self, counted, percent};

pub(super) fn section(comparison: &Comparison, style: Style) -> Vec<String> {
    let variants = comparison.paired_requests.iter();
    variants
        .flat_map(|paired| of_variant(paired, comparison, style))
        .collect()
}

fn of_variant(paired: &PairedRequests, comparison: &Comparison, style: Style) -> Vec<String> {
    let lost = match paired.not_completed {
        0 => String::new(),
        count => format!(
            ", {} did not complete on both sides",
            counted(count, "other")
        ),
    };
    let mut lines = vec![format!(
        "{}  {} less {}, {}{lost}",
        style.heading("SAME REQUESTS"),
        paired.variant,
        comparison.baseline,
        counted(paired.pairs, "pair"),
    )];
    lines.extend(paired.latencies.iter().map(latency));
    lines
}

fn latency(latency: &PairedLatency) -> String {
    let signed = |seconds: f64| {
        let sign = match seconds {
            seconds if seconds > 0.0 => "+",
            seconds if seconds < 0.0 => "-",
            _ => "",
        };
        format!("{sign}{}", units::value(seconds.abs(), Unit::Seconds))
    };
    format!(
        "  {:<5}median {:>10}   p5 {:>10}   p95 {:>10}   {} took longer",
        latency.name,
        signed(latency.p50_s),
        signed(latency.p5_s),
        signed(latency.p95_s),
        percent(latency.slower),
    )
}
