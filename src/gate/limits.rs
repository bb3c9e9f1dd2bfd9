//! What the command line, and the scenario, ask of the runs.

use foresail_reports::ObjectiveSpec;
use foresail_reports::gate::expression::{self, ExpressionError};
use foresail_reports::gate::{ChangeLimit, GateRun, metric, usual_metrics};
use foresail_reports::objectives::ObjectiveMetric;

use crate::failure::Failure;

pub(super) fn objectives(texts: &[String]) -> Result<Vec<ObjectiveSpec>, Failure> {
    read("--objective", texts, expression::objective)
}

pub(super) fn changes(texts: &[String]) -> Result<Vec<ChangeLimit>, Failure> {
    let changes = read("--max-change", texts, expression::change)?;
    for (index, change) in changes.iter().enumerate() {
        if changes[..index]
            .iter()
            .any(|other| other.metric == change.metric)
        {
            return Err(Failure::Input(format!(
                "--max-change is given twice for `{}`; leave out one of them",
                metric::name(change.metric)
            )));
        }
    }
    Ok(changes)
}

pub(super) fn minima(texts: &[String]) -> Result<Vec<(ObjectiveMetric, f64)>, Failure> {
    read("--min-effect", texts, expression::minimum)
}

fn read<T>(
    option: &str,
    texts: &[String],
    read: impl Fn(&str) -> Result<T, ExpressionError>,
) -> Result<Vec<T>, Failure> {
    let refused = |error| Failure::Input(format!("{option}: {error}"));
    texts
        .iter()
        .map(|text| read(text).map_err(refused))
        .collect()
}

/// The limits that were given, or the usual ones, with what is of interest.
pub(super) fn with_minima(
    changes: Vec<ChangeLimit>,
    minima: &[(ObjectiveMetric, f64)],
    baseline: &[GateRun],
    candidate: &[GateRun],
) -> Vec<ChangeLimit> {
    let mut limits = changes;
    if limits.is_empty() {
        let usual = usual_metrics(baseline, candidate);
        limits = usual.into_iter().map(ChangeLimit::of).collect();
        // Who says what is of interest about a metric wants it compared.
        let others = minima
            .iter()
            .filter(|(metric, _)| !limits.iter().any(|limit| limit.metric == *metric));
        let others: Vec<_> = others.map(|(metric, _)| ChangeLimit::of(*metric)).collect();
        limits.extend(others);
    }
    for limit in &mut limits {
        let given = minima
            .iter()
            .rev()
            .find(|(metric, _)| *metric == limit.metric);
        if let Some((_, minimum)) = given {
            limit.minimum = *minimum;
        }
    }
    limits
}

/// The objectives of the scenario, unless the command line has others for the same metric.
pub(super) fn with_scenario(
    given: Vec<ObjectiveSpec>,
    of_scenario: bool,
    candidate: &[GateRun],
) -> Vec<ObjectiveSpec> {
    let Some(run) = candidate.first().filter(|_| of_scenario) else {
        return given;
    };
    let own = run.objectives.iter().filter_map(|objective| {
        let metric = metric::find(&objective.name)?;
        Some(ObjectiveSpec {
            name: metric::name(metric),
            metric,
            limit: objective.limit,
        })
    });
    let own = own.filter(|own| !given.iter().any(|given| given.metric == own.metric));
    let own: Vec<_> = own.collect();
    own.into_iter().chain(given).collect()
}
