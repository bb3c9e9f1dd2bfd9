//! The arguments of the command, as `clap` reads them.

use clap::{Parser, Subcommand};
use foresail_reports::summary::Tool;

use crate::terminal::TerminalArguments;
use crate::{
    autoscale, bench, calibrate, compare, completions, devices, exit_code, gate, init, load, man,
    merge, serve, simulate, trace, validate, world_size,
};

/// What `foresail --version` and every summary say wrote it. The commit is
/// known if whoever built it set `FORESAIL_COMMIT`; a build script that asks
/// git would fail in a source archive.
pub(crate) fn tool() -> Tool {
    Tool {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("FORESAIL_COMMIT").map(str::to_owned),
    }
}

fn version() -> String {
    let tool = tool();
    match tool.commit {
        Some(commit) => format!("{} ({commit})", tool.version),
        None => tool.version,
    }
}

/// Plan autoscaled LLM deployments: simulate them against real traffic
///
/// Given this traffic, which deployment (GPU type, world size, replica counts,
/// autoscaler windows) meets the latency target, and what does it cost?
#[derive(Debug, Parser)]
#[command(
    name = "foresail",
    version = version(),
    max_term_width = 100,
    after_help = exit_code::help(),
    arg_required_else_help = true,
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) terminal: TerminalArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Simulate(simulate::Arguments),
    Compare(compare::Arguments),
    Gate(Box<gate::Arguments>),
    Validate(Box<validate::Arguments>),
    Merge(merge::Arguments),
    Autoscale(autoscale::Arguments),
    Serve(Box<serve::Arguments>),
    Load(Box<load::Arguments>),
    WorldSize(world_size::Arguments),
    Bench(bench::Arguments),
    #[command(subcommand)]
    Calibrate(calibrate::Command),
    Devices(devices::Arguments),
    #[command(subcommand)]
    Trace(trace::Command),
    Init(init::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}
