//! Rows of comma-separated values, formatted by hand: a run has millions of
//! them, and integers are all that they hold.

use super::FilesError;
use crate::intervals::Interval;
use crate::records::{AttemptRecord, Change, Parts, RequestRecord, Wire};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// Rows gather until there are so many bytes of them.
const BUFFER_BYTES: usize = 256 * 1024;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A file that rows are appended to.
#[derive(Debug)]
pub(super) struct CsvFile {
    path: PathBuf,
    file: File,
    /// Bytes of the file that are whole rows.
    whole_bytes: u64,
    buffer: Vec<u8>,
    /// Kept from row to row, so that it is not cleared each time.
    fields: [u8; FIELDS_BYTES],
}

impl CsvFile {
    pub(super) fn create(path: PathBuf, header: &str) -> Result<Self, FilesError> {
        let file = File::create(&path).map_err(|error| FilesError::new(&path, error))?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + BUFFER_BYTES / 4);
        buffer.extend_from_slice(header.as_bytes());
        let fields = [0; FIELDS_BYTES];
        Ok(Self {
            path,
            file,
            whole_bytes: 0,
            buffer,
            fields,
        })
    }

    #[inline]
    pub(super) fn row(&mut self, write: impl FnOnce(&mut Row)) -> Result<(), FilesError> {
        let mut row = Row::new(&mut self.buffer, &mut self.fields);
        write(&mut row);
        row.end();
        if self.buffer.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.finish()
    }

    /// Writes what has gathered. If that fails, the file ends with the last row
    /// that was written whole.
    pub(super) fn finish(&mut self) -> Result<(), FilesError> {
        let written = self.file.write_all(&self.buffer);
        match &written {
            Ok(()) => self.whole_bytes += self.buffer.len() as u64,
            Err(_) => self.cut(),
        }
        self.buffer.clear();
        written.map_err(|error| FilesError::new(&self.path, error))
    }

    /// Takes a row off the end that was begun and not finished.
    fn cut(&self) {
        // Whoever hears of the failed write learns nothing from a second error.
        let Ok(metadata) = self.file.metadata() else {
            return;
        };
        let begun = metadata.len().saturating_sub(self.whole_bytes) as usize;
        let written = &self.buffer[..begun.min(self.buffer.len())];
        let _ = self
            .file
            .set_len(self.whole_bytes + whole_rows(written) as u64);
    }
}

/// How many of the bytes are rows with their ends. A line end inside quotes ends no row.
fn whole_rows(bytes: &[u8]) -> usize {
    let (mut is_quoted, mut whole) = (false, 0);
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\n' if !is_quoted => whole = index + 1,
            _ => {}
        }
    }
    whole
}

pub(super) fn write_request(row: &mut Row, record: &RequestRecord) {
    row.integer(record.id);
    row.seconds(record.due_ns);
    row.integer(record.prompt_tokens.into());
    row.integer(record.output_tokens.into());
    row.optional(record.session, Row::integer);
    row.optional(record.adapter.map(u64::from), Row::integer);
    row.integer(record.attempts.into());
    row.optional(record.replica.map(u64::from), Row::integer);
    row.integer(record.cached_tokens.into());
    row.integer(record.preemptions.into());
    row.word(record.outcome.name());
    row.optional(record.first_token_ns, Row::seconds);
    row.seconds(record.end_ns);
    let part = |row: &mut Row, of: fn(&Parts) -> u64| {
        row.optional(record.parts.as_ref().map(of), Row::seconds);
    };
    part(row, |parts| parts.retry_ns);
    part(row, |parts| parts.cold_start_ns);
    part(row, |parts| parts.queue_ns);
    part(row, |parts| parts.adapter_ns);
    part(row, |parts| parts.prefill_ns);
    part(row, |parts| parts.preemption_ns);
    part(row, |parts| parts.decode_ns);
}

/// The column of a run whose requests spend time outside the engine.
pub(super) fn write_outside(row: &mut Row, parts: Option<&Parts>) {
    row.optional(parts.map(|parts| parts.outside_ns), Row::seconds);
}

