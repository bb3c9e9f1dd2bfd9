//! From bytes to what they ask for.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher as _};

use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest body that is read: 64 MiB are more than any model's context.
const BODY_BYTES_MAX: usize = 64 << 20;
/// The most headers a request may have.
const HEADERS_MAX: usize = 64;
/// The longest answer that can be asked for.
const TOKENS_MAX: u32 = 1_000_000;
/// Bytes of text that count as a token, where nobody says how many a prompt has.
const BYTES_PER_TOKEN: usize = 4;

/// What the bytes so far are.
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    /// The beginning of a request.
    Partial,
    /// A request, and how many bytes it took.
    Whole(Request, usize),
    /// No request that can be answered as asked; the connection is of no more use.
    Bad(u16, &'static str),
}

/// A request.
#[derive(Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    /// Whether the client means this to be the last on its connection.
    pub(crate) is_last: bool,
    pub(crate) asked: Asked,
}

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Generation(Generation),
    Models,
    Health,
    Metrics,
    /// A request that cannot be met, with its status and what is wrong.
    Wrong(u16, String),
}

/// A request for completions.
#[derive(Debug, PartialEq)]
pub(crate) struct Generation {
    pub(crate) is_chat: bool,
    pub(crate) is_streamed: bool,
    pub(crate) wants_usage: bool,
    pub(crate) max_tokens: Option<u32>,
    /// As counted; a behaviour may say otherwise.
    pub(crate) prompt_tokens: u32,
    pub(crate) prompt_hash: u64,
    pub(crate) body: Vec<u8>,
}

