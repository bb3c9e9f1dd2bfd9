//! Which runs there will be: every scenario under every seed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use foresail_scenarios::scenario::Scenario;
use foresail_scenarios::workload::{Requests, WorkloadError};

use super::folders;
use super::prepare::Prepared;
use crate::failure::Failure;

/// One run to do.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) scenario: Arc<Scenario>,
    pub(super) seed: u64,
    /// What messages call the run.
    pub(super) name: String,
    /// The requests, if they are open already.
    requests: Option<Requests>,
    /// Where the records go, if they are wanted.
    pub(super) folder: Option<PathBuf>,
}

impl Job {
    /// The requests, from the first on.
    pub(super) fn open(&mut self) -> Result<Requests, WorkloadError> {
        match self.requests.take() {
            Some(requests) => Ok(requests),
            None => self.scenario.workload.open(self.seed),
        }
    }
}

/// The runs: all seeds of the first scenario, then those of the next.
pub(super) fn jobs(
    prepared: Vec<Prepared>,
    seeds: u16,
    out: Option<&Path>,
) -> Result<Vec<Job>, Failure> {
    let is_alone = prepared.len() == 1;
    if out.is_some() && !is_alone {
        folders::check_names(prepared.iter().map(|each| each.scenario.name.as_str()))?;
    }
    let mut jobs = Vec::new();
    for Prepared { scenario, requests } in prepared {
        let scenario = Arc::new(scenario);
        let mut requests = Some(requests);
        for seed in seed_range(&scenario, seeds)? {
            let folder = out.map(|out| {
                let name = (!is_alone).then_some(scenario.name.as_str());
                folders::of_run(out, name, (seeds > 1).then_some(seed))
            });
            let name = run_name(&scenario, seed, seeds);
            jobs.push(Job {
                scenario: Arc::clone(&scenario),
                seed,
                name,
                requests: requests.take(),
                folder,
            });
        }
    }
    Ok(jobs)
}

/// About how many requests all runs have together, where that can be known.
pub(super) fn expected_requests(jobs: &[Job]) -> Option<u64> {
    // Seeds whose requests are not open yet have about as many as the one before.
    let mut last = None;
    let counts = jobs.iter().map(|job| {
        last = job.requests.as_ref().map_or(last, Requests::len_hint);
        last
    });
    counts.sum()
}

fn seed_range(scenario: &Scenario, seeds: u16) -> Result<impl Iterator<Item = u64>, Failure> {
    let first = scenario.seed;
    let last = first.checked_add(u64::from(seeds) - 1).ok_or_else(|| {
        Failure::Input(format!(
            "{}: there are no {seeds} seeds from {first} on; give a smaller --seed",
            scenario.name
        ))
    })?;
    Ok(first..=last)
}

fn run_name(scenario: &Scenario, seed: u64, seeds: u16) -> String {
    match seeds {
        1 => scenario.name.clone(),
        _ => format!("{}, seed {seed}", scenario.name),
    }
}
