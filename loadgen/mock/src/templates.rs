//! The bytes of an answer, written down once per behaviour: on the way out they are only copied.

use std::fmt::Write as _;

use crate::behaviour::{Behaviour, EventStyle, LineEnd, Output};

/// What ends a chunked body (RFC 9112, 7.1).
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The tokens of an answer, as `usage` tells them.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u32,
    pub(crate) completion_tokens: u32,
    pub(crate) cached_tokens: Option<u32>,
}

/// What the answers of one behaviour to one API have in common.
pub(crate) struct Templates {
    is_chat: bool,
    model_json: String,
    output: Output,
    style: EventStyle,
    pub(crate) tokens_per_chunk: u32,
    /// A full chunk of output that is not the last.
    pub(crate) output_chunk: Vec<u8>,
}

impl Templates {
    pub(crate) fn new(behaviour: &Behaviour, is_chat: bool) -> Self {
        let mut templates = Self {
            is_chat,
            model_json: serde_json::Value::from(behaviour.model.as_str()).to_string(),
            output: behaviour.output,
            style: behaviour.events,
            tokens_per_chunk: behaviour.tokens_per_chunk.max(1),
            output_chunk: Vec::new(),
        };
        let full = templates.output_event(templates.tokens_per_chunk, false);
        templates.output_chunk = chunk(&full);
        templates
    }

    /// The head of a stream.
    pub(crate) fn stream_head(keeps_alive: bool) -> Vec<u8> {
        let connection = connection_header(keeps_alive);
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n\
             {connection}transfer-encoding: chunked\r\n\r\n"
        )
        .into_bytes()
    }

    /// The event that only tells the role.
    pub(crate) fn role_chunk(&self) -> Vec<u8> {
        let choice = r#""delta":{"role":"assistant","content":""},"logprobs":null"#;
        chunk(&self.event_of_choice(choice, "null"))
    }

    /// The last chunk of output, which also says why it is the last.
    pub(crate) fn last_output_chunk(&self, tokens: u32) -> Vec<u8> {
        chunk(&self.output_event(tokens, true))
    }

    /// The event that tells the tokens.
    pub(crate) fn usage_chunk(&self, usage: Usage) -> Vec<u8> {
        let json = format!(
            "{},\"choices\":[],\"usage\":{}}}",
            self.preamble(".chunk"),
            usage_json(usage)
        );
        chunk(&self.event(&json))
    }

    /// What says that the stream is over.
    pub(crate) fn done_chunk(&self) -> Vec<u8> {
        chunk(&self.event("[DONE]"))
    }

    /// An event that tells of an error.
    pub(crate) fn error_chunk(&self) -> Vec<u8> {
        chunk(&self.event(&error_json(500, "the mock was told to fail here")))
    }

    /// Any text as an event.
    pub(crate) fn text_chunk(&self, text: &str) -> Vec<u8> {
        chunk(&self.event(text))
    }

    /// An answer that is no stream, as JSON.
    pub(crate) fn whole_json(&self, tokens: u32, usage: Option<Usage>) -> String {
        let text = text_json(tokens);
        let said = match (self.is_chat, self.output) {
            (false, _) => format!("\"text\":{text}"),
            (true, Output::Content) => {
                format!("\"message\":{{\"role\":\"assistant\",\"content\":{text}}}")
            }
            (true, Output::Reasoning) => format!(
                "\"message\":{{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":{text}}}"
            ),
            (true, Output::ToolCall) => format!(
                "\"message\":{{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{{\"id\":\"call-mock\",\
                 \"type\":\"function\",\"function\":{{\"name\":\"mock\",\"arguments\":{text}}}}}]}}"
            ),
        };
        let mut json = self.preamble("");
        let _ = write!(
            json,
            ",\"choices\":[{{\"index\":0,{said},\"logprobs\":null,\"finish_reason\":\"length\"}}]"
        );
        if let Some(usage) = usage {
            let _ = write!(json, ",\"usage\":{}", usage_json(usage));
        }
        json.push('}');
        json
    }

    fn output_event(&self, tokens: u32, is_last: bool) -> Vec<u8> {
        let text = text_json(tokens);
        let said = match (self.is_chat, self.output) {
            (false, _) => format!("\"text\":{text}"),
            (true, Output::Content) => format!("\"delta\":{{\"content\":{text}}}"),
            (true, Output::Reasoning) => format!("\"delta\":{{\"reasoning_content\":{text}}}"),
            (true, Output::ToolCall) => format!(
                "\"delta\":{{\"tool_calls\":[{{\"index\":0,\"function\":{{\"arguments\":{text}}}}}]}}"
            ),
        };
        let reason = if is_last { "\"length\"" } else { "null" };
        self.event_of_choice(&format!("{said},\"logprobs\":null"), reason)
    }

    fn event_of_choice(&self, choice: &str, finish_reason: &str) -> Vec<u8> {
        let preamble = self.preamble(".chunk");
        self.event(&format!(
            "{preamble},\"choices\":[{{\"index\":0,{choice},\"finish_reason\":{finish_reason}}}]}}"
        ))
    }

    /// The beginning of every object; only chats have a name of their own for chunks.
    fn preamble(&self, chunk: &str) -> String {
        let model = &self.model_json;
        let (id, object, chunk) = if self.is_chat {
            ("chatcmpl-mock", "chat.completion", chunk)
        } else {
            ("cmpl-mock", "text_completion", "")
        };
        format!("{{\"id\":\"{id}\",\"object\":\"{object}{chunk}\",\"created\":0,\"model\":{model}")
    }

    /// One event in the style asked for.
    fn event(&self, data: &str) -> Vec<u8> {
        let end = match self.style.line_end {
            LineEnd::Lf => "\n",
            LineEnd::CrLf => "\r\n",
            LineEnd::Cr => "\r",
        };
        let field = if self.style.has_space {
            "data: "
        } else {
            "data:"
        };
        let mut event = String::new();
        if self.style.has_comments {
            let _ = write!(event, ": data: not an event{end}");
        }
        // A reader joins the lines with a line feed, which JSON allows beside a comma.
        match data
            .split_once(',')
            .filter(|_| self.style.is_multi_line && data.starts_with('{'))
        {
            Some((first, second)) => {
                let _ = write!(event, "{field}{first},{end}{field}{second}{end}{end}");
            }
            None => {
                let _ = write!(event, "{field}{data}{end}{end}");
            }
        }
        event.into_bytes()
    }
}

