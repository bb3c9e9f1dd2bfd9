//! foresail's own trace format: everything that a request has, nothing lost.
//!
//! CSV with one fixed header, LF line ends, no quoting. Times are nanoseconds
//! since the start of the run. What does not apply is left empty: `session`;
//! `group`, `shared_tokens` and `content_session` (all three or none);
//! `block_tokens` and `block_ids` (ids separated by blanks). A row with neither
//! of the two groups has a prompt that shares nothing.

use std::io::{self, Write};

use foresail_core::time::Nanos;

use super::super::error::Fault;
use super::super::{Content, Request};
use super::fields::{Field, Fields, digits};
use super::lines::LINE_BYTES_MAX;
use super::reader::Row;

pub(super) const HEADER: &str = "due_ns,prompt_tokens,output_tokens,session,\
    group,shared_tokens,content_session,block_tokens,block_ids";

pub(super) fn row(line: &[u8]) -> Result<Row, Fault> {
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
    fields.finish()?;
    let content = content(shared, blocks)?;
    Ok(Row::Request(Request {
        due,
        prompt_tokens,
        output_tokens,
        session,
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
    row: Vec<u8>,
    previous: Nanos,
}

impl<W: Write> NativeWriter<W> {
    /// A writer that has written the header.
    ///
    /// # Errors
    /// What the output says.
    pub fn new(mut output: W) -> io::Result<Self> {
        writeln!(output, "{HEADER}")?;
        Ok(Self {
            output,
            row: Vec::new(),
            previous: 0,
        })
    }

    /// Appends a request.
    ///
    /// # Errors
    /// What the output says; [`io::ErrorKind::InvalidInput`] for a request that
    /// the reader would refuse: before the one before it, without tokens, or
    /// with more block ids than a line holds.
    pub fn write(&mut self, request: &Request) -> io::Result<()> {
        let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()));
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
