//! From what was received to records: what each request came to, which of them count, and whether
//! the system had settled.
//!
//! ```text
//! workers ─ sends, Ended… ─> Recorder: in order ─> WarmUp ─> Ended → records ─> Sink ─> Recording: Measurements,
//!                                        └─ Trend                                        WindowTally, MeasuredFiles
//! ```
//!
//! Nothing here reads a clock or has a thread: [`run`](crate::run) has one that feeds it.

mod outcome;
mod recorder;
mod recording;
mod request;
mod steady;
#[cfg(test)]
pub(crate) mod testing;
mod window;

use foresail_reports::records::{AttemptRecord, Gaps, RequestRecord};

pub use outcome::{detail, is_retried, outcome};
pub use recorder::{Batch, Recorded, Recorder, Tally};
pub use recording::Recording;
pub use request::{Asked, Ended};
pub use steady::Trend;
pub use window::{Found, WarmUp, WindowSettings};

/// What takes the records of a measured run, one by one, in the order in which requests ended.
///
/// Whether a request counts is in its record (`wire.is_in_window`).
pub trait Sink {
    /// The window is known, from one time up to another (exclusive, `u64::MAX` where the end is not
    /// known yet). Told once, before any record.
    fn window(&mut self, from_ns: u64, until_ns: u64);
    /// A request ended.
    fn request(&mut self, record: &RequestRecord);
    /// Two chunks of a completed request that counts were so far apart.
    fn gaps(&mut self, gaps: Gaps);
    /// An attempt of a request that failed, or that was sent more than once.
    fn attempt(&mut self, attempt: &AttemptRecord);
}
