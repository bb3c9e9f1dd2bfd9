//! The shards of a run that several machines shared, put together again.
//!
//! Records are interleaved by their ends and counted as if one client had
//! taken them; histograms are added, percentiles never averaged. So the merge
//! of a run that was split has the figures of the run that was not. What is
//! not there, or does not fit, is said: a shard that is missing makes the run
//! degraded, another plan is refused.
//!
//! ITL is the one figure that the records do not give: its histograms are
//! those of each shard's own window. The deployment is one, whoever looks at
//! it: what is known of it is from the shard that knows most.

mod interleave;
mod measured;
mod plan;

use crate::files::{
    FilesError, MeasuredFiles, ReadError, Requests, read_attempts, read_changes, read_histograms,
    read_intervals, read_requests, read_summary,
};
use crate::histogram::Histogram;
use crate::histograms::Histograms;
use crate::measurements::{Measurements, latency_summary};
use crate::objectives::ObjectiveSpec;
use crate::records::{MeasuredTotals, RecordSink, RequestRecord};
use crate::summary::{RunDescription, Summary, Tool};
use crate::window::WindowTally;
use interleave::Interleaved;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why runs cannot be merged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MergeError {
    /// There are none.
    #[error("there is nothing to merge; name the folders of the shards of a run")]
    Nothing,
    /// A simulated run, or one of the whole plan.
    #[error(
        "{} is not a shard of a measured run; name folders that `foresail load --shard I/N --out` wrote",
        folder.display()
    )]
    NoShard {
        /// The folder.
        folder: PathBuf,
    },
    /// Shards of different runs.
    #[error(
        "{} and {} are not of the same run: they differ in {what}; \
         name shards that were run with the same arguments",
        first.display(), other.display()
    )]
    NotAlike {
        /// A folder.
        first: PathBuf,
        /// The folder that differs from it.
        other: PathBuf,
        /// In what.
        what: &'static str,
    },
    /// A shard is there twice.
    #[error("{} and {} are both shard {part}; leave one out", first.display(), other.display())]
    Twice {
        /// A folder.
        first: PathBuf,
        /// Another of the same shard.
        other: PathBuf,
        /// Which, from 1.
        part: u32,
    },
    /// The merged run would be written over a shard.
    #[error("{} is one of the shards, which the merged run would replace; name another folder", folder.display())]
    IntoShard {
        /// The folder.
        folder: PathBuf,
    },
    /// A shard cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The merged run cannot be written.
    #[error(transparent)]
    Write(#[from] FilesError),
}

/// A shard that is to be merged.
#[derive(Debug)]
struct Source {
    folder: PathBuf,
    summary: Summary,
    histograms: Histograms,
}

impl Source {
    fn read(folder: &Path) -> Result<Self, MergeError> {
        let summary = read_summary(folder)?;
        let is_shard = summary
            .measured
            .as_ref()
            .is_some_and(|measured| measured.shard.is_some());
        if !is_shard {
            return Err(MergeError::NoShard {
                folder: folder.to_owned(),
            });
        }
        Ok(Self {
            histograms: read_histograms(folder)?,
            folder: folder.to_owned(),
            summary,
        })
    }
}

/// A shard that the run is written over is lost.
fn check_target(folders: &[PathBuf], target: &Path) -> Result<(), MergeError> {
    let Ok(target) = target.canonicalize() else {
        return Ok(());
    };
    let is_target = |folder: &&PathBuf| folder.canonicalize().is_ok_and(|place| place == target);
    match folders.iter().find(is_target) {
        Some(folder) => Err(MergeError::IntoShard {
            folder: folder.clone(),
        }),
        None => Ok(()),
    }
}

/// Merges the shards in the folders into a run in the target folder, and says what it comes to.
///
/// # Errors
/// If a shard cannot be read, if they are not all of one run, or if the
/// target cannot be written. Nothing is left in the target then.
pub fn merge(
    folders: &[PathBuf],
    target: impl AsRef<Path>,
    tool: Tool,
) -> Result<Summary, MergeError> {
    let mut sources = Vec::new();
    for folder in folders {
        sources.push(Source::read(folder)?);
    }
    plan::check(&sources)?;
    sources.sort_by_key(|source| plan::shard(&source.summary).parts.iter().min().copied());
    check_target(folders, target.as_ref())?;
    let mut files = MeasuredFiles::create(target)?;
    let merged = Merged::of(&sources, &mut files)?;
    let (summary, histograms) = merged.summary(&sources, tool);
    // The shards are still there: half a merge is of no use to anybody.
    files.finish_whole(&summary, &histograms)?;
    Ok(summary)
}

