//! BurstGPT: two and more months of ChatGPT and GPT-4 use on a campus's Azure service.
//!
//! CSV without quoting. Releases 1 and 2 have six columns, release 3 has eight
//! (`Session ID` and `Elapsed time` after the time stamp). Time stamps are
//! seconds since some midnight, whole or with a fraction. API calls have no
//! session. A request that failed has 0 response tokens: it is skipped and
//! counted, because how long its answer would have been is not known.
//!
//! The trace does not say which tokens the turns of a session share, so prompts
//! count as unique; the session is kept, as a hash of its id.
//!
//! Source: HPMLL/BurstGPT; Wang et al., "BurstGPT", arXiv:2401.17644.

use super::super::error::Fault;
use super::super::{Content, Request};
use super::fields::{Fields, name_hash};
use super::reader::Row;

pub(super) const HEADERS: [&str; 2] = [
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type",
];

/// Why a row is no request.
pub(super) const FAILED: &str = "failed requests (0 response tokens)";

pub(super) fn has_sessions(header: &[u8]) -> bool {
    header == HEADERS[1].as_bytes()
}

pub(super) fn row(line: &[u8], with_sessions: bool) -> Result<Row, Fault> {
    let mut fields = Fields::new(line);
    let due = fields.field("Timestamp")?.seconds()?;
    let mut session = None;
    if with_sessions {
        let id = fields.field("Session ID")?;
        session = (!id.is_empty()).then(|| name_hash(id.bytes));
        fields.field("Elapsed time")?;
    }
    fields.field("Model")?;
    let prompt_tokens = fields.field("Request tokens")?;
    let output_tokens = fields.field("Response tokens")?.tokens_or_zero()?;
    fields.field("Total tokens")?.tokens_or_zero()?;
    fields.field("Log Type")?;
    fields.finish()?;
    if output_tokens == 0 {
        prompt_tokens.tokens_or_zero()?;
        return Ok(Row::Skipped(FAILED));
    }
    let prompt_tokens = prompt_tokens.tokens()?;
    let content = Content::Unique;
    Ok(Row::Request(Request {
        due,
        prompt_tokens,
        output_tokens,
        session,
        adapter: None,
        content,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_releases() {
        let Row::Request(request) = row(b"5,ChatGPT,472,18,490,Conversation log", false).unwrap()
        else {
            panic!("not a request");
        };
        assert_eq!(
            (request.due, request.prompt_tokens, request.output_tokens),
            (5_000_000_000, 472, 18)
        );
        assert_eq!(request.session, None);
        let line = b"19440110.0,1722ac82-0a46-4bf0-aa08-89794e7a2b3f,43,GPT-4,906,446,1352,Conversation log";
        let Row::Request(request) = row(line, true).unwrap() else {
            panic!("not a request")
        };
        assert_eq!(
            request.session,
            Some(name_hash(b"1722ac82-0a46-4bf0-aa08-89794e7a2b3f"))
        );
        let Row::Request(request) = row(b"1.5,,2,GPT-4,9,4,13,API log", true).unwrap() else {
            panic!("not a request");
        };
        assert_eq!((request.due, request.session), (1_500_000_000, None));
    }

    #[test]
    fn failed_requests_are_skipped_for_a_reason() {
        assert_eq!(
            row(b"5,GPT-4,300,0,300,API log", false),
            Ok(Row::Skipped(FAILED))
        );
        let fault = row(b"5,GPT-4,0,3,3,API log", false).unwrap_err();
        assert_eq!(fault.field, "Request tokens");
    }

    #[test]
    fn the_two_layouts_do_not_mix() {
        assert_eq!(
            row(b"5,s,1,GPT-4,3,2,5,API log", false).unwrap_err().field,
            "Response tokens"
        );
        assert_eq!(
            row(b"5,GPT-4,3,2,5,API log", true).unwrap_err().field,
            "Response tokens"
        );
    }
}
