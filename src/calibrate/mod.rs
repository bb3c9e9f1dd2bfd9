//! `foresail calibrate`: from measurements to a profile with intervals.

mod endpoint;
mod engine;

use clap::Subcommand;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Measure what a scenario has to know of an engine, and fit it
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Engine(Box<engine::Arguments>),
    Endpoint(Box<endpoint::Arguments>),
}

pub(crate) fn run(command: &Command, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match command {
        Command::Engine(arguments) => engine::run(arguments, terminal),
        Command::Endpoint(arguments) => endpoint::run(arguments, terminal),
    }
}
