//! Before the first run: are all scenarios sound?

use std::path::PathBuf;

use foresail_scenarios::format::{self, Overrides};
use foresail_scenarios::scenario::Scenario;
use foresail_scenarios::workload::Requests;

use crate::diagnostics::Diagnostics;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// A scenario that can be run.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) scenario: Scenario,
    /// Its requests under its own seed, opened to see that they can be.
    pub(super) requests: Requests,
}

/// All scenarios, or everything that is wrong with any of them.
pub(super) fn all(
    paths: &[PathBuf],
    overrides: &Overrides,
    terminal: &Terminal,
) -> Result<Vec<Prepared>, Failure> {
    let mut diagnostics = Diagnostics::new(terminal.error_style());
    let mut prepared = Vec::new();
    for path in paths {
        match format::load(path, overrides) {
            Err(error) => diagnostics.add(&error),
            Ok(scenario) => match scenario.workload.open(scenario.seed) {
                Err(error) => diagnostics.add_message(&format!("{}: {error}", path.display())),
                Ok(requests) => prepared.push(Prepared { scenario, requests }),
            },
        }
    }
    diagnostics.into_result()?;
    Ok(prepared)
}
