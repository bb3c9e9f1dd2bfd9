//! Which runs there will be: every subject under every seed.

use std::path::PathBuf;
use std::sync::Arc;

use foresail_scenarios::scenario::{Group, Scenario};
use foresail_scenarios::workload::{Requests, WorkloadError};

use super::prepare::Prepared;
use super::{Options, Subject, folders};
use crate::failure::Failure;

/// One run to do: a deployment, or several together.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) seed: u64,
    /// What messages call the run.
    pub(crate) name: String,
    /// At least one.
    pub(crate) members: Vec<Member>,
    /// Whether they are those of a list, even if it is a list of one.
    pub(crate) is_list: bool,
}

/// A deployment of a run.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) scenario: Arc<Scenario>,
    /// What the command line changed about the scenario.
    pub(crate) settings: Arc<[String]>,
    /// Whether it has a draw of the step times of its own, by the run's seed.
    pub(crate) is_drawn: bool,
    /// Whether the run with the best step times is wanted beside that with the draw.
    pub(crate) is_best_wanted: bool,
    /// The seed of the run, which reports are of.
    pub(crate) run_seed: u64,
    /// What it draws is under this seed: that of the run, or in a list one derived from it.
    pub(crate) seed: u64,
    /// What messages call it.
    pub(crate) name: String,
    /// The requests, if they are open already.
    requests: Option<Requests>,
    /// Where the records go, if they are wanted.
    pub(crate) folder: Option<PathBuf>,
}

impl Member {
    /// The same with the best step times, and without records.
    pub(crate) fn best(&self) -> Self {
        Self {
            scenario: Arc::clone(&self.scenario),
            settings: Arc::clone(&self.settings),
            is_drawn: false,
            is_best_wanted: false,
            name: self.name.clone(),
            requests: None,
            folder: None,
            ..*self
        }
    }

    /// The requests, from the first on.
    pub(crate) fn open(&mut self) -> Result<Requests, WorkloadError> {
        match self.requests.take() {
            Some(requests) => Ok(requests),
            None => self.scenario.workload.open(self.seed),
        }
    }
}

/// The runs: all seeds of the first subject, then those of the next.
pub(crate) fn jobs(subjects: Vec<Subject>, options: &Options<'_>) -> Result<Vec<Job>, Failure> {
    let mut jobs = Vec::new();
    for subject in subjects {
        jobs.extend(of_subject(subject, options)?);
    }
    Ok(jobs)
}

/// All seeds of a subject.
fn of_subject(subject: Subject, options: &Options<'_>) -> Result<Vec<Job>, Failure> {
    let (seeds, out) = (options.seeds, options.out);
    let Prepared {
        mut group,
        requests,
    } = subject.prepared;
    let seed_range = seed_range(&subject.name, group.seed, seeds)?;
    let scenarios: Vec<_> = group.deployments.drain(..).map(Arc::new).collect();
    let settings: Arc<[String]> = subject.settings.into();
    let mut opened: Vec<_> = requests.into_iter().map(Some).collect();
    let first_seed = group.seed;
    let jobs = seed_range.map(|seed| {
        let folder = |deployment: &str| {
            let deployment = group.is_list.then_some(deployment);
            let seed = (seeds > 1).then_some(seed);
            out.map(|out| folders::of_run(out, subject.folder.as_deref(), deployment, seed))
        };
        let member = |(scenario, requests): (&Arc<Scenario>, &mut Option<Requests>)| Member {
            scenario: Arc::clone(scenario),
            settings: Arc::clone(&settings),
            is_drawn: seeds > 1 && options.draws && scenario.has_draws(),
            is_best_wanted: options.best && seed == first_seed,
            run_seed: seed,
            seed: group.seed_of(scenario, seed),
            name: member_name(&group, &subject.name, scenario, seed, seeds),
            requests: requests.take(),
            folder: folder(&scenario.name),
        };
        Job {
            seed,
            name: run_name(&subject.name, seed, seeds),
            members: scenarios.iter().zip(&mut opened).map(member).collect(),
            is_list: group.is_list,
        }
    });
    Ok(jobs.collect())
}

/// About how many requests all runs have together, where that can be known.
pub(crate) fn expected_requests(jobs: &[Job]) -> Option<u64> {
    // Seeds whose requests are not open yet have about as many as the one before.
    let mut last: Option<u64> = None;
    let counts = jobs.iter().map(|job| {
        if job.members.iter().all(|member| member.requests.is_some()) {
            let open = job.members.iter().flat_map(|member| &member.requests);
            last = open.map(Requests::len_hint).sum();
        }
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

fn member_name(group: &Group, subject: &str, scenario: &Scenario, seed: u64, seeds: u16) -> String {
    let name = match group.is_list {
        true => &scenario.name,
        false => subject,
    };
    run_name(name, seed, seeds)
}

fn run_name(name: &str, seed: u64, seeds: u16) -> String {
    match seeds {
        1 => name.to_owned(),
        _ => format!("{name}, seed {seed}"),
    }
}
