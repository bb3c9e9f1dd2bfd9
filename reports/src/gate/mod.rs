//! The gate: whether a candidate is worse than a baseline, or than its objectives.
//!
//! ```text
//! runs of the baseline ──┐                     ┌─ objective: each limit, by an interval
//!                        ├─ pairs ─> judge() ──┤─ change: each metric, pair by pair ──> GateReport
//! runs of the candidate ─┘                     └─ exact: simulated runs, to the last digit
//! ```
//!
//! One run against a threshold is a coin: on hosted machines the same software
//! fails a limit of 2 % in nearly every second comparison. Here a verdict is out
//! of several runs a side, alternated, and says *fail* only where chance would
//! do so once in twenty gates, for all metrics together. Where the runs do not
//! tell it says so, and how many more would. How is in [`statistics`], and
//! begins at [`Gate::judge`].
//!
//! All of it is pure: runs are values, nothing is read, and nothing is drawn.

pub mod baseline;
mod change;
pub mod exact;
pub mod expression;
pub mod github;
pub mod history;
mod judge;
mod junit;
pub mod metric;
mod objective;
mod pairs;
pub mod report;
mod run;
pub mod statistics;
#[cfg(test)]
mod tests;

pub use exact::ExactComparison;
pub use expression::{ChangeLimit, ExpressionError};
pub use judge::{Gate, usual_metrics};
pub use report::{GateReport, Verdict};
pub use run::{GateRun, LatencyName};

/// With this confidence each end of an interval holds; the interval as a whole
/// with 90 %, as is usual where equivalence is asked for (Schuirmann, "A Comparison
/// of the Two One-Sided Tests Procedure", Journal of Pharmacokinetics and
/// Biopharmaceutics 15, 1987).
pub const CONFIDENCE: f64 = 0.95;

/// How often a gate may fail by luck, all its metrics together.
pub const LEVEL: f64 = 1.0 - CONFIDENCE;