/// The records of all shards, counted.
struct Merged {
    measurements: Measurements,
    tally: WindowTally,
    offered: u64,
    itl: Histogram,
    loop_lag: Histogram,
    /// Objectives that cannot be judged again, by their names.
    unknown: Vec<String>,
}

impl Merged {
    fn of(sources: &[Source], files: &mut MeasuredFiles) -> Result<Self, MergeError> {
        let (specs, unknown) = objectives(&sources[0].summary);
        let (from_ns, until_ns) = measured::window(sources);
        let mut merged = Self {
            measurements: Measurements::new(&specs),
            tally: WindowTally::new(from_ns, until_ns),
            offered: 0,
            itl: Histogram::new(),
            loop_lag: Histogram::new(),
            unknown,
        };
        for source in sources {
            merged.itl.add(&source.histograms.itl);
            merged.loop_lag.add(&source.histograms.loop_lag);
        }
        merged.measurements.set_window(from_ns, until_ns);
        merged.measurements.add_itl(&merged.itl);
        let folders: Vec<_> = sources.iter().map(|source| &source.folder).collect();
        merged.changes(measured::of_deployment(sources), files)?;
        merged.requests(&folders, files)?;
        attempts(&folders, files)?;
        server(&folders, files)?;
        Ok(merged)
    }

    fn changes(&mut self, source: &Source, files: &mut MeasuredFiles) -> Result<(), ReadError> {
        for change in read_changes(&source.folder)? {
            self.measurements.change(&change);
            files.change(&change);
        }
        Ok(())
    }

    fn requests(
        &mut self,
        folders: &[&PathBuf],
        files: &mut MeasuredFiles,
    ) -> Result<(), ReadError> {
        let shards: Result<Vec<Requests>, _> = folders.iter().map(read_requests).collect();
        for record in Interleaved::new(shards?) {
            self.request(record?, files);
        }
        Ok(())
    }

    fn request(&mut self, mut record: RequestRecord, files: &mut MeasuredFiles) {
        let is_in_window = self.tally.holds(record.due_ns);
        if let Some(wire) = &mut record.wire {
            wire.is_in_window = is_in_window;
        }
        self.tally.request(&record);
        if is_in_window {
            self.offered += 1;
            self.measurements.request(&record);
        } else {
            self.measurements.beside(&record);
        }
        files.request(&record);
    }

    fn summary(&self, sources: &[Source], tool: Tool) -> (Summary, Histograms) {
        let mut histograms = Histograms::of(&self.measurements);
        histograms.send_late = self.tally.send_late().clone();
        histograms.loop_lag = self.loop_lag.clone();
        let end_ns = sources
            .iter()
            .map(|source| nanos(source.summary.duration_s));
        let end_ns = end_ns.max().unwrap_or(0);
        let mut measured = measured::merge(sources, &self.tally, end_ns);
        measured.client.loop_lag_s = latency_summary(&self.loop_lag);
        measured.degraded.extend(measured::unjudged(&self.unknown));
        let first = &sources[0].summary;
        let description = RunDescription {
            tool,
            source: first.source,
            scenario: first.scenario.clone(),
            seed: first.seed,
        };
        let totals = MeasuredTotals {
            offered: self.offered,
            end_ns,
            deployment: measured::deployment(&measured::of_deployment(sources).summary),
            measured,
        };
        let summary = self.measurements.measured_summary(&description, &totals);
        (summary, histograms)
    }
}

/// What the run is judged by, and the names of objectives that say nothing here.
fn objectives(summary: &Summary) -> (Vec<ObjectiveSpec>, Vec<String>) {
    let (mut specs, mut unknown) = (Vec::new(), Vec::new());
    for objective in &summary.objectives {
        match ObjectiveSpec::from_objective(objective) {
            Some(spec) => specs.push(spec),
            None => unknown.push(objective.name.clone()),
        }
    }
    (specs, unknown)
}

fn attempts(folders: &[&PathBuf], files: &mut MeasuredFiles) -> Result<(), ReadError> {
    let mut all = Vec::new();
    for folder in folders {
        all.extend(read_attempts(folder)?);
    }
    all.sort_by_key(|attempt| (attempt.end_ns, attempt.id, attempt.attempt));
    all.iter().for_each(|attempt| files.attempt(attempt));
    Ok(())
}

/// Each shard's seconds count alike where several asked the server.
fn server(folders: &[&PathBuf], files: &mut MeasuredFiles) -> Result<(), ReadError> {
    for folder in folders {
        for interval in read_intervals(folder)? {
            files.server(interval.from_ns, &interval.server);
        }
    }
    Ok(())
}

/// Whole nanoseconds: what was written as seconds was made of them.
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}
