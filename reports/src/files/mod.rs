//! The files of a run: tables while it runs, `summary.json` at its end.
//!
//! They grow in a staging folder inside the target and are moved into place
//! by [`RecordFiles::finish`], the summary last: where there is a
//! `summary.json`, all of the run is there. A run that fails, or is dropped
//! unfinished, leaves nothing behind. Staging inside the target rather than
//! beside it needs no right to write to the parent, and never crosses from
//! one file system to another, even if the target is a mount.
//!
//! Columns of `requests.csv`, one row a request in the order of their ends:
//! `id, due_s, prompt_tokens, output_tokens, session, adapter, attempts, replica,
//! cached_tokens, preemptions, outcome, first_token_s, end_s, retry_s,
//! cold_start_s, queue_s, adapter_s, prefill_s, preemption_s, decode_s`. TTFT is
//! `first_token_s - due_s`, E2E is `end_s - due_s` and the sum of the last seven. Where requests
//! spend time outside the engine, `outside_s` follows and is part of the sum. Columns of `timeline.csv`, one
//! row a change: `at_s, change, replica, target, starting, ready, draining,
//! reason`. Seconds have nine decimals, so they are exact; what there is none
//! of is empty.
//!
//! A measured run has the same columns in the same order. The parts of a
//! request's time are empty, and what its client saw follows ([`Wire`](crate::records::Wire)): `sent_s,
//! last_output_s, status, chunks, tokens_from, connection, body_bytes, in_window`, where `tokens_from` is
//! `usage`, `chunks` or `asked` and `connection` is `new`, `reused` or empty if there
//! was none. Beside those two tables it has
//! - `attempts.csv`, if a request failed, was refused or was sent more than once: each attempt at
//!   those: `id, attempt, sent_s, connect_s, status, first_token_s, end_s, outcome,
//!   retry_after_s, detail`;
//! - `intervals.csv`, one row a second ([`Interval`](crate::intervals::Interval)): `from_s, until_s, asked, sent, completed,
//!   failed, rejected, in_flight, output_tokens, ttft_s_p50, ttft_s_p99, running,
//!   waiting, kv_usage, ready_replicas`, the last four if the server told;
//! - `histograms.json` ([`Histograms`](crate::histograms::Histograms)), so that runs can be added.
//!
//! A measured run is expensive where a simulated one takes milliseconds. One that
//! was interrupted is published like any other, and its summary says so. One whose
//! disk filled up leaves whole rows in a folder `incomplete`, without a summary.

mod csv;
mod measured;
mod read;
mod staging;

pub use measured::MeasuredFiles;
pub use read::{
    ReadError, Requests, read_attempts, read_changes, read_histograms, read_intervals,
    read_requests, read_summary,
};

use crate::records::{Change, Gaps, RecordSink, RequestRecord};
use crate::summary::Summary;
use csv::{CsvFile, write_change, write_outside, write_request};
use staging::Staging;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// One row a request.
pub const REQUESTS: &str = "requests.csv";
/// One row a change of the deployment.
pub const TIMELINE: &str = "timeline.csv";
/// One row an attempt, of the measured requests that did not complete at once.
pub const ATTEMPTS: &str = "attempts.csv";
/// One row a second of a measured run.
pub const INTERVALS: &str = "intervals.csv";
/// The histograms of a measured run.
pub const HISTOGRAMS: &str = "histograms.json";
/// What a run comes to.
pub const SUMMARY: &str = "summary.json";

/// All files that a run may have, the summary last.
const ALL: [&str; 6] = [REQUESTS, TIMELINE, ATTEMPTS, INTERVALS, HISTOGRAMS, SUMMARY];

/// The folder of a measured run whose disk filled up.
const INCOMPLETE: &str = "incomplete";

/// Made later, out of the others; of another run once they are replaced.
const REPORT: &str = "report.html";

const REQUESTS_HEADER: &str = "id,due_s,prompt_tokens,output_tokens,session,adapter,\
    attempts,replica,cached_tokens,preemptions,outcome,first_token_s,end_s,retry_s,cold_start_s,\
    queue_s,adapter_s,prefill_s,preemption_s,decode_s\n";
const OUTSIDE_HEADER: &str = ",outside_s\n";
const TIMELINE_HEADER: &str = "at_s,change,replica,target,starting,ready,draining,reason\n";

