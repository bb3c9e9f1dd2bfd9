//! What a validation says, as a value that is written as JSON and turned into text.

use serde::{Deserialize, Serialize};

use crate::objectives::Unit;
use crate::summary::{Degraded, Tool};

/// The version of the form of a validation.
pub const SCHEMA: &str = "foresail.validation/1";

/// How far a prediction is from what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What wrote it.
    pub tool: Tool,
    /// What was measured.
    pub measured: MeasuredFacts,
    /// What predicts it.
    pub scenario: ScenarioName,
    /// How many draws the intervals of the prediction are of; 0 if it has none.
    pub draws: u64,
    /// Whether those intervals include what the calibration of the step times leaves open.
    pub include_calibration_error: bool,
    /// The worst of all metrics that could be judged.
    pub verdict: Verdict,
    /// The metrics.
    pub metrics: Vec<MetricVerdict>,
    /// Where the errors of the means come from.
    pub sources: Vec<SourceOfError>,
    /// As many times as long as predicted, all steps would have to take for mean TPOT to be as measured; `null`
    /// if that was not found.
    pub step_time_scale: Option<f64>,
    /// What a reader should know, in sentences.
    pub notes: Vec<String>,
}

impl Validation {
    /// As the text of a JSON file.
    ///
    /// # Errors
    /// If a number is not finite, which would be a defect.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredFacts {
    /// What it is called: its file or folder.
    pub name: String,
    /// What kind of file it is, in words.
    pub format: String,
    /// Requests in it.
    pub requests: u64,
    /// Requests that are compared: they completed, there and in the prediction, inside the window.
    pub compared: u64,
    /// Requests that failed or were refused; they are not simulated.
    pub failed: u64,
    /// Requests outside the window that was measured; they are simulated, and not compared.
    pub outside_window: u64,
    /// Requests that completed there, and not in the prediction.
    pub not_predicted: u64,
    /// Why its figures are not to be trusted; empty if they are.
    pub degraded: Vec<Degraded>,
}

/// What predicts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioName {
    /// The scenario.
    pub name: String,
    /// The model.
    pub model: String,
    /// The GPU.
    pub gpu: String,
    /// GPUs a replica.
    pub world_size: u32,
    /// Where its step times are from, in words.
    pub step_times: String,
}

/// What came of a metric, or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It could not be judged.
    NotJudged,
    /// The error is within the tolerance.
    Within,
    /// The error is larger than the tolerance.
    Beyond,
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricVerdict {
    /// For example `ttft.p99`.
    pub name: String,
    /// Unit of the values.
    pub unit: Unit,
    /// What was measured; `null` if nothing was.
    pub measured: Option<f64>,
    /// What is predicted; `null` if nothing is.
    pub predicted: Option<f64>,
    /// Predicted less measured, as a share of what was measured.
    pub error: Option<f64>,
    /// The largest error, as a share, that is tolerated.
    pub tolerance: f64,
    /// What came of it.
    pub verdict: Verdict,
    /// By the prediction's own account, the truth is above this with `predicted_high` as the other end of a
    /// 95 % interval; `null` without draws.
    pub predicted_low: Option<f64>,
    /// See `predicted_low`.
    pub predicted_high: Option<f64>,
    /// Other samples of the same traffic, measured and predicted, would have an error above this (as `error`),
    /// with `error_high` as the other end of a 95 % interval; `null` if nothing tells.
    pub error_low: Option<f64>,
    /// See `error_low`.
    pub error_high: Option<f64>,
    /// Whether what was measured is inside the interval of the prediction; `null` without one.
    pub is_within_prediction: Option<bool>,
    /// Whether other samples might have no error: 0 is in the interval of the error; `null` without one.
    pub is_within_noise: Option<bool>,
    /// Why it could not be judged; `null` if it could.
    pub problem: Option<String>,
}

/// Where the error of a mean comes from: the parts add up to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceOfError {
    /// Of which mean, such as `ttft.mean`.
    pub metric: String,
    /// Predicted less measured (s).
    pub error_s: f64,
    /// Other counts of tokens than the server's (s).
    pub tokens_s: f64,
    /// Steps that take longer or shorter than those that were measured (s).
    pub step_time_s: f64,
    /// What requests take around their steps (s): in servers and clients, and in prompts' own steps; `null` if too
    /// few requests came to an idle system to tell.
    pub overhead_s: Option<f64>,
    /// Waiting for a step: the rest (s). It holds the overhead as well where that cannot be told.
    pub queueing_s: f64,
}
