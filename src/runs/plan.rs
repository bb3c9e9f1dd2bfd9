//! Which runs there will be: every subject under every seed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use foresail_scenarios::scenario::Scenario;
use foresail_scenarios::workload::{Requests, WorkloadError};

use super::prepare::Prepared;
use super::{Subject, folders};
use crate::failure::Failure;

/// One run to do.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) scenario: Arc<Scenario>,
    /// What the command line changed about the scenario.
    pub(crate) settings: Arc<[String]>,
    pub(crate) seed: u64,
    /// What messages call the run.
    pub(crate) name: String,
    /// The requests, if they are open already.
    requests: Option<Requests>,
    /// Where the records go, if they are wanted.
    pub(crate) folder: Option<PathBuf>,
}

impl Job {
    /// The requests, from the first on.
    pub(crate) fn open(&mut self) -> Result<Requests, WorkloadError> {
        match self.requests.take() {
            Some(requests) => Ok(requests),
            None => self.scenario.workload.open(self.seed),
        }
    }
}

/// The runs: all seeds of the first subject, then those of the next.
pub(crate) fn jobs(
    subjects: Vec<Subject>,
    seeds: u16,
    out: Option<&Path>,
) -> Result<Vec<Job>, Failure> {
    let mut jobs = Vec::new();
    for subject in subjects {
        let Prepared { scenario, requests } = subject.prepared;
        let scenario = Arc::new(scenario);
        let settings: Arc<[String]> = subject.settings.into();
        let mut requests = Some(requests);
        for seed in seed_range(&subject.name, scenario.seed, seeds)? {
            let folder = out.map(|out| {
                let name = subject.folder.as_deref();
                folders::of_run(out, name, (seeds > 1).then_some(seed))
            });
            jobs.push(Job {
                scenario: Arc::clone(&scenario),
                settings: Arc::clone(&settings),
                seed,
                name: run_name(&subject.name, seed, seeds),
                requests: requests.take(),
                folder,
            });
        }
    }
    Ok(jobs)
}

/// About how many requests all runs have together, where that can be known.
pub(crate) fn expected_requests(jobs: &[Job]) -> Option<u64> {
    // Seeds whose requests are not open yet have about as many as the one before.
    let mut last = None;
    let counts = jobs.iter().map(|job| {
        last = job.requests.as_ref().map_or(last, Requests::len_hint);
        last
    });
    counts.sum()
}

fn seed_range(name: &str, first: u64, seeds: u16) -> Result<impl Iterator<Item = u64>, Failure> {
    let last = first.checked_add(u64::from(seeds) - 1).ok_or_else(|| {
        Failure::Input(format!(
            "{name}: there are no {seeds} seeds from {first} on; give a smaller --seed"
        ))
    })?;
    Ok(first..=last)
}

fn run_name(name: &str, seed: u64, seeds: u16) -> String {
    match seeds {
        1 => name.to_owned(),
        _ => format!("{name}, seed {seed}"),
    }
}
