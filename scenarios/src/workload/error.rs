//! What can be wrong with a workload, said so that a person can put it right.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::duration::format_nanos;

/// What can be wrong with a workload.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// A file or folder could not be read. Check the path and the permissions.
    #[error("cannot read {}: {source}; {}", path.display(), remedy(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not what the format asks for. Correct the line, or name the right format.
    #[error("{}:{line}:{fault}; correct or remove the line, or name the right format", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong with the line.
        fault: Box<Fault>,
    },
    /// A line is longer than any row can be: the file is probably not a trace.
    #[error("{}:{line}: the line is longer than {limit_bytes} bytes; is this a trace?", path.display())]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The longest line that is read (bytes).
        limit_bytes: usize,
    },
    /// Rows are not in the order of their times. Sort the file by its time column.
    #[error(
        "{}:{line}: rows must be in time order, but this one is at {} s and the one before it at {} s \
         after the first; sort the file by its time column",
        path.display(),
        seconds_text(i128::from(*previous_ns) - i128::from(*earlier_by_ns)),
        seconds_text((*previous_ns).into())
    )]
    OutOfOrder {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Time of the row before it, since the first request (ns).
        previous_ns: u64,
        /// How much earlier than that the row is (ns).
        earlier_by_ns: u64,
    },
    /// A trace has no requests (none that were not skipped).
    #[error("{}: the trace holds no requests; name another trace, or the right format", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The slice holds no requests. Choose another part.
    #[error("the slice from {} to {} holds no requests", format_nanos(*from_ns),
        to_ns.map_or_else(|| "the end".to_owned(), format_nanos))]
    EmptySlice {
        /// First time kept (ns).
        from_ns: u64,
        /// First time no longer kept (ns).
        to_ns: Option<u64>,
    },
    /// The first line fits no known format. Name the format, or convert the file.
    #[error("{}: not a known trace format: the first line is `{first_line}`; known formats: {known}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The first line, shortened to 80 characters.
        first_line: Box<str>,
        /// What each known format begins with.
        known: Box<str>,
    },
    /// An option of the workload is out of range.
    #[error("workload: {option}: expected {expected}, found {found}")]
    Option {
        /// The option, as a scenario names it.
        option: &'static str,
        /// What it may be.
        expected: Box<str>,
        /// What it is.
        found: Box<str>,
    },
    /// Lengths above `max` were drawn so often that the distribution hardly reaches below it.
    #[error(
        "workload: {option}: {draws} draws in a row were above the largest length of {max}; raise `max` or lower the mean"
    )]
    MaxTooSmall {
        /// The lengths concerned.
        option: &'static str,
        /// Draws in a row.
        draws: u32,
        /// The largest length.
        max: u32,
    },
    /// A folder of ServeGen client pools cannot be used.
    #[error("{}: {problem}", path.display())]
    ServeGen {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A transform moves a request beyond the largest time (584 years).
    #[error(
        "workload: a request would be due later than 584 years after the start; lower `time_stretch` or `repeat`"
    )]
    TimeOverflow,
}

impl WorkloadError {
    pub(super) fn option(
        option: &'static str,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Option {
            option,
            expected: expected.into().into(),
            found: found.to_string().into(),
        }
    }
}

/// What is wrong with a line of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{column}: {field}: expected {expected}, found `{text}`")]
pub struct Fault {
    /// First byte of the field in the line, from 1.
    pub column: usize,
    /// The field or column of the format.
    pub field: String,
    /// What the format asks for.
    pub expected: String,
    /// What is there, shortened to 80 characters.
    pub text: String,
}

impl Fault {
    /// The row as a whole is wrong.
    pub(super) fn row(line: &[u8], expected: impl Into<String>) -> Self {
        Self {
            column: 1,
            field: "row".to_owned(),
            expected: expected.into(),
            text: excerpt(line),
        }
    }
}

/// What to do about a file or folder that cannot be read.
fn remedy(source: &std::io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::IsADirectory => {
            "name a trace file in it (folders of client pools are for `foresail simulate`)"
        }
        ErrorKind::NotFound => "check the path",
        _ => "check the path and the permissions",
    }
}

/// Nanoseconds as seconds with nine digits: exact, unlike a float.
fn seconds_text(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    format!(
        "{sign}{}.{:09}",
        nanos / 1_000_000_000,
        nanos % 1_000_000_000
    )
}

/// Bytes of a file for a message: at most 80 characters, control characters escaped.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 80;
    // A character has at most four bytes: no need to look at a whole long line.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * (CHARACTERS_MAX + 1))]);
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == CHARACTERS_MAX {
            shown.push('…');
            break;
        }
        if character.is_control() {
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_printable() {
        assert_eq!(excerpt(b"1,2\r"), "1,2\\r");
        assert_eq!(excerpt(b"a\0b"), "a\\u{0}b");
        assert_eq!(excerpt(&[b'x'; 5000]), format!("{}…", "x".repeat(80)));
        assert_eq!(excerpt(&[b'x'; 80]), "x".repeat(80));
        assert_eq!(excerpt(&[0xff]), "\u{fffd}");
    }

    #[test]
    fn seconds_are_exact() {
        assert_eq!(seconds_text(1_000_000_001), "1.000000001");
        assert_eq!(seconds_text(-100), "-0.000000100");
    }
}
