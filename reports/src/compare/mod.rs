//! Variants of a deployment under the same traffic, side by side: what
//! `foresail compare` has found, as a value that is written as JSON and turned
//! into [text](crate::text::compared).
//!
//! Percentiles are never averaged: each seed has its own p99, and what is told
//! of several seeds is the mean and interval of those.

mod difference;
mod rank;
mod requests;

pub use difference::{Difference, Verdict};
pub use requests::{PairedLatency, PairedRequests, RequestPairs};

use crate::objectives::Unit;
use crate::seeds::{IntervalOf, mean, metrics_of};
use crate::summary::{Replicas, ScenarioFacts, Source, Summary, Tool};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the form of a comparison.
pub const SCHEMA: &str = "foresail.compare/1";

/// Variants side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What wrote it.
    pub tool: Tool,
    /// How differences come about.
    pub pairing: Pairing,
    /// Name of the variant that the others are compared with.
    pub baseline: String,
    /// Name of the variant that knows the future, if it was run: no autoscaler
    /// does better in the same deployment.
    pub oracle: Option<String>,
    /// The variants, in the order in which they were given.
    pub variants: Vec<Variant>,
    /// The same requests one by one, of measured runs that got those of the
    /// baseline; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub paired_requests: Vec<PairedRequests>,
    /// Whether each seed has its own draw of the step times, the same for all variants: intervals of figures are then
    /// of one more run, and not of a mean; those of differences are of the mean over draws. Absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub include_calibration_error: bool,
}

/// How differences come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// Seed by seed, since all variants have the same seeds.
    Seeds,
    /// Mean by mean, since they have not.
    None,
}

/// One variant over its seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// What it is called.
    pub name: String,
    /// What it changes about its scenario, beyond what the whole command changes.
    pub settings: Vec<String>,
    /// Its place, from 1 on: first what meets its objectives under more seeds,
    /// then what is cheaper, then what has the shorter p99 TTFT. `null` for the
    /// oracle, which nobody can deploy.
    pub rank: Option<u64>,
    /// Whether it was computed or measured.
    pub source: Source,
    /// What was run.
    pub scenario: ScenarioFacts,
    /// Whether it got the traffic of the baseline: as many requests with each
    /// seed, out of a workload of the same description.
    pub same_traffic: bool,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// In how many of them every objective was met; `null` if none is set.
    pub met: Option<u64>,
    /// The objectives, in the order of the scenario.
    pub objectives: Vec<ObjectiveMet>,
    /// The figures.
    pub metrics: Vec<VariantMetric>,
}

/// In how many seeds an objective was met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectiveMet {
    /// What the scenario calls it.
    pub name: String,
    /// Its limit.
    pub limit: f64,
    /// In how many seeds it was met.
    pub met: u64,
}

/// One figure of a variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantMetric {
    /// For example `ttft_p99`.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// Its value with each seed; `null` where nothing was there to measure.
    pub values: Vec<Option<f64>>,
    /// Mean of the values that there are.
    pub mean: Option<f64>,
    /// The true mean is within this of [`VariantMetric::mean`] with 95 %
    /// confidence (Student's t); with [`Comparison::include_calibration_error`], one more run is. `null` for fewer
    /// than two values.
    pub half_width: Option<f64>,
    /// Less the baseline's; `null` for the baseline itself.
    pub difference: Option<Difference>,
    /// Less the oracle's; `null` for the oracle itself, or without one.
    pub above_oracle: Option<Difference>,
}

/// The runs of one variant, one a seed.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantRuns {
    /// What it is called.
    pub name: String,
    /// What it changes about its scenario.
    pub settings: Vec<String>,
    /// Its runs.
    pub runs: Vec<Summary>,
}

/// Why runs cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CompareError {
    /// Nothing to compare.
    #[error("there is no variant to compare")]
    NoVariant,
    /// Two variants could not be told apart.
    #[error("two variants are called `{name}`; give one of them another name")]
    Twice {
        /// The name.
        name: String,
    },
    /// The baseline, or the oracle, is none of the variants.
    #[error("there is no variant `{name}`; the variants are: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A variant without a run.
    #[error("`{name}` has no run")]
    NoRun {
        /// The variant.
        name: String,
    },
    /// Two runs of one variant that cannot both count.
    #[error("`{name}` has two runs of seed {seed}; leave out one of them")]
    SeedTwice {
        /// The variant.
        name: String,
        /// The seed.
        seed: u64,
    },
}

