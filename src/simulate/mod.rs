//! `foresail simulate`: what users would have seen, what it would have cost, and why.
//!
//! ```text
//! SCENARIO… ──prepare──> sound scenarios ──plan──> jobs ──execute──> runs ──publish, show──> exit code
//! ```
//!
//! Nothing runs before every scenario has been found sound, and nothing is put
//! in place or printed before every run has ended well.

mod execute;
mod folders;
mod list;
mod plan;
mod prepare;
mod show;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use foresail_reports::Summary;
use foresail_scenarios::format::Overrides;

use crate::exit_code::{self, ExitCode};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::terminal::{OutputFormat, Terminal};
use execute::Run;

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

    /// Replay this recorded trace, or folder of ServeGen client pools, in place of the scenario's own
    /// traffic
    #[arg(long, value_name = "PATH")]
    trace: Option<PathBuf>,

    /// Change a setting, such as deployment.scale_up_window=15s; can be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,

    /// Seed of all random streams, in place of the scenario's own
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Run under N seeds in a row, and say how far off the means may be
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    seeds: u16,

    /// Threads that share the runs, with the same results; one a processor if not given
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Write requests.csv, timeline.csv and summary.json to this folder; several
    /// scenarios get a folder each in it, and several seeds one each in that
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

impl Arguments {
    fn overrides(&self) -> Overrides {
        Overrides {
            set: self.set.clone(),
            seed: self.seed,
            trace: self.trace.clone(),
        }
    }

    /// What changes the scenarios, in the order in which it is applied.
    fn settings(&self) -> Vec<String> {
        let trace = self.trace.as_ref();
        let trace = trace.map(|path| format!("--trace {}", path.display()));
        trace.into_iter().chain(self.set.iter().cloned()).collect()
    }

    fn thread_count(&self) -> usize {
        let available = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(available).get()
    }
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    if arguments.list {
        return list::run(terminal);
    }
    let prepared = prepare::all(&arguments.scenarios, &arguments.overrides(), terminal)?;
    let jobs = plan::jobs(prepared, arguments.seeds, arguments.out.as_deref())?;
    let _unfilled = folders::Unfilled::among(jobs.iter().filter_map(|job| job.folder.as_deref()));
    let runs = execute(jobs, arguments, terminal)?;
    let summaries = publish(runs, usize::from(arguments.seeds), terminal)?;
    terminal.print(&show::text(&summaries, arguments.format, terminal.style())?)?;
    let all_met = summaries.iter().all(show::is_met);
    Ok(if all_met {
        ExitCode::Success
    } else {
        ExitCode::NotMet
    })
}

fn execute(
    jobs: Vec<plan::Job>,
    arguments: &Arguments,
    terminal: &Terminal,
) -> Result<Vec<Run>, Failure> {
    let interrupt = Interrupt::listen()?;
    let progress = Progress::new(plan::expected_requests(&jobs), !terminal.quiet);
    let context = execute::Context {
        settings: &arguments.settings(),
        leaps: !arguments.step_by_step,
        interrupt: &interrupt,
        progress: &progress,
    };
    execute::all(jobs, arguments.thread_count(), &context)
}

/// Puts the files of all runs in place, and the seeds of each scenario together.
fn publish(runs: Vec<Run>, seeds: usize, terminal: &Terminal) -> Result<Vec<Summary>, Failure> {
    let mut summaries = Vec::with_capacity(runs.len());
    for (index, run) in runs.into_iter().enumerate() {
        if let Some(files) = run.files {
            files.publish()?;
        }
        // Other seeds have much the same to say.
        if index.is_multiple_of(seeds) {
            run.notes.iter().for_each(|note| terminal.note(note));
        }
        summaries.push(run.summary);
    }
    Ok(summaries.chunks(seeds).map(show::together).collect())
}
