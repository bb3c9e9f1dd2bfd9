//! The sink of a measured run: what counts is measured, everything is tallied and written.

use foresail_reports::records::{AttemptRecord, Gaps, Outcome, RecordSink, RequestRecord};
use foresail_reports::window::WindowTally;
use foresail_reports::{MeasuredFiles, Measurements, ObjectiveSpec};

use super::Sink;

/// Hands the requests that count to [`Measurements`], and all of them to a
/// [`WindowTally`] and, if there are any, to the files.
#[derive(Debug)]
pub struct Recording {
    /// What the requests that count come to.
    pub measurements: Measurements,
    /// What all of them come to; `None` before the window is known.
    pub tally: Option<WindowTally>,
    /// The first attempt that came to nothing.
    pub first_failure: Option<AttemptRecord>,
    /// The files, if they are wanted.
    pub files: Option<MeasuredFiles>,
}

impl Recording {
    /// Nothing recorded yet, to be judged by the objectives.
    #[must_use]
    pub fn new(objectives: &[ObjectiveSpec], files: Option<MeasuredFiles>) -> Self {
        Self {
            measurements: Measurements::new(objectives),
            tally: None,
            first_failure: None,
            files,
        }
    }
}

impl Sink for Recording {
    fn window(&mut self, from_ns: u64, until_ns: u64) {
        self.measurements.set_window(from_ns, until_ns);
        self.tally = Some(WindowTally::new(from_ns, until_ns));
    }

    fn request(&mut self, record: &RequestRecord) {
        if record.wire.is_some_and(|wire| wire.is_in_window) {
            self.measurements.request(record);
        } else {
            self.measurements.beside(record);
        }
        if let Some(tally) = &mut self.tally {
            tally.request(record);
        }
        if let Some(files) = &mut self.files {
            files.request(record);
        }
    }

    fn gaps(&mut self, gaps: Gaps) {
        self.measurements.gaps(gaps);
    }

    fn attempt(&mut self, attempt: &AttemptRecord) {
        if attempt.outcome != Outcome::Completed {
            self.first_failure.get_or_insert_with(|| attempt.clone());
        }
        if let Some(files) = &mut self.files {
            files.attempt(attempt);
        }
    }
}
