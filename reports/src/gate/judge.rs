//! From runs to a verdict.

use super::change;
use super::expression::ChangeLimit;
use super::objective;
use super::pairs::Sides;
use super::report::{DegradedRun, Exact, GateReport, Pairing, RunFacts, SCHEMA, Verdict};
use super::run::GateRun;
use crate::objectives::{Latency, ObjectiveMetric, ObjectiveSpec, Statistic};
use crate::summary::Tool;

/// So many requests of a run have to be beyond a percentile for it to be among
/// the usual metrics: of fewer, one slow request more or less is all that it tells.
const BEYOND_MIN: f64 = 10.0;

/// What is judged, and how.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// What judges.
    pub tool: Tool,
    /// Runs of the baseline; none if only objectives are asked for.
    pub baseline: Vec<GateRun>,
    /// Runs of the candidate.
    pub candidate: Vec<GateRun>,
    /// Limits that the candidate has to meet by itself.
    pub objectives: Vec<ObjectiveSpec>,
    /// Limits of what may change; [`usual_metrics`] if there are none.
    pub limits: Vec<ChangeLimit>,
    /// Compare means, also where runs could be paired.
    pub unpaired: bool,
    /// Judge runs also if they are degraded.
    pub allow_degraded: bool,
    /// Of simulated runs: how they differ, which then is all that is compared.
    pub exact: Option<Exact>,
}

impl Gate {
    /// Judges.
    #[must_use]
    pub fn judge(&self) -> GateReport {
        let sides = Sides::new(&self.baseline, &self.candidate, !self.unpaired);
        let mut report = self.unjudged(sides.pairing);
        if !report.degraded.is_empty() && !self.allow_degraded {
            report.verdict = Verdict::Degraded;
            return report;
        }
        report.objectives = objective::judge(&self.candidate, &self.objectives);
        report.exact.clone_from(&self.exact);
        if self.exact.is_none() && !self.baseline.is_empty() {
            report.changes = change::judge(&sides, &self.limits());
        }
        report.verdict = worst(&report);
        if self.exact.is_none() && !self.baseline.is_empty() && report.changes.is_empty() {
            report.verdict = report.verdict.max(Verdict::Inconclusive);
            let nothing = "the runs have no metric that could be compared";
            report.notes.push(nothing.to_owned());
        }
        report
    }

    fn limits(&self) -> Vec<ChangeLimit> {
        if !self.limits.is_empty() {
            return self.limits.clone();
        }
        let metrics = usual_metrics(&self.baseline, &self.candidate);
        metrics.into_iter().map(ChangeLimit::of).collect()
    }

    fn unjudged(&self, pairing: Pairing) -> GateReport {
        let scenario = self.candidate.first().map(|run| run.scenario.clone());
        GateReport {
            schema: SCHEMA.to_owned(),
            tool: self.tool.clone(),
            scenario: scenario.unwrap_or_default(),
            verdict: Verdict::Pass,
            pairing,
            baseline: facts(&self.baseline),
            candidate: facts(&self.candidate),
            degraded: degraded(self.baseline.iter().chain(&self.candidate)),
            objectives: Vec::new(),
            changes: Vec::new(),
            exact: None,
            notes: notes(&self.baseline, &self.candidate),
        }
    }
}

/// What is compared unless it is said: the median and the tail of TTFT, mean
/// TPOT, output tokens a second and the share of requests that succeed, as far as
/// any run has them. Few on purpose: each more costs power.
///
/// The tail is the highest of p99, p95 and p90 that has at least ten requests of
/// every run beyond it.
#[must_use]
pub fn usual_metrics(baseline: &[GateRun], candidate: &[GateRun]) -> Vec<ObjectiveMetric> {
    let runs = || baseline.iter().chain(candidate);
    let ttft =
        |percentile| ObjectiveMetric::Latency(Latency::Ttft, Statistic::Percentile(percentile));
    let completed_min = runs().map(|run| run.completed).min().unwrap_or(0) as f64;
    let is_told = |percentile: &f64| completed_min * (100.0 - percentile) / 100.0 >= BEYOND_MIN;
    let tail = [99.0, 95.0, 90.0].into_iter().find(is_told).map(ttft);
    let metrics = [
        Some(ttft(50.0)),
        tail,
        Some(ObjectiveMetric::Latency(Latency::Tpot, Statistic::Mean)),
        Some(ObjectiveMetric::OutputTokensPerSecond),
        Some(ObjectiveMetric::SuccessRate),
    ];
    // What some runs lack is asked of all, so that their lack is told.
    let is_known = |metric: &ObjectiveMetric| runs().any(|run| run.value(*metric).is_some());
    metrics.into_iter().flatten().filter(is_known).collect()
}

fn worst(report: &GateReport) -> Verdict {
    let is_same = report.exact.as_ref().is_none_or(|exact| exact.count == 0);
    let exact = if is_same {
        Verdict::Pass
    } else {
        Verdict::Fail
    };
    let objectives = report.objectives.iter().map(|objective| objective.verdict);
    let changes = report.changes.iter().map(|change| change.verdict);
    objectives.chain(changes).fold(exact, Verdict::max)
}

fn facts(runs: &[GateRun]) -> Vec<RunFacts> {
    let of = |run: &GateRun| RunFacts {
        name: run.name.clone(),
        seed: run.seed,
        offered: run.offered,
        completed: run.completed,
    };
    runs.iter().map(of).collect()
}

fn degraded<'a>(runs: impl Iterator<Item = &'a GateRun>) -> Vec<DegradedRun> {
    let of = |run: &GateRun| DegradedRun {
        name: run.name.clone(),
        reasons: run.degraded.clone(),
    };
    runs.filter(|run| !run.degraded.is_empty())
        .map(of)
        .collect()
}

/// What a reader should know before believing the verdict.
fn notes(baseline: &[GateRun], candidate: &[GateRun]) -> Vec<String> {
    let mut notes = Vec::new();
    let (Some(first), Some(other)) = (baseline.first(), candidate.first()) else {
        return notes;
    };
    let all = || baseline.iter().chain(candidate);
    if let Some(run) = all().find(|run| run.workload != first.workload) {
        notes.push(format!(
            "`{}` had other traffic than `{}`: {} in place of {}",
            run.name, first.name, run.workload, first.workload
        ));
    }
    if first.source != other.source {
        notes.push("one side is simulated, the other measured".to_owned());
    }
    notes
}
