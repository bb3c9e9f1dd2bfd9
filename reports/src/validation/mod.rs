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
//! promises too long a wait. Latencies are of requests that completed in both, throughput of what each side completed, and
//! what completed in the measurement alone is an error of its own: `completed`.
//!
//! An error is put beside two intervals. That of the prediction says how far its own calibration leaves
//! the answer open; that of the error how far it would be another one for another sample of the same traffic, by
//! drawing blocks of requests, each as it was measured and as it is predicted: neighbours are alike, so that
//! single ones would seem to say more than they do.
//!
//! Where the error of a mean comes from is found by simulating again. `tokens` is what changes if requests
//! have the tokens that the server counted. `step_time` is what changes if all steps take as many times as
//! long as makes TPOT right. `overhead` is what then remains of the TTFT of requests that came to an idle
//! system: what servers and clients do around steps, and prompts that take longer than by that factor.
//! `queueing` is the rest; with too few requests that came to an idle system it holds the overhead as well.

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
