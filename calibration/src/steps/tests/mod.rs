//! Fits of made-up engines, whose terms are known.

mod engine;
mod identified;
mod outliers;
mod recovery;
mod refusals;
