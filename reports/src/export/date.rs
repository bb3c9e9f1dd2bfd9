//! Dates, for files that have them.

use crate::calendar::date;

const SECONDS_PER_DAY: u64 = 86_400;

/// A moment of the calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
    micros: u64,
}

impl Date {
    /// Of so many seconds since 1970; the first of them for times before.
    pub(super) fn of_unix_s(unix_s: f64) -> Self {
        // A cast saturates, and what is not a number is 0.
        let micros = (unix_s * 1e6).round() as u64;
        let seconds = micros / 1_000_000;
        let (year, month, day) = date(seconds / SECONDS_PER_DAY);
        Self {
            year,
            month,
            day,
            second_of_day: seconds % SECONDS_PER_DAY,
            micros: micros % 1_000_000,
        }
    }

    /// `20260203-040506`, as vLLM names its files.
    pub(super) fn compact(&self) -> String {
        let (hour, minute, second) = self.time();
        let Self {
            year, month, day, ..
        } = self;
        format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
    }

    /// `2026-02-03T04:05:06.789000Z`, as RFC 3339 has it.
    pub(super) fn rfc_3339(&self) -> String {
        let (hour, minute, second) = self.time();
        let Self {
            year,
            month,
            day,
            micros,
            ..
        } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }

    fn time(&self) -> (u64, u64, u64) {
        let second = self.second_of_day;
        (second / 3600, second / 60 % 60, second % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // date -u -d @N +%FT%T
        let of = |unix_s| Date::of_unix_s(unix_s).rfc_3339();
        assert_eq!(of(0.0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(of(951_782_400.007), "2000-02-29T00:00:00.007000Z");
        assert_eq!(of(1_772_323_199.999_999), "2026-02-28T23:59:59.999999Z");
        assert_eq!(
            Date::of_unix_s(4_107_542_400.0).compact(),
            "21000301-000000"
        );
    }
}
