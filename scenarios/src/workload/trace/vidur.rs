//! Vidur's processed traces.
//!
//! CSV with the header `arrived_at,num_prefill_tokens,num_decode_tokens`;
//! times are seconds as Python prints a float, so `1e-05` occurs.
//!
//! Source: microsoft/vidur, `data/processed_traces`.

use super::super::error::Fault;
use super::super::{Content, Request};
use super::fields::Fields;
use super::reader::Row;

pub(super) const HEADER: &str = "arrived_at,num_prefill_tokens,num_decode_tokens";

pub(super) fn row(line: &[u8]) -> Result<Row, Fault> {
    let mut fields = Fields::new(line);
    let due = fields.field("arrived_at")?.seconds()?;
    let prompt_tokens = fields.field("num_prefill_tokens")?.tokens()?;
    let output_tokens = fields.field("num_decode_tokens")?.tokens()?;
    fields.finish()?;
    let content = Content::Unique;
    Ok(Row::Request(Request {
        due,
        prompt_tokens,
        output_tokens,
        session: None,
        adapter: None,
        content,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_request() {
        let Row::Request(request) = row(b"2.828480710548229,2015,156").unwrap() else {
            panic!("not a request");
        };
        assert_eq!(
            (request.due, request.prompt_tokens, request.output_tokens),
            (2_828_480_711, 2015, 156)
        );
    }
}
