//! The clock of a run: monotonic nanoseconds since its start.

use std::time::{Duration, Instant};

use foresail_core::time::Nanos;

/// Says what time it is in a run. All threads of a run have copies of one clock.
///
/// It is the system's monotonic clock, so setting the time of day moves nothing.
#[derive(Clone, Copy, Debug)]
pub struct RunClock {
    zero: Instant,
}

impl RunClock {
    /// A run that starts at this instant, which may be to come.
    #[must_use]
    pub fn starting_at(zero: Instant) -> Self {
        Self { zero }
    }

    /// Time since the start; 0 before it.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Nanos {
        self.at(Instant::now())
    }

    /// The time of the run at this instant; 0 before the start.
    #[must_use]
    #[inline]
    pub fn at(&self, instant: Instant) -> Nanos {
        // Half a thousand years of nanoseconds fit.
        instant.saturating_duration_since(self.zero).as_nanos() as Nanos
    }

    /// The instant of this time of the run.
    #[must_use]
    pub fn instant(&self, at: Nanos) -> Instant {
        self.zero + Duration::from_nanos(at)
    }
}
