//! The built `foresail`, run as a person or a script runs it: what it prints,
//! what it writes, how it ends.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod adapters;
mod autoscale;
mod bad_input;
mod bad_output;
mod bench;
mod calibrate_endpoint;
mod calibrate_engine;
mod cold_start;
mod compare;
mod compare_measured;
mod determinism;
mod gate;
mod groups;
mod help;
mod library;
mod load;
mod merge;
mod recorded;
mod sandbox;
mod serve;
mod simulate;
mod trace;
mod validate;
mod world_size;
