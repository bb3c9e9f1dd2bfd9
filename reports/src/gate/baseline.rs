//! A baseline in one small file, to be committed beside what it measures.
//!
//! It holds of each run what a gate needs: figures, and histograms, so that
//! percentiles that nobody had asked for then can be asked for now. A run of a
//! thousand requests takes about 15 kB.

use super::run::{GateRun, LatencyName};
use crate::histogram::{CompactHistogram, Histogram, HistogramError};
use crate::objectives::Objective;
use crate::summary::{Source, Tool};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// The version of the form of a baseline.
pub const SCHEMA: &str = "foresail.baseline/1";

/// Runs to compare with.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    /// What wrote it.
    pub tool: Tool,
    /// The runs.
    pub runs: Vec<GateRun>,
}

/// Why a text is no baseline.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BaselineError {
    /// Not JSON, or not of the form of a baseline.
    #[error("not a baseline: {0}; expected what `foresail gate --save-baseline` wrote")]
    Form(#[from] serde_json::Error),
    /// A baseline of another version.
    #[error("its schema is `{found}` where this version reads `{SCHEMA}`; save the baseline again")]
    Schema {
        /// What it says it is.
        found: String,
    },
    /// A histogram that is none.
    #[error("run `{run}`: {source}")]
    Histogram {
        /// The run.
        run: String,
        /// What is wrong.
        source: HistogramError,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    schema: String,
    tool: Tool,
    runs: Vec<WrittenRun>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRun {
    name: String,
    seed: u64,
    source: Source,
    scenario: String,
    workload: String,
    offered: u64,
    completed: u64,
    objectives: Vec<Objective>,
    values: BTreeMap<String, f64>,
    histograms: BTreeMap<LatencyName, CompactHistogram>,
}

impl Baseline {
    /// A baseline out of runs that may be trusted.
    #[must_use]
    pub fn new(tool: Tool, runs: Vec<GateRun>) -> Self {
        Self { tool, runs }
    }

    /// As JSON, a line a figure, that ends with a newline: changes of it can be read.
    ///
    /// # Errors
    /// If memory for it runs out.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let written = Written {
            schema: SCHEMA.to_owned(),
            tool: self.tool.clone(),
            runs: self.runs.iter().map(WrittenRun::from).collect(),
        };
        let mut json = serde_json::to_string_pretty(&written)?;
        json.push('\n');
        Ok(json)
    }

    /// Reads what [`Baseline::to_json`] wrote.
    ///
    /// # Errors
    /// If it is no baseline, or one of another version.
    pub fn from_json(json: &str) -> Result<Self, BaselineError> {
        #[derive(Deserialize)]
        struct Version {
            schema: String,
        }
        // The version first: another version may well have other fields.
        let version: Version = serde_json::from_str(json)?;
        if version.schema != SCHEMA {
            let found = version.schema;
            return Err(BaselineError::Schema { found });
        }
        let written: Written = serde_json::from_str(json)?;
        let runs: Result<Vec<_>, _> = written.runs.into_iter().map(WrittenRun::read).collect();
        Ok(Self {
            tool: written.tool,
            runs: runs?,
        })
    }
}

impl From<&GateRun> for WrittenRun {
    fn from(run: &GateRun) -> Self {
        let histograms = run.histograms.iter();
        Self {
            name: run.name.clone(),
            seed: run.seed,
            source: run.source,
            scenario: run.scenario.clone(),
            workload: run.workload.clone(),
            offered: run.offered,
            completed: run.completed,
            objectives: run.objectives.clone(),
            values: run.values.clone(),
            histograms: histograms
                .map(|(name, histogram)| (*name, histogram.into()))
                .collect(),
        }
    }
}

impl WrittenRun {
    fn read(self) -> Result<GateRun, BaselineError> {
        let mut histograms = BTreeMap::new();
        for (name, compact) in self.histograms {
            let histogram = Histogram::try_from(compact).map_err(|source| {
                let run = self.name.clone();
                BaselineError::Histogram { run, source }
            })?;
            histograms.insert(name, histogram);
        }
        Ok(GateRun {
            name: self.name,
            seed: self.seed,
            source: self.source,
            scenario: self.scenario,
            workload: self.workload,
            offered: self.offered,
            completed: self.completed,
            values: self.values,
            histograms,
            objectives: self.objectives,
            degraded: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurements::Measurements;
    use crate::records::RunTotals;
    use crate::summary::RunDescription;

    /// Five runs of a thousand requests with 64 tokens each.
    fn baseline() -> Baseline {
        let summary =
            Measurements::new(&[]).summary(&RunDescription::default(), &RunTotals::default());
        let run = |seed: u64| {
            let mut run = GateRun {
                seed,
                ..GateRun::of(format!("run-{seed}"), &summary)
            };
            for (name, base_ns, step_ns, count) in [
                (LatencyName::Ttft, 40_000_000, 37_000, 1_000),
                (LatencyName::Tpot, 5_000_000, 700, 1_000),
                (LatencyName::E2e, 300_000_000, 391_000, 1_000),
                (LatencyName::Itl, 4_000_000, 113, 63_000),
            ] {
                let mut histogram = Histogram::new();
                // A stride that scatters, so that buckets are as many as they can be.
                let scattered = (0..count).map(|at: u64| at * 7_919 % count);
                scattered.for_each(|at| histogram.record(base_ns + (at + seed) * step_ns));
                run.histograms.insert(name, histogram);
            }
            run
        };
        Baseline::new(Tool::default(), (1..=5).map(run).collect())
    }

    #[test]
    fn five_runs_fit_in_a_hundred_kilobytes_and_read_back() {
        let baseline = baseline();
        let json = baseline.to_json().unwrap();
        assert!(json.len() < 100_000, "{} bytes", json.len());
        assert_eq!(Baseline::from_json(&json).unwrap(), baseline);
    }

    #[test]
    fn what_is_no_baseline_says_what_is() {
        let error = |json: &str| Baseline::from_json(json).unwrap_err().to_string();
        assert!(error("{}").contains("foresail gate --save-baseline"));
        assert!(error(r#"{"schema": "foresail.baseline/2"}"#).contains("save the baseline again"));
        let json = baseline().to_json().unwrap();
        let broken = json.replacen("\"buckets\": \"", "\"buckets\": \"!", 1);
        assert!(
            error(&broken).contains("run `run-1`: its text does not fit"),
            "{}",
            error(&broken)
        );
    }
}
