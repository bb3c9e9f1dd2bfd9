//! The units of time. A time is nanoseconds since the start of the run.

/// Nanoseconds, as an instant since the start of the run or as a duration.
pub type Nanos = u64;

/// Picoseconds: the unit of step times, fine enough that the cost of one
/// token of context (a few nanoseconds) keeps four digits.
pub type Picos = u64;

/// One microsecond in nanoseconds.
pub const MICROSECOND: Nanos = 1_000;
/// One millisecond in nanoseconds.
pub const MILLISECOND: Nanos = 1_000_000;
/// One second in nanoseconds.
pub const SECOND: Nanos = 1_000_000_000;
/// One minute in nanoseconds.
pub const MINUTE: Nanos = 60 * SECOND;
/// One hour in nanoseconds.
pub const HOUR: Nanos = 60 * MINUTE;
/// Picoseconds in a nanosecond.
pub const PICOS_PER_NANO: Picos = 1_000;

/// Nanoseconds as seconds, for people and for reports.
#[must_use]
pub fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / SECOND as f64
}

/// A point in time, to the picosecond. Carrying the remainder of a nanosecond
/// from step to step makes the end of `k` steps the same whether they are added
/// one by one or at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Whole nanoseconds.
    pub nanos: Nanos,
    picos: u32,
}

impl Moment {
    /// The beginning of this nanosecond.
    #[must_use]
    #[inline]
    pub fn at(nanos: Nanos) -> Self {
        Self { nanos, picos: 0 }
    }

    /// So much later.
    #[must_use]
    #[inline]
    pub fn plus(self, duration: Picos) -> Self {
        let picos = u64::from(self.picos) + duration;
        Self {
            nanos: self.nanos + picos / PICOS_PER_NANO,
            picos: (picos % PICOS_PER_NANO) as u32,
        }
    }
}

/// A duration as people write it: `1h`, `1m30s`, `0.5s`.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub Nanos);

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (hours, rest) = (self.0 / HOUR, self.0 % HOUR);
        let (minutes, rest) = (rest / MINUTE, rest % MINUTE);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        if rest > 0 || self.0 == 0 {
            write!(f, "{}s", seconds(rest))?;
        }
        Ok(())
    }
}