/// The columns that only a measured request has.
pub(super) fn write_wire(row: &mut Row, wire: Option<&Wire>) {
    let of = |of: fn(&Wire) -> u64| wire.map(of);
    row.optional(wire.and_then(|wire| wire.sent_ns), Row::seconds);
    row.optional(wire.and_then(|wire| wire.last_output_ns), Row::seconds);
    row.optional(
        wire.and_then(|wire| wire.status).map(u64::from),
        Row::integer,
    );
    row.optional(of(|wire| wire.chunks.into()), Row::integer);
    row.word(wire.map_or("", |wire| wire.tokens_from.name()));
    row.word(match wire {
        Some(wire) if wire.is_connection_reused => "reused",
        Some(wire) if wire.sent_ns.is_some() => "new",
        _ => "",
    });
    row.optional(of(|wire| wire.body_bytes), Row::integer);
    row.word(match wire.map(|wire| wire.is_in_window) {
        Some(true) => "true",
        Some(false) => "false",
        None => "",
    });
}

pub(super) fn write_attempt(row: &mut Row, attempt: &AttemptRecord) {
    row.integer(attempt.id);
    row.integer(attempt.attempt.into());
    row.optional(attempt.sent_ns, Row::seconds);
    row.optional(attempt.connect_ns, Row::seconds);
    row.optional(attempt.status.map(u64::from), Row::integer);
    row.optional(attempt.first_token_ns, Row::seconds);
    row.seconds(attempt.end_ns);
    row.word(attempt.outcome.name());
    row.optional(attempt.retry_after_ns, Row::seconds);
    row.text(&attempt.detail);
}

pub(super) fn write_interval(row: &mut Row, interval: &Interval) {
    row.seconds(interval.from_ns);
    row.seconds(interval.until_ns);
    row.integer(interval.asked);
    row.integer(interval.sent);
    row.integer(interval.completed);
    row.integer(interval.failed);
    row.integer(interval.rejected);
    row.integer(interval.in_flight);
    row.integer(interval.output_tokens);
    row.optional(interval.ttft_ns_p50, Row::seconds);
    row.optional(interval.ttft_ns_p99, Row::seconds);
    row.float(interval.server.running);
    row.float(interval.server.waiting);
    row.float(interval.server.kv_usage);
    row.float(interval.server.ready_replicas);
}

pub(super) fn write_change(row: &mut Row, change: &Change) {
    row.seconds(change.at_ns);
    row.word(change.kind.name());
    row.optional(change.replica.map(u64::from), Row::integer);
    row.integer(change.replicas.target.into());
    row.integer(change.replicas.starting.into());
    row.integer(change.replicas.ready.into());
    row.integer(change.replicas.draining.into());
    row.text(&change.reason);
}

/// Longer than the fields of any row, texts aside: those of a measured request
/// are 27, of which 12 may have 20 digits, a point and a comma.
const FIELDS_BYTES: usize = 512;

/// One row. Its fields are put together apart and copied at once: appending
/// them one by one to a vector checks and copies many times more.
pub(super) struct Row<'a> {
    target: &'a mut Vec<u8>,
    bytes: &'a mut [u8; FIELDS_BYTES],
    length: usize,
}

impl<'a> Row<'a> {
    #[inline]
    fn new(target: &'a mut Vec<u8>, bytes: &'a mut [u8; FIELDS_BYTES]) -> Self {
        Self {
            target,
            bytes,
            length: 0,
        }
    }

