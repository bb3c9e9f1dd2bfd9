//! `foresail merge`: the shards of a run that several machines shared, as one run.

use std::path::PathBuf;

use foresail_reports::merge::{MergeError, merge};
use foresail_reports::{Summary, text};

use crate::cli;
use crate::exit_code::{self, ExitCode};
use crate::failure::Failure;
use crate::terminal::{OutputFormat, Terminal};

/// Put the shards of a measured run together
///
/// Several machines share a load by `foresail load … --shard I/N --out DIR`,
/// each with its own I, and otherwise the same arguments and the same --start-at.
/// This makes one run of their folders: records are interleaved and histograms
/// added, so that percentiles are those of all requests together. A shard that
/// is missing or was interrupted makes the run degraded.
///
/// For example:
///   foresail merge shard-1 shard-2 shard-3 --out runs/all
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = exit_code::help())]
pub(crate) struct Arguments {
    /// Folders of the shards, in any order
    #[arg(value_name = "DIR", required = true)]
    shards: Vec<PathBuf>,

    /// Write the records of the run to this folder
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,

    /// For people or for machines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let summary = merge(&arguments.shards, &arguments.out, cli::tool()).map_err(refused)?;
    let text = match arguments.format {
        OutputFormat::Text => text::summary(&summary, terminal.style()),
        OutputFormat::Json => json(&summary)?,
    };
    terminal.print(&text)?;
    Ok(ending(&summary))
}

/// Figures that are not to be trusted meet nothing and miss nothing.
fn ending(summary: &Summary) -> ExitCode {
    let measured = summary.measured.as_ref();
    let is_degraded = measured.is_some_and(|measured| !measured.degraded.is_empty());
    match (is_degraded, summary.objectives_met()) {
        (true, _) => ExitCode::Degraded,
        (false, true) => ExitCode::Success,
        (false, false) => ExitCode::NotMet,
    }
}

fn json(summary: &Summary) -> Result<String, Failure> {
    let not_json = |error| Failure::Defect(format!("the summary has no JSON form: {error}"));
    summary.to_json().map_err(not_json)
}

fn refused(error: MergeError) -> Failure {
    match error {
        MergeError::Write(error) => Failure::Files(error),
        error => Failure::Input(error.to_string()),
    }
}
