//! `foresail autoscale`: what an autoscaler makes of a table of measurements.
//!
//! ```text
//! SCENARIO or --policy ──chosen──> autoscaler ──┐
//! --trace ──table──> a row, and the next ──> look ──> a verdict a row
//! ```
//!
//! It is the same machine as in a simulation, so that its decisions can be
//! compared with those of the autoscaler that it is named after, one by one.

mod chosen;
mod columns;
mod table;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use foresail_core::control::autoscaler::Autoscaler;
use foresail_core::control::autoscaler::trace::Verdict;
use foresail_scenarios::format;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output_file::{OutputFile, Place};
use crate::terminal::Terminal;
use table::Table;

/// See what an autoscaler decides, measurement by measurement
///
/// Each row of the trace is one look of the autoscaler's control loop, and gets a row of output:
/// time_s,desired,reason. The trace is a CSV file with a header: time_s (seconds, never going back)
/// and the columns that the policy reads, which --columns explains. For most policies that is load
/// and ready.
///
/// For example:
///   foresail autoscale --policy ray-serve --set max_replicas=8 --trace load.csv
///   foresail autoscale chat --trace load.csv --changes-only
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Take the policy and its parameters from this scenario file, or ready scenario
    #[arg(value_name = "SCENARIO", required_unless_present_any = ["policy", "columns"])]
    scenario: Option<PathBuf>,

    /// The policy, with its own defaults if there is no scenario
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(format::policy_names()))]
    policy: Option<String>,

    /// Change a parameter, such as upscale_delay_s=10 or deployment.scale_up_window=15s; can be
    /// repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// The measurements; `-` is standard input
    #[arg(long, value_name = "FILE", required_unless_present = "columns")]
    trace: Option<PathBuf>,

    /// Replicas that there are before the first row
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1000))]
    initial: Option<u32>,

    /// Only rows at which another number of replicas is desired than before
    #[arg(long)]
    changes_only: bool,

    /// Explain the columns that a policy reads, or those of all policies
    #[arg(long, conflicts_with_all = ["trace", "initial", "changes_only"])]
    columns: bool,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    if arguments.columns {
        terminal.print(&columns::explained(arguments, terminal)?)?;
        return Ok(ExitCode::Success);
    }
    let chosen = chosen::of(arguments, terminal)?;
    let trace = arguments.trace.as_deref().unwrap_or("-".as_ref());
    let mut table = Table::open(trace, &chosen.config)?;
    for column in table.unread() {
        let policy = chosen.config.name();
        terminal.note(&format!(
            "{policy} does not read the column `{column}` of {}",
            table.name()
        ));
    }
    let initial = arguments.initial.unwrap_or(chosen.initial_replicas);
    let autoscaler = Autoscaler::new(&chosen.config, initial);
    let mut output = OutputFile::create(&Place::Stdout)?;
    decide(autoscaler, &mut table, arguments.changes_only, &mut output)?;
    output.finish()?;
    Ok(ExitCode::Success)
}

/// A verdict for each row.
fn decide(
    mut autoscaler: Autoscaler,
    table: &mut Table,
    changes_only: bool,
    output: &mut impl Write,
) -> Result<(), Failure> {
    output
        .write_all(b"time_s,desired,reason\n")
        .map_err(Failure::stdout)?;
    let mut desired = autoscaler.target();
    let mut reason = String::new();
    while let Some((now, row)) = table.next_row()? {
        let verdict = autoscaler.look(now, &row);
        if !changes_only || verdict.desired != desired {
            write_verdict(output, table.time_text(), &verdict, &mut reason)
                .map_err(Failure::stdout)?;
        }
        desired = verdict.desired;
    }
    Ok(())
}

/// The time is written as it was read. `scratch` is reused from row to row.
fn write_verdict(
    output: &mut impl Write,
    time: &str,
    verdict: &Verdict,
    scratch: &mut String,
) -> io::Result<()> {
    scratch.clear();
    // Writing to a string does not fail.
    let _ = write!(scratch, "{}", verdict.reason);
    let desired = verdict.desired;
    if scratch.contains([',', '"', '\n', '\r']) {
        let quoted = scratch.replace('"', "\"\"");
        writeln!(output, "{time},{desired},\"{quoted}\"")
    } else {
        writeln!(output, "{time},{desired},{scratch}")
    }
}