/// An answer whose length is known.
pub(crate) fn response(
    status: u16,
    content_type: &str,
    extra_headers: &str,
    body: &[u8],
    keeps_alive: bool,
) -> Vec<u8> {
    let connection = connection_header(keeps_alive);
    let mut bytes = format!(
        "HTTP/1.1 {status} {}\r\ncontent-type: {content_type}\r\n{connection}{extra_headers}content-length: {}\r\n\r\n",
        reason(status),
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// An error in OpenAI's form.
pub(crate) fn error_json(status: u16, message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(
        "{{\"error\":{{\"message\":{message},\"type\":\"mock_error\",\"param\":null,\"code\":{status}}}}}"
    )
}

fn usage_json(usage: Usage) -> String {
    let Usage {
        prompt_tokens,
        completion_tokens,
        cached_tokens,
    } = usage;
    let total = u64::from(prompt_tokens) + u64::from(completion_tokens);
    let details = cached_tokens.map_or(String::new(), |cached| {
        format!(",\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}")
    });
    format!(
        "{{\"prompt_tokens\":{prompt_tokens},\"total_tokens\":{total},\"completion_tokens\":{completion_tokens}{details}}}"
    )
}

/// So many tokens as a JSON string.
fn text_json(tokens: u32) -> String {
    format!("\"{}\"", " token".repeat(tokens as usize))
}

/// One chunk of a chunked body (RFC 9112, 7.1).
fn chunk(data: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn connection_header(keeps_alive: bool) -> &'static str {
    if keeps_alive {
        ""
    } else {
        "connection: close\r\n"
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "As Told",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of one token and of the end, in this style.
    fn styled(style: EventStyle) -> String {
        let behaviour = Behaviour {
            events: style,
            ..Behaviour::default()
        };
        let templates = Templates::new(&behaviour, false);
        let bytes = [templates.output_chunk.clone(), templates.done_chunk()].concat();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn events_are_written_in_every_style_that_the_specification_allows() {
        let style = EventStyle::default();
        let json = concat!(
            r#"{"id":"cmpl-mock","object":"text_completion","created":0,"model":"mock","#,
            r#""choices":[{"index":0,"text":" token","logprobs":null,"finish_reason":null}]}"#
        );
        let chunks = |first: &str, last: &str| {
            format!(
                "{:x}\r\n{first}\r\n{:x}\r\n{last}\r\n",
                first.len(),
                last.len()
            )
        };
        assert_eq!(
            styled(style),
            chunks(&format!("data: {json}\n\n"), "data: [DONE]\n\n")
        );
        let crlf = EventStyle {
            line_end: LineEnd::CrLf,
            has_space: false,
            ..style
        };
        assert_eq!(
            styled(crlf),
            chunks(&format!("data:{json}\r\n\r\n"), "data:[DONE]\r\n\r\n")
        );
        let commented = EventStyle {
            line_end: LineEnd::Cr,
            has_comments: true,
            ..style
        };
        let comment = ": data: not an event\r";
        assert_eq!(
            styled(commented),
            chunks(
                &format!("{comment}data: {json}\r\r"),
                &format!("{comment}data: [DONE]\r\r")
            )
        );
        let split = EventStyle {
            is_multi_line: true,
            ..style
        };
        let (first, second) = json.split_once(',').expect("a comma");
        assert_eq!(
            styled(split),
            chunks(
                &format!("data: {first},\ndata: {second}\n\n"),
                "data: [DONE]\n\n"
            )
        );
    }

    #[test]
    fn names_and_outputs_are_json_whatever_they_are() {
        for output in [Output::Content, Output::Reasoning, Output::ToolCall] {
            let behaviour = Behaviour {
                model: "a \"quoted\" \\ name".to_owned(),
                output,
                ..Behaviour::default()
            };
            for is_chat in [false, true] {
                let templates = Templates::new(&behaviour, is_chat);
                let whole: serde_json::Value =
                    serde_json::from_str(&templates.whole_json(3, None)).expect("JSON");
                assert_eq!(whole["model"], behaviour.model);
                let event = String::from_utf8(templates.output_event(1, true)).expect("text");
                let data = event.trim_end().strip_prefix("data: ").expect("data");
                let event: serde_json::Value = serde_json::from_str(data).expect("JSON");
                assert_eq!(event["choices"][0]["finish_reason"], "length");
            }
        }
    }
}
