//! A table whose columns are found by their names, and whose errors say the line.

use super::ReadError;
use std::fs::File;
use std::path::PathBuf;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A file of comma-separated values.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    reader: csv::Reader<File>,
    header: Vec<String>,
    record: csv::StringRecord,
}

/// A row of it.
#[derive(Debug)]
pub(super) struct Row<'a> {
    path: &'a PathBuf,
    header: &'a [String],
    record: &'a csv::StringRecord,
}

impl Table {
    pub(super) fn open(path: PathBuf) -> Result<Self, ReadError> {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) => return Err(ReadError::Io { path, source }),
        };
        let mut reader = csv::Reader::from_reader(file);
        let header = match reader.headers() {
            Ok(header) => header.iter().map(str::to_owned).collect(),
            Err(error) => return Err(refused(path, error)),
        };
        Ok(Self {
            path,
            reader,
            header,
            record: csv::StringRecord::new(),
        })
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.header.iter().any(|name| name == column)
    }

    /// The next row, if there is one.
    pub(super) fn row(&mut self) -> Option<Result<Row<'_>, ReadError>> {
        match self.reader.read_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => Some(Ok(Row {
                path: &self.path,
                header: &self.header,
                record: &self.record,
            })),
            Err(error) => Some(Err(refused(self.path.clone(), error))),
        }
    }

    /// All rows.
    pub(super) fn rows<T>(
        mut self,
        read: impl Fn(&Row) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        let mut all = Vec::new();
        while let Some(row) = self.row() {
            all.push(read(&row?)?);
        }
        Ok(all)
    }
}

fn refused(path: PathBuf, error: csv::Error) -> ReadError {
    let line = error.position().map_or(0, csv::Position::line);
    let what = match error.into_kind() {
        csv::ErrorKind::Io(source) => return ReadError::Io { path, source },
        csv::ErrorKind::Utf8 { .. } => "not UTF-8".to_owned(),
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} fields where the header has {expected_len}; is the file whole?"),
        other => format!("{other:?}"),
    };
    ReadError::Row { path, line, what }
}

impl<'a> Row<'a> {
    pub(super) fn text(&self, column: &'static str) -> Result<&'a str, ReadError> {
        let index = self.header.iter().position(|name| name == column);
        index
            .and_then(|index| self.record.get(index))
            .ok_or_else(|| ReadError::Column {
                path: self.path.clone(),
                column,
            })
    }

    pub(super) fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    pub(super) fn path(&self) -> &'a PathBuf {
        self.path
    }

    /// The field as what it stands for, if it stands for anything.
    pub(super) fn word<T>(
        &self,
        column: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ReadError> {
        let value = self.text(column)?;
        read(value).ok_or_else(|| ReadError::Field {
            path: self.path.clone(),
            line: self.line(),
            column,
            value: value.to_owned(),
            expected,
        })
    }

    fn optional<T>(
        &self,
        column: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ReadError> {
        match self.text(column)? {
            "" => Ok(None),
            _ => self.word(column, expected, read).map(Some),
        }
    }

    pub(super) fn integer<T: TryFrom<u64>>(&self, column: &'static str) -> Result<T, ReadError> {
        self.word(column, A_COUNT, count)
    }

    pub(super) fn optional_integer<T: TryFrom<u64>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, ReadError> {
        self.optional(column, A_COUNT, count)
    }

    /// Seconds, as nanoseconds.
    pub(super) fn seconds(&self, column: &'static str) -> Result<u64, ReadError> {
        self.word(column, SECONDS, nanos)
    }

    pub(super) fn optional_seconds(&self, column: &'static str) -> Result<Option<u64>, ReadError> {
        self.optional(column, SECONDS, nanos)
    }

    pub(super) fn optional_float(&self, column: &'static str) -> Result<Option<f64>, ReadError> {
        let finite = |text: &str| text.parse().ok().filter(|value: &f64| value.is_finite());
        self.optional(column, "a number", finite)
    }
}

const A_COUNT: &str = "a whole number that is not too large";
const SECONDS: &str = "seconds with at most nine decimals, such as 1.250000000";

fn count<T: TryFrom<u64>>(text: &str) -> Option<T> {
    // Digits only: `parse` would take a sign as well.
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits
        .then(|| text.parse::<u64>().ok())
        .flatten()
        .and_then(|value| T::try_from(value).ok())
}

/// Exact: a float would round times from three months on.
fn nanos(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if decimals.len() > 9 {
        return None;
    }
    let scale = 10_u64.pow(9 - decimals.len() as u32);
    let below = count::<u64>(decimals)? * scale;
    count::<u64>(whole)?
        .checked_mul(NANOS_PER_SECOND)?
        .checked_add(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_exactly_or_not_at_all() {
        assert_eq!(nanos("1.500000001"), Some(1_500_000_001));
        assert_eq!(nanos("18446744073.709551615"), Some(u64::MAX));
        assert_eq!(nanos("12"), Some(12 * NANOS_PER_SECOND));
        assert_eq!(nanos("0.5"), Some(500_000_000));
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1.0000000001",
            "1.-5",
            "18446744074",
            "x",
        ] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }

    #[test]
    fn counts_are_digits_that_fit() {
        assert_eq!(count::<u32>("4294967295"), Some(u32::MAX));
        for text in ["4294967296", "+1", "-1", "1.0", "", "99999999999999999999"] {
            assert_eq!(count::<u32>(text), None, "{text}");
        }
    }
}
