//! Runs of simulations: what `simulate` and `compare` have in common.
//!
//! ```text
//! Subject… ──plan──> jobs ──execute──> runs ──publish──> summaries
//! ```
//!
//! A job is a run of one deployment, or of all deployments of a file together;
//! each of them has a [`Run`] in the end.
//!
//! Nothing runs before every scenario has been found sound, and nothing is put
//! in place before every run has ended well.

mod execute;
mod folders;
mod plan;
mod prepare;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use foresail_reports::Summary;
use foresail_scenarios::format::Overrides;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::terminal::Terminal;

pub(crate) use execute::Run;
pub(crate) use folders::check_names;
pub(crate) use prepare::{Prepared, Unsound, prepare, prepare_one};

/// What the command line changes about every scenario.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Changes {
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
}

impl Changes {
    /// The same, for the scenario format.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            set: self.set.clone(),
            seed: self.seed,
            trace: self.trace.clone(),
            policy: None,
        }
    }

    /// The trace or folder of client pools, if there is one.
    pub(crate) fn trace(&self) -> Option<&Path> {
        self.trace.as_deref()
    }

    /// The seed, if there is one.
    pub(crate) fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// The `--set` settings.
    pub(crate) fn set(&self) -> &[String] {
        &self.set
    }

    /// Keeps the `--set` settings of such paths.
    pub(crate) fn retain_set(&mut self, keep: impl Fn(&str) -> bool) {
        let path = |setting: &String| {
            setting
                .split_once('=')
                .map(|(path, _)| path.trim().to_owned())
        };
        self.set
            .retain(|setting| path(setting).is_none_or(|path| keep(&path)));
    }

    /// The options that are given.
    pub(crate) fn given(&self) -> impl Iterator<Item = &'static str> {
        let options = [
            ("--trace", self.trace.is_some()),
            ("--set", !self.set.is_empty()),
            ("--seed", self.seed.is_some()),
        ];
        let given = options.into_iter().filter(|(_, is_given)| *is_given);
        given.map(|(name, _)| name)
    }

    /// What changes the scenarios, in the order in which it is applied.
    pub(crate) fn settings(&self) -> Vec<String> {
        let trace = self.trace.as_ref();
        let trace = trace.map(|path| format!("--trace {}", path.display()));
        trace.into_iter().chain(self.set.iter().cloned()).collect()
    }
}

/// How many threads share the runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Threads {
    /// Threads that share the runs, with the same results; one a processor if not given
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Threads {
    fn count(&self) -> usize {
        let available = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(available).get()
    }
}

/// A sound scenario, and what it is called among those of one command.
#[derive(Debug)]
pub(crate) struct Subject {
    /// What messages call it.
    pub(crate) name: String,
    /// The folder of its records in that of the command; none if it is the only one.
    pub(crate) folder: Option<String>,
    /// What the command line changed about the scenario.
    pub(crate) settings: Vec<String>,
    pub(crate) prepared: Prepared,
}

impl Subject {
    /// Whether it is a list of deployments, even if it is a list of one.
    pub(crate) fn is_list(&self) -> bool {
        self.prepared.group.is_list
    }
}

/// How the runs of a command are done.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// How many seeds in a row each subject is run under, from its own on.
    pub(crate) seeds: u16,
    /// Where the records go, if they are wanted.
    pub(crate) out: Option<&'a Path>,
    pub(crate) threads: &'a Threads,
    /// Whether runs of equal steps are done at once.
    pub(crate) leaps: bool,
    /// Whether each of several seeds has a draw of the step times of its own, as far as their error is known.
    pub(crate) draws: bool,
    /// Whether a first seed that has a draw is run with the best step times as well.
    pub(crate) best: bool,
}

/// Runs every subject under every seed: all seeds of the first deployment of the
/// first subject, then those of the next. When all have ended well, their files
/// are put in place.
pub(crate) fn all(
    subjects: Vec<Subject>,
    options: &Options<'_>,
    terminal: &Terminal,
) -> Result<Vec<Run>, Failure> {
    let jobs = plan::jobs(subjects, options)?;
    let members = || jobs.iter().flat_map(|job| &job.members);
    let folders = members().filter_map(|member| member.folder.as_deref());
    let _unfilled = folders::Unfilled::among(folders);
    let runs = execute(jobs, options, terminal)?;
    let mut runs = by_deployment(runs, options.seeds);
    for run in &mut runs {
        if let Some(files) = run.files.take() {
            files.publish()?;
        }
    }
    Ok(runs)
}

/// The runs come seed by seed, those of all deployments together.
fn by_deployment(jobs: Vec<Vec<Run>>, seeds: u16) -> Vec<Run> {
    let mut ordered = Vec::new();
    let mut jobs = jobs.into_iter().map(Vec::into_iter);
    loop {
        let mut of_subject: Vec<_> = jobs.by_ref().take(seeds.into()).collect();
        let Some(first) = of_subject.first() else {
            return ordered;
        };
        for _ in 0..first.len() {
            ordered.extend(of_subject.iter_mut().filter_map(Iterator::next));
        }
    }
}

fn execute(
    jobs: Vec<plan::Job>,
    options: &Options<'_>,
    terminal: &Terminal,
) -> Result<Vec<Vec<Run>>, Failure> {
    let interrupt = Interrupt::listen()?;
    let progress = Progress::new(plan::expected_requests(&jobs), !terminal.quiet);
    let context = execute::Context {
        leaps: options.leaps,
        interrupt: &interrupt,
        progress: &progress,
    };
    execute::all(jobs, options.threads.count(), &context)
}

/// The summaries of runs.
pub(crate) fn summaries(runs: Vec<Run>) -> Vec<Summary> {
    runs.into_iter().map(|run| run.summary).collect()
}
