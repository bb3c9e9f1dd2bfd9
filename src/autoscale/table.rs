//! A table of measurements: CSV with a header, row by row.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use csv::ByteRecord;
use foresail_core::control::autoscaler::AutoscalerConfig;
use foresail_core::control::autoscaler::trace::{Column, ColumnKind, Row};
use foresail_core::time::Nanos;
use foresail_scenarios::workload::decimal_seconds;

use crate::failure::Failure;

const TIME: &str = "time_s";

/// What separates the numbers of a cell that has one for each replica.
const BETWEEN_REPLICAS: char = ';';

/// A table that is being read.
pub(super) struct Table {
    name: String,
    reader: csv::Reader<Box<dyn Read>>,
    header: Vec<String>,
    columns: &'static [Column],
    /// Where in a record the time is, and each column of the policy, if at all.
    time_at: usize,
    at: Vec<Option<usize>>,
    record: ByteRecord,
    last: Nanos,
    rows: u64,
}

impl Table {
    /// Opens a file, or standard input for `-`, and reads the header.
    pub(super) fn open(path: &Path, config: &AutoscalerConfig) -> Result<Self, Failure> {
        let (name, source) = source(path)?;
        Self::read_header(name, source, config)
    }

    fn read_header(
        name: String,
        source: Box<dyn Read>,
        config: &AutoscalerConfig,
    ) -> Result<Self, Failure> {
        let mut reader = csv::ReaderBuilder::new()
            .buffer_capacity(1 << 18)
            .from_reader(source);
        let first = reader.headers().map_err(|error| fault(&name, &error))?;
        let header: Vec<String> = first.iter().map(str::to_owned).collect();
        if header.iter().all(String::is_empty) {
            let needs = needs(config);
            let message = format!("{name} is empty; its first line is a header: {needs}");
            return Err(Failure::Input(message));
        }
        check_header(&name, &header, config)?;
        let position = |wanted: &str| header.iter().position(|column| column == wanted);
        let columns = config.columns();
        Ok(Self {
            // The header was checked: the time is there.
            time_at: position(TIME).unwrap_or(0),
            at: columns.iter().map(|column| position(column.name)).collect(),
            name,
            reader,
            header,
            columns,
            record: ByteRecord::new(),
            last: 0,
            rows: 0,
        })
    }

    /// What messages call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Columns that the policy does not read.
    pub(super) fn unread(&self) -> Vec<&str> {
        let is_read =
            |name: &str| name == TIME || self.columns.iter().any(|column| column.name == name);
        let header = self.header.iter().map(String::as_str);
        header.filter(|name| !is_read(name)).collect()
    }

    /// The time of the last row, as it is written.
    pub(super) fn time_text(&self) -> &str {
        // It was read as a number, so it is text.
        str::from_utf8(&self.record[self.time_at]).unwrap_or_default()
    }

    /// The next row, with its time.
    pub(super) fn next_row(&mut self) -> Result<Option<(Nanos, Row)>, Failure> {
        let is_row = self
            .reader
            .read_byte_record(&mut self.record)
            .map_err(|error| fault(&self.name, &error))?;
        if !is_row {
            return self.end().map(|()| None);
        }
        self.rows += 1;
        let now = self.time()?;
        let cells = (self.columns.iter().zip(&self.at))
            .map(|(column, at)| at.map_or(Ok(None), |at| self.cell(column, at)))
            .collect::<Result<Vec<_>, Failure>>()?;
        let row = Row::new(self.columns, cells).map_err(|error| self.fault(&error.to_string()))?;
        Ok(Some((now, row)))
    }

    fn end(&self) -> Result<(), Failure> {
        if self.rows > 0 {
            return Ok(());
        }
        let message = format!("{} has no rows after its header", self.name);
        Err(Failure::Input(message))
    }

