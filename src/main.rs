//! The `foresail` command: reads arguments, calls the crates that know, prints,
//! and chooses the exit code.
//!
//! One file or folder a subcommand: [`simulate`], [`compare`], [`gate`], [`validate`], [`merge`], [`autoscale`], [`mod@bench`], [`calibrate`],
//! [`serve`], [`load`], [`trace`],
//! [`init`], [`completions`], [`man`]. What they share is beside them: how text reaches the person
//! ([`terminal`], [`diagnostics`], [`progress`]), how a file is written whole
//! or not at all ([`output_file`]), what an ending means ([`failure`],
//! [`exit_code`]), and how simulations are run ([`runs`]).

mod autoscale;
mod bench;
mod calibrate;
mod cli;
mod compare;
mod completions;
mod description;
mod devices;
mod diagnostics;
mod exit_code;
mod failure;
mod gate;
mod init;
mod interrupt;
mod load;
mod machine;
mod man;
mod merge;
mod output_file;
mod progress;
mod runs;
mod serve;
mod simulate;
mod subject;
mod terminal;
mod trace;
mod validate;
mod world_size;

use std::panic;

use clap::Parser as _;

use cli::{Cli, Command};
use exit_code::ExitCode;
use failure::Failure;
use terminal::Terminal;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    // A panic is a defect of foresail. The default hook says where; what is
    // left to do is to end with the documented code rather than Rust's 101.
    let ended = panic::catch_unwind(|| report(&cli));
    ended.unwrap_or(ExitCode::Unexpected).into()
}

/// Runs the command and tells the person why, if there is no result.
fn report(cli: &Cli) -> ExitCode {
    let terminal = Terminal::new(&cli.terminal);
    run(cli, &terminal).unwrap_or_else(|failure| {
        terminal.failure(&failure);
        failure.exit_code()
    })
}

fn run(cli: &Cli, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Simulate(arguments) => simulate::run(arguments, terminal),
        Command::Compare(arguments) => compare::run(arguments, terminal),
        Command::Gate(arguments) => gate::run(arguments, terminal),
        Command::Validate(arguments) => validate::run(arguments, terminal),
        Command::Merge(arguments) => merge::run(arguments, terminal),
        Command::Autoscale(arguments) => autoscale::run(arguments, terminal),
        Command::Serve(arguments) => serve::run(arguments, terminal),
        Command::Load(arguments) => load::run(arguments, terminal),
        Command::WorldSize(arguments) => world_size::run(arguments, terminal),
        Command::Bench(arguments) => bench::run(arguments, terminal),
        Command::Calibrate(command) => calibrate::run(command, terminal),
        Command::Devices(arguments) => devices::run(arguments, terminal),
        Command::Trace(command) => trace::run(command, terminal),
        Command::Init(arguments) => init::run(arguments, terminal),
        Command::Completions(arguments) => completions::run(arguments, terminal),
        Command::Man(arguments) => man::run(arguments, terminal),
    }
}
