//! The specification of a deployment, row by row, as a provider's users see it.
//!
//! `provider.rs` drives the machines with a clock that jumps; `rows.rs` has the
//! stated facts, `newer.rs` those of the provider's later documentation,
//! `silences.rs` what neither says and had to be decided, and `properties.rs` what
//! holds whatever is asked for.
//!
//! Rows that are about requests over time, prices and texts are tested where those
//! are: S01 to S03, S19, S29 and S33.

mod newer;
mod properties;
mod provider;
mod rows;
mod silences;
