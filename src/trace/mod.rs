//! `foresail trace`: look at a trace, convert it, make one, record one.

mod convert;
mod generate;
mod inspect;
mod record;
mod source;
mod write;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Look at traces, convert them, make and record them
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Inspect(inspect::Arguments),
    Convert(convert::Arguments),
    Generate(generate::Arguments),
    Record(record::Arguments),
}

pub(crate) fn run(command: &Command, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match command {
        Command::Inspect(arguments) => inspect::run(arguments, terminal),
        Command::Convert(arguments) => convert::run(arguments, terminal),
        Command::Generate(arguments) => generate::run(arguments, terminal),
        Command::Record(arguments) => record::run(arguments, terminal),
    }
}
