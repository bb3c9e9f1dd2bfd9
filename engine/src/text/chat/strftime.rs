//! Python's `strftime`, in UTC and in English.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A day of the Gregorian calendar and a time of it.
struct Moment {
    year: i64,
    /// From 1.
    month: usize,
    /// From 1.
    day: u64,
    /// From 0, Sunday.
    weekday: usize,
    /// From 1.
    day_of_year: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

/// Formats a moment.
pub(super) fn strftime(now: SystemTime, format: &str) -> Result<String, String> {
    let moment = Moment::new(now);
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut directive = characters.next().unwrap_or('%');
        // The GNU form without padding, which templates use for days.
        let padded = directive != '-';
        if !padded {
            directive = characters.next().unwrap_or('%');
        }
        moment.write(directive, padded, &mut text)?;
    }
    Ok(text)
}

impl Moment {
    fn new(now: SystemTime) -> Self {
        // A clock that is set before 1970 shows the first day of 1970.
        let seconds = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        let days = seconds / 86_400;
        let (year, month, day) = civil(days);
        let of_year: u64 = (1..month).map(|month| days_in(year, month)).sum();
        Self {
            year,
            month,
            day,
            // 1 January 1970 was a Thursday.
            weekday: ((days + 4) % 7) as usize,
            day_of_year: of_year + day,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    fn write(&self, directive: char, padded: bool, text: &mut String) -> Result<(), String> {
        let month = MONTHS[self.month - 1];
        let weekday = DAYS[self.weekday];
        let hour_of_12 = (self.hour + 11) % 12 + 1;
        let (number, width) = match directive {
            'Y' => (self.year.unsigned_abs(), 4),
            'y' => (self.year.unsigned_abs() % 100, 2),
            'm' => (self.month as u64, 2),
            'd' => (self.day, 2),
            'j' => (self.day_of_year, 3),
            'H' => (self.hour, 2),
            'I' => (hour_of_12, 2),
            'M' => (self.minute, 2),
            'S' => (self.second, 2),
            'B' => return push(text, month),
            'b' => return push(text, &month[..3]),
            'A' => return push(text, weekday),
            'a' => return push(text, &weekday[..3]),
            'p' => return push(text, if self.hour < 12 { "AM" } else { "PM" }),
            'Z' => return push(text, "UTC"),
            '%' => return push(text, "%"),
            other => return Err(format!("strftime_now does not understand %{other}")),
        };
        let width = if padded { width } else { 1 };
        write!(text, "{number:0width$}").map_err(|error| error.to_string())
    }
}

fn push(text: &mut String, word: &str) -> Result<(), String> {
    text.push_str(word);
    Ok(())
}

/// Year, month and day of a day since 1 January 1970.
fn civil(mut days: u64) -> (i64, usize, u64) {
    // 400 years have 146,097 days: only the rest of them is walked.
    let mut year = 1970 + 400 * (days / 146_097) as i64;
    days %= 146_097;
    while days >= days_in_year(year) {
        days -= days_in_year(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_year(year: i64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in(year: i64, month: usize) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64, format: &str) -> Result<String, String> {
        strftime(UNIX_EPOCH + Duration::from_secs(seconds), format)
    }

    /// What `datetime.fromtimestamp(seconds, timezone.utc).strftime(format)` of Python says.
    #[test]
    fn it_is_what_python_writes() {
        let all = "%Y-%m-%d %H:%M:%S %y %B %b %A %a %j %I %p %% %-d";
        let expected = [
            (
                0,
                "1970-01-01 00:00:00 70 January Jan Thursday Thu 001 12 AM % 1",
            ),
            (
                951_782_399,
                "2000-02-28 23:59:59 00 February Feb Monday Mon 059 11 PM % 28",
            ),
            (
                951_782_400,
                "2000-02-29 00:00:00 00 February Feb Tuesday Tue 060 12 AM % 29",
            ),
            (
                4_107_542_400,
                "2100-03-01 00:00:00 00 March Mar Monday Mon 060 12 AM % 1",
            ),
            (
                1_767_225_599,
                "2025-12-31 23:59:59 25 December Dec Wednesday Wed 365 11 PM % 31",
            ),
        ];
        for (seconds, text) in expected {
            assert_eq!(at(seconds, all).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(
            at(0, "%Q").unwrap_err(),
            "strftime_now does not understand %Q"
        );
    }
}
