//! `foresail simulate --list`: the ready scenarios.

use std::path::Path;

use foresail_scenarios::format::{self, Overrides};
use foresail_scenarios::library;

use crate::diagnostics::Diagnostics;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::terminal::Terminal;

pub(super) fn run(terminal: &Terminal) -> Result<ExitCode, Failure> {
    let width = library::SCENARIOS
        .iter()
        .map(|entry| entry.name.len())
        .max()
        .unwrap_or(0);
    let mut diagnostics = Diagnostics::new(terminal.error_style());
    let mut text = String::new();
    for entry in library::SCENARIOS {
        match format::parse_group(entry.name, entry.text, Path::new(""), &Overrides::default()) {
            Ok(group) => text += &format!("{:width$}  {}\n", entry.name, group.description),
            Err(error) => diagnostics.add(&error),
        }
    }
    diagnostics.into_result()?;
    terminal.print(&text)?;
    Ok(ExitCode::Success)
}
