//! From what was measured to a model with intervals: nothing here measures, and nothing is random
//! that was not passed in.
//!
//! ```text
//! measured steps ────> steps ───────┐
//!                                   ├──> CalibratedProfile: terms, draws, residuals, what is not known
//! measured requests ─> requests ────┘
//! measured starts ───> cold_start ─────> a distribution a stage
//! ```
//!
//! - [`least_squares`]: non-negative least squares, and the few operations on small matrices that it takes.
//! - [`steps`]: the formula of [`Calibrated`](foresail_core::step_time::Calibrated), fitted to steps of an engine of ours.
//! - [`requests`]: the same formula, fitted to what requests took at any endpoint, or to published results, by simulating them.
//! - [`efficiency`]: the figures of a GPU's roofline, fitted to published results.
//! - [`exchanges`]: the size ranges of an all-reduce.
//! - [`cold_start`]: how long each stage of a start takes.

mod around;
mod clusters;
pub mod cold_start;
pub mod efficiency;
pub mod exchanges;
pub mod least_squares;
mod normal;
pub mod requests;
mod statistics;
pub mod steps;
