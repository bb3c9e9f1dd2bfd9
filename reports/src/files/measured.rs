//! The files of a measured run.

use super::csv::{CsvFile, write_attempt, write_change, write_interval, write_request, write_wire};
use super::staging::Staging;
use super::{
    ATTEMPTS, FilesError, HISTOGRAMS, INTERVALS, REQUESTS, REQUESTS_HEADER, TIMELINE,
    TIMELINE_HEADER, write_summary,
};
use crate::histograms::Histograms;
use crate::intervals::{Intervals, ServerLoad};
use crate::records::{AttemptRecord, Change, Gaps, RecordSink, RequestRecord};
use crate::summary::Summary;
use std::path::Path;

const WIRE_HEADER: &str =
    ",sent_s,last_output_s,status,chunks,tokens_from,connection,body_bytes,in_window\n";
const ATTEMPTS_HEADER: &str = "id,attempt,sent_s,connect_s,status,first_token_s,end_s,outcome,\
    retry_after_s,detail\n";
const INTERVALS_HEADER: &str = "from_s,until_s,asked,sent,completed,failed,rejected,in_flight,\
    output_tokens,ttft_s_p50,ttft_s_p99,running,waiting,kv_usage,ready_replicas\n";

/// Writes the records of a measured run to a folder: all its requests, in the window or not.
///
/// Like [`RecordFiles`](super::RecordFiles) it stops at the first error. Unlike
/// that it then keeps what was written, because a measurement is expensive.
#[derive(Debug)]
pub struct MeasuredFiles {
    staging: Staging,
    requests: CsvFile,
    timeline: CsvFile,
    attempts: Option<CsvFile>,
    intervals: Intervals,
    error: Option<FilesError>,
}

impl MeasuredFiles {
    /// Begins to write to the folder, which is created if need be. A folder
    /// that holds the files of an earlier run is taken over at the end.
    ///
    /// # Errors
    /// If the folder cannot be written, or holds anything that is not ours.
    pub fn create(target: impl AsRef<Path>) -> Result<Self, FilesError> {
        let staging = Staging::create(target.as_ref())?;
        let requests_header = REQUESTS_HEADER.trim_end().to_owned() + WIRE_HEADER;
        let requests = CsvFile::create(staging.file(REQUESTS), &requests_header)?;
        let timeline = CsvFile::create(staging.file(TIMELINE), TIMELINE_HEADER)?;
        Ok(Self {
            staging,
            requests,
            timeline,
            attempts: None,
            intervals: Intervals::default(),
            error: None,
        })
    }

    /// An attempt at a request that failed, was refused, or was sent more than once.
    pub fn attempt(&mut self, attempt: &AttemptRecord) {
        if self.error.is_some() {
            return;
        }
        let written = match &mut self.attempts {
            Some(file) => file.row(|row| write_attempt(row, attempt)),
            None => CsvFile::create(self.staging.file(ATTEMPTS), ATTEMPTS_HEADER)
                .map(|file| self.attempts.insert(file))
                .and_then(|file| file.row(|row| write_attempt(row, attempt))),
        };
        self.note(written);
    }

    /// What the server said of itself at this time.
    pub fn server(&mut self, at_ns: u64, load: &ServerLoad) {
        self.intervals.server(at_ns, load);
    }

    /// The first error so far, after which nothing more is written.
    #[must_use]
    pub fn error(&self) -> Option<&FilesError> {
        self.error.as_ref()
    }

    /// Writes what is told only at the end, the summary without its wall time, and puts
    /// the files in place. A run that was interrupted says so in its summary.
    ///
    /// # Errors
    /// [`FilesError::Incomplete`] if anything could not be written, now or
    /// earlier: it says where that is which could.
    pub fn finish(mut self, summary: &Summary, histograms: &Histograms) -> Result<(), FilesError> {
        match self.write_end(summary, histograms) {
            Ok(()) => self.staging.publish(),
            Err(error) => Err(self.keep(error)),
        }
    }

    /// As [`MeasuredFiles::finish`], but whole or not at all: for records that can be had again.
    ///
    /// # Errors
    /// If anything could not be written, now or earlier. Nothing is left then.
    pub fn finish_whole(
        mut self,
        summary: &Summary,
        histograms: &Histograms,
    ) -> Result<(), FilesError> {
        self.write_end(summary, histograms)?;
        self.staging.publish()
    }

    /// Gives the run up and keeps what was written of it, as if its disk had filled up.
    #[must_use = "it says where what was written is"]
    pub fn keep(mut self, source: FilesError) -> FilesError {
        // As much as there is room for: the error that counts is the first.
        let _ = self.close();
        FilesError::Incomplete {
            kept: self.staging.keep(),
            source: Box::new(source),
        }
    }

    fn write_end(&mut self, summary: &Summary, histograms: &Histograms) -> Result<(), FilesError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.close()?;
        let mut intervals = CsvFile::create(self.staging.file(INTERVALS), INTERVALS_HEADER)?;
        for interval in std::mem::take(&mut self.intervals).finish() {
            intervals.row(|row| write_interval(row, &interval))?;
        }
        intervals.finish()?;
        let path = self.staging.file(HISTOGRAMS);
        let json = serde_json::to_string(histograms);
        json.map_err(|error| error.into())
            .and_then(|json| std::fs::write(&path, json + "\n"))
            .map_err(|error| FilesError::new(&path, error))?;
        write_summary(&self.staging, summary)
    }

    /// Writes the rows that have gathered.
    fn close(&mut self) -> Result<(), FilesError> {
        let requests = self.requests.finish();
        let timeline = self.timeline.finish();
        let attempts = self.attempts.as_mut().map_or(Ok(()), CsvFile::finish);
        requests.and(timeline).and(attempts)
    }

    fn note(&mut self, written: Result<(), FilesError>) {
        if let Err(error) = written {
            self.error = Some(error);
        }
    }
}

impl RecordSink for MeasuredFiles {
    fn request(&mut self, record: &RequestRecord) {
        self.intervals.request(record);
        if self.error.is_none() {
            let written = self.requests.row(|row| {
                write_request(row, record);
                write_wire(row, record.wire.as_ref());
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
mod tests;
