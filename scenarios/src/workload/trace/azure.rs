//! Azure LLM inference traces of 2023 and 2024.
//!
//! CSV with the header `TIMESTAMP,ContextTokens,GeneratedTokens`, no quoting.
//! 2023: CRLF, none after the last row, `2023-11-16 18:15:46.6805900` with
//! seven digits and no zone. 2024: `2024-05-10 00:00:00.009930+00:00` with up to
//! nine digits or none.
//!
//! Source: Azure/AzurePublicDataset; Patel et al., "Splitwise", ISCA 2024 (2023
//! trace); Stojkovic et al., "DynamoLLM", HPCA 2025 (2024 trace).

use foresail_core::time::{Nanos, SECOND};

use super::super::error::Fault;
use super::super::{Content, Request};
use super::fields::{Field, Fields, digits, fraction_nanos};
use super::reader::Row;

pub(super) const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";

pub(super) fn row(line: &[u8]) -> Result<Row, Fault> {
    let mut fields = Fields::new(line);
    let due = timestamp(fields.field("TIMESTAMP")?)?;
    let prompt_tokens = fields.field("ContextTokens")?.tokens()?;
    let output_tokens = fields.field("GeneratedTokens")?.tokens()?;
    fields.finish()?;
    let content = Content::Unique;
    Ok(Row::Request(Request {
        due,
        prompt_tokens,
        output_tokens,
        session: None,
        adapter: None,
        content,
    }))
}

fn timestamp(field: Field<'_>) -> Result<Nanos, Fault> {
    unix_nanos(field.bytes).ok_or_else(|| {
        field.fault("a time from 1970 to 2499 such as `2023-11-16 18:15:46.6805900`, with or without `+00:00`")
    })
}

/// `YYYY-MM-DD HH:MM:SS`, then up to nine digits after a point, then nothing
/// or `+00:00`, in nanoseconds since 1970.
fn unix_nanos(bytes: &[u8]) -> Option<Nanos> {
    let bytes = bytes.strip_suffix(b"+00:00").unwrap_or(bytes);
    let (clock, fraction) = bytes.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':')];
    if separators
        .iter()
        .any(|&(index, separator)| clock[index] != separator)
    {
        return None;
    }
    let number = |from: usize, to: usize| digits(&clock[from..to]);
    let days = days_since_1970(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanos = match fraction {
        [] => 0,
        [b'.', digits @ ..] if digits.len() <= 9 => fraction_nanos(digits)?,
        _ => return None,
    };
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second) * SECOND + nanos)
}

/// Days from 1970-01-01 in the Gregorian calendar, for a date that exists.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if !(1970..2500).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    let month = month as usize - 1;
    if !(1..=lengths[month]).contains(&day) {
        return None;
    }
    let leap_days = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let years = (year - 1970) * 365 + leap_days(year) - leap_days(1970);
    Some(years + lengths[..month].iter().sum::<u64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        // `date -u -d '2023-11-16 18:15:46' +%s` and the like.
        assert_eq!(
            unix_nanos(b"2023-11-16 18:15:46.6805900"),
            Some(1_700_158_546_680_590_000)
        );
        assert_eq!(
            unix_nanos(b"2024-05-10 00:00:00.009930+00:00"),
            Some(1_715_299_200_009_930_000)
        );
        assert_eq!(
            unix_nanos(b"2024-02-29 00:00:10+00:00"),
            Some(1_709_164_810_000_000_000)
        );
        assert_eq!(unix_nanos(b"1970-01-01 00:00:00.000000001"), Some(1));
        assert_eq!(
            unix_nanos(b"2000-03-01 00:00:00"),
            Some(951_868_800_000_000_000)
        );
        assert_eq!(
            unix_nanos(b"2100-03-01 00:00:00"),
            Some(4_107_542_400_000_000_000)
        );
    }

    #[test]
    fn other_times_are_errors() {
        for wrong in [
            "",
            "2023-11-16",
            "2023-11-16T18:15:46.6805900",
            "2023-11-16 18:15:46.",
            "2023-11-16 18:15:46.1234567890",
            "2023-11-16 18:15:46.68x",
            "2023-11-16 18:15:46.68+01:00",
            "2023-11-16 18:15:46Z",
            "2023-02-29 00:00:00",
            "2023-13-01 00:00:00",
            "2023-00-01 00:00:00",
            "2023-01-00 00:00:00",
            "2023-01-01 24:00:00",
            "2023-01-01 00:60:00",
            "2023-01-01 00:00:60",
            "1969-12-31 23:59:59",
            "2500-01-01 00:00:00",
            "+023-01-01 00:00:00",
        ] {
            assert_eq!(unix_nanos(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_row_is_a_request() {
        let Row::Request(request) = row(b"1970-01-01 00:00:01.5000000,374,44").unwrap() else {
            panic!("not a request");
        };
        assert_eq!(
            (request.due, request.prompt_tokens, request.output_tokens),
            (1_500_000_000, 374, 44)
        );
        assert_eq!(request.content, Content::Unique);
    }
}
