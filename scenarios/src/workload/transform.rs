//! What is done to requests on their way from the source.

use foresail_core::time::Nanos;

use super::error::WorkloadError;
use super::{Content, Request};

/// What is done to requests on their way from the source, in the order of the fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transforms {
    /// Keep a part of the source's time, as recorded or generated.
    pub slice: Option<Slice>,
    /// Multiply the rate, above 0. A generator and client pools draw at that
    /// rate, with the same shape over time; a trace's due times are divided by it.
    pub rate_scale: f64,
    /// Multiply every due time, above 0.
    pub time_stretch: f64,
    /// How many times the result is played, at least 1. Each copy begins when
    /// the one before it is over: at the end of its duration, or, if it has none,
    /// one mean gap after its last request. Its conversations are other ones;
    /// ids of prompt blocks stay the same.
    pub repeat: u32,
}

impl Default for Transforms {
    fn default() -> Self {
        Self {
            slice: None,
            rate_scale: 1.0,
            time_stretch: 1.0,
            repeat: 1,
        }
    }
}

/// A part of the source's time, half open. What is due at `from` becomes due at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// First time kept (ns).
    pub from: Nanos,
    /// First time no longer kept, after `from` (ns); `None` for the end.
    pub to: Option<Nanos>,
}

impl Transforms {
    /// Checks every option.
    ///
    /// # Errors
    /// [`WorkloadError::Option`] for the first one out of range.
    pub fn validate(&self) -> Result<(), WorkloadError> {
        for (option, factor) in [
            ("rate_scale", self.rate_scale),
            ("time_stretch", self.time_stretch),
        ] {
            if !(1e-9..=1e9).contains(&factor) {
                return Err(WorkloadError::option(
                    option,
                    "a number above 0, up to 1e9",
                    factor,
                ));
            }
        }
        if self.repeat == 0 {
            return Err(WorkloadError::option("repeat", "at least 1", 0));
        }
        match self.slice {
            Some(Slice { from, to: Some(to) }) if to <= from => Err(WorkloadError::option(
                "slice.to",
                format!("later than `from` ({from} ns)"),
                format!("{to} ns"),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        if let Some(Slice { from, to }) = self.slice {
            let from = foresail_core::time::seconds(from);
            let to = to.map_or("the end".to_owned(), |to| {
                format!("{} s", foresail_core::time::seconds(to))
            });
            text += &format!(", from {from} s to {to}");
        }
        if self.rate_scale != 1.0 {
            text += &format!(", at {} times the rate", self.rate_scale);
        }
        if self.time_stretch != 1.0 {
            text += &format!(", stretched {} times", self.time_stretch);
        }
        if self.repeat != 1 {
            text += &format!(", played {} times", self.repeat);
        }
        text
    }
}

/// A due time times a factor, rounded half up. Monotone, so the order stays.
pub(super) fn scaled(due: Nanos, factor: f64) -> Result<Nanos, WorkloadError> {
    if factor == 1.0 {
        return Ok(due);
    }
    let scaled = libm::floor(due as f64 * factor + 0.5);
    if scaled < 18_446_744_073_709_551_616.0 {
        Ok(scaled as Nanos)
    } else {
        Err(WorkloadError::TimeOverflow)
    }
}

/// The request as conversation of this copy: ids of conversations change, so
/// that a second day has other conversations than the first. The finaliser of
/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) is one to one, so
/// conversations of a copy stay distinct.
pub(super) fn of_copy(mut request: Request, copy: u32) -> Request {
    if copy == 0 {
        return request;
    }
    let renamed = |id: u64| {
        let mut z = id ^ u64::from(copy).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    request.session = request.session.map(renamed);
    if let Content::Session { session, .. } = &mut request.content {
        *session = renamed(*session);
    }
    request
}
