//! A baseline: folders of runs, or one small file that can be committed.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use foresail_reports::gate::GateRun;
use foresail_reports::gate::baseline::Baseline as File;
use foresail_reports::summary::Source;

use super::runs::{self, Run};
use crate::cli::tool;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output_file::{OutputFile, Place};
use crate::terminal::Terminal;

/// What the candidate is compared with.
pub(super) enum Baseline {
    /// Runs in folders.
    Runs(Vec<Run>),
    /// Runs out of a file.
    File(Vec<GateRun>),
}

impl Baseline {
    pub(super) fn into_runs(self) -> Vec<GateRun> {
        match self {
            Self::Runs(runs) => runs.into_iter().map(|run| run.gate).collect(),
            Self::File(runs) => runs,
        }
    }
}

/// Reads folders, or one file.
pub(super) fn read(paths: &[PathBuf]) -> Result<Baseline, Failure> {
    let Some(file) = paths.iter().find(|path| path.is_file()) else {
        return runs::read_all(paths).map(Baseline::Runs);
    };
    if paths.len() > 1 {
        return Err(Failure::Input(format!(
            "`{}` is a file, and a baseline is one file or folders of runs; name it alone",
            file.display()
        )));
    }
    let refused =
        |error: String| Failure::Input(format!("cannot read {}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    let read = File::from_json(&text).map_err(|error| refused(error.to_string()))?;
    Ok(Baseline::File(read.runs))
}

/// Writes what a gate needs of the runs to one file.
pub(super) fn save(
    file: &Path,
    folders: &[PathBuf],
    terminal: &Terminal,
) -> Result<ExitCode, Failure> {
    let runs = runs::read_all(folders)?;
    if let Some(run) = runs
        .iter()
        .find(|run| run.summary.source == Source::Simulated)
    {
        return Err(Failure::Input(format!(
            "{} is simulated, and simulated runs are compared to the last digit; keep the folder, or \
             its summary.json alone, and name it as the baseline",
            run.folder.display()
        )));
    }
    if let Some(run) = runs.iter().find(|run| !run.gate.degraded.is_empty()) {
        return Err(Failure::Input(format!(
            "{} is degraded and no baseline: {}; leave it out, or measure it again",
            run.folder.display(),
            run.gate.degraded.join("; ")
        )));
    }
    let count = runs.len();
    let runs = runs.into_iter().map(|run| run.gate).collect();
    let json = File::new(tool(), runs)
        .to_json()
        .map_err(|error| Failure::Defect(format!("the baseline has no JSON form: {error}")))?;
    let place = Place::Path(file.to_owned());
    let mut output = OutputFile::create(&place)?;
    output
        .write_all(json.as_bytes())
        .map_err(|error| place.failure(error))?;
    output.finish()?;
    let plural = if count == 1 { "" } else { "s" };
    terminal.print(&format!(
        "wrote {}: {count} run{plural}, {} bytes\n",
        file.display(),
        json.len()
    ))?;
    Ok(ExitCode::Success)
}
