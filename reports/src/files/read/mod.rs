//! Reads the files of a run, simulated or measured: tables row by row and by
//! the names of their columns, so that a run of any length is read in flat memory.

mod request;
mod table;

pub use request::{Requests, read_requests};

use super::{ATTEMPTS, HISTOGRAMS, INTERVALS, SUMMARY, TIMELINE};
use crate::histograms::{Histograms, SCHEMA};
use crate::intervals::{Interval, ServerLoad};
use crate::records::{AttemptRecord, Change, ChangeKind, ReplicaCounts};
use crate::summary::{Summary, SummaryError};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use table::{Row, Table};
use thiserror::Error;

/// Why the files of a run cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The system refuses, or the file is not there.
    #[error("cannot read {}: {source}; name the folder of a run, as `--out` was given it", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A table without a column that is needed.
    #[error("{} has no column `{column}`; expected the table of a run of foresail", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
    /// A row that is none: too few fields, or bytes that are no text.
    #[error("{}, line {line}: {what}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A field that is not what its column holds.
    #[error("{}, line {line}: `{column}` is `{value}`; expected {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column.
        column: &'static str,
        /// What is there.
        value: String,
        /// What should be.
        expected: &'static str,
    },
    /// No histograms, or those of another version.
    #[error("{} does not hold the histograms of a run: {what}", path.display())]
    Histograms {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No summary.
    #[error("{}: {source}", path.display())]
    Summary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SummaryError,
    },
}

/// Reads `summary.json` of a run.
///
/// # Errors
/// If it is not there, or no summary of this version.
pub fn read_summary(folder: impl AsRef<Path>) -> Result<Summary, ReadError> {
    let (path, text) = read_text(folder.as_ref(), SUMMARY)?;
    Summary::from_json(&text).map_err(|source| ReadError::Summary { path, source })
}

/// Reads `histograms.json` of a measured run.
///
/// # Errors
/// If it is not there, or not what a run wrote.
pub fn read_histograms(folder: impl AsRef<Path>) -> Result<Histograms, ReadError> {
    let (path, text) = read_text(folder.as_ref(), HISTOGRAMS)?;
    let refuse = |what| ReadError::Histograms {
        path: path.clone(),
        what,
    };
    let read: Histograms =
        serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    if read.schema != SCHEMA {
        let found = &read.schema;
        return Err(refuse(format!(
            "its schema is `{found}` where this version reads `{SCHEMA}`"
        )));
    }
    Ok(read)
}

/// Reads `timeline.csv` of a run.
///
/// # Errors
/// If it is not there, or not what a run wrote.
pub fn read_changes(folder: impl AsRef<Path>) -> Result<Vec<Change>, ReadError> {
    Table::open(folder.as_ref().join(TIMELINE))?.rows(|row| {
        Ok(Change {
            at_ns: row.seconds("at_s")?,
            kind: row.word("change", "a change such as `ready`", |word| {
                ChangeKind::ALL.into_iter().find(|kind| kind.name() == word)
            })?,
            replica: row.optional_integer("replica")?,
            reason: row.text("reason")?.to_owned(),
            replicas: ReplicaCounts {
                target: row.integer("target")?,
                starting: row.integer("starting")?,
                ready: row.integer("ready")?,
                draining: row.integer("draining")?,
            },
        })
    })
}

/// Reads `attempts.csv` of a measured run; none if there is no such file.
///
/// # Errors
/// If it is not what a run wrote.
pub fn read_attempts(folder: impl AsRef<Path>) -> Result<Vec<AttemptRecord>, ReadError> {
    let path = folder.as_ref().join(ATTEMPTS);
    if !path.exists() {
        return Ok(Vec::new());
    }
    Table::open(path)?.rows(|row| {
        Ok(AttemptRecord {
            id: row.integer("id")?,
            attempt: row.integer("attempt")?,
            sent_ns: row.optional_seconds("sent_s")?,
            connect_ns: row.optional_seconds("connect_s")?,
            status: row.optional_integer("status")?,
            first_token_ns: row.optional_seconds("first_token_s")?,
            end_ns: row.seconds("end_s")?,
            outcome: request::outcome(row)?,
            retry_after_ns: row.optional_seconds("retry_after_s")?,
            detail: row.text("detail")?.to_owned(),
        })
    })
}

/// Reads `intervals.csv` of a measured run.
///
/// # Errors
/// If it is not there, or not what a run wrote.
pub fn read_intervals(folder: impl AsRef<Path>) -> Result<Vec<Interval>, ReadError> {
    Table::open(folder.as_ref().join(INTERVALS))?.rows(|row| {
        Ok(Interval {
            from_ns: row.seconds("from_s")?,
            until_ns: row.seconds("until_s")?,
            asked: row.integer("asked")?,
            sent: row.integer("sent")?,
            completed: row.integer("completed")?,
            failed: row.integer("failed")?,
            rejected: row.integer("rejected")?,
            in_flight: row.integer("in_flight")?,
            output_tokens: row.integer("output_tokens")?,
            ttft_ns_p50: row.optional_seconds("ttft_s_p50")?,
            ttft_ns_p99: row.optional_seconds("ttft_s_p99")?,
            server: server_load(row)?,
        })
    })
}

fn server_load(row: &Row) -> Result<ServerLoad, ReadError> {
    Ok(ServerLoad {
        running: row.optional_float("running")?,
        waiting: row.optional_float("waiting")?,
        kv_usage: row.optional_float("kv_usage")?,
        ready_replicas: row.optional_float("ready_replicas")?,
    })
}

fn read_text(folder: &Path, name: &str) -> Result<(PathBuf, String), ReadError> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(ReadError::Io { path, source }),
    }
}
