//! From records to a verdict.
//!
//! A run hands its [records] to [`Measurements`] (what it comes to, in flat
//! memory) and, if they are wanted, to [`RecordFiles`] (every request and every
//! change, on disk). At its end the measurements become a [`Summary`]: one
//! value that is written as `summary.json`, read back by later commands, and
//! turned into [text] for a person. The summaries of several variants, each
//! under the same seeds, become a [`Comparison`]. What single steps of an engine
//! take is a [`mod@bench`], which needs no run.
//!
//! ```text
//! RequestRecord, Gaps, Change ─┬─> Measurements ─> Summary ─┬─> text
//!                              └─> RecordFiles ─────────────┴─> requests.csv timeline.csv summary.json
//! ```

pub mod bench;
pub mod calendar;
pub mod compare;
pub mod export;
pub mod files;
pub mod gate;
pub mod histogram;
pub mod histograms;
pub mod intervals;
pub mod measurements;
pub mod merge;
pub mod objectives;
pub mod picture;
pub mod records;
pub mod seeds;
pub mod series;
pub mod summary;
pub mod tail;
pub mod text;
pub mod validation;
pub mod window;

mod rate;
mod why;

pub use compare::{Comparison, VariantRuns};
pub use files::{FilesError, MeasuredFiles, RecordFiles, SealedFiles};
pub use histograms::Histograms;
pub use measurements::Measurements;
pub use objectives::{Latency, ObjectiveMetric, ObjectiveSpec, Statistic};
pub use records::RecordSink;
pub use summary::{RunDescription, Summary};
pub use text::Style;
