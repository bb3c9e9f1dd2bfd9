//! Fits of made-up engines, whose terms are known.

mod coverage;
mod engine;
mod identified;
mod outliers;
mod recovery;
mod refusals;
