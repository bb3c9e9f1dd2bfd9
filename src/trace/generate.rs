//! `foresail trace generate`: a scenario's traffic as a trace.

use std::path::PathBuf;

use foresail_scenarios::format::{self, Overrides};

use super::write;
use crate::diagnostics::Diagnostics;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Write the traffic of a scenario as a trace, in foresail's own format
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Scenario file, or name of a ready scenario
    scenario: PathBuf,

    /// The file to write; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,

    /// Seed of all random streams, in place of the scenario's own
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Change a setting, such as workload.rate_scale=2; can be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let overrides = Overrides {
        set: arguments.set.clone(),
        seed: arguments.seed,
        ..Overrides::default()
    };
    let scenario = format::load(&arguments.scenario, &overrides)
        .map_err(|error| Diagnostics::failure(&error, terminal.error_style()))?;
    let requests = scenario.workload.open(scenario.seed)?;
    write::requests(requests, &arguments.out, terminal)?;
    Ok(ExitCode::Success)
}
