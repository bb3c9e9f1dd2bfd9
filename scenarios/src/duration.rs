//! Go's duration strings: `90m`, `1h30m`, `1.5s`, `-2ms`, `0`.
//!
//! The specification of a deployment says that its windows "follow Go's
//! `time.ParseDuration`", so [`parse`] accepts and rejects exactly what Go
//! 1.24 does, with the same texts, and [`fn@format`] writes what Go's
//! `Duration.String` writes. The largest unit is the hour: a week is `168h`.
//!
//! Source: golang/go `src/time/format.go` (`ParseDuration`, `quote`) and
//! `src/time/time.go` (`Duration.String`).

use std::fmt::{self, Write as _};

/// Why a text is not a duration. The texts are Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// Not of the form "numbers with units", or too large for 64 bits of nanoseconds.
    #[error("time: invalid duration {}", Quoted(.text))]
    Invalid {
        /// The whole text.
        text: String,
    },
    /// A number without a unit, other than a lone `0`.
    #[error("time: missing unit in duration {}", Quoted(.text))]
    MissingUnit {
        /// The whole text.
        text: String,
    },
    /// A unit that Go does not have, such as `d` or `w`.
    #[error("time: unknown unit {} in duration {}", Quoted(.unit), Quoted(.text))]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// 2^63: the magnitude of the most negative duration, in nanoseconds.
const LIMIT: u64 = 1 << 63;

/// The duration that `text` stands for (ns).
///
/// # Errors
/// If Go's `time.ParseDuration` rejects the text.
pub fn parse(text: &str) -> Result<i64, ParseDurationError> {
    let invalid = || ParseDurationError::Invalid {
        text: text.to_owned(),
    };
    let (negative, unsigned) = split_sign(text);
    if unsigned == "0" {
        return Ok(0);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut rest = unsigned;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let (item, after) = parse_item(text, rest)?;
        sum = sum
            .checked_add(item)
            .filter(|&sum| sum <= LIMIT)
            .ok_or_else(invalid)?;
        rest = after;
    }
    if negative {
        // 2^63 itself is allowed here, and its negation is exact.
        Ok(0_i64.wrapping_sub_unsigned(sum))
    } else {
        i64::try_from(sum).map_err(|_| invalid())
    }
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

/// One number with its unit (ns), and what follows it.
fn parse_item<'a>(text: &str, rest: &'a str) -> Result<(u64, &'a str), ParseDurationError> {
    let invalid = || ParseDurationError::Invalid {
        text: text.to_owned(),
    };
    let (whole, after_whole) = leading_integer(rest).ok_or_else(invalid)?;
    let mut has_digits = after_whole.len() < rest.len();
    let (fraction, scale, after_number) = match after_whole.strip_prefix('.') {
        Some(digits) => {
            let (fraction, scale, after) = leading_fraction(digits);
            has_digits |= after.len() < digits.len();
            (fraction, scale, after)
        }
        None => (0, 1.0, after_whole),
    };
    if !has_digits {
        return Err(invalid());
    }
    let unit_len = after_number
        .bytes()
        .position(is_number_byte)
        .unwrap_or(after_number.len());
    let (unit, after) = after_number.split_at(unit_len);
    if unit.is_empty() {
        return Err(ParseDurationError::MissingUnit {
            text: text.to_owned(),
        });
    }
    let unit_nanos = unit_nanos(unit).ok_or_else(|| ParseDurationError::UnknownUnit {
        unit: unit.to_owned(),
        text: text.to_owned(),
    })?;
    let mut nanos = whole
        .checked_mul(unit_nanos)
        .filter(|&n| n <= LIMIT)
        .ok_or_else(invalid)?;
    if fraction > 0 {
        // In this order, as in Go: the result is truncated to whole nanoseconds.
        nanos += (fraction as f64 * (unit_nanos as f64 / scale)) as u64;
    }
    if nanos > LIMIT {
        Err(invalid())
    } else {
        Ok((nanos, after))
    }
}

fn is_number_byte(byte: u8) -> bool {
    byte == b'.' || byte.is_ascii_digit()
}

/// Digits as a number of at most 2^63, and what follows; `None` if it is larger.
fn leading_integer(text: &str) -> Option<(u64, &str)> {
    let len = text
        .bytes()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(text.len());
    let mut value = 0_u64;
    for byte in text[..len].bytes() {
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
        if value > LIMIT {
            return None;
        }
    }
    Some((value, &text[len..]))
}

