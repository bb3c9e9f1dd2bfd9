//! Before the first run: is the scenario sound?

use std::path::Path;

use foresail_scenarios::format::{self, LoadError, Overrides};
use foresail_scenarios::scenario::Scenario;
use foresail_scenarios::workload::{Requests, WorkloadError};

use crate::diagnostics::Diagnostics;

/// A scenario that can be run.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) scenario: Scenario,
    /// Its requests under its own seed, opened to see that they can be.
    pub(crate) requests: Requests,
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
    let scenario = format::load(path, overrides).map_err(Unsound::Scenario)?;
    let requests = scenario.workload.open(scenario.seed);
    let requests = requests.map_err(Unsound::Workload)?;
    Ok(Prepared { scenario, requests })
}
