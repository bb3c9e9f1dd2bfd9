//! The data file of a BLIS TraceV2 (versions 2 and 3).
//!
//! A TraceV2 is two files: a YAML header (`trace_version`, `time_unit:
//! microseconds`, …) and this CSV, whose columns name their unit. Columns are
//! found by their names, because several are optional; those that are not
//! needed here are not read. Go's CSV writer quotes fields with commas, quotes
//! or line ends, such as error messages.
//!
//! As in BLIS's own replay, the prompt is `prefix_length` tokens shared by
//! the `prefix_group` and then `input_tokens` of its own; without a group
//! `server_input_tokens`, if above 0, is the better count of the whole prompt.
//! The due time is `arrival_time_us`, the intended send time. Nothing is known
//! to be shared but the prefix. A column `adapter` names LoRA adapters. A row without output tokens is a failed request:
//! it is skipped and counted.
//!
//! Source: inference-sim/inference-sim, `sim/workload/tracev2.go` and `replay.go`.

use foresail_core::time::MICROSECOND;

use super::super::adapters::AdapterNames;
use super::super::error::{Fault, excerpt};
use super::super::{Content, Request};
use super::fields::{Field, name_hash};
use super::reader::Row;

/// Why a row is no request.
pub(super) const FAILED: &str = "failed requests (0 output tokens)";

/// Where the columns are that are needed.
#[derive(Debug)]
pub(super) struct Columns {
    count: usize,
    request_id: usize,
    input_tokens: usize,
    output_tokens: usize,
    arrival_time_us: usize,
    session_id: Option<usize>,
    prefix_group: Option<usize>,
    prefix_length: Option<usize>,
    server_input_tokens: Option<usize>,
    adapter: Option<usize>,
    /// The fields of the current row, kept for its memory.
    spans: Vec<(usize, usize)>,
}

impl Columns {
    pub(super) fn find(header: &[u8]) -> Result<Self, Fault> {
        let names: Vec<&[u8]> = header.split(|&byte| byte == b',').collect();
        let optional = |name: &str| names.iter().position(|&column| column == name.as_bytes());
        let required = |name: &str| {
            optional(name).ok_or_else(|| Fault {
                column: 1,
                field: "header".to_owned(),
                expected: format!("a column `{name}`"),
                text: excerpt(header),
            })
        };
        Ok(Self {
            count: names.len(),
            request_id: required("request_id")?,
            input_tokens: required("input_tokens")?,
            output_tokens: required("output_tokens")?,
            arrival_time_us: required("arrival_time_us")?,
            session_id: optional("session_id"),
            prefix_group: optional("prefix_group"),
            prefix_length: optional("prefix_length"),
            server_input_tokens: optional("server_input_tokens"),
            adapter: optional("adapter"),
            spans: Vec::with_capacity(names.len()),
        })
    }

    /// Whether rows may name adapters.
    pub(super) fn name_adapters(&self) -> bool {
        self.adapter.is_some()
    }

    pub(super) fn row(&mut self, line: &[u8], names: &mut AdapterNames) -> Result<Row, Fault> {
        split(line, &mut self.spans)?;
        if self.spans.len() != self.count {
            let (count, found) = (self.count, self.spans.len());
            return Err(Fault::row(
                line,
                format!("{count} fields, as the header has, not {found}"),
            ));
        }
        let arrival = self.field(line, "arrival_time_us", self.arrival_time_us);
        let due = arrival.integer()?.checked_mul(MICROSECOND);
        let due = due.ok_or_else(|| arrival.fault("microseconds below 584 years"))?;
        let output_tokens = self
            .field(line, "output_tokens", self.output_tokens)
            .tokens_or_zero()?;
        let (prompt_tokens, content) = self.prompt(line)?;
        if output_tokens == 0 {
            return Ok(Row::Skipped(FAILED));
        }
        let session = self.name(line, "session_id", self.session_id);
        let adapter = match self.adapter {
            Some(index) => names.read(self.field(line, "adapter", index))?,
            None => None,
        };
        Ok(Row::Request(Request {
            due,
            prompt_tokens,
            output_tokens,
            session,
            adapter,
            content,
        }))
    }

    fn prompt(&self, line: &[u8]) -> Result<(u32, Content), Fault> {
        let input = self.field(line, "input_tokens", self.input_tokens);
        let group = self.name(line, "prefix_group", self.prefix_group);
        let count = |name, index: Option<usize>| {
            index.map_or(Ok(0), |index| {
                self.field(line, name, index).tokens_or_zero()
            })
        };
        let Some(group) = group else {
            let server = count("server_input_tokens", self.server_input_tokens)?;
            let tokens = if server > 0 { server } else { input.tokens()? };
            return Ok((tokens, Content::Unique));
        };
        let shared_tokens = count("prefix_length", self.prefix_length)?;
        let tokens = input
            .tokens_or_zero()?
            .checked_add(shared_tokens)
            .filter(|&sum| sum > 0);
        let tokens = tokens.ok_or_else(|| input.fault("1 to 4294967295 tokens with the prefix"))?;
        // A number of its own for each row: behind the prefix nothing is shared.
        let session = name_hash(self.field(line, "request_id", self.request_id).bytes);
        Ok((
            tokens,
            Content::Session {
                group,
                shared_tokens,
                session,
            },
        ))
    }

