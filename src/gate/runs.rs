//! The runs that the command line names.

use std::fs;
use std::path::{Path, PathBuf};

use foresail_reports::gate::{GateRun, LatencyName};
use foresail_reports::{Summary, files};

use crate::failure::Failure;

const SUMMARY: &str = "summary.json";
const HISTOGRAMS: &str = "histograms.json";

/// What folders of single runs are called inside another.
const PREFIXES: [&str; 2] = ["run-", "seed-"];

/// A run in a folder.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) folder: PathBuf,
    pub(super) summary: Summary,
    pub(super) gate: GateRun,
}

/// A run that is named twice would count as two.
fn check_twice(folders: &[PathBuf]) -> Result<(), Failure> {
    let place = |folder: &PathBuf| folder.canonicalize().unwrap_or_else(|_| folder.clone());
    let places: Vec<_> = folders.iter().map(place).collect();
    let twice = (1..places.len()).find(|&index| places[..index].contains(&places[index]));
    match twice {
        Some(index) => Err(Failure::Input(format!(
            "`{}` is named twice on one side; leave one out",
            folders[index].display()
        ))),
        None => Ok(()),
    }
}

/// The runs of all folders, in the order in which they are named.
pub(super) fn read_all(folders: &[PathBuf]) -> Result<Vec<Run>, Failure> {
    let mut runs = Vec::new();
    check_twice(folders)?;
    for folder in folders {
        for folder in run_folders(folder)? {
            runs.push(read(folder)?);
        }
    }
    Ok(runs)
}

/// The folder itself if it is that of a run, or those in it, in the order of their numbers.
fn run_folders(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    if folder.join(SUMMARY).is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    let unreadable = |error| Failure::Input(format!("cannot read {}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
        if let Some(number) = number.filter(|_| entry.path().join(SUMMARY).is_file()) {
            // As numbers where they are: run-10 comes after run-9.
            found.push((
                number.parse::<u64>().unwrap_or(u64::MAX),
                name,
                entry.path(),
            ));
        }
    }
    if found.is_empty() {
        return Err(Failure::Input(format!(
            "`{}` holds no run: neither `{SUMMARY}` nor a folder `run-N` or `seed-N` that has one; \
             name a folder that `--out` was given, or one in it",
            folder.display()
        )));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

fn read(folder: PathBuf) -> Result<Run, Failure> {
    let refused = |error: files::ReadError| Failure::Input(error.to_string());
    let summary = files::read_summary(&folder).map_err(refused)?;
    let name = folder
        .components()
        .collect::<PathBuf>()
        .display()
        .to_string();
    let mut gate = GateRun::of(name, &summary);
    // A simulated run has none, nor has an older one.
    if folder.join(HISTOGRAMS).is_file() {
        let histograms = files::read_histograms(&folder).map_err(refused)?;
        gate.histograms = [
            (LatencyName::Ttft, histograms.ttft),
            (LatencyName::Itl, histograms.itl),
            (LatencyName::Tpot, histograms.tpot),
            (LatencyName::E2e, histograms.e2e),
        ]
        .into();
    }
    Ok(Run {
        folder,
        summary,
        gate,
    })
}
