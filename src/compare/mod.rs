//! `foresail compare`: the same traffic under several settings, and what is
//! really different.
//!
//! ```text
//! SCENARIO… × --policies × --vary, --with ──variants──> variants ──runs──> summaries ─┐
//! DIR… ───────────────────────recorded────────────────────────────────────────────────┴─> Comparison
//! ```
//!
//! Every variant is run under the same seeds, so that each seed's luck cancels
//! in the difference. If the scenario format knows the policy `oracle`, the
//! scenario of the baseline is run under it too: what no autoscaler can better.

mod list;
mod recorded;
mod simulated;
mod variants;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use foresail_reports::compare::{CompareError, Comparison};
use foresail_reports::text;
use foresail_scenarios::format;

use crate::exit_code::{self, ExitCode};
use crate::failure::Failure;
use crate::runs::{Changes, Threads};
use crate::terminal::{OutputFormat, Terminal};

/// Seeds that each variant is run under, unless it is said.
const SEEDS: u16 = 5;

/// Compare policies and settings under the same traffic
///
/// Runs every variant under the same seeds and says what is different from the
/// baseline, how sure that is, and which variant meets its objectives for the
/// least money. The variants are all combinations of SCENARIO, --policies and
/// --vary, and then those of --with. A folder with the records of a run, or
/// with seed-N folders of several, can stand in place of each scenario. An
/// objective that is not met is told, and is no failure.
///
/// For example:
///   foresail compare chat --vary deployment.scale_up_window=15s,30s,60s
///   foresail compare chat --with 'floor: deployment.min_replica_count=2' --seeds 10
///   foresail compare world-size-1 world-size-2 --out runs/world-size
///   foresail compare runs/world-size/world-size-1 runs/world-size/world-size-2
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = exit_code::help())]
pub(crate) struct Arguments {
    /// Scenario files, names of ready scenarios, or folders of runs
    #[arg(value_name = "SCENARIO", required = true)]
    scenarios: Vec<PathBuf>,

    /// Run each of these autoscaler policies; what a scenario sets for others is left out
    #[arg(
        long,
        value_name = "POLICY,…",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(format::policy_names()),
    )]
    policies: Vec<String>,

    /// Run each of these values of a setting; if repeated, every combination
    #[arg(long, value_name = "PATH=VALUE,…")]
    vary: Vec<String>,

    /// Run a variant of this name with these settings; can be repeated
    #[arg(long, value_name = "NAME: PATH=VALUE,…")]
    with: Vec<String>,

    /// The variant that the others are compared with; the first if not given
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,

    /// Do not run the scenario under the policy that knows the future
    #[arg(long)]
    no_oracle: bool,

    #[command(flatten)]
    changes: Changes,

    /// Run every variant under N seeds in a row, so that luck can be told from difference; 5 if not
    /// given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    seeds: Option<u16>,

    /// Take the step times' best values under every seed, so that intervals are of the traffic alone
    #[arg(long)]
    exact_step_times: bool,

    #[command(flatten)]
    threads: Threads,

    /// Write comparison.json to this folder, and the records of every variant to a folder in it
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// For people or for machines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let comparison = if arguments.scenarios.iter().any(|path| path.is_dir()) {
        recorded::compare(arguments)?
    } else {
        simulated::compare(arguments, terminal)?
    };
    let text = match arguments.format {
        OutputFormat::Text => text::compared(&comparison, terminal.style()),
        OutputFormat::Json => json(&comparison)?,
    };
    terminal.print(&text)?;
    Ok(ExitCode::Success)
}

fn json(comparison: &Comparison) -> Result<String, Failure> {
    let not_json = |error| Failure::Defect(format!("the comparison has no JSON form: {error}"));
    comparison.to_json().map_err(not_json)
}

/// What is wrong with the variants that the person named.
fn refused(error: CompareError) -> Failure {
    let remedy = match error {
        CompareError::Unknown { .. } => "; give one of them to --baseline",
        _ => "",
    };
    Failure::Input(format!("{error}{remedy}"))
}
