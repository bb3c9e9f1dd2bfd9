//! `foresail calibrate`: from measurements to what the simulator needs to know of an engine, with intervals.

mod cold_start;
mod endpoint;
mod engine;

use clap::Subcommand;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Measure an engine, and fit what predicts it
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Engine(Box<engine::Arguments>),
    Endpoint(Box<endpoint::Arguments>),
    ColdStart(cold_start::Arguments),
}

pub(crate) fn run(command: &Command, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match command {
        Command::Engine(arguments) => engine::run(arguments, terminal),
        Command::Endpoint(arguments) => endpoint::run(arguments, terminal),
        Command::ColdStart(arguments) => cold_start::run(arguments, terminal),
    }
}