    /// A text of any length, quoted where it needs it (RFC 4180).
    fn text(&mut self, text: &str) {
        self.target.extend_from_slice(&self.bytes[..self.length]);
        self.length = 0;
        if text.contains(['"', ',', '\n', '\r']) {
            self.target.push(b'"');
            self.target
                .extend_from_slice(text.replace('"', "\"\"").as_bytes());
            self.target.push(b'"');
        } else {
            self.target.extend_from_slice(text.as_bytes());
        }
        self.push(b',');
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    #[inline]
    fn word(&mut self, word: &str) {
        self.bytes[self.length..self.length + word.len()].copy_from_slice(word.as_bytes());
        self.length += word.len();
        self.push(b',');
    }

    /// The shortest digits that read back the same.
    fn float(&mut self, value: Option<f64>) {
        self.text(&value.map_or_else(String::new, |value| value.to_string()));
    }

    #[inline]
    fn optional(&mut self, value: Option<u64>, write: fn(&mut Self, u64)) {
        match value {
            Some(value) => write(self, value),
            None => self.push(b','),
        }
    }

    #[inline]
    fn integer(&mut self, value: u64) {
        self.digits(value);
        self.push(b',');
    }

    /// Seconds with nine decimals.
    #[inline]
    fn seconds(&mut self, ns: u64) {
        self.digits(ns / NANOS_PER_SECOND);
        self.push(b'.');
        self.nine_digits((ns % NANOS_PER_SECOND) as u32);
        self.push(b',');
    }

    #[inline]
    fn digits(&mut self, mut value: u64) {
        if value < 10 {
            return self.push(b'0' + value as u8);
        }
        let count = value.ilog10() as usize + 1;
        let mut end = self.length + count;
        self.length = end;
        while value >= 10 {
            end -= 2;
            self.two_digits(end, (value % 100) as u32);
            value /= 100;
        }
        if value > 0 {
            self.bytes[end - 1] = b'0' + value as u8;
        }
    }

    #[inline]
    fn nine_digits(&mut self, value: u32) {
        let start = self.length;
        let (high, low) = (value / 100_000, value % 100_000);
        self.two_digits(start, high / 100);
        self.two_digits(start + 2, high % 100);
        self.two_digits(start + 4, low / 1_000);
        self.two_digits(start + 6, low / 10 % 100);
        self.bytes[start + 8] = b'0' + (low % 10) as u8;
        self.length = start + 9;
    }

    #[inline]
    fn two_digits(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 2].copy_from_slice(&DIGIT_PAIRS[value as usize]);
    }

    /// Ends the row where its last comma is.
    #[inline]
    fn end(self) {
        self.bytes[self.length - 1] = b'\n';
        self.target.extend_from_slice(&self.bytes[..self.length]);
    }
}

/// `00` to `99`.
const DIGIT_PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut value = 0;
    while value < 100 {
        pairs[value as usize] = [b'0' + value / 10, b'0' + value % 10];
        value += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row_of(write: impl FnOnce(&mut Row)) -> String {
        let mut target = Vec::new();
        let mut fields = [0; FIELDS_BYTES];
        let mut row = Row::new(&mut target, &mut fields);
        write(&mut row);
        row.end();
        String::from_utf8(target).unwrap()
    }

    #[test]
    fn the_longest_row_fits() {
        let write = |row: &mut Row| (0..16).for_each(|_| row.seconds(u64::MAX));
        assert_eq!(row_of(write).len(), 16 * "18446744073.709551615,".len());
    }

    #[test]
    fn a_row_that_was_begun_is_not_whole() {
        assert_eq!(whole_rows(b""), 0);
        assert_eq!(whole_rows(b"1,2\n3,"), 4);
        assert_eq!(whole_rows(b"1,\"a\nb\"\n2,\"c\n"), 8);
        assert_eq!(whole_rows(b"1,\"\"\"\"\n2"), 7);
    }

    #[test]
    fn integers_of_every_length() {
        for digits in 0..20 {
            for value in [
                10_u64.pow(digits),
                10_u64.pow(digits) - 1,
                u64::MAX / 10_u64.pow(digits),
            ] {
                assert_eq!(row_of(|row| row.integer(value)), format!("{value}\n"));
            }
        }
    }

    proptest! {
        #[test]
        fn seconds_are_exact(ns in any::<u64>(), small in 0..10_000_000_000_u64) {
            for ns in [ns, small] {
                let expected = format!("{}.{:09}\n", ns / NANOS_PER_SECOND, ns % NANOS_PER_SECOND);
                prop_assert_eq!(row_of(|row| row.seconds(ns)), expected);
            }
        }
    }
}
