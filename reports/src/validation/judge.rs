//! From the requests of both sides to verdicts.

use super::figures::{Figure, Statistic, Times, figures};
use super::noise;
use super::report::{MeasuredFacts, MetricVerdict, SCHEMA, ScenarioName, Validation, Verdict};
use super::sources::{IDLE_MIN, Variants, sources};
use crate::objectives::Unit;
use crate::seeds::IntervalOf;
use crate::summary::Tool;

/// More requests than this share that failed in the measurement, and are not simulated, make the load another one.
const FAILED_SHARE_MAX: f64 = 0.01;

/// The largest errors that are tolerated, as shares of what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// Of means, medians, throughput and numbers of replicas.
    pub mean: f64,
    /// Of tails.
    pub tail: f64,
}

impl Default for Tolerances {
    /// 5 % of means, 10 % of tails.
    fn default() -> Self {
        Self {
            mean: 0.05,
            tail: 0.1,
        }
    }
}

/// Replicas over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    /// Their number, mean over time.
    pub mean: f64,
    /// Most at once.
    pub max: f64,
}

/// A measurement, and predictions of it. Requests are those of the measurement that are to be compared, in
/// the order of time; each prediction has as many, `None` where one did not complete.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// What is said of the measurement. What is counted here is filled in.
    pub facts: MeasuredFacts,
    /// What predicts it.
    pub scenario: ScenarioName,
    /// What was measured.
    pub measured: Vec<Times>,
    /// Whether each came to a system in which no other was.
    pub is_idle: Vec<bool>,
    /// The best prediction.
    pub predicted: Vec<Option<Times>>,
    /// Others, each as likely.
    pub draws: Vec<Vec<Option<Times>>>,
    /// Whether those differ in their step times.
    pub include_calibration_error: bool,
    /// What says where errors come from.
    pub variants: Variants,
    /// Replicas as they were measured and as they are predicted, if they were measured.
    pub replicas: Option<(Counts, Counts)>,
    /// Why throughput is not a prediction; `None` if it is.
    pub throughput_is_given: Option<String>,
    /// The largest errors that are tolerated.
    pub tolerances: Tolerances,
    /// What a reader should know.
    pub notes: Vec<String>,
}

impl Comparison {
    /// What comes of it. `pick(n)` is to be a number below `n`, each as likely: samples of the measurement are drawn with it.
    #[must_use]
    pub fn judge(self, tool: Tool, mut pick: impl FnMut(usize) -> usize) -> Validation {
        let both = |prediction: &[Option<Times>]| -> (Vec<Times>, Vec<Times>) {
            let pairs = self.measured.iter().zip(prediction);
            pairs
                .filter_map(|(one, other)| Some((*one, (*other)?)))
                .unzip()
        };
        let (measured, predicted) = both(&self.predicted);
        // Throughput is of what each side completed, latency of what both did.
        let began_ns = self.measured.iter().map(|each| each.due_ns).min();
        let began_ns = began_ns.unwrap_or(0);
        let of_prediction = |times: &[Times]| figures(times, times, began_ns);
        let drawn: Vec<Vec<Figure>> = (self.draws.iter())
            .map(|draw| of_prediction(&both(draw).1))
            .collect();
        let mut metrics = Vec::new();
        let of_measured = figures(&measured, &self.measured, began_ns);
        let pairs = of_measured.into_iter().zip(of_prediction(&predicted));
        for (index, (measured_figure, predicted_figure)) in pairs.enumerate() {
            let draws: Vec<f64> = drawn.iter().filter_map(|each| each[index].value).collect();
            let noise = measured_figure.of.and_then(|(time, statistic)| {
                let (measured, predicted) = (time.values(&measured), time.values(&predicted));
                noise::error_interval(&measured, &predicted, statistic, &mut pick)
            });
            let mut metric = self.metric(&measured_figure, &predicted_figure, &draws, noise);
            if let (None, Some(why)) = (measured_figure.of, &self.throughput_is_given) {
                metric.not_judged(why);
            }
            metrics.push(metric);
        }
        metrics.extend(self.completed_metric(measured.len()));
        metrics.extend(self.replica_metrics());
        let verdict = metrics.iter().map(|metric| metric.verdict).max();
        let mut verdict = verdict.unwrap_or(Verdict::NotJudged);
        let sources = sources(
            &self.measured,
            &self.predicted,
            &self.variants,
            &self.is_idle,
        );
        let mut notes = self.notes;
        let (failed, requests) = (self.facts.failed, self.facts.requests);
        if failed as f64 > FAILED_SHARE_MAX * requests as f64 {
            notes.push(format!(
                "{failed} of {requests} requests failed in the measurement; they are not simulated, so that the \
                 prediction is of less load, and its errors say little"
            ));
            if verdict == Verdict::Within {
                verdict = Verdict::NotJudged;
            }
        }
        let idle = self.is_idle.iter().filter(|is_idle| **is_idle).count();
        if idle < IDLE_MIN {
            notes.push(format!(
                "{idle} requests came to an idle system, too few to tell what requests take around their steps \
                 from queueing: it is told as queueing"
            ));
        }
        Validation {
            schema: SCHEMA.to_owned(),
            tool,
            measured: MeasuredFacts {
                compared: measured.len() as u64,
                not_predicted: (self.measured.len() - measured.len()) as u64,
                ..self.facts
            },
            scenario: self.scenario,
            draws: self.draws.len() as u64,
            include_calibration_error: self.include_calibration_error,
            verdict,
            metrics,
            sources,
            step_time_scale: self.variants.scaled.map(|scaled| scaled.scale),
            notes,
        }
    }

