//! A sentence for each limit: what was found, and what would decide.

use super::{limit, signed};
use crate::gate::Verdict;
use crate::gate::report::{ChangeVerdict, IntervalSource, ObjectiveVerdict, RankTest};
use crate::objectives::Bound;
use crate::text::units::value;

/// What came of a change, in a sentence.
pub(crate) fn of_change(each: &ChangeVerdict) -> String {
    if let Some(problem) = &each.problem {
        return format!("{}: {problem}", each.name);
    }
    let (Some(change), Some(lower), Some(upper)) = (each.change, each.lower, each.upper) else {
        return format!("{}: nothing to compare", each.name);
    };
    let [change, lower, upper] = [change, lower, upper].map(|value| signed(value, each.unit));
    let found = format!("{} {change} ({lower} to {upper})", each.name);
    match each.verdict {
        Verdict::Fail => format!("{found}, and {} is allowed{}", limit(each), evidence(each)),
        Verdict::Inconclusive => {
            format!(
                "{found}: {}",
                further(each.further_runs, "further runs a side")
            )
        }
        Verdict::Pass | Verdict::Degraded => format!("{found}, within {}", limit(each)),
    }
}

/// `; p 0.0031, by ranks alone 0.031 (Wilcoxon)`.
fn evidence(each: &ChangeVerdict) -> String {
    let adjusted = each.p_adjusted.map(|p| format!("; p {}", probability(p)));
    let ranks = each.rank_check.map(|check| {
        let test = match check.test {
            RankTest::Wilcoxon => "Wilcoxon",
            RankTest::MannWhitney => "Mann–Whitney",
        };
        format!(", by ranks alone {} ({test})", probability(check.p_value))
    });
    adjusted.unwrap_or_default() + &ranks.unwrap_or_default()
}

/// Two digits, and nothing smaller than one in ten thousand.
fn probability(p: f64) -> String {
    match p {
        p if p < 0.0001 => "< 0.0001".to_owned(),
        p if p < 0.001 => format!("{p:.5}"),
        p if p < 0.01 => format!("{p:.4}"),
        p => format!("{p:.3}"),
    }
}

fn further(runs: Option<u64>, of: &str) -> String {
    match runs {
        Some(1) => format!("the runs do not tell; 1 of the {of} would probably decide"),
        Some(runs) => {
            format!("the runs do not tell; {runs} {of} would decide in four of five cases")
        }
        None => "the runs do not tell; it is so close to the limit that more would hardly decide"
            .to_owned(),
    }
}

/// What came of an objective, in a sentence.
pub(crate) fn of_objective(each: &ObjectiveVerdict) -> String {
    if let Some(problem) = &each.problem {
        return format!("{}: {problem}", each.name);
    }
    let Some(observed) = each.observed else {
        return format!("{}: nothing was observed", each.name);
    };
    let text = |number: f64| value(number, each.unit);
    let interval = match (each.lower, each.upper) {
        (Some(lower), Some(upper)) => format!(" ({} to {})", text(lower), text(upper)),
        _ => String::new(),
    };
    let side = match each.bound {
        Bound::AtMost => "at most",
        Bound::AtLeast => "at least",
    };
    let found = format!("{} {}{interval}", each.name, text(observed));
    let limit = text(each.limit);
    match (each.verdict, each.interval) {
        (Verdict::Inconclusive, IntervalSource::Requests) => format!(
            "{found}: the requests of one run do not tell whether it is {side} {limit}; run more"
        ),
        (Verdict::Inconclusive, _) => {
            format!("{found}: {}", further(each.further_runs, "further runs"))
        }
        (Verdict::Pass, _) => format!("{found}, {side} {limit} as wanted"),
        (Verdict::Fail | Verdict::Degraded, _) => format!("{found}, and {side} {limit} is wanted"),
    }
}
