//! The fields of a row, parsed by hand on bytes: reading a trace of a million
//! rows must not allocate per field.

use foresail_core::time::{Nanos, SECOND};

use super::super::error::{Fault, excerpt};

/// One field of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'static str,
    pub(crate) column: usize,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Field<'a> {
    pub(crate) fn fault(&self, expected: impl Into<String>) -> Fault {
        Fault {
            column: self.column,
            field: self.name.to_owned(),
            expected: expected.into(),
            text: excerpt(self.bytes),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A count of tokens of a request that ran.
    pub(crate) fn tokens(&self) -> Result<u32, Fault> {
        self.tokens_or_zero()
            .ok()
            .filter(|&tokens| tokens > 0)
            .ok_or_else(|| self.fault("a whole number from 1 to 4294967295"))
    }

    /// A count of tokens that may be 0.
    pub(crate) fn tokens_or_zero(&self) -> Result<u32, Fault> {
        digits(self.bytes)
            .and_then(|value| u32::try_from(value).ok())
            .ok_or_else(|| self.fault("a whole number from 0 to 4294967295"))
    }

    pub(crate) fn integer(&self) -> Result<u64, Fault> {
        digits(self.bytes)
            .ok_or_else(|| self.fault("a whole number from 0 to 18446744073709551615"))
    }

    /// Like [`Self::integer`], but an empty field is `None`.
    pub(crate) fn optional_integer(&self) -> Result<Option<u64>, Fault> {
        if self.is_empty() {
            Ok(None)
        } else {
            self.integer().map(Some)
        }
    }

    /// Seconds as a decimal number, in nanoseconds, rounded half up.
    pub(crate) fn seconds(&self) -> Result<Nanos, Fault> {
        decimal_seconds(self.bytes).ok_or_else(|| {
            self.fault("seconds as a decimal number from 0 to 18446744073 (584 years)")
        })
    }
}

/// The fields of a row separated by commas, without quoting.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    line: &'a [u8],
    /// Where the next field begins; beyond the line if there is none.
    next: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(line: &'a [u8]) -> Self {
        Self { line, next: 0 }
    }

    /// The next field, or a fault if the row has no more.
    pub(crate) fn field(&mut self, name: &'static str) -> Result<Field<'a>, Fault> {
        if self.line.is_empty() {
            return Err(Fault::row(self.line, "a row; this line is blank"));
        }
        let start = self.next;
        let Some(rest) = self.line.get(start..).filter(|_| start <= self.line.len()) else {
            let column = self.line.len() + 1;
            let expected = "a field; the row ends before it".to_owned();
            let text = excerpt(self.line);
            return Err(Fault {
                column,
                field: name.to_owned(),
                expected,
                text,
            });
        };
        let length = rest
            .iter()
            .position(|&byte| byte == b',')
            .unwrap_or(rest.len());
        self.next = start + length + 1;
        Ok(Field {
            name,
            column: start + 1,
            bytes: &rest[..length],
        })
    }

    /// A fault if the row has more fields.
    pub(crate) fn finish(self) -> Result<(), Fault> {
        if self.next > self.line.len() {
            return Ok(());
        }
        Err(Fault {
            column: self.next + 1,
            field: "row".to_owned(),
            expected: "no more fields".to_owned(),
            text: excerpt(&self.line[self.next..]),
        })
    }
}

/// Decimal digits and nothing else.
pub(crate) fn digits(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            None
        } else {
            value.checked_mul(10)?.checked_add(u64::from(digit))
        }
    })
}

/// Seconds such as `12`, `12.5` or `1e-05` (pandas writes small floats so), in
/// nanoseconds. Without an exponent the result is exact, rounded half up at
/// the tenth digit after the point. `None` if it is anything else, or too large.
#[must_use]
pub fn decimal_seconds(bytes: &[u8]) -> Option<Nanos> {
    if bytes.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return exponent_seconds(bytes);
    }
    let (whole, fraction) = match bytes.iter().position(|&byte| byte == b'.') {
        Some(point) => (&bytes[..point], &bytes[point + 1..]),
        None => (bytes, &b"0"[..]),
    };
    digits(whole)?
        .checked_mul(SECOND)?
        .checked_add(fraction_nanos(fraction)?)
}

