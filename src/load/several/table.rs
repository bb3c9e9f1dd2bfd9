//! Runs at several rates, one a line.

use foresail_loadgen::search::{Ending, Found};
use foresail_reports::Summary;
use foresail_reports::summary::LatencySummary;

/// A run at a rate.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    rate_per_s: f64,
    completed: u64,
    offered: u64,
    requests_per_s: f64,
    output_tokens_per_s: f64,
    ttft_s: Option<(f64, f64)>,
    tpot_s: Option<(f64, f64)>,
    /// How many objectives were met, of how many.
    met: (usize, usize),
    is_degraded: bool,
}

impl Row {
    pub(super) fn of(rate_per_s: f64, summary: &Summary) -> Self {
        let shown =
            |latency: &Option<LatencySummary>| latency.map(|latency| (latency.p50, latency.p99));
        let met = summary.objectives.iter().filter(|objective| objective.met);
        let measured = summary.measured.as_deref();
        Self {
            rate_per_s,
            completed: summary.requests.completed,
            offered: summary.requests.offered,
            requests_per_s: summary.throughput.requests_per_s,
            output_tokens_per_s: summary.throughput.output_tokens_per_s,
            ttft_s: shown(&summary.ttft_s),
            tpot_s: shown(&summary.tpot_s),
            met: (met.count(), summary.objectives.len()),
            is_degraded: measured.is_some_and(|measured| !measured.degraded.is_empty()),
        }
    }
}

/// The runs, each on a line.
pub(super) fn of(rows: &[Row]) -> String {
    let mut text = format!(
        "{:>9}  {:>9}  {:>9}  {:>11}  {:>19}  {:>19}  {}\n",
        "RATE", "requests", "done/s", "tokens/s", "ttft p50, p99", "tpot p50, p99", "objectives"
    );
    for row in rows {
        let done = format!("{}/{}", row.completed, row.offered);
        let objectives = match row.met {
            (_, 0) => "–".to_owned(),
            (met, of) => format!("{met} of {of} met"),
        };
        let degraded = if row.is_degraded { ", degraded" } else { "" };
        text += &format!(
            "{:>9.3}  {done:>9}  {:>9.2}  {:>11.1}  {:>19}  {:>19}  {objectives}{degraded}\n",
            row.rate_per_s,
            row.requests_per_s,
            row.output_tokens_per_s,
            pair(row.ttft_s),
            pair(row.tpot_s),
        );
    }
    text
}

/// What a search found, in words.
pub(super) fn found(found: &Found) -> String {
    let why = match found.ending {
        Ending::Narrow => "",
        Ending::OnTheEdge => {
            "; runs between them differ too much from one to the next to tell: longer ones would"
        }
        Ending::RateMax => "; no higher rate is tried",
        Ending::RateMin => "; no lower rate is tried",
        Ending::Stopped => "; the search was broken off",
    };
    format!("{}{why}\n", bounds(found.met_per_s, found.not_met_per_s))
}

fn bounds(met: Option<f64>, not_met: Option<f64>) -> String {
    match (met, not_met) {
        (Some(met), Some(not_met)) => format!(
            "the objectives are met at {met:.3} requests/s, and not at {not_met:.3} (95 % confidence)"
        ),
        (Some(met), None) => {
            format!("the objectives are met at {met:.3} requests/s and wherever they were tried")
        }
        (None, Some(not_met)) => {
            format!("the objectives are not met at {not_met:.3} requests/s, nor below")
        }
        (None, None) => "no rate was decided".to_owned(),
    }
}

fn pair(latency: Option<(f64, f64)>) -> String {
    match latency {
        Some((p50, p99)) => format!("{}, {}", seconds(p50), seconds(p99)),
        None => "–".to_owned(),
    }
}

fn seconds(value: f64) -> String {
    match value {
        value if value < 0.1 => format!("{:.2} ms", value * 1e3),
        value if value < 1.0 => format!("{:.0} ms", value * 1e3),
        value => format!("{value:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_lines_of_a_table() {
        let row = Row {
            rate_per_s: 4.0,
            completed: 239,
            offered: 240,
            requests_per_s: 3.98,
            output_tokens_per_s: 512.25,
            ttft_s: Some((0.0214, 0.1811)),
            tpot_s: Some((0.0077, 1.5)),
            met: (1, 2),
            is_degraded: false,
        };
        let silent = Row {
            rate_per_s: 8.0,
            offered: 10,
            is_degraded: true,
            ..Row::default()
        };
        insta::assert_snapshot!(of(&[row, silent]).trim_start(), @r"
        RATE   requests     done/s     tokens/s        ttft p50, p99        tpot p50, p99  objectives
            4.000    239/240       3.98        512.2     21.40 ms, 181 ms      7.70 ms, 1.50 s  1 of 2 met
            8.000       0/10       0.00          0.0                    –                    –  –, degraded
        ");
    }

    #[test]
    fn what_was_found_is_said_in_words() {
        insta::assert_snapshot!(bounds(Some(4.0), Some(4.2)), @"the objectives are met at 4.000 requests/s, and not at 4.200 (95 % confidence)");
        insta::assert_snapshot!(bounds(None, Some(0.01)), @"the objectives are not met at 0.010 requests/s, nor below");
    }
}
