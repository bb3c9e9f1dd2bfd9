//! Requests out of `requests.csv`.

use super::super::REQUESTS;
use super::ReadError;
use super::table::{Row, Table};
use crate::records::{Outcome, Parts, RequestRecord, TokensFrom, Wire};
use std::path::Path;

/// The requests of a run, one after the other in the order of the file, which
/// is that of their ends. After an error there is nothing more.
#[derive(Debug)]
pub struct Requests {
    table: Table,
    columns: Columns,
    has_failed: bool,
}

/// Which columns there are that not every table has.
#[derive(Clone, Copy, Debug)]
struct Columns {
    wire: bool,
    outside: bool,
}

/// Reads `requests.csv` of a run, simulated or measured. Columns are found by
/// their names; others than ours are passed over.
///
/// # Errors
/// If it is not there or is no table. What is wrong with a row comes with the row.
pub fn read_requests(folder: impl AsRef<Path>) -> Result<Requests, ReadError> {
    let table = Table::open(folder.as_ref().join(REQUESTS))?;
    Ok(Requests {
        columns: Columns {
            wire: table.has("tokens_from"),
            outside: table.has("outside_s"),
        },
        table,
        has_failed: false,
    })
}

impl Iterator for Requests {
    type Item = Result<RequestRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let columns = self.columns;
        let read = self.table.row()?.and_then(|row| request(&row, columns));
        self.has_failed = read.is_err();
        Some(read)
    }
}

fn request(row: &Row, columns: Columns) -> Result<RequestRecord, ReadError> {
    let record = RequestRecord {
        id: row.integer("id")?,
        due_ns: row.seconds("due_s")?,
        prompt_tokens: row.integer("prompt_tokens")?,
        output_tokens: row.integer("output_tokens")?,
        session: row.optional_integer("session")?,
        adapter: row.optional_integer("adapter")?,
        attempts: row.integer("attempts")?,
        replica: row.optional_integer("replica")?,
        cached_tokens: row.integer("cached_tokens")?,
        preemptions: row.integer("preemptions")?,
        outcome: outcome(row)?,
        first_token_ns: row.optional_seconds("first_token_s")?,
        end_ns: row.seconds("end_s")?,
        parts: parts(row, columns.outside)?,
        wire: if columns.wire { wire(row)? } else { None },
    };
    check_order(row, &record)?;
    Ok(record)
}

/// Latencies are differences of these times: whoever reads a record relies on their order.
fn check_order(row: &Row, record: &RequestRecord) -> Result<(), ReadError> {
    let is_completed = record.outcome == Outcome::Completed;
    let is_ordered = match record.first_token_ns {
        Some(first_ns) => record.due_ns <= first_ns && first_ns <= record.last_token_ns(),
        None => true,
    };
    if is_ordered && (!is_completed || record.due_ns <= record.end_ns) {
        return Ok(());
    }
    Err(ReadError::Row {
        path: row.path().clone(),
        line: row.line(),
        what: "its times are not in order; expected due_s, first_token_s, last_output_s, end_s"
            .to_owned(),
    })
}

pub(super) fn outcome(row: &Row) -> Result<Outcome, ReadError> {
    row.word(
        "outcome",
        "an outcome such as `completed`",
        Outcome::from_name,
    )
}

/// All of them or none.
fn parts(row: &Row, has_outside: bool) -> Result<Option<Parts>, ReadError> {
    if row.text("retry_s")?.is_empty() {
        return Ok(None);
    }
    Ok(Some(Parts {
        retry_ns: row.seconds("retry_s")?,
        outside_ns: if has_outside {
            row.seconds("outside_s")?
        } else {
            0
        },
        cold_start_ns: row.seconds("cold_start_s")?,
        queue_ns: row.seconds("queue_s")?,
        adapter_ns: row.seconds("adapter_s")?,
        prefill_ns: row.seconds("prefill_s")?,
        preemption_ns: row.seconds("preemption_s")?,
        decode_ns: row.seconds("decode_s")?,
    }))
}

fn wire(row: &Row) -> Result<Option<Wire>, ReadError> {
    if row.text("tokens_from")?.is_empty() {
        return Ok(None);
    }
    Ok(Some(Wire {
        sent_ns: row.optional_seconds("sent_s")?,
        last_output_ns: row.optional_seconds("last_output_s")?,
        status: row.optional_integer("status")?,
        chunks: row.integer("chunks")?,
        tokens_from: row.word("tokens_from", "`usage`, `chunks` or `asked`", |word| {
            TokensFrom::ALL.into_iter().find(|from| from.name() == word)
        })?,
        is_connection_reused: row.word("connection", "`new`, `reused` or nothing", |word| {
            match word {
                "reused" => Some(true),
                "new" | "" => Some(false),
                _ => None,
            }
        })?,
        body_bytes: row.integer("body_bytes")?,
        is_in_window: row.word("in_window", "`true` or `false`", |word| word.parse().ok())?,
    }))
}
