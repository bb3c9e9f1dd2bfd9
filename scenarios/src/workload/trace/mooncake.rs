//! Mooncake: JSON Lines with the prompt's blocks, for prefix caches.
//!
//! One object a line with exactly `timestamp` (milliseconds since the start),
//! `input_length`, `output_length` and `hash_ids`: one id for each 512 tokens
//! of the prompt, standing for the block and all before it; the last block may
//! be partial. The number of ids must be that of the blocks.
//!
//! Source: kvcache-ai/Mooncake, `FAST25-release/traces`; Qin et al.,
//! "Mooncake", FAST 2025.

use foresail_core::time::{MILLISECOND, Nanos};
use serde::Deserialize;

use super::super::error::{Fault, excerpt};
use super::super::{Content, Request};
use super::fields::seconds_nanos;
use super::reader::Row;

/// Tokens that an id stands for.
const BLOCK_TOKENS: u32 = 512;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    timestamp: serde_json::Number,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
}

pub(super) fn row(line: &[u8]) -> Result<Row, Fault> {
    let parsed: Line = serde_json::from_slice(line).map_err(|error| json_fault(line, &error))?;
    let fault = |field: &str, expected: String, text: String| Fault {
        column: 1,
        field: field.to_owned(),
        expected,
        text: excerpt(text.as_bytes()),
    };
    let due = nanos(&parsed.timestamp).ok_or_else(|| {
        let expected = "milliseconds from 0 to 584 years".to_owned();
        fault("timestamp", expected, parsed.timestamp.to_string())
    })?;
    for (name, length) in [
        ("input_length", parsed.input_length),
        ("output_length", parsed.output_length),
    ] {
        if length == 0 {
            return Err(fault(name, "at least 1 token".to_owned(), "0".to_owned()));
        }
    }
    let blocks = parsed.input_length.div_ceil(BLOCK_TOKENS) as usize;
    if parsed.hash_ids.len() != blocks {
        let expected = format!("{blocks} ids, one for each {BLOCK_TOKENS} tokens of the prompt");
        return Err(fault(
            "hash_ids",
            expected,
            format!("{} ids", parsed.hash_ids.len()),
        ));
    }
    Ok(Row::Request(Request {
        due,
        prompt_tokens: parsed.input_length,
        output_tokens: parsed.output_length,
        session: None,
        adapter: None,
        content: Content::Blocks {
            block_tokens: BLOCK_TOKENS,
            ids: parsed.hash_ids.into(),
        },
    }))
}

/// Milliseconds, whole as published or with a fraction as others write them.
fn nanos(timestamp: &serde_json::Number) -> Option<Nanos> {
    match timestamp.as_u64() {
        Some(milliseconds) => milliseconds.checked_mul(MILLISECOND),
        None => seconds_nanos(timestamp.as_f64()? / 1_000.0).filter(|_| timestamp.is_f64()),
    }
}

fn json_fault(line: &[u8], error: &serde_json::Error) -> Fault {
    if line.is_empty() {
        return Fault::row(line, "a row; this line is blank");
    }
    let text = error.to_string();
    let cause = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(cause, _)| cause);
    Fault {
        column: error.column().max(1),
        field: "row".to_owned(),
        expected: format!(
            "a JSON object with `timestamp`, `input_length`, `output_length` and `hash_ids` ({cause})"
        ),
        text: excerpt(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_request() {
        let line = br#"{"timestamp": 3001, "input_length": 513, "output_length": 4, "hash_ids": [0, 18446744073709551615]}"#;
        let Row::Request(request) = row(line).unwrap() else {
            panic!("not a request")
        };
        assert_eq!(
            (request.due, request.prompt_tokens, request.output_tokens),
            (3_001_000_000, 513, 4)
        );
        let ids = Box::new([0, u64::MAX]);
        assert_eq!(
            request.content,
            Content::Blocks {
                block_tokens: 512,
                ids
            }
        );
    }

    #[test]
    fn times_may_have_a_fraction() {
        let line = br#"{"timestamp": 1.5, "input_length": 1, "output_length": 1, "hash_ids": [0]}"#;
        let Row::Request(request) = row(line).unwrap() else {
            panic!("not a request")
        };
        assert_eq!(request.due, 1_500_000);
    }

    #[test]
    fn rows_that_do_not_fit_say_why() {
        let expected = |line: &str| row(line.as_bytes()).unwrap_err().expected;
        let body = |tail: &str| format!(r#"{{"timestamp": 0, "input_length": 512, {tail}}}"#);
        assert!(expected("").contains("blank"));
        assert!(expected("{").contains("EOF"));
        assert!(expected("[]").contains("invalid"));
        assert!(expected(&body(r#""output_length": 1, "hash_ids": [0, 1]"#)).starts_with("1 ids"));
        assert!(expected(&body(r#""output_length": 0, "hash_ids": [0]"#)).contains("at least 1"));
        assert!(
            expected(&body(r#""output_length": -1, "hash_ids": [0]"#)).contains("invalid value")
        );
        assert!(expected(&body(r#""output_length": 4294967296, "hash_ids": [0]"#)).contains("u32"));
        assert!(expected(&body(r#""output_length": 1"#)).contains("missing field `hash_ids`"));
        assert!(
            expected(&body(r#""output_length": 1, "hash_ids": [0], "x": 1"#))
                .contains("unknown field `x`")
        );
        assert!(expected(&body(r#""output_length": 1, "hash_ids": [-1]"#)).contains("u64"));
        let late = r#"{"timestamp": -1, "input_length": 1, "output_length": 1, "hash_ids": [0]}"#;
        assert!(expected(late).contains("584 years"));
        let late = r#"{"timestamp": 1e30, "input_length": 1, "output_length": 1, "hash_ids": [0]}"#;
        assert!(expected(late).contains("584 years"));
    }
}