/// Whether these names can be those of variants, and this one that of the baseline.
///
/// # Errors
/// If there is none, two are equal, or the baseline is not among them.
pub fn check_names(names: &[&str], baseline: &str) -> Result<(), CompareError> {
    if names.is_empty() {
        return Err(CompareError::NoVariant);
    }
    let twice = (1..names.len()).find(|&index| names[..index].contains(&names[index]));
    if let Some(index) = twice {
        let name = names[index].to_owned();
        return Err(CompareError::Twice { name });
    }
    if !names.contains(&baseline) {
        return Err(CompareError::Unknown {
            name: baseline.to_owned(),
            known: names.join("; "),
        });
    }
    Ok(())
}

impl Comparison {
    /// Compares every variant with the baseline and, if there is one, the oracle.
    /// The runs of each variant come in the order of their seeds.
    ///
    /// # Errors
    /// If the variants have no such names, or their runs no such seeds.
    pub fn of(
        variants: &[VariantRuns],
        baseline: &str,
        oracle: Option<&str>,
    ) -> Result<Self, CompareError> {
        Self::with(IntervalOf::Mean, variants, baseline, oracle)
    }

    /// The same where each seed has a draw of the step times: what those have wrong is in every run of the real
    /// deployment, and does not average out, so that intervals of figures are of one more run. Those of
    /// differences are of their mean over seeds and draws: all variants have the same draw, and which of them is
    /// better is asked of what is likely, not of one run.
    ///
    /// # Errors
    /// As [`Comparison::of`].
    pub fn of_draws(
        variants: &[VariantRuns],
        baseline: &str,
        oracle: Option<&str>,
    ) -> Result<Self, CompareError> {
        Ok(Self {
            include_calibration_error: true,
            ..Self::with(IntervalOf::AnotherRun, variants, baseline, oracle)?
        })
    }

    fn with(
        interval: IntervalOf,
        variants: &[VariantRuns],
        baseline: &str,
        oracle: Option<&str>,
    ) -> Result<Self, CompareError> {
        let names: Vec<&str> = variants.iter().map(|each| each.name.as_str()).collect();
        check_names(&names, baseline)?;
        check_names(&names, oracle.unwrap_or(baseline))?;
        variants.iter().try_for_each(check_runs)?;
        let pairing = pairing(variants);
        let find = |name: &str| variants.iter().find(|each| each.name == name);
        let base = find(baseline).unwrap_or(&variants[0]);
        let mut compared: Vec<Variant> = variants
            .iter()
            .map(|each| Variant::of(interval, each, base))
            .collect();
        pairing.set_off(&mut compared, baseline, |metric| &mut metric.difference);
        if let Some(oracle) = oracle {
            pairing.set_off(&mut compared, oracle, |metric| &mut metric.above_oracle);
        }
        rank::give(&mut compared, oracle);
        Ok(Self {
            schema: SCHEMA.to_owned(),
            tool: variants[0].runs[0].tool.clone(),
            pairing,
            baseline: baseline.to_owned(),
            oracle: oracle.map(str::to_owned),
            variants: compared,
            paired_requests: Vec::new(),
            include_calibration_error: false,
        })
    }

    /// As indented JSON that ends with a newline.
    ///
    /// # Errors
    /// If memory for it runs out; every comparison has a JSON form.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        Ok(json)
    }

    /// The variants from the first rank to the last, the oracle after them.
    #[must_use]
    pub fn ranked(&self) -> Vec<&Variant> {
        let mut variants: Vec<_> = self.variants.iter().collect();
        variants.sort_by_key(|variant| variant.rank.unwrap_or(u64::MAX));
        variants
    }

    /// The variant of that name.
    #[must_use]
    pub fn variant(&self, name: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.name == name)
    }
}

fn check_runs(variant: &VariantRuns) -> Result<(), CompareError> {
    let name = || variant.name.clone();
    if variant.runs.is_empty() {
        return Err(CompareError::NoRun { name: name() });
    }
    let mut seeds = seeds(&variant.runs);
    seeds.sort_unstable();
    match seeds.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(CompareError::SeedTwice {
            name: name(),
            seed: pair[0],
        }),
        None => Ok(()),
    }
}

fn seeds(runs: &[Summary]) -> Vec<u64> {
    runs.iter().map(|run| run.seed).collect()
}

fn pairing(variants: &[VariantRuns]) -> Pairing {
    let mut all = variants.iter().map(|variant| seeds(&variant.runs));
    let first = all.next();
    match all.all(|seeds| Some(seeds) == first) {
        true => Pairing::Seeds,
        false => Pairing::None,
    }
}

