//! A trace as requests: one reader for all formats, which adds the place to
//! what is wrong, the first row's time as the zero, and the check of the order.

use foresail_core::time::Nanos;

use super::super::adapters::AdapterNames;
use super::super::error::{Fault, WorkloadError, excerpt};
use super::super::requests::Skipped;
use super::super::{Adapters, Request};
use super::lines::Lines;
use super::spread::Spread;
use super::{Timestamps, TraceFormat, TraceSource, azure, blis, burstgpt, mooncake, native, vidur};

/// What a row says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// A request, due at the recorded time.
    Request(Request),
    /// No request, and why.
    Skipped(&'static str),
}

/// How rows of the file are read.
#[derive(Debug)]
enum RowReader {
    Azure,
    BurstGpt { with_sessions: bool },
    Vidur,
    Blis(blis::Columns),
    Mooncake,
    Native { with_adapters: bool },
}

impl RowReader {
    fn row(&mut self, line: &[u8], names: &mut AdapterNames) -> Result<Row, Fault> {
        match self {
            Self::Azure => azure::row(line),
            Self::BurstGpt { with_sessions } => burstgpt::row(line, *with_sessions),
            Self::Vidur => vidur::row(line),
            Self::Blis(columns) => columns.row(line, names),
            Self::Mooncake => mooncake::row(line),
            Self::Native { with_adapters } => native::row(line, with_adapters.then_some(names)),
        }
    }

    /// Whether rows may name adapters.
    fn names_adapters(&self) -> bool {
        match self {
            Self::Native { with_adapters } => *with_adapters,
            Self::Blis(columns) => columns.name_adapters(),
            Self::Azure | Self::BurstGpt { .. } | Self::Vidur | Self::Mooncake => false,
        }
    }
}

/// The requests of a trace file, in order.
#[derive(Debug)]
pub(crate) struct TraceReader {
    lines: Lines,
    rows: RowReader,
    /// The first line has been read and is a row: the format has no header.
    first_line_is_row: bool,
    /// The recorded time that is 0 for the run: the first request's, or 0 for the native format.
    origin: Option<Nanos>,
    /// The recorded time of the request read last.
    previous: Nanos,
    skipped: Skipped,
    spread: Option<Spread>,
    names: AdapterNames,
}

impl TraceReader {
    pub(crate) fn open(source: &TraceSource, adapters: &Adapters) -> Result<Self, WorkloadError> {
        let path = &source.path;
        let mut lines = Lines::open(path)?;
        if !lines.advance()? {
            return Err(WorkloadError::Empty { path: path.clone() });
        }
        let first = lines.current();
        let format = match source.format {
            Some(format) => format,
            None => TraceFormat::of_first_line(path, first)?,
        };
        let rows = row_reader(format, first).map_err(|fault| lines.at(fault))?;
        let spread = match (source.timestamps, format) {
            (Timestamps::AsRecorded, _) => None,
            (Timestamps::Spread, TraceFormat::Mooncake) => Some(Spread::default()),
            (Timestamps::Spread, other) => {
                let expected = "as-recorded: only a mooncake-jsonl trace can be spread";
                return Err(WorkloadError::option("timestamps", expected, other.name()));
            }
        };
        Ok(Self {
            lines,
            rows,
            first_line_is_row: format == TraceFormat::Mooncake,
            origin: (format == TraceFormat::Native).then_some(0),
            previous: 0,
            skipped: Skipped::default(),
            spread,
            names: AdapterNames::new(adapters),
        })
    }

    pub(crate) fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Whether requests may ask for adapters.
    pub(crate) fn names_adapters(&self) -> bool {
        self.rows.names_adapters()
    }

    /// The name of an adapter that a request has asked for.
    pub(crate) fn adapter_name(&self, adapter: u32) -> Option<&str> {
        self.names.name(adapter)
    }

    /// The next request, or `None` at the end of the file.
    pub(crate) fn next_request(&mut self) -> Result<Option<Request>, WorkloadError> {
        if self.spread.is_none() {
            return self.recorded();
        }
        loop {
            if let Some(request) = self.spread.as_mut().and_then(Spread::pop) {
                return Ok(Some(request));
            }
            let next = self.recorded()?;
            let Some(spread) = &mut self.spread else {
                return Ok(next);
            };
            if spread.is_finished() {
                return Ok(None);
            }
            spread.push(next).map_err(|fault| self.lines.at(fault))?;
        }
    }

    /// The next request at its recorded time.
    fn recorded(&mut self) -> Result<Option<Request>, WorkloadError> {
        while self.advance()? {
            match self
                .rows
                .row(self.lines.current(), &mut self.names)
                .map_err(|fault| self.lines.at(fault))?
            {
                Row::Request(request) => return self.placed(request).map(Some),
                Row::Skipped(reason) => {
                    self.skipped.rows += 1;
                    self.skipped.reason = reason;
                }
            }
        }
        Ok(None)
    }

    /// Reads the next record: a line, or several where a quoted field spans them.
    fn advance(&mut self) -> Result<bool, WorkloadError> {
        if self.first_line_is_row {
            self.first_line_is_row = false;
            return Ok(true);
        }
        if !self.lines.advance()? {
            return Ok(false);
        }
        if matches!(self.rows, RowReader::Blis(_)) {
            while !blis::is_complete(self.lines.current()) && self.lines.continue_record()? {}
        }
        Ok(true)
    }

    /// The request with its time since the first request.
    fn placed(&mut self, mut request: Request) -> Result<Request, WorkloadError> {
        let time = request.due;
        let origin = *self.origin.get_or_insert(time);
        if time < self.previous {
            return Err(WorkloadError::OutOfOrder {
                path: self.lines.path().to_owned(),
                line: self.lines.number(),
                previous_ns: self.previous - origin,
                earlier_by_ns: self.previous - time,
            });
        }
        self.previous = time;
        request.due = time - origin;
        Ok(request)
    }
}

fn row_reader(format: TraceFormat, first_line: &[u8]) -> Result<RowReader, Fault> {
    let rows = match format {
        TraceFormat::Blis => return blis::Columns::find(first_line).map(RowReader::Blis),
        TraceFormat::Mooncake => return Ok(RowReader::Mooncake),
        TraceFormat::Azure => RowReader::Azure,
        TraceFormat::BurstGpt => RowReader::BurstGpt {
            with_sessions: burstgpt::has_sessions(first_line),
        },
        TraceFormat::Vidur => RowReader::Vidur,
        TraceFormat::Native => RowReader::Native {
            with_adapters: native::names_adapters(first_line) == Some(true),
        },
    };
    if format.begins_with(first_line) {
        return Ok(rows);
    }
    Err(Fault {
        column: 1,
        field: "header".to_owned(),
        expected: format!("`{}` ({})", format.beginning(), format.name()),
        text: excerpt(first_line),
    })
}