/// Why the files of a run cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The target is a file.
    #[error("{} is a file where a folder is needed; name another folder", path.display())]
    NotAFolder {
        /// The target.
        path: PathBuf,
    },
    /// The target holds something that a run did not write.
    #[error(
        "{} holds `{found}`, which is no record of a run; name a new folder, or empty this one",
        path.display()
    )]
    NotOurs {
        /// The target.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// This process is already writing to the target.
    #[error("{} is being written by another run; name another folder", path.display())]
    Busy {
        /// The target.
        path: PathBuf,
    },
    /// There is no space left.
    #[error("no space left to write {}; free some, or name a folder on another disk", path.display())]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Writing is not allowed.
    #[error(
        "no permission to write {}; change its permissions, or name another folder",
        path.display()
    )]
    NotPermitted {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Anything else the system refuses.
    #[error("cannot write {}: {source}; name another folder", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The records of a measured run could not all be written; those before are kept.
    #[error("{source}; what was written before is in {}, which is not the whole run", kept.display())]
    Incomplete {
        /// Where what was written is.
        kept: PathBuf,
        /// What stopped the writing.
        source: Box<FilesError>,
    },
}

impl FilesError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, source }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotPermitted { path, source }
            }
            io::ErrorKind::NotADirectory => Self::NotAFolder { path },
            _ => Self::Io { path, source },
        }
    }
}

/// Writes the records of a run to a folder.
///
/// A sink cannot refuse a record: the first error stops the writing, and
/// [`RecordFiles::finish`] reports it. [`RecordFiles::error`] tells earlier.
#[derive(Debug)]
pub struct RecordFiles {
    staging: Staging,
    requests: CsvFile,
    timeline: CsvFile,
    has_outside: bool,
    error: Option<FilesError>,
}

impl RecordFiles {
    /// Begins to write to the folder, which is created if need be. A folder
    /// that holds the files of an earlier run is taken over at the end.
    ///
    /// # Errors
    /// If the folder cannot be written, or holds anything that is not ours.
    pub fn create(target: impl AsRef<Path>) -> Result<Self, FilesError> {
        let staging = Staging::create(target.as_ref())?;
        let requests = CsvFile::create(staging.file(REQUESTS), REQUESTS_HEADER)?;
        let timeline = CsvFile::create(staging.file(TIMELINE), TIMELINE_HEADER)?;
        Ok(Self {
            staging,
            requests,
            timeline,
            has_outside: false,
            error: None,
        })
    }

    /// The same with the column `outside_s`: of a run whose requests spend time outside the engine.
    /// Others do without, so that their files stay as they were before there was such a time.
    ///
    /// # Errors
    /// If the folder cannot be written any more.
    pub fn with_outside(mut self) -> Result<Self, FilesError> {
        let header = REQUESTS_HEADER.trim_end().to_owned() + OUTSIDE_HEADER;
        self.requests = CsvFile::create(self.staging.file(REQUESTS), &header)?;
        self.has_outside = true;
        Ok(self)
    }

    /// The first error so far, after which nothing more is written.
    #[must_use]
    pub fn error(&self) -> Option<&FilesError> {
        self.error.as_ref()
    }

    /// The first error so far, if the run is given up because of it.
    #[must_use]
    pub fn into_error(self) -> Option<FilesError> {
        self.error
    }

    /// Writes the summary, without its wall time, and puts the files in place.
    ///
    /// # Errors
    /// If anything could not be written, now or earlier. Nothing is left then.
    pub fn finish(self, summary: &Summary) -> Result<(), FilesError> {
        self.seal(summary)?.publish()
    }

    /// Writes the summary, without its wall time, and closes the files without
    /// putting them in place yet: several runs can so be published together,
    /// or not at all.
    ///
    /// # Errors
    /// If anything could not be written, now or earlier. Nothing is left then.
    pub fn seal(mut self, summary: &Summary) -> Result<SealedFiles, FilesError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.requests.finish()?;
        self.timeline.finish()?;
        write_summary(&self.staging, summary)?;
        Ok(SealedFiles {
            staging: self.staging,
        })
    }

    fn note(&mut self, written: Result<(), FilesError>) {
        if let Err(error) = written {
            self.error = Some(error);
        }
    }
}

/// Writes the summary, without its wall time.
fn write_summary(staging: &Staging, summary: &Summary) -> Result<(), FilesError> {
    let path = staging.file(SUMMARY);
    let json = summary.clone().without_wall().to_json();
    let json = json.map_err(|error| FilesError::new(&path, error.into()))?;
    std::fs::write(&path, json).map_err(|error| FilesError::new(&path, error))
}

/// The files of a run that has ended, not in place yet. Dropped, they are gone.
#[derive(Debug)]
pub struct SealedFiles {
    staging: Staging,
}

impl SealedFiles {
    /// Puts the files in place.
    ///
    /// # Errors
    /// If the target cannot be written any more.
    pub fn publish(self) -> Result<(), FilesError> {
        self.staging.publish()
    }
}