    /// A name as a number; an empty field or an absent column is `None`.
    fn name(&self, line: &[u8], name: &'static str, index: Option<usize>) -> Option<u64> {
        let field = self.field(line, name, index?);
        (!field.is_empty()).then(|| name_hash(field.bytes))
    }

    fn field<'a>(&self, line: &'a [u8], name: &'static str, index: usize) -> Field<'a> {
        let (start, end) = self.spans[index];
        Field {
            name,
            column: start + 1,
            bytes: &line[start..end],
        }
    }
}

/// Whether every quoted field of the record is closed.
pub(super) fn is_complete(record: &[u8]) -> bool {
    record.iter().filter(|&&byte| byte == b'"').count() % 2 == 0
}

/// Start and end of each field, without its quotes (RFC 4180). Doubled quotes
/// inside a field stay doubled: names are compared, not shown.
fn split(line: &[u8], spans: &mut Vec<(usize, usize)>) -> Result<(), Fault> {
    spans.clear();
    if line.is_empty() {
        return Err(Fault::row(line, "a row; this line is blank"));
    }
    let mut start = 0;
    loop {
        let quoted = line.get(start) == Some(&b'"');
        let (span, end) = if quoted {
            quoted_span(line, start)?
        } else {
            plain_span(line, start)
        };
        spans.push(span);
        match line.get(end) {
            None => return Ok(()),
            Some(b',') => start = end + 1,
            Some(_) => return Err(unbalanced(line, end)),
        }
    }
}

fn plain_span(line: &[u8], start: usize) -> ((usize, usize), usize) {
    let length = line[start..].iter().position(|&byte| byte == b',');
    let end = length.map_or(line.len(), |length| start + length);
    ((start, end), end)
}

fn quoted_span(line: &[u8], start: usize) -> Result<((usize, usize), usize), Fault> {
    let mut index = start + 1;
    loop {
        match (line.get(index), line.get(index + 1)) {
            (Some(b'"'), Some(b'"')) => index += 2,
            (Some(b'"'), _) => return Ok(((start + 1, index), index + 1)),
            (Some(_), _) => index += 1,
            (None, _) => return Err(unbalanced(line, start)),
        }
    }
}

fn unbalanced(line: &[u8], index: usize) -> Fault {
    Fault {
        column: index + 1,
        field: "row".to_owned(),
        expected: "a quoted field that ends before a comma".to_owned(),
        text: excerpt(&line[index..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"request_id,client_id,tenant_id,slo_class,session_id,round_index,\
        prefix_group,prefix_length,streaming,input_tokens,output_tokens,text_tokens,image_tokens,\
        audio_tokens,video_tokens,reason_ratio,model,deadline_us,server_input_tokens,arrival_time_us,\
        send_time_us,first_chunk_time_us,last_chunk_time_us,num_chunks,status,error_message,finish_reason";

    fn row(line: &str) -> Result<Row, Fault> {
        Columns::find(HEADER)
            .unwrap()
            .row(line.as_bytes(), &mut AdapterNames::default())
    }

    fn request(line: &str) -> Request {
        match row(line).unwrap() {
            Row::Request(request) => request,
            Row::Skipped(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn the_prompt_is_counted_as_blis_replays_it() {
        let plain = "0,c,t,batch,,0,,0,true,100,50,100,0,0,0,0,,0,0,1500,1500,0,0,0,ok,,";
        assert_eq!(
            (request(plain).due, request(plain).prompt_tokens),
            (1_500_000, 100)
        );
        assert_eq!(request(plain).content, Content::Unique);
        let server = "0,c,t,batch,,0,,0,true,100,50,100,0,0,0,0,,0,117,1500,1500,0,0,0,ok,,stop";
        assert_eq!(request(server).prompt_tokens, 117);
        let prefix =
            "7,c,t,batch,s,0,sys,64,true,100,50,100,0,0,0,0,,0,117,1500,1500,0,0,0,ok,,stop";
        let found = request(prefix);
        assert_eq!(
            (found.prompt_tokens, found.session),
            (164, Some(name_hash(b"s")))
        );
        let (group, session) = (name_hash(b"sys"), name_hash(b"7"));
        assert_eq!(
            found.content,
            Content::Session {
                group,
                shared_tokens: 64,
                session
            }
        );
    }

    #[test]
    fn quoted_fields_hold_commas_quotes_and_line_ends() {
        let line = "0,c,t,batch,,0,,0,true,100,50,100,0,0,0,0,,0,0,1500,1500,0,0,0,error,\"a, \"\"b\"\"\nc\",";
        assert!(is_complete(line.as_bytes()));
        assert!(!is_complete(b"0,\"a"));
        assert_eq!(request(line).output_tokens, 50);
        assert!(row("0,\"a\"b").unwrap_err().expected.contains("quoted"));
        assert!(row("0,\"a").unwrap_err().expected.contains("quoted"));
    }

    #[test]
    fn rows_without_output_are_failed_requests() {
        let line = "0,c,t,batch,,0,,0,true,100,0,100,0,0,0,0,,0,0,1500,1500,0,0,0,timeout,,";
        assert_eq!(row(line), Ok(Row::Skipped(FAILED)));
    }

    #[test]
    fn a_row_has_the_fields_of_the_header() {
        assert!(row("0,c").unwrap_err().expected.contains("27 fields"));
        assert!(row("").unwrap_err().expected.contains("blank"));
        let fault = Columns::find(b"request_id,input_tokens").unwrap_err();
        assert_eq!(fault.expected, "a column `output_tokens`");
    }
}
