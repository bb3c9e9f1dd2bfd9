//! foresail's own trace format: everything that a request has, nothing lost.
//!
//! CSV with one fixed header, LF line ends, no quoting. Times are nanoseconds
//! since the start of the run. What does not apply is left empty: `session`;
//! `group`, `shared_tokens` and `content_session` (all three or none);
//! `block_tokens` and `block_ids` (ids separated by blanks). A row with neither
//! of the two groups has a prompt that shares nothing. One more column,
//! `adapter`, is there if requests ask for adapters: its name, or nothing for the
//! model itself.

use std::io::{self, Write};

use foresail_core::time::Nanos;

use super::super::adapters::{AdapterNames, is_adapter_name};
use super::super::error::Fault;
use super::super::{Content, Request};
use super::fields::{Field, Fields, digits};
use super::lines::LINE_BYTES_MAX;
use super::reader::Row;

pub(super) const HEADER: &str = "due_ns,prompt_tokens,output_tokens,session,\
    group,shared_tokens,content_session,block_tokens,block_ids";

/// Behind the other columns, where requests ask for adapters.
pub(super) const ADAPTER_COLUMN: &str = ",adapter";

/// Whether a file can begin so; and if so, whether its requests ask for adapters.
pub(super) fn names_adapters(header: &[u8]) -> Option<bool> {
    match header.strip_prefix(HEADER.as_bytes())? {
        [] => Some(false),
        rest => (rest == ADAPTER_COLUMN.as_bytes()).then_some(true),
    }
}

/// A row; `names` are those of the column `adapter`, if there is one.
pub(super) fn row(line: &[u8], names: Option<&mut AdapterNames>) -> Result<Row, Fault> {
    let mut fields = Fields::new(line);
    let due = fields.field("due_ns")?.integer()?;
    let prompt_tokens = fields.field("prompt_tokens")?.tokens()?;
    let output_tokens = fields.field("output_tokens")?.tokens()?;
    let session = fields.field("session")?.optional_integer()?;
    let shared = [
        fields.field("group")?,
        fields.field("shared_tokens")?,
        fields.field("content_session")?,
    ];
    let blocks = [fields.field("block_tokens")?, fields.field("block_ids")?];
    let adapter = match names {
        Some(names) => names.read(fields.field("adapter")?)?,
        None => None,
    };
    fields.finish()?;
    let content = content(shared, blocks)?;
    Ok(Row::Request(Request {
        due,
        prompt_tokens,
        output_tokens,
        session,
        adapter,
        content,
    }))
}

fn content(shared: [Field<'_>; 3], blocks: [Field<'_>; 2]) -> Result<Content, Fault> {
    let is_shared = shared.iter().any(|field| !field.is_empty());
    let is_blocks = blocks.iter().any(|field| !field.is_empty());
    match (is_shared, is_blocks) {
        (false, false) => Ok(Content::Unique),
        (true, false) => Ok(Content::Session {
            group: shared[0].integer()?,
            shared_tokens: shared[1].tokens_or_zero()?,
            session: shared[2].integer()?,
        }),
        (false, true) => Ok(Content::Blocks {
            block_tokens: blocks[0].tokens()?,
            ids: ids(blocks[1])?,
        }),
        (true, true) => Err(blocks[0].fault("nothing, because `group` is given")),
    }
}

fn ids(field: Field<'_>) -> Result<Box<[u64]>, Fault> {
    if field.is_empty() {
        return Ok(Box::default());
    }
    let ids = field.bytes.split(|&byte| byte == b' ').map(digits);
    ids.collect::<Option<Box<[u64]>>>().ok_or_else(|| {
        field.fault("whole numbers from 0 to 18446744073709551615 separated by blanks")
    })
}

/// Writes requests in the native format.
#[derive(Debug)]
pub struct NativeWriter<W> {
    output: W,
    with_adapters: bool,
    row: Vec<u8>,
    previous: Nanos,
}

impl<W: Write> NativeWriter<W> {
    /// A writer that has written the header, for requests that ask for the model itself.
    ///
    /// # Errors
    /// What the output says.
    pub fn new(output: W) -> io::Result<Self> {
        Self::begin(output, false)
    }

    /// As [`NativeWriter::new`], with a column for adapters.
    ///
    /// # Errors
    /// What the output says.
    pub fn with_adapters(output: W) -> io::Result<Self> {
        Self::begin(output, true)
    }

    fn begin(mut output: W, with_adapters: bool) -> io::Result<Self> {
        let column = if with_adapters { ADAPTER_COLUMN } else { "" };
        writeln!(output, "{HEADER}{column}")?;
        Ok(Self {
            output,
            with_adapters,
            row: Vec::new(),
            previous: 0,
        })
    }

    /// Appends a request. `adapter` is the name of the adapter that it asks for.
    ///
    /// # Errors
    /// What the output says; [`io::ErrorKind::InvalidInput`] for a request that
    /// the reader would refuse: before the one before it, without tokens, with
    /// more block ids than a line holds, or with an adapter without a name or a column.
    pub fn write(&mut self, request: &Request, adapter: Option<&str>) -> io::Result<()> {
        let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()));
        if request.adapter.is_some() != adapter.is_some_and(is_adapter_name) {
            return refuse("a request with an adapter is written with its name");
        }
        if adapter.is_some() && !self.with_adapters {
            return refuse("there is no column for adapters");
        }
        if request.due < self.previous {
            return refuse("requests must be written in the order of their due times");
        }
        if request.prompt_tokens == 0 || request.output_tokens == 0 {
            return refuse("a request has at least 1 prompt token and 1 output token");
        }
        if matches!(
            request.content,
            Content::Blocks {
                block_tokens: 0,
                ..
            }
        ) {
            return refuse("a block has at least 1 token");
        }
        self.format(request)?;
        if self.with_adapters {
            write!(self.row, ",{}", adapter.unwrap_or_default())?;
        }
        if self.row.len() > LINE_BYTES_MAX {
            return refuse("the request has more block ids than a line of 1 MiB holds");
        }
        self.row.push(b'\n');
        self.previous = request.due;
        self.output.write_all(&self.row)
    }

    /// Flushes and gives the output back.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }

    fn format(&mut self, request: &Request) -> io::Result<()> {
        let row = &mut self.row;
        row.clear();
        write!(
            row,
            "{},{},{},",
            request.due, request.prompt_tokens, request.output_tokens
        )?;
        if let Some(session) = request.session {
            write!(row, "{session}")?;
        }
        match &request.content {
            Content::Unique => write!(row, ",,,,,"),
            Content::Session {
                group,
                shared_tokens,
                session,
            } => {
                write!(row, ",{group},{shared_tokens},{session},,")
            }
            Content::Blocks { block_tokens, ids } => {
                write!(row, ",,,,{block_tokens},")?;
                for (index, id) in ids.iter().enumerate() {
                    let separator = if index == 0 { "" } else { " " };
                    write!(row, "{separator}{id}")?;
                }
                Ok(())
            }
        }
    }
}
