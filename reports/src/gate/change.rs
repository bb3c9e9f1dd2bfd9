//! Whether a metric got worse than is allowed.
//!
//! Three things are asked of the change for the worse, on the scale on which
//! differences are ratios ([`metric::badness`]):
//!
//! - *Fail* if it is beyond what is allowed, at the level of 5 % for all metrics
//!   together ([`holm`]), **and** more than the smallest change of interest. The
//!   first alone would fail for changes that nobody cares about, the second alone
//!   for luck.
//! - *Pass* if with 95 % confidence it is no more than is allowed, or than is of
//!   interest. All metrics have to pass, so each may be asked at the full level
//!   (Berger, "Multiparameter Hypothesis Testing and Acceptance Sampling",
//!   Technometrics 24, 1982).
//! - Else the runs do not tell, and how many more would is computed from theirs.

use super::expression::ChangeLimit;
use super::metric;
use super::pairs::Sides;
use super::report::{ChangeVerdict, Pairing, RankCheck, RankTest, Verdict};
use super::run::GateRun;
use super::statistics::{Estimate, holm, pairs_needed, rank, runs_needed};
use super::{CONFIDENCE, LEVEL};

/// Judges all metrics together.
pub(super) fn judge(sides: &Sides<'_>, limits: &[ChangeLimit]) -> Vec<ChangeVerdict> {
    let mut drafts: Vec<Draft> = limits
        .iter()
        .map(|limit| Draft::new(sides, limit))
        .collect();
    let p_values: Vec<_> = drafts.iter().map(|draft| draft.judged.p_value).collect();
    let tests = p_values.iter().flatten().count().max(1);
    for (draft, adjusted) in drafts.iter_mut().zip(holm(&p_values)) {
        draft.judged.p_adjusted = adjusted;
        draft.decide(LEVEL / tests as f64);
    }
    drafts.into_iter().map(|draft| draft.judged).collect()
}

/// A metric on its way to a verdict.
struct Draft {
    judged: ChangeVerdict,
    /// How much worse it is; `None` if that is not known.
    worse: Option<Estimate>,
    pairing: Pairing,
    /// What is allowed, and what is of interest, on the same scale.
    allowed: f64,
    minimum: f64,
}

/// What the values of both sides say, on the scale of badness.
struct Worse {
    baseline: Vec<f64>,
    candidate: Vec<f64>,
}

impl Draft {
    fn new(sides: &Sides<'_>, limit: &ChangeLimit) -> Self {
        let mut draft = Self {
            judged: unjudged(sides, limit),
            worse: None,
            pairing: sides.pairing,
            allowed: metric::reach(limit.metric, limit.allowed),
            minimum: metric::reach(limit.metric, limit.minimum),
        };
        match Worse::of(sides, limit) {
            Ok(worse) => draft.fill(limit, &worse),
            Err(problem) => draft.judged.problem = Some(problem),
        }
        draft
    }

    fn fill(&mut self, limit: &ChangeLimit, worse: &Worse) {
        let metric = limit.metric;
        let level = |values: &[f64]| metric::level(metric, mean(values));
        self.judged.baseline = Some(level(&worse.baseline));
        self.judged.candidate = Some(level(&worse.candidate));
        let difference = mean(&worse.candidate) - mean(&worse.baseline);
        self.judged.change = Some(metric::change(metric, difference));
        let Some(estimate) = worse.estimate(self.pairing) else {
            self.judged.problem = Some(
                "one run says nothing of the noise between runs; run each side at least twice, \
                 five times at best, one after the other"
                    .to_owned(),
            );
            return;
        };
        let bounds = [estimate.lower(CONFIDENCE), estimate.upper(CONFIDENCE)];
        let mut bounds = bounds.map(|bound| metric::change(metric, bound));
        bounds.sort_by(f64::total_cmp);
        [self.judged.lower, self.judged.upper] = bounds.map(Some);
        // Where nothing differs at all nothing could have failed.
        self.judged.p_value = worse.differ().then(|| estimate.p_above(self.allowed));
        self.judged.rank_check = worse.rank_check(self.pairing, self.allowed);
        self.worse = Some(estimate);
    }

