//! From records to a verdict.

pub mod records;