/// The digits after the point, in nanoseconds, rounded half up.
pub(crate) fn fraction_nanos(digits: &[u8]) -> Option<Nanos> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let at = |index: usize| digits.get(index).map_or(0, |byte| u64::from(byte - b'0'));
    let nanos = (0..9).fold(0, |value, index| value * 10 + at(index));
    Some(nanos + u64::from(at(9) >= 5))
}

fn exponent_seconds(bytes: &[u8]) -> Option<Nanos> {
    if !bytes.first()?.is_ascii_digit() {
        return None;
    }
    let seconds: f64 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    seconds_nanos(seconds)
}

/// Seconds in nanoseconds, rounded half up; `None` if negative, not a number or too large.
#[inline]
pub(crate) fn seconds_nanos(seconds: f64) -> Option<Nanos> {
    let nanos = seconds * SECOND as f64 + 0.5;
    // 2^64 as a float: every float below it fits, and the conversion cuts off
    // the fraction, which is the floor of a number of at least 0.
    (seconds >= 0.0 && nanos < 18_446_744_073_709_551_616.0).then_some(nanos as Nanos)
}

/// A name (a UUID, say) as a number: FNV-1a, 64 bits (Fowler, Noll, Vo).
pub(crate) fn name_hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_only() {
        assert_eq!(digits(b"0"), Some(0));
        assert_eq!(digits(b"007"), Some(7));
        assert_eq!(digits(b"18446744073709551615"), Some(u64::MAX));
        for wrong in [
            "",
            "18446744073709551616",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "1_0",
        ] {
            assert_eq!(digits(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn seconds_are_exact_and_rounded_half_up() {
        assert_eq!(decimal_seconds(b"12"), Some(12_000_000_000));
        assert_eq!(decimal_seconds(b"19440110.0"), Some(19_440_110_000_000_000));
        assert_eq!(decimal_seconds(b"0.1234567894"), Some(123_456_789));
        assert_eq!(decimal_seconds(b"0.1234567895"), Some(123_456_790));
        assert_eq!(decimal_seconds(b"0.9999999999"), Some(1_000_000_000));
        assert_eq!(decimal_seconds(b"1e-05"), Some(10_000));
        assert_eq!(decimal_seconds(b"1.5E3"), Some(1_500_000_000_000));
        for wrong in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "1e",
            "e5",
            "nan",
            "inf",
            "1e400",
            "1e30",
            "99999999999",
            "1.-2",
        ] {
            assert_eq!(decimal_seconds(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn fields_end_where_they_should() {
        let mut fields = Fields::new(b"1,,3");
        let mut read = |name| {
            fields
                .field(name)
                .map(|field| (field.column, field.bytes.to_vec()))
        };
        assert_eq!(read("a").unwrap(), (1, b"1".to_vec()));
        assert_eq!(read("b").unwrap(), (3, b"".to_vec()));
        assert_eq!(read("c").unwrap(), (4, b"3".to_vec()));
        let fault = read("d").unwrap_err();
        assert_eq!((fault.column, fault.field.as_str()), (5, "d"));
        fields.finish().unwrap();

        let mut fields = Fields::new(b"1,2,");
        fields.field("a").unwrap();
        fields.field("b").unwrap();
        assert_eq!(fields.finish().unwrap_err().column, 5);
    }

    #[test]
    fn token_counts_have_limits() {
        let field = |bytes| Field {
            name: "n",
            column: 1,
            bytes,
        };
        assert_eq!(field(b"4294967295").tokens(), Ok(u32::MAX));
        for wrong in [&b"4294967296"[..], b"0", b"-1", b"", b"1.5", b"\"1\""] {
            assert!(
                field(wrong)
                    .tokens()
                    .unwrap_err()
                    .expected
                    .contains("1 to 4294967295")
            );
        }
        assert_eq!(field(b"0").tokens_or_zero(), Ok(0));
    }
}
