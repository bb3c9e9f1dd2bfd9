//! How far a prediction is from what was measured, request by request of the same traffic.
//!
//! ```text
//! measured requests ──┐                          ┌─ metrics: error, tolerance, noise ─> verdict
//! the same, simulated ┼─> Comparison ─> Validation ─ sources: tokens, step time, queueing
//! … with draws ───────┤                          └─ pictures: both distributions on one axis
//! … with other tokens ┤
//! … with scaled steps ┘
//! ```
//!
//! Errors are signed: predicted less measured, as a share of what was measured, so that a positive one
//! promises too long a wait. Only requests that completed in both are compared; the others are counted.
//!
//! An error is put beside two intervals. That of the prediction says how far its own calibration leaves
//! the answer open; that of the measurement how far another sample of the same traffic might lie, by
//! drawing blocks of requests: neighbours are alike, so that single ones would seem to say more than they do.
//!
//! Where the error of a mean comes from is found by simulating again. `tokens` is what changes if requests
//! have the tokens that the server counted. `step_time` is what changes if all steps take as many times as
//! long as makes TPOT right, and what then remains of the TTFT of requests that came to an idle system.
//! `queueing` is the rest.

mod figures;
mod judge;
mod noise;
mod picture;
mod report;
mod sources;
#[cfg(test)]
mod tests;

pub use figures::{Statistic, TimeOf, Times};
pub use judge::{Comparison, Counts, Tolerances};
pub use picture::pictures;
pub use report::{
    MeasuredFacts, MetricVerdict, SCHEMA, ScenarioName, SourceOfError, Validation, Verdict,
};
pub use sources::{Scaled, Variants};
