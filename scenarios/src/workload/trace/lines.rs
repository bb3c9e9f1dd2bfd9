//! A file by lines, with a limit on their length and checks that every format shares.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::super::error::{Fault, WorkloadError, excerpt};

/// The longest line that is read: a Mooncake row of a million tokens has 20 kB.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// The lines of a text file: UTF-8 without NUL bytes, ended by LF or CRLF, the
/// last one with or without an end. A byte-order mark at the start is skipped:
/// spreadsheets write it and it means nothing.
#[derive(Debug)]
pub(crate) struct Lines<R = BufReader<File>> {
    path: PathBuf,
    reader: R,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self, WorkloadError> {
        let io = |source| WorkloadError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(io(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
        }
        Ok(Self::new(path, BufReader::with_capacity(1 << 16, file)))
    }
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(path: &Path, reader: R) -> Self {
        Self {
            path: path.to_owned(),
            reader,
            line: Vec::new(),
            number: 0,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the line read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The line read last, without its end.
    pub(crate) fn current(&self) -> &[u8] {
        &self.line
    }

    /// Reads the next line into [`Self::current`]; false at the end of the file.
    pub(crate) fn advance(&mut self) -> Result<bool, WorkloadError> {
        self.line.clear();
        self.append()
    }

    /// Reads the next line behind the current one, with a line feed between
    /// them: a quoted CSV field goes on.
    pub(crate) fn continue_record(&mut self) -> Result<bool, WorkloadError> {
        self.line.push(b'\n');
        self.append()
    }

    fn append(&mut self) -> Result<bool, WorkloadError> {
        let start = self.line.len();
        let room = (LINE_BYTES_MAX + 2).saturating_sub(start) as u64;
        let count = Read::take(&mut self.reader, room)
            .read_until(b'\n', &mut self.line)
            .map_err(|source| WorkloadError::Io {
                path: self.path.clone(),
                source,
            })?;
        if count == 0 && room > 0 {
            return Ok(false);
        }
        self.number += 1;
        self.strip(start);
        if self.line.len() > LINE_BYTES_MAX {
            let (path, line) = (self.path.clone(), self.number);
            return Err(WorkloadError::LineTooLong {
                path,
                line,
                limit_bytes: LINE_BYTES_MAX,
            });
        }
        self.check_text(start)?;
        Ok(true)
    }

    /// Removes the line's end, and a byte-order mark from the first line.
    fn strip(&mut self, start: usize) {
        if self.line.ends_with(b"\n") {
            self.line.pop();
            if self.line.len() > start && self.line.ends_with(b"\r") {
                self.line.pop();
            }
        }
        if self.number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
            self.line.drain(..3);
        }
    }

    fn check_text(&self, start: usize) -> Result<(), WorkloadError> {
        let line = &self.line[start..];
        if let Err(error) = std::str::from_utf8(line) {
            let expected =
                if self.number == 1 && matches!(line, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
                    "UTF-8 text; this is UTF-16: save it as UTF-8"
                } else {
                    "UTF-8 text"
                };
            return Err(self.malformed(error.valid_up_to(), expected));
        }
        match line.iter().position(|&byte| byte == 0) {
            Some(index) => Err(self.malformed(index, "text without NUL bytes")),
            None => Ok(()),
        }
    }

    fn malformed(&self, index: usize, expected: &str) -> WorkloadError {
        let fault = Fault {
            column: index + 1,
            field: "text".to_owned(),
            expected: expected.to_owned(),
            text: excerpt(&self.line[index.min(self.line.len())..]),
        };
        self.at(fault)
    }

    /// What is wrong with the line read last, with its place.
    pub(crate) fn at(&self, fault: Fault) -> WorkloadError {
        WorkloadError::Malformed {
            path: self.path.clone(),
            line: self.number,
            fault: Box::new(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Result<Vec<String>, WorkloadError> {
        let mut lines = Lines::new(Path::new("t"), bytes);
        let mut all = Vec::new();
        while lines.advance()? {
            all.push(String::from_utf8(lines.current().to_vec()).unwrap());
        }
        Ok(all)
    }

    #[test]
    fn line_ends_of_every_kind() {
        assert_eq!(lines(b"").unwrap(), Vec::<String>::new());
        assert_eq!(lines(b"a\r\nb\r\nc").unwrap(), ["a", "b", "c"]);
        assert_eq!(lines(b"a\n\nb\n").unwrap(), ["a", "", "b"]);
        assert_eq!(lines(b"\r\n").unwrap(), [""]);
        // A carriage return that ends no line is part of it.
        assert_eq!(lines(b"a\rb\n").unwrap(), ["a\rb"]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_start_only() {
        assert_eq!(lines(b"\xef\xbb\xbfa\nb").unwrap(), ["a", "b"]);
        assert_eq!(lines(b"a\n\xef\xbb\xbfb").unwrap(), ["a", "\u{feff}b"]);
    }

    #[test]
    fn bytes_that_are_no_text_name_their_place() {
        assert_eq!(
            lines(b"a\nb\xffc\n").unwrap_err().to_string(),
            "t:2:2: text: expected UTF-8 text, found `\u{fffd}c`; correct or remove the line, or name the right format"
        );
        assert_eq!(
            lines(b"a\0b\n").unwrap_err().to_string(),
            "t:1:2: text: expected text without NUL bytes, found `\\u{0}b`; correct or remove the line, or name the right format"
        );
        assert!(
            lines(b"\xff\xfea\0")
                .unwrap_err()
                .to_string()
                .contains("save it as UTF-8")
        );
    }

    #[test]
    fn a_line_has_at_most_a_mebibyte() {
        let mut bytes = b"first\n".to_vec();
        bytes.extend(vec![b'x'; LINE_BYTES_MAX]);
        assert_eq!(lines(&bytes).unwrap()[1].len(), LINE_BYTES_MAX);
        bytes.push(b'\n');
        assert_eq!(lines(&bytes).unwrap()[1].len(), LINE_BYTES_MAX);
        bytes.pop();
        bytes.extend(vec![b'x'; 3 * LINE_BYTES_MAX]);
        assert_eq!(
            lines(&bytes).unwrap_err().to_string(),
            "t:2: the line is longer than 1048576 bytes; is this a trace?"
        );
    }

    #[test]
    fn a_record_over_lines_has_the_same_limit() {
        let bytes = vec![b'\n'; LINE_BYTES_MAX + 10];
        let mut lines = Lines::new(Path::new("t"), bytes.as_slice());
        assert!(lines.advance().unwrap());
        let error = loop {
            match lines.continue_record() {
                Ok(more) => assert!(more),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, WorkloadError::LineTooLong { .. }));
    }

    #[test]
    fn a_folder_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = Lines::open(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("cannot read "), "{error}");
        let missing = Lines::open(&folder.path().join("none.csv")).unwrap_err();
        assert!(matches!(missing, WorkloadError::Io { .. }));
    }
}
