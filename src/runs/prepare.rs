//! Before the first run: is the scenario sound?

use std::path::Path;

use foresail_scenarios::format::{self, LoadError, Overrides};
use foresail_scenarios::scenario::Group;
use foresail_scenarios::workload::{Requests, WorkloadError};

use crate::diagnostics::Diagnostics;

/// A scenario that can be run.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Its deployments: one, or those of a list.
    pub(crate) group: Group,
    /// The requests of each under the scenario's own seed, opened to see that they can be.
    pub(super) requests: Vec<Requests>,
}

/// Why a scenario cannot be run.
#[derive(Debug)]
pub(crate) enum Unsound {
    Scenario(LoadError),
    Workload(WorkloadError),
}

impl Unsound {
    /// What is wrong, in a few words.
    pub(crate) fn in_short(&self) -> String {
        match self {
            Self::Scenario(error) => error.to_string(),
            Self::Workload(error) => error.to_string(),
        }
    }

    /// Adds everything that is wrong with the scenario of this path.
    pub(crate) fn add_to(&self, diagnostics: &mut Diagnostics, path: &Path) {
        match self {
            Self::Scenario(error) => diagnostics.add(error),
            Self::Workload(error) => {
                diagnostics.add_message(&format!("{}: {error}", path.display()));
            }
        }
    }
}

/// The scenario of a file or of the library, with its requests.
pub(crate) fn prepare(path: &Path, overrides: &Overrides) -> Result<Prepared, Unsound> {
    opened(format::load_group(path, overrides))
}

/// The same where there has to be one deployment.
pub(crate) fn prepare_one(path: &Path, overrides: &Overrides) -> Result<Prepared, Unsound> {
    opened(format::load_group_of_one(path, overrides))
}

fn opened(group: Result<Group, LoadError>) -> Result<Prepared, Unsound> {
    let group = group.map_err(Unsound::Scenario)?;
    let open = |scenario| {
        let seed = group.seed_of(scenario, group.seed);
        scenario.workload.open(seed)
    };
    let requests: Result<_, _> = group.deployments.iter().map(open).collect();
    let requests = requests.map_err(Unsound::Workload)?;
    Ok(Prepared { group, requests })
}