/// What [`Received::prompt_hash`](crate::Received::prompt_hash) is of a text: the same for the same text, in
/// all runs of one build. A prompt of several texts or messages is hashed as if they were one after the other.
#[must_use]
pub fn prompt_hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Reads the request at the beginning of `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let head_bytes = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Bad(400, "this is not HTTP/1.1"),
    };
    let header = |name: &str| {
        let found = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    if header("transfer-encoding").is_some() {
        return Parsed::Bad(411, "give the body a content-length");
    }
    let body_bytes = match header("content-length").map(str::parse::<usize>) {
        None => 0,
        Some(Ok(length)) if length <= BODY_BYTES_MAX => length,
        Some(Ok(_)) => return Parsed::Bad(413, "the body is too long"),
        Some(Err(_)) => return Parsed::Bad(400, "content-length is no number"),
    };
    let length = head_bytes + body_bytes;
    let Some(body) = bytes.get(head_bytes..length) else {
        return Parsed::Partial;
    };
    let path = head.path.unwrap_or_default();
    let request = Request {
        path: path.to_owned(),
        authorization: header("authorization").map(str::to_owned),
        is_last: is_last(head.version, header("connection")),
        asked: route(head.method.unwrap_or_default(), path, body),
    };
    Parsed::Whole(request, length)
}

/// Connections live on unless told otherwise, since HTTP/1.1 (RFC 9112, 9.3).
fn is_last(minor_version: Option<u8>, connection: Option<&str>) -> bool {
    let says = |option: &str| {
        connection.is_some_and(|value| {
            value
                .split(',')
                .any(|said| said.trim().eq_ignore_ascii_case(option))
        })
    };
    says("close") || (minor_version == Some(0) && !says("keep-alive"))
}

fn route(method: &str, path: &str, body: &[u8]) -> Asked {
    match (method, path.split('?').next().unwrap_or_default()) {
        ("POST", "/v1/completions") => generation(body, false),
        ("POST", "/v1/chat/completions") => generation(body, true),
        ("GET", "/v1/models") => Asked::Models,
        ("GET", "/health") => Asked::Health,
        ("GET", "/metrics") => Asked::Metrics,
        (_, path) => Asked::Wrong(404, format!("there is no {method} {path} here")),
    }
}

/// The members of a request that matter here.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

fn generation(body: &[u8], is_chat: bool) -> Asked {
    let members: Members<'_> = match serde_json::from_slice(body) {
        Ok(members) => members,
        Err(error) => return Asked::Wrong(400, format!("the body cannot be read: {error}")),
    };
    let max_tokens = members.max_completion_tokens.or(members.max_tokens);
    if max_tokens.is_some_and(|tokens| !(1..=TOKENS_MAX).contains(&tokens)) {
        let message = format!("max_tokens must be from 1 to {TOKENS_MAX}");
        return Asked::Wrong(400, message);
    }
    let contents: Vec<&RawValue> = match (is_chat, members.prompt, members.messages) {
        (false, Some(prompt), _) => vec![prompt],
        (true, _, Some(messages)) => messages.iter().filter_map(|said| said.content).collect(),
        (false, None, _) => return Asked::Wrong(400, "prompt is missing".to_owned()),
        (true, _, None) => return Asked::Wrong(400, "messages are missing".to_owned()),
    };
    let (prompt_tokens, prompt_hash) = weigh(&contents);
    Asked::Generation(Generation {
        is_chat,
        is_streamed: members.stream,
        wants_usage: members.stream_options.is_some_and(|it| it.include_usage),
        max_tokens,
        prompt_tokens,
        prompt_hash,
        body: body.to_vec(),
    })
}

/// The tokens of a prompt, and its hash. Texts are counted by their bytes, token ids as what they are.
fn weigh(contents: &[&RawValue]) -> (u32, u64) {
    let mut hasher = DefaultHasher::new();
    let mut text_bytes = 0;
    let mut tokens = 0;
    for content in contents {
        let json = content.get();
        if let Ok(text) = serde_json::from_str::<Text<'_>>(json) {
            hasher.write(text.0.as_bytes());
            text_bytes += text.0.len();
        } else if let Ok(ids) = serde_json::from_str::<Vec<u32>>(json) {
            hasher.write(json.as_bytes());
            tokens += ids.len();
        } else {
            // Parts and lists of texts: nothing here depends on how long they are exactly.
            hasher.write(json.as_bytes());
            text_bytes += json.len();
        }
    }
    tokens += text_bytes.div_ceil(BYTES_PER_TOKEN);
    (u32::try_from(tokens).unwrap_or(u32::MAX), hasher.finish())
}

/// A JSON string, copied only if it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn post(path: &str, body: &str) -> String {
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    fn generation_of(path: &str, body: &str) -> Generation {
        match parse(post(path, body).as_bytes()) {
            Parsed::Whole(request, _) => match request.asked {
                Asked::Generation(generation) => generation,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_whole_only_with_its_last_byte() {
        let text = post("/v1/completions", r#"{"prompt":"abcde","max_tokens":3}"#);
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end]), Parsed::Partial, "{end}");
        }
        let two = format!("{text}{text}");
        let Parsed::Whole(request, length) = parse(two.as_bytes()) else {
            panic!("not whole");
        };
        assert_eq!(length, text.len());
        assert!(!request.is_last);
    }

    #[test]
    fn what_is_asked_is_understood() {
        let asked = generation_of(
            "/v1/completions",
            r#"{"prompt":"abcde","max_tokens":3,"stream":true,"stream_options":{"include_usage":true}}"#,
        );
        assert!(asked.is_streamed && asked.wants_usage && !asked.is_chat);
        assert_eq!((asked.max_tokens, asked.prompt_tokens), (Some(3), 2));
        assert_eq!(asked.prompt_hash, prompt_hash("abcde"));

        let asked = generation_of(
            "/v1/chat/completions",
            r#"{"messages":[{"role":"user","content":"a\nb"},{"role":"user","content":"cd"}],"max_completion_tokens":7}"#,
        );
        assert!(asked.is_chat && !asked.is_streamed && !asked.wants_usage);
        assert_eq!((asked.max_tokens, asked.prompt_tokens), (Some(7), 2));
        assert_eq!(asked.prompt_hash, prompt_hash("a\nbcd"));

        let ids = generation_of("/v1/completions", r#"{"prompt":[1,2,3]}"#);
        assert_eq!(ids.prompt_tokens, 3);
    }

    #[test]
    fn what_cannot_be_met_is_said() {
        let wrong = |text: &str| match parse(text.as_bytes()) {
            Parsed::Whole(request, _) => match request.asked {
                Asked::Wrong(status, _) => status,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(wrong(&post("/v1/completions", "{")), 400);
        assert_eq!(wrong(&post("/v1/completions", "{}")), 400);
        assert_eq!(wrong(&post("/v1/chat/completions", "{}")), 400);
        assert_eq!(
            wrong(&post("/v1/completions", r#"{"prompt":"a","max_tokens":0}"#)),
            400
        );
        assert_eq!(wrong("GET /nothing HTTP/1.1\r\n\r\n"), 404);
        assert!(matches!(
            parse(b"\x00\x01\x02\r\n\r\n"),
            Parsed::Bad(400, _)
        ));
        let chunked = "POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(matches!(parse(chunked.as_bytes()), Parsed::Bad(411, _)));
    }

    #[test]
    fn the_last_request_of_a_connection_is_known() {
        assert!(!is_last(Some(1), None));
        assert!(is_last(Some(1), Some("Close")));
        assert!(is_last(Some(1), Some("te, close")));
        assert!(is_last(Some(0), None));
        assert!(!is_last(Some(0), Some("keep-alive")));
    }
}