    fn metric(
        &self,
        measured: &Figure,
        predicted: &Figure,
        draws: &[f64],
        noise: Option<(f64, f64)>,
    ) -> MetricVerdict {
        let is_tail = matches!(measured.of, Some((_, Statistic::P90 | Statistic::P99)));
        let tolerance = if is_tail {
            self.tolerances.tail
        } else {
            self.tolerances.mean
        };
        let interval = prediction_interval(draws);
        let is_in = |value: Option<f64>, interval: Option<(f64, f64)>| {
            let ((low, high), value) = (interval?, value?);
            Some((low..=high).contains(&value))
        };
        let share_of_measured = |error: f64| measured.value.map(|value| error / value);
        let mut metric = MetricVerdict {
            name: measured.name.clone(),
            unit: measured.unit,
            measured: measured.value,
            predicted: predicted.value,
            error: None,
            tolerance,
            verdict: Verdict::NotJudged,
            predicted_low: interval.map(|(low, _)| low),
            predicted_high: interval.map(|(_, high)| high),
            error_low: noise.and_then(|(low, _)| share_of_measured(low)),
            error_high: noise.and_then(|(_, high)| share_of_measured(high)),
            is_within_prediction: is_in(measured.value, interval),
            is_within_noise: is_in(Some(0.0), noise),
            problem: None,
        };
        metric.judge();
        let least = measured
            .of
            .map_or(1, |(_, statistic)| statistic.values_min());
        if measured.count < least {
            let count = measured.count;
            metric.not_judged(&format!("{count} values are too few; it takes {least}"));
        }
        metric
    }

    /// The share of what completed that completes in the prediction as well, where that is not all of it.
    fn completed_metric(&self, both: usize) -> Option<MetricVerdict> {
        let all = self.measured.len();
        let of = |count: usize| Figure {
            name: "completed".to_owned(),
            unit: Unit::Share,
            of: None,
            value: Some(count as f64 / all as f64),
            count: all,
        };
        (both < all).then(|| self.metric(&of(all), &of(both), &[], None))
    }

    fn replica_metrics(&self) -> Vec<MetricVerdict> {
        let Some((measured, predicted)) = self.replicas else {
            return Vec::new();
        };
        let of = |name: &str, value| Figure {
            name: name.to_owned(),
            unit: Unit::Replicas,
            of: None,
            value: Some(value),
            count: 1,
        };
        let pairs = [
            ("replicas.mean", measured.mean, predicted.mean),
            ("replicas.max", measured.max, predicted.max),
        ];
        let metric =
            |(name, ours, theirs)| self.metric(&of(name, ours), &of(name, theirs), &[], None);
        pairs.into_iter().map(metric).collect()
    }
}

/// Where another draw would lie, 95 % of them.
fn prediction_interval(draws: &[f64]) -> Option<(f64, f64)> {
    let half = IntervalOf::AnotherRun.half_width(draws)?;
    let mean = draws.iter().sum::<f64>() / draws.len() as f64;
    Some((mean - half, mean + half))
}

impl MetricVerdict {
    fn judge(&mut self) {
        let (Some(measured), Some(predicted)) = (self.measured, self.predicted) else {
            self.not_judged("there is nothing to compare");
            return;
        };
        if measured <= 0.0 {
            self.not_judged("a share of nothing cannot be told");
            return;
        }
        let error = (predicted - measured) / measured;
        self.error = Some(error);
        self.verdict = if error.abs() <= self.tolerance {
            Verdict::Within
        } else {
            Verdict::Beyond
        };
    }

    fn not_judged(&mut self, why: &str) {
        self.verdict = Verdict::NotJudged;
        self.problem = Some(why.to_owned());
    }
}