    fn time(&mut self) -> Result<Nanos, Failure> {
        let bytes = &self.record[self.time_at];
        let written = || shown(bytes);
        let Some(now) = decimal_seconds(bytes) else {
            let message = format!(
                "column {TIME} must be a time in seconds, such as 12.5: {}",
                written()
            );
            return Err(self.fault(&message));
        };
        if now < self.last {
            let message = format!(
                "column {TIME} goes back to {}; sort the rows by it",
                written()
            );
            return Err(self.fault(&message));
        }
        self.last = now;
        Ok(now)
    }

    /// The numbers in a cell; `None` if it is empty.
    fn cell(&self, column: &Column, at: usize) -> Result<Option<Vec<f64>>, Failure> {
        let bytes = &self.record[at];
        match (column.kind, bytes.is_empty()) {
            (ColumnKind::Number, true) => Ok(None),
            (ColumnKind::Number, false) => self.number(column, bytes).map(|one| Some(vec![one])),
            // No replica has a load.
            (ColumnKind::PerReplica, true) => Ok(Some(Vec::new())),
            (ColumnKind::PerReplica, false) => {
                let parts = bytes.split(|byte| *byte == BETWEEN_REPLICAS as u8);
                let numbers = parts.map(|part| self.number(column, part));
                numbers.collect::<Result<_, _>>().map(Some)
            }
        }
    }

    fn number(&self, column: &Column, bytes: &[u8]) -> Result<f64, Failure> {
        let text = str::from_utf8(bytes).ok();
        text.and_then(|text| text.parse().ok()).ok_or_else(|| {
            let message = format!("column {} must be a number: {}", column.name, shown(bytes));
            self.fault(&message)
        })
    }

    /// What is wrong with the row that was read last.
    fn fault(&self, message: &str) -> Failure {
        let line = self.record.position().map_or(0, csv::Position::line);
        Failure::Input(format!("{}, line {line}: {message}", self.name))
    }
}

fn source(path: &Path) -> Result<(String, Box<dyn Read>), Failure> {
    if path.to_str() == Some("-") {
        return Ok(("standard input".to_owned(), Box::new(io::stdin().lock())));
    }
    let name = path.display().to_string();
    if path.is_dir() {
        return Err(Failure::Input(format!("{name} is a folder; name a file")));
    }
    match File::open(path) {
        Ok(file) => Ok((name, Box::new(file))),
        Err(error) => Err(Failure::Input(format!("cannot read {name}: {error}"))),
    }
}

fn check_header(name: &str, header: &[String], config: &AutoscalerConfig) -> Result<(), Failure> {
    let policy = config.name();
    let required = config.columns().iter().filter(|column| column.is_required);
    let mut wanted = std::iter::once(TIME).chain(required.map(|column| column.name));
    if let Some(missing) = wanted.find(|wanted| !header.iter().any(|column| column == wanted)) {
        let needs = needs(config);
        return Err(Failure::Input(format!(
            "{name} has no column {missing}; {policy} needs {needs} \
             (`foresail autoscale --policy {policy} --columns` explains them)"
        )));
    }
    let is_repeated = |place: usize| header[..place].contains(&header[place]);
    match (1..header.len()).find(|&place| is_repeated(place)) {
        Some(place) => Err(Failure::Input(format!(
            "{name} has the column {} twice",
            header[place]
        ))),
        None => Ok(()),
    }
}

/// The columns that a trace of the policy must have.
fn needs(config: &AutoscalerConfig) -> String {
    let required = config.columns().iter().filter(|column| column.is_required);
    let names = std::iter::once(TIME).chain(required.map(|column| column.name));
    names.collect::<Vec<_>>().join(",")
}

/// A cell as messages show it.
fn shown(bytes: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 40;
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// What the CSV reader found wrong.
fn fault(name: &str, error: &csv::Error) -> Failure {
    let line = error.position().map_or(1, csv::Position::line);
    let message = match error.kind() {
        csv::ErrorKind::Io(error) => return Failure::Input(format!("cannot read {name}: {error}")),
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} cells, and the header has {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "not UTF-8 text".to_owned(),
        _ => error.to_string(),
    };
    Failure::Input(format!("{name}, line {line}: {message}"))
}
