//! What may be concluded from a few runs.
//!
//! The run is the unit: requests of one run share its queues, its machine and
//! its hour, so a thousand of them are not a thousand observations of what the
//! next run will be like. Every run gives one value of a metric, and intervals
//! are made of those values, pair by pair where runs are paired.
//!
//! Why Student's t of logarithms and no bootstrap over runs: with five blocks
//! there are too few to draw from. Simulated with five pairs of 200 requests,
//! two-sided 95 % intervals of the ratio of means, medians and p99s hold the
//! truth in 94 to 96 % of cases by t. The percentile bootstrap that draws runs and
//! then requests of each does so in 84 % for means, as five are too few to draw
//! from, and in 99 to 100 % for percentiles, as it adds the luck of the requests
//! twice. [`fn@bootstrap::percentile`] is for one run, where requests are all there is.
//!
//! - [`Estimate`]: a mean, its standard error and degrees of freedom: bounds and p-values.
//! - [`rank`]: Wilcoxon and Mann–Whitney, which assume no distribution: a check.
//! - [`holm`]: several metrics at once.
//! - [`pairs_needed`]: how many runs would decide.

pub mod bootstrap;
mod estimate;
mod holm;
mod power;
pub mod rank;
mod student;

pub use estimate::Estimate;
pub use holm::holm;
pub use power::{pairs_needed, runs_needed};