impl RecordSink for RecordFiles {
    #[inline]
    fn request(&mut self, record: &RequestRecord) {
        if self.error.is_none() {
            let has_outside = self.has_outside;
            let written = self.requests.row(|row| {
                write_request(row, record);
                if has_outside {
                    write_outside(row, record.parts.as_ref());
                }
            });
            self.note(written);
        }
    }

    fn gaps(&mut self, _: Gaps) {}

    fn change(&mut self, change: &Change) {
        if self.error.is_none() {
            let written = self.timeline.row(|row| write_change(row, change));
            self.note(written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurements::Measurements;
    use crate::records::{ChangeKind, Outcome, Parts, ReplicaCounts, RunTotals};
    use crate::summary::RunDescription;
    use std::fs;

    fn summary() -> Summary {
        let totals = RunTotals {
            steps: 7,
            ..RunTotals::default()
        };
        Measurements::new(&[]).summary(&RunDescription::default(), &totals)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn record() -> RequestRecord {
        RequestRecord {
            id: 3,
            due_ns: 1_500_000_000,
            prompt_tokens: 512,
            output_tokens: 128,
            session: None,
            adapter: None,
            attempts: 1,
            replica: Some(2),
            cached_tokens: 64,
            preemptions: 1,
            outcome: Outcome::Completed,
            first_token_ns: Some(63_000_000_001),
            end_ns: 65_000_000_000,
            parts: Some(Parts {
                retry_ns: 0,
                outside_ns: 0,
                cold_start_ns: 61_000_000_000,
                queue_ns: 300_000_000,
                adapter_ns: 100_000_000,
                prefill_ns: 100_000_001,
                preemption_ns: 5,
                decode_ns: 1_999_999_994,
            }),
            wire: None,
        }
    }

    fn change(reason: &str) -> Change {
        Change {
            at_ns: 12,
            kind: ChangeKind::Ready,
            replica: Some(1),
            reason: reason.into(),
            replicas: ReplicaCounts {
                target: 3,
                starting: 1,
                ready: 2,
                draining: 0,
            },
        }
    }

    #[test]
    fn a_finished_run_is_three_files() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("new/run");
        let mut files = RecordFiles::create(&target).unwrap();
        files.request(&record());
        files.request(&RequestRecord {
            replica: None,
            session: Some(9),
            adapter: Some(4),
            attempts: 2,
            first_token_ns: None,
            outcome: Outcome::RejectedScalingUp,
            ..record()
        });
        files.change(&change("warmed up"));
        files.change(&change("load 3.2 > 2, for 30 s: \"sustained\""));
        files.finish(&summary().with_wall_s(1.0)).unwrap();
        assert_eq!(
            names(&target),
            ["requests.csv", "summary.json", "timeline.csv"]
        );
        insta::assert_snapshot!(fs::read_to_string(target.join(REQUESTS)).unwrap(), @r"
        id,due_s,prompt_tokens,output_tokens,session,adapter,attempts,replica,cached_tokens,preemptions,outcome,first_token_s,end_s,retry_s,cold_start_s,queue_s,adapter_s,prefill_s,preemption_s,decode_s
        3,1.500000000,512,128,,,1,2,64,1,completed,63.000000001,65.000000000,0.000000000,61.000000000,0.300000000,0.100000000,0.100000001,0.000000005,1.999999994
        3,1.500000000,512,128,9,4,2,,64,1,rejected_scaling_up,,65.000000000,0.000000000,61.000000000,0.300000000,0.100000000,0.100000001,0.000000005,1.999999994
        ");
        insta::assert_snapshot!(fs::read_to_string(target.join(TIMELINE)).unwrap(), @r#"
        at_s,change,replica,target,starting,ready,draining,reason
        0.000000012,ready,1,3,1,2,0,warmed up
        0.000000012,ready,1,3,1,2,0,"load 3.2 > 2, for 30 s: ""sustained"""
        "#);
        let json = fs::read_to_string(target.join(SUMMARY)).unwrap();
        assert_eq!(Summary::from_json(&json).unwrap(), summary());
    }

    #[test]
    fn time_outside_the_engine_has_its_column_where_there_is_any() {
        let parent = tempfile::tempdir().unwrap();
        let mut files = RecordFiles::create(parent.path()).unwrap();
        files = files.with_outside().unwrap();
        let mut record = record();
        record.parts.as_mut().unwrap().outside_ns = 7;
        files.request(&record);
        files.finish(&summary()).unwrap();
        let text = fs::read_to_string(parent.path().join(REQUESTS)).unwrap();
        assert!(
            text.lines()
                .next()
                .unwrap()
                .ends_with(",decode_s,outside_s")
        );
        let read: Result<Vec<_>, _> = read_requests(parent.path()).unwrap().collect();
        assert_eq!(read.unwrap(), [record]);
    }

    #[test]
    fn a_dropped_run_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let mut files = RecordFiles::create(parent.path().join("a/run")).unwrap();
        files.request(&record());
        drop(files);
        assert!(names(parent.path()).is_empty());
    }

    #[test]
    fn a_sealed_run_is_in_place_once_it_is_published() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("run");
        drop(
            RecordFiles::create(&target)
                .unwrap()
                .seal(&summary())
                .unwrap(),
        );
        assert!(names(parent.path()).is_empty());
        let sealed = RecordFiles::create(&target)
            .unwrap()
            .seal(&summary())
            .unwrap();
        assert_eq!(names(&target), [format!(".partial-{}", std::process::id())]);
        sealed.publish().unwrap();
        assert_eq!(
            names(&target),
            ["requests.csv", "summary.json", "timeline.csv"]
        );
    }

    #[test]
    fn an_earlier_run_is_replaced_only_at_the_end() {
        let target = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(target.path().join(name), "old").unwrap();
        [REQUESTS, TIMELINE, SUMMARY, REPORT]
            .iter()
            .for_each(|name| write(name));
        let read = |name: &str| fs::read_to_string(target.path().join(name)).unwrap();
        drop(RecordFiles::create(target.path()).unwrap());
        assert_eq!([REQUESTS, TIMELINE, SUMMARY, REPORT].map(read), ["old"; 4]);
        RecordFiles::create(target.path())
            .unwrap()
            .finish(&summary())
            .unwrap();
        assert_eq!(
            names(target.path()),
            ["requests.csv", "summary.json", "timeline.csv"]
        );
        assert_ne!(read(SUMMARY), "old");
    }

    #[test]
    fn a_folder_of_something_else_is_refused() {
        let target = tempfile::tempdir().unwrap();
        fs::write(target.path().join("thesis.tex"), "years").unwrap();
        let error = RecordFiles::create(target.path()).unwrap_err();
        assert!(matches!(&error, FilesError::NotOurs { found, .. } if found == "thesis.tex"));
        assert_eq!(names(target.path()), ["thesis.tex"]);
    }

    #[test]
    fn a_file_is_no_folder() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("file");
        fs::write(&target, "").unwrap();
        for target in [target.clone(), target.join("below")] {
            let error = RecordFiles::create(target).unwrap_err();
            assert!(matches!(error, FilesError::NotAFolder { .. }), "{error:?}");
        }
    }

    #[test]
    fn two_runs_do_not_share_a_folder() {
        let target = tempfile::tempdir().unwrap();
        let first = RecordFiles::create(target.path()).unwrap();
        let error = RecordFiles::create(target.path()).unwrap_err();
        assert!(matches!(error, FilesError::Busy { .. }), "{error:?}");
        first.finish(&summary()).unwrap();
        assert_eq!(names(target.path()).len(), 3);
    }

    #[test]
    fn what_the_system_refuses_comes_with_a_remedy() {
        let message =
            |kind: io::ErrorKind| FilesError::new(Path::new("out"), kind.into()).to_string();
        assert!(message(io::ErrorKind::PermissionDenied).contains("change its permissions"));
        assert!(message(io::ErrorKind::ReadOnlyFilesystem).contains("name another folder"));
        assert!(message(io::ErrorKind::QuotaExceeded).contains("free some"));
        assert!(message(io::ErrorKind::NotADirectory).contains("name another folder"));
        assert_eq!(
            message(io::ErrorKind::Interrupted),
            "cannot write out: operation interrupted; name another folder"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_reported_and_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("run");
        let mut files = RecordFiles::create(&target).unwrap();
        files.requests = CsvFile::create("/dev/full".into(), REQUESTS_HEADER).unwrap();
        for _ in 0..10_000 {
            files.request(&record());
        }
        assert!(matches!(files.error(), Some(FilesError::DiskFull { .. })));
        let error = files.finish(&summary()).unwrap_err();
        assert!(error.to_string().contains("/dev/full"), "{error}");
        assert!(!target.exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_fills_up_with_the_last_rows_is_reported() {
        let target = tempfile::tempdir().unwrap();
        let mut files = RecordFiles::create(target.path()).unwrap();
        files.timeline = CsvFile::create("/dev/full".into(), TIMELINE_HEADER).unwrap();
        let error = files.finish(&summary()).unwrap_err();
        assert!(matches!(error, FilesError::DiskFull { .. }), "{error:?}");
        assert!(names(target.path()).is_empty());
    }
}