/// Digits after the point as (digits, power of ten, what follows). Digits that
/// do not fit are ignored, as in Go.
fn leading_fraction(text: &str) -> (u64, f64, &str) {
    let len = text
        .bytes()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(text.len());
    let mut value = 0_u64;
    let mut scale = 1.0;
    for byte in text[..len].bytes() {
        if value > (LIMIT - 1) / 10 {
            break;
        }
        let longer = value * 10 + u64::from(byte - b'0');
        if longer > LIMIT {
            break;
        }
        value = longer;
        scale *= 10.0;
    }
    (value, scale, &text[len..])
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // U+00B5, the micro sign, and U+03BC, the Greek letter mu.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// The duration as Go's `Duration.String` writes it: `168h0m0s`, `1m30s`, `500ms`, `0s`.
#[must_use]
pub fn format(nanos: i64) -> String {
    let magnitude = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    match magnitude {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{magnitude}ns"),
        1_000..1_000_000 => format!("{sign}{}\u{b5}s", decimal(magnitude, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(magnitude, 6)),
        _ => format!("{sign}{}", format_clock(magnitude)),
    }
}

/// The duration of an unsigned number of nanoseconds, as [`fn@format`] writes it.
#[must_use]
pub fn format_nanos(nanos: u64) -> String {
    match i64::try_from(nanos) {
        Ok(nanos) => format(nanos),
        Err(_) => format_clock(nanos),
    }
}

/// A second or more: hours and minutes only where they are needed.
fn format_clock(nanos: u64) -> String {
    let minutes = nanos / 60_000_000_000;
    let seconds = decimal(nanos % 60_000_000_000, 9);
    match minutes {
        0 => format!("{seconds}s"),
        1..60 => format!("{minutes}m{seconds}s"),
        _ => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
    }
}

/// `value / 10^digits` without trailing zeros.
fn decimal(value: u64, digits: u32) -> String {
    let unit = 10_u64.pow(digits);
    let fraction = format!("{:0width$}", value % unit, width = digits as usize);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        (value / unit).to_string()
    } else {
        format!("{}.{fraction}", value / unit)
    }
}

/// A text as Go's `time` package quotes it: control and non-ASCII characters
/// byte by byte as `\xd9`, quotation marks and backslashes escaped.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_char('"')?;
        for byte in self.0.bytes() {
            match byte {
                0..b' ' | 0x80.. => write!(out, "\\x{byte:02x}")?,
                b'"' | b'\\' => write!(out, "\\{}", char::from(byte))?,
                _ => out.write_char(char::from(byte))?,
            }
        }
        out.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: i64 = 1_000_000_000;
    const M: i64 = 60 * S;
    const H: i64 = 60 * M;

    /// Texts and values seen on Go 1.24.11.
    #[test]
    fn what_go_accepts() {
        let table: &[(&str, i64)] = &[
            ("0", 0),
            ("-0", 0),
            ("+0", 0),
            ("0s", 0),
            ("0h", 0),
            ("30s", 30 * S),
            ("10m", 10 * M),
            ("1h", H),
            ("168h", 168 * H),
            ("1h0m0s", H),
            ("90m", 90 * M),
            ("1.5h", 90 * M),
            ("5.s", 5 * S),
            (".5s", S / 2),
            ("-5s", -5 * S),
            ("+5s", 5 * S),
            ("3h30m", 3 * H + 30 * M),
            ("30m3h", 3 * H + 30 * M),
            ("1m1m", 2 * M),
            ("10.5s4m", 4 * M + 10 * S + S / 2),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s", 12_000),
            ("2562047h47m16.854775807s", i64::MAX),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("-9223372036854775.808us", i64::MIN),
            ("0.3333333333333333333h", 20 * M),
            ("0.100000000000000000000h", 6 * M),
            ("0.830103483285477580700h", 2_988_372_539_827),
            ("0.9ns", 0),
            ("39h9m14.425s", 39 * H + 9 * M + 14 * S + 425_000_000),
            ("52763797000ns", 52_763_797_000),
        ];
        for &(text, nanos) in table {
            assert_eq!(parse(text), Ok(nanos), "{text:?}");
        }
    }

    #[test]
    fn what_go_calls_invalid() {
        let texts = [
            "",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "--5s",
            "+-5s",
            " 30s",
            "PT30S",
            "infinity",
            "3000000h",
            "9223372036854775808ns",
            "9223372036854775.808us",
            "9223372036854ms775us808ns",
            "-9223372036854775809ns",
            "-9223372036854775808ns9223372036854775808ns",
            "99999999999999999999s",
        ];
        for text in texts {
            let expected = format!("time: invalid duration \"{text}\"");
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn what_go_says_lacks_a_unit() {
        for text in ["00", "0.0", "3", "5", "1..5s"] {
            let expected = format!("time: missing unit in duration \"{text}\"");
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn units_that_go_does_not_know() {
        let table = [
            ("1d", "d"),
            ("1w", "w"),
            ("7d", "d"),
            ("30S", "S"),
            ("30sec", "sec"),
            ("1e3s", "e"),
            ("1_000s", "_"),
            ("30,5s", ","),
            ("1h 30m", "h "),
            ("30s ", "s "),
            ("1h-30m", "h-"),
            ("0x10s", "x"),
            ("10 minutes", " minutes"),
        ];
        for (text, unit) in table {
            let expected = format!("time: unknown unit \"{unit}\" in duration \"{text}\"");
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn quotes_as_go_does() {
        let text = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(text("\u{663}s"), "time: invalid duration \"\\xd9\\xa3s\"");
        assert_eq!(text("\t1s"), "time: invalid duration \"\\x091s\"");
        assert_eq!(text("\"1s\\"), "time: invalid duration \"\\\"1s\\\\\"");
        assert_eq!(
            text("1\u{fffd}"),
            "time: unknown unit \"\\xef\\xbf\\xbd\" in duration \"1\\xef\\xbf\\xbd\""
        );
    }

    #[test]
    fn formats_as_go_does() {
        let table = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (12_000, "12\u{b5}s"),
            (2_200_000, "2.2ms"),
            (500_000_000, "500ms"),
            (3_300_000_000, "3.3s"),
            (4 * M + 5 * S, "4m5s"),
            (5 * H + 6 * M + 7 * S + 1_000_000, "5h6m7.001s"),
            (90 * M, "1h30m0s"),
            (168 * H, "168h0m0s"),
            (-S, "-1s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ];
        for (nanos, text) in table {
            assert_eq!(format(nanos), text);
        }
        assert_eq!(format_nanos(u64::MAX), "5124095h34m33.709551615s");
    }

    proptest! {
        #[test]
        fn round_trips(nanos: i64) {
            prop_assert_eq!(parse(&format(nanos)), Ok(nanos));
        }

        #[test]
        fn never_panics(text in "\\PC*|[-+0-9.nu\u{b5}msh]{0,24}") {
            let _ = parse(&text);
        }
    }
}
