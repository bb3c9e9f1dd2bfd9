//! Whether the candidate meets an objective, judged by an interval.
//!
//! Of several runs by how they differ among each other; of one run by its
//! requests, as far as a percentile of a latency goes. Where there is no
//! interval the value is judged as it is.

use super::metric;
use super::report::{IntervalSource, ObjectiveVerdict, Verdict};
use super::run::GateRun;
use super::statistics::{Estimate, bootstrap, holm, pairs_needed};
use super::{CONFIDENCE, LEVEL};
use crate::objectives::{ObjectiveMetric, ObjectiveSpec, Statistic};

/// Judges all objectives together.
pub(super) fn judge(runs: &[GateRun], objectives: &[ObjectiveSpec]) -> Vec<ObjectiveVerdict> {
    let mut drafts: Vec<Draft> = objectives
        .iter()
        .map(|spec| Draft::new(runs, spec))
        .collect();
    let p_values: Vec<_> = drafts.iter().map(Draft::p_value).collect();
    let tests = p_values.iter().flatten().count().max(1);
    for (draft, adjusted) in drafts.iter_mut().zip(holm(&p_values)) {
        draft.decide(adjusted, LEVEL / tests as f64);
    }
    drafts.into_iter().map(|draft| draft.judged).collect()
}

/// An objective on its way to a verdict.
struct Draft {
    judged: ObjectiveVerdict,
    metric: ObjectiveMetric,
    /// How bad it is over the runs, and how bad it may be.
    badness: Option<Estimate>,
    limit: Option<f64>,
}

impl Draft {
    fn new(runs: &[GateRun], spec: &ObjectiveSpec) -> Self {
        let mut draft = Self {
            judged: unjudged(runs, spec),
            metric: spec.metric,
            badness: None,
            limit: metric::badness(spec.metric, spec.limit),
        };
        let missing = runs.iter().find(|run| run.value(spec.metric).is_none());
        if let Some(run) = missing {
            draft.judged.problem = Some(missing_value(run, spec));
        } else if let [run] = runs {
            draft.of_one(run);
        } else {
            draft.of_several();
        }
        draft
    }

    fn of_one(&mut self, run: &GateRun) {
        self.judged.observed = self.judged.values[0];
        let ObjectiveMetric::Latency(latency, Statistic::Percentile(percentile)) = self.metric
        else {
            return;
        };
        let histogram = run.histograms.get(&latency.into());
        let interval = histogram
            .and_then(|histogram| bootstrap::percentile(histogram, percentile, CONFIDENCE));
        if let Some((lower, upper)) = interval {
            self.judged.interval = IntervalSource::Requests;
            (self.judged.lower, self.judged.upper) = (Some(lower), Some(upper));
        }
    }

    fn of_several(&mut self) {
        let values: Vec<f64> = self.judged.values.iter().flatten().copied().collect();
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        self.judged.observed = Some(mean);
        let badness: Option<Vec<f64>> = values
            .iter()
            .map(|value| metric::badness(self.metric, *value))
            .collect();
        // What has no ratio, such as a latency of 0, is judged as it is.
        let Some(estimate) = badness.and_then(|badness| Estimate::of(&badness)) else {
            return;
        };
        let level = |badness: f64| metric::level(self.metric, badness);
        let bounds = [estimate.lower(CONFIDENCE), estimate.upper(CONFIDENCE)];
        let mut bounds = bounds.map(level);
        bounds.sort_by(f64::total_cmp);
        [self.judged.lower, self.judged.upper] = bounds.map(Some);
        self.judged.observed = Some(level(estimate.mean));
        self.judged.interval = IntervalSource::Runs;
        self.badness = Some(estimate);
    }

    fn p_value(&self) -> Option<f64> {
        Some(self.badness?.p_above(self.limit?))
    }

    fn decide(&mut self, adjusted: Option<f64>, level: f64) {
        if self.judged.problem.is_some() {
            return;
        }
        let is_beyond = |value: f64| match metric::is_worse_above(self.metric) {
            true => value > self.judged.limit,
            false => value < self.judged.limit,
        };
        let (lower, upper) = (self.judged.lower, self.judged.upper);
        let ends = [lower, upper, self.judged.observed];
        let known: Vec<bool> = ends.into_iter().flatten().map(is_beyond).collect();
        let all_beyond = known.iter().all(|beyond| *beyond);
        self.judged.verdict = match adjusted {
            _ if known.iter().all(|beyond| !beyond) => Verdict::Pass,
            Some(p) if all_beyond && p <= LEVEL => Verdict::Fail,
            None if all_beyond => Verdict::Fail,
            _ => Verdict::Inconclusive,
        };
        if self.judged.verdict == Verdict::Inconclusive {
            self.judged.further_runs = self.further_runs(level);
        }
    }

    fn further_runs(&self, level: f64) -> Option<u64> {
        let (badness, limit) = (self.badness?, self.limit?);
        let level = if badness.mean > limit { level } else { LEVEL };
        let has = self.judged.values.len() as u64;
        Some(
            pairs_needed(&badness, limit, level)?
                .saturating_sub(has)
                .max(1),
        )
    }
}

fn missing_value(run: &GateRun, spec: &ObjectiveSpec) -> String {
    let name = metric::name(spec.metric);
    match spec.metric {
        ObjectiveMetric::Goodput => format!(
            "`{}` has no goodput: its scenario limits no latency of a request",
            run.name
        ),
        _ => format!("`{}` has no {name}", run.name),
    }
}

fn unjudged(runs: &[GateRun], spec: &ObjectiveSpec) -> ObjectiveVerdict {
    ObjectiveVerdict {
        name: spec.name.clone(),
        unit: spec.metric.unit(),
        bound: spec.metric.bound(),
        limit: spec.limit,
        values: runs.iter().map(|run| run.value(spec.metric)).collect(),
        observed: None,
        lower: None,
        upper: None,
        interval: IntervalSource::None,
        verdict: Verdict::Inconclusive,
        further_runs: None,
        problem: None,
    }
}