    fn decide(&mut self, level: f64) {
        let Some(worse) = self.worse else {
            return;
        };
        let pass_at = self.allowed.max(self.minimum);
        let is_beyond = self.judged.p_adjusted.is_some_and(|p| p <= LEVEL);
        self.judged.verdict = if is_beyond && worse.mean > self.minimum {
            Verdict::Fail
        } else if worse.upper(CONFIDENCE) <= pass_at {
            Verdict::Pass
        } else {
            self.judged.further_runs = self.further_runs(&worse, level);
            Verdict::Inconclusive
        };
    }

    /// What is more probable decides what the further runs are to show.
    fn further_runs(&self, worse: &Estimate, level: f64) -> Option<u64> {
        let pass_at = self.allowed.max(self.minimum);
        let (limit, level) = if worse.mean > pass_at {
            (self.allowed, level)
        } else {
            (pass_at, LEVEL)
        };
        let has = self
            .judged
            .baseline_values
            .len()
            .min(self.judged.candidate_values.len()) as u64;
        let needed = match self.pairing {
            Pairing::None => runs_needed(worse, has as f64, limit, level),
            Pairing::Seeds | Pairing::Order => pairs_needed(worse, limit, level),
        };
        Some(needed?.saturating_sub(has).max(1))
    }
}

impl Worse {
    fn of(sides: &Sides<'_>, limit: &ChangeLimit) -> Result<Self, String> {
        let of = |runs: &[&GateRun]| -> Result<Vec<f64>, String> {
            runs.iter().map(|run| badness(run, limit)).collect()
        };
        Ok(Self {
            baseline: of(&sides.baseline)?,
            candidate: of(&sides.candidate)?,
        })
    }

    fn differences(&self) -> Vec<f64> {
        let pairs = self.candidate.iter().zip(&self.baseline);
        pairs
            .map(|(candidate, baseline)| candidate - baseline)
            .collect()
    }

    fn estimate(&self, pairing: Pairing) -> Option<Estimate> {
        match pairing {
            Pairing::None => Estimate::difference(&self.candidate, &self.baseline),
            Pairing::Seeds | Pairing::Order => Estimate::of(&self.differences()),
        }
    }

    fn differ(&self) -> bool {
        let mut all = self.baseline.iter().chain(&self.candidate);
        let first = all.next().copied();
        all.any(|value| Some(*value) != first)
    }

    fn rank_check(&self, pairing: Pairing, allowed: f64) -> Option<RankCheck> {
        let beyond = |value: f64| value - allowed;
        let (test, p_value) = match pairing {
            Pairing::None => {
                let candidate: Vec<f64> = self.candidate.iter().copied().map(beyond).collect();
                (
                    RankTest::MannWhitney,
                    rank::mann_whitney(&candidate, &self.baseline)?,
                )
            }
            Pairing::Seeds | Pairing::Order => {
                let differences: Vec<f64> = self.differences().into_iter().map(beyond).collect();
                (RankTest::Wilcoxon, rank::wilcoxon(&differences)?)
            }
        };
        Some(RankCheck { test, p_value })
    }
}

fn badness(run: &GateRun, limit: &ChangeLimit) -> Result<f64, String> {
    let name = metric::name(limit.metric);
    let Some(value) = run.value(limit.metric) else {
        return Err(format!("`{}` has no {name}", run.name));
    };
    let none = || format!("{name} of `{}` is {value}, which has no ratio", run.name);
    metric::badness(limit.metric, value).ok_or_else(none)
}

fn unjudged(sides: &Sides<'_>, limit: &ChangeLimit) -> ChangeVerdict {
    let metric = limit.metric;
    let values = |runs: &[&GateRun]| runs.iter().map(|run| run.value(metric)).collect();
    ChangeVerdict {
        name: metric::name(metric),
        unit: metric.unit(),
        bound: metric.bound(),
        baseline_values: values(&sides.baseline),
        candidate_values: values(&sides.candidate),
        baseline: None,
        candidate: None,
        change: None,
        lower: None,
        upper: None,
        allowed: limit.allowed,
        minimum: limit.minimum,
        p_value: None,
        p_adjusted: None,
        rank_check: None,
        verdict: Verdict::Inconclusive,
        further_runs: None,
        problem: None,
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
