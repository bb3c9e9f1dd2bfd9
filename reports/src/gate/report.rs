//! What a gate says, as a value that is written as JSON and turned into text,
//! Markdown, JUnit and annotations.

use crate::objectives::{Bound, Unit};
use crate::summary::Tool;
use serde::{Deserialize, Serialize};

/// The version of the form of a verdict.
pub const SCHEMA: &str = "foresail.gate/1";

/// What a gate says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateReport {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What wrote it.
    pub tool: Tool,
    /// What was run: the scenario of the candidate.
    pub scenario: String,
    /// What came of it: the worst of all below.
    pub verdict: Verdict,
    /// How runs of the two sides belong together.
    pub pairing: Pairing,
    /// The runs of the baseline; none if only objectives were asked for.
    pub baseline: Vec<RunFacts>,
    /// The runs of the candidate.
    pub candidate: Vec<RunFacts>,
    /// Runs whose figures are not to be trusted, and why.
    pub degraded: Vec<DegradedRun>,
    /// What came of the objectives.
    pub objectives: Vec<ObjectiveVerdict>,
    /// How the metrics changed; empty if the comparison is exact.
    pub changes: Vec<ChangeVerdict>,
    /// Field by field, of simulated runs; `null` if runs were measured.
    pub exact: Option<Exact>,
    /// What a reader should know of the runs, in sentences.
    pub notes: Vec<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not worse than is allowed, with confidence.
    Pass,
    /// The runs do not tell.
    Inconclusive,
    /// Worse than is allowed, with confidence.
    Fail,
    /// Not judged: runs are not to be trusted.
    Degraded,
}

/// How runs of the two sides belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// Each with that of the same seed.
    Seeds,
    /// Each with that at the same place.
    Order,
    /// Not at all: means are compared.
    None,
}

/// A run that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFacts {
    /// What it is called.
    pub name: String,
    /// Seed of its requests.
    pub seed: u64,
    /// Requests offered.
    pub offered: u64,
    /// Requests that completed.
    pub completed: u64,
}

/// A run whose figures are not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DegradedRun {
    /// What it is called.
    pub name: String,
    /// Why.
    pub reasons: Vec<String>,
}

/// What came of an objective over the runs of the candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectiveVerdict {
    /// For example `ttft.p99`.
    pub name: String,
    /// Unit of the values.
    pub unit: Unit,
    /// Which side of the limit meets it.
    pub bound: Bound,
    /// The limit.
    pub limit: f64,
    /// The value of each run; `null` where there is none.
    pub values: Vec<Option<f64>>,
    /// What is observed: the mean of the runs, of what has ratios their geometric mean.
    pub observed: Option<f64>,
    /// The truth is above this with 95 % confidence; `null` if nothing tells.
    pub lower: Option<f64>,
    /// The truth is below this with 95 % confidence; `null` if nothing tells.
    pub upper: Option<f64>,
    /// Where the interval is from.
    pub interval: IntervalSource,
    /// What came of it.
    pub verdict: Verdict,
    /// How many further runs would decide, in four of five cases; `null` if it
    /// is decided, or would take more than a thousand.
    pub further_runs: Option<u64>,
    /// Why it could not be judged; `null` if it could.
    pub problem: Option<String>,
}

/// Where an interval is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntervalSource {
    /// What the runs differ among each other: Student's t.
    Runs,
    /// The requests of the one run there is: the bootstrap. What differs from
    /// run to run is not in it.
    Requests,
    /// There is none: the value is judged as it is.
    None,
}

/// How a metric of the candidate differs from that of the baseline. Changes
/// are shares of what it was (0.05 is 5 % more); of shares they are points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeVerdict {
    /// For example `tpot.mean`.
    pub name: String,
    /// Unit of the values.
    pub unit: Unit,
    /// Which way is better.
    pub bound: Bound,
    /// The value of each run of the baseline; `null` where there is none. In
    /// the order of the pairs, if there are pairs.
    pub baseline_values: Vec<Option<f64>>,
    /// The value of each run of the candidate.
    pub candidate_values: Vec<Option<f64>>,
    /// The baseline's: the mean of its runs, of what has ratios their geometric mean.
    pub baseline: Option<f64>,
    /// The candidate's.
    pub candidate: Option<f64>,
    /// The change.
    pub change: Option<f64>,
    /// The true change is above this with 95 % confidence; `null` for fewer
    /// than two runs a side.
    pub lower: Option<f64>,
    /// The true change is below this with 95 % confidence.
    pub upper: Option<f64>,
    /// How much worse it may be; at or above 0.
    pub allowed: f64,
    /// What a change for the worse must exceed to be of interest.
    pub minimum: f64,
    /// How probable such runs would be if it were no worse than is allowed.
    pub p_value: Option<f64>,
    /// The same, adjusted for all metrics of this gate (Holm).
    pub p_adjusted: Option<f64>,
    /// The same by ranks only: a check.
    pub rank_check: Option<RankCheck>,
    /// What came of it.
    pub verdict: Verdict,
    /// How many further runs a side would decide, in four of five cases; `null`
    /// if it is decided, or would take more than a thousand.
    pub further_runs: Option<u64>,
    /// Why it could not be judged; `null` if it could.
    pub problem: Option<String>,
}

/// What ranks say of a change for the worse beyond what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankCheck {
    /// By which test.
    pub test: RankTest,
    /// How probable such ranks would be if it were no worse than is allowed.
    pub p_value: f64,
}

/// A test of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RankTest {
    /// Wilcoxon's signed-rank test, of pairs.
    Wilcoxon,
    /// The test of Mann and Whitney, of runs without pairs.
    MannWhitney,
}

/// Simulated runs, compared to the last digit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exact {
    /// How many fields and rows differ.
    pub count: u64,
    /// The first of them.
    pub differences: Vec<FieldDifference>,
}

/// A field that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldDifference {
    /// The run, where there are several.
    pub run: String,
    /// The field, for example `ttft_s.p99`, or the place in `requests.csv`.
    pub field: String,
    /// What it was; `null` if it was not there.
    pub baseline: Option<String>,
    /// What it is; `null` if it is not there.
    pub candidate: Option<String>,
}

impl GateReport {
    /// As indented JSON that ends with a newline.
    ///
    /// # Errors
    /// If memory for it runs out; every verdict has a JSON form.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        Ok(json)
    }
}