impl Pairing {
    /// Sets every figure of all other variants off against that of one of them.
    fn set_off(
        self,
        variants: &mut [Variant],
        name: &str,
        difference: fn(&mut VariantMetric) -> &mut Option<Difference>,
    ) {
        let Some(one) = variants.iter().find(|variant| variant.name == name) else {
            return;
        };
        let metrics = one.metrics.clone();
        let less = match self {
            Self::Seeds => difference::paired,
            Self::None => difference::unpaired,
        };
        for variant in variants.iter_mut().filter(|variant| variant.name != name) {
            for (metric, of_one) in variant.metrics.iter_mut().zip(&metrics) {
                *difference(metric) = less(&metric.values, &of_one.values);
            }
        }
    }
}

impl Variant {
    /// The figures of a variant, not compared yet.
    fn of(interval: IntervalOf, variant: &VariantRuns, base: &VariantRuns) -> Self {
        let runs = &variant.runs;
        let offered = |runs: &[Summary]| -> Vec<u64> {
            runs.iter().map(|run| run.requests.offered).collect()
        };
        let first = &runs[0];
        let all_met = runs.iter().filter(|run| run.objectives_met()).count() as u64;
        Self {
            name: variant.name.clone(),
            settings: variant.settings.clone(),
            rank: None,
            source: first.source,
            scenario: first.scenario.clone(),
            same_traffic: offered(runs) == offered(&base.runs)
                && first.scenario.workload == base.runs[0].scenario.workload,
            seeds: seeds(runs),
            met: (!first.objectives.is_empty()).then_some(all_met),
            objectives: objectives_met(runs),
            metrics: metrics(interval, runs),
        }
    }

    /// The figure of that name.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<&VariantMetric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// The mean of the figure of that name.
    #[must_use]
    pub fn mean(&self, name: &str) -> Option<f64> {
        self.metric(name)?.mean
    }
}

fn objectives_met(runs: &[Summary]) -> Vec<ObjectiveMet> {
    let met = |index: usize| {
        let of_run = |run: &&Summary| run.objectives.get(index).is_some_and(|each| each.met);
        runs.iter().filter(of_run).count() as u64
    };
    let objectives = runs[0].objectives.iter().enumerate();
    objectives
        .map(|(index, objective)| ObjectiveMet {
            name: objective.name.clone(),
            limit: objective.limit,
            met: met(index),
        })
        .collect()
}

fn metrics(interval: IntervalOf, runs: &[Summary]) -> Vec<VariantMetric> {
    let mut metrics: Vec<VariantMetric> = Vec::new();
    for (name, unit, value) in figures(&runs[0]) {
        metrics.push(VariantMetric {
            name,
            unit,
            values: vec![value],
            mean: None,
            half_width: None,
            difference: None,
            above_oracle: None,
        });
    }
    for run in &runs[1..] {
        let values = figures(run).into_iter().map(|(_, _, value)| value);
        for (metric, value) in metrics.iter_mut().zip(values) {
            metric.values.push(value);
        }
    }
    for metric in &mut metrics {
        let values: Vec<f64> = metric.values.iter().flatten().copied().collect();
        metric.mean = mean(&values);
        metric.half_width = interval.half_width(&values);
    }
    metrics
}

/// The metrics of a run, and the counts that tell autoscalers apart.
fn figures(run: &Summary) -> Vec<(String, Unit, Option<f64>)> {
    let has_price = run.scenario.usd_per_gpu_hour > 0.0;
    let (requests, replicas) = (&run.requests, run.replicas.as_ref());
    let count = |value: u64| Some(value as f64);
    let of_replicas = |of: fn(&Replicas) -> u64| replicas.map(|replicas| of(replicas) as f64);
    let counts = [
        (
            "cold_start_hits",
            count(requests.waited_for_cold_start + requests.rejected_scaling_up),
        ),
        (
            "direction_changes",
            of_replicas(|replicas| replicas.direction_changes),
        ),
        ("starts", of_replicas(|replicas| replicas.starts)),
        (
            "wasted_starts",
            of_replicas(|replicas| replicas.wasted_starts),
        ),
        ("not_completed", count(requests.failed + requests.rejected)),
    ];
    let billed = ("billed_gpu_s", run.gpu_seconds.map(|gpu| gpu.billed));
    let known = metrics_of(run).into_iter().map(|(name, unit, value)| {
        // Without a price nothing is known of the cost: it is not nothing.
        let is_known = unit != Unit::Usd || has_price;
        (name, unit, value.filter(|_| is_known))
    });
    let others = counts
        .map(|(name, value)| (name, Unit::Count, value))
        .into_iter()
        .chain([(billed.0, Unit::GpuSeconds, billed.1)])
        .map(|(name, unit, value)| (name.to_owned(), unit, value));
    known.chain(others).collect()
}

#[cfg(test)]
mod tests;
