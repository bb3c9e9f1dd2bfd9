//! Requests over time: from a recorded trace, or generated.
//!
//! A [`Workload`] is plain data: a [`Source`] and the [`Transforms`] applied
//! to it. [`Workload::open`] turns it into [`Requests`], an iterator that
//! yields one [`Request`] after the other in the order of their due times and
//! never holds the whole workload in memory. The same workload and seed give
//! the same requests on every machine.
//!
//! - [`TraceSource`]: a file of recorded requests, in one of the formats of [`TraceFormat`].
//! - [`Generator`]: arrivals and lengths drawn from distributions, conversations included.
//! - [`ServeGenSource`]: a folder of ServeGen client pools.

mod adapters;
mod error;
mod generator;
mod request;
mod requests;
mod servegen;
mod stats;
#[cfg(test)]
mod testing;
mod trace;
mod transform;

use foresail_core::time::Nanos;

pub use adapters::{AdapterMix, Adapters, is_adapter_name};
pub use error::{Fault, WorkloadError};
pub use generator::{
    Arrivals, Generator, Growth, GrowthLaw, Lengths, Process, Sessions, Shape, Steps,
};
pub use request::{Content, Request};
pub use requests::{Requests, Skipped};
pub use servegen::ServeGenSource;
pub use stats::{LengthStats, StatsCollector, TraceStats};
pub use trace::{NativeWriter, Timestamps, TraceFormat, TraceSource, decimal_seconds};
pub use transform::{Slice, Transforms};

/// What to send, and when: a source and what is done to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Where the requests come from.
    pub source: Source,
    /// What is done to them on the way.
    pub transforms: Transforms,
    /// Which adapters they ask for.
    pub adapters: Adapters,
}

/// Where requests come from.
#[allow(clippy::large_enum_variant, reason = "there is one of it in a run")]
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A recorded trace.
    Trace(TraceSource),
    /// Drawn from distributions.
    Generated(Generator),
    /// Drawn from ServeGen client pools.
    ServeGen(ServeGenSource),
}

impl Workload {
    /// The requests under this seed, from the first on.
    ///
    /// # Errors
    /// Whatever can be known before the first request: options out of range, a
    /// file that cannot be read, an unknown format, an empty trace.
    pub fn open(&self, seed: u64) -> Result<Requests, WorkloadError> {
        Requests::open(self, seed)
    }

    /// How long the workload lasts by its own word, whenever its last request
    /// comes; `None` if it just ends with that.
    #[must_use]
    pub fn duration(&self) -> Option<Nanos> {
        self.copy_duration()?
            .checked_mul(self.transforms.repeat.into())
    }

    /// How long one of its copies lasts.
    fn copy_duration(&self) -> Option<Nanos> {
        let whole = match &self.source {
            Source::Trace(_) => None,
            Source::Generated(generator) => generator.duration,
            Source::ServeGen(source) => source.duration,
        };
        let end = match (whole, self.transforms.slice.and_then(|slice| slice.to)) {
            (Some(whole), Some(to)) => Some(whole.min(to)),
            (whole, to) => whole.or(to),
        };
        let from = self.transforms.slice.map_or(0, |slice| slice.from);
        let squeeze = match self.source {
            Source::Trace(_) => self.transforms.rate_scale,
            Source::Generated(_) | Source::ServeGen(_) => 1.0,
        };
        let factor = self.transforms.time_stretch / squeeze;
        Some((end?.saturating_sub(from) as f64 * factor) as Nanos)
    }

    /// What the workload is, in one line for people. Once it is open,
    /// [`Requests::describe`] can say more about a folder of client pools.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{}{}", self.source.describe(), self.describe_rest())
    }

    /// What is said of a workload behind its source.
    fn describe_rest(&self) -> String {
        let adapters = self.adapters.mix.as_ref().map(AdapterMix::describe);
        adapters.unwrap_or_default() + &self.transforms.describe()
    }
}

impl Source {
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Trace(trace) => trace.describe(),
            Self::Generated(generator) => generator.describe(),
            Self::ServeGen(source) => format!("ServeGen client pools {}", source.folder.display()),
        }
    }
}

#[cfg(test)]
mod tests;
