//! `foresail simulate`: what users would have seen, what it would have cost, and why.
//!
//! ```text
//! SCENARIO… ──prepare──> sound scenarios ──runs──> summaries ──show──> exit code
//! ```

mod list;
mod show;

use std::path::PathBuf;

use foresail_reports::Summary;

use crate::diagnostics::Diagnostics;
use crate::exit_code::{self, ExitCode};
use crate::failure::Failure;
use crate::runs::{self, Changes, Run, Subject, Threads};
use crate::terminal::{OutputFormat, Terminal};

/// Simulate deployments against their traffic
///
/// Says whether the objectives are met, what latency users would have seen,
/// what it would have cost, and what made the slowest requests slow.
///
/// For example:
///   foresail simulate chat
///   foresail simulate chat --set deployment.scale_up_window=15s --seeds 10
///   foresail simulate deployment.toml --trace monday.csv --out runs/monday
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = exit_code::help())]
pub(crate) struct Arguments {
    /// Scenario files, or names of ready scenarios (see --list)
    #[arg(
        value_name = "SCENARIO",
        required_unless_present = "list",
        conflicts_with = "list"
    )]
    scenarios: Vec<PathBuf>,

    #[command(flatten)]
    changes: Changes,

    /// Run under N seeds in a row, and say how far off the figures may be
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    seeds: u16,

    /// Take the step times' best values under every seed, so that intervals are of the traffic alone
    #[arg(long)]
    exact_step_times: bool,

    #[command(flatten)]
    threads: Threads,

    /// Write requests.csv, timeline.csv and summary.json to this folder; several
    /// scenarios get a folder each in it, as do the deployments of a file that has
    /// a list of them, and several seeds one each in that
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// For people or for machines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,

    /// Compute every step by itself, as a check: slower, and the same records
    #[arg(long)]
    step_by_step: bool,

    /// List the ready scenarios
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    if arguments.list {
        return list::run(terminal);
    }
    let options = runs::Options {
        seeds: arguments.seeds,
        out: arguments.out.as_deref(),
        threads: &arguments.threads,
        leaps: !arguments.step_by_step,
        draws: !arguments.exact_step_times,
        best: true,
    };
    let subjects = subjects(arguments, terminal)?;
    let has_list = subjects.iter().any(Subject::is_list);
    let runs = runs::all(subjects, &options, terminal)?;
    let seeds = usize::from(arguments.seeds);
    // Other seeds have much the same to say.
    runs.iter()
        .step_by(seeds)
        .for_each(|run| tell(run, terminal));
    let summaries: Vec<Summary> = runs.chunks(seeds).map(show::together).collect();
    terminal.print(&show::text(
        &summaries,
        has_list,
        arguments.format,
        terminal.style(),
    )?)?;
    let all_met = summaries.iter().all(show::is_met);
    Ok(if all_met {
        ExitCode::Success
    } else {
        ExitCode::NotMet
    })
}

/// All scenarios, or everything that is wrong with any of them.
fn subjects(arguments: &Arguments, terminal: &Terminal) -> Result<Vec<Subject>, Failure> {
    let overrides = arguments.changes.overrides();
    let is_alone = arguments.scenarios.len() == 1;
    let mut diagnostics = Diagnostics::new(terminal.error_style());
    let mut subjects = Vec::new();
    for path in &arguments.scenarios {
        match runs::prepare(path, &overrides) {
            Err(unsound) => unsound.add_to(&mut diagnostics, path),
            Ok(prepared) => {
                let name = prepared.group.name.clone();
                subjects.push(Subject {
                    folder: (!is_alone).then(|| name.clone()),
                    name,
                    settings: arguments.changes.settings(),
                    prepared,
                });
            }
        }
    }
    diagnostics.into_result()?;
    if arguments.out.is_some() {
        check_folders(&subjects)?;
    }
    Ok(subjects)
}

/// What becomes the name of a folder can be one.
fn check_folders(subjects: &[Subject]) -> Result<(), Failure> {
    let scenarios = subjects.iter().filter_map(|each| each.folder.as_deref());
    runs::check_names("scenario", scenarios)?;
    for subject in subjects.iter().filter(|subject| subject.is_list()) {
        let deployments = &subject.prepared.group.deployments;
        let names = deployments.iter().map(|scenario| scenario.name.as_str());
        runs::check_names("deployment", names)?;
    }
    Ok(())
}

/// Says what is good to know about the requests of a run.
fn tell(run: &Run, terminal: &Terminal) {
    for note in &run.notes {
        terminal.note(&format!("{}: {note}", run.name));
    }
}
