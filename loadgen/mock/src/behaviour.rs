//! What the endpoint is told: plain data.
//!
//! Times and counts in here (of rules and outages) start when the behaviour comes
//! into force: when the endpoint starts, or when it is [set](crate::MockEndpoint::set).

use std::time::Duration;

/// How the endpoint answers. The default is a good server with TTFT 50 ms and ITL 5 ms.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// From the last byte of the request to the first chunk of output.
    pub ttft: Duration,
    /// From one chunk of output to the next.
    pub itl: Duration,
    /// How many tokens a chunk carries; the last may carry fewer. 0 counts as 1.
    pub tokens_per_chunk: u32,
    /// Tokens of an answer if the request does not say `max_tokens`.
    pub tokens_default: u32,
    /// Tokens of every prompt; `None` counts four bytes of text as one token.
    pub prompt_tokens: Option<u32>,
    /// Whether a stream tells its tokens.
    pub usage: UsageReport,
    /// Tokens of the prompt said to be found in the prefix cache
    /// (`prompt_tokens_details.cached_tokens`); `None` says nothing of them.
    pub cached_tokens: Option<u32>,
    /// What the model is called.
    pub model: String,
    /// What the chunks of a chat carry.
    pub output: Output,
    /// Whether a chat begins, with its head and at once, with an event that only tells the role.
    pub is_role_first: bool,
    /// Whether the head is sent at once rather than with the first output.
    pub is_head_early: bool,
    /// How long connections live.
    pub keep_alive: KeepAlive,
    /// How events are written down.
    pub events: EventStyle,
    /// Whether the bodies of requests are kept in [`Received`](crate::Received).
    pub keeps_bodies: bool,
    /// What goes wrong with single answers. The first rule that applies is the one.
    pub rules: Vec<Rule>,
    /// What goes wrong with the server as a whole. The first that is on is the one.
    pub outages: Vec<Outage>,
    /// Decides [`When::Probability`]; the same seed fails the same requests.
    pub seed: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            ttft: Duration::from_millis(50),
            itl: Duration::from_millis(5),
            tokens_per_chunk: 1,
            tokens_default: 64,
            prompt_tokens: None,
            usage: UsageReport::WhenAsked,
            cached_tokens: None,
            model: "mock".to_owned(),
            output: Output::Content,
            is_role_first: false,
            is_head_early: false,
            keep_alive: KeepAlive::Always,
            events: EventStyle::default(),
            keeps_bodies: false,
            rules: Vec::new(),
            outages: Vec::new(),
            seed: 0,
        }
    }
}

/// Whether a stream ends with `usage`. An answer that is no stream does unless it is `Never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageReport {
    /// If the request has `stream_options.include_usage`.
    WhenAsked,
    /// Asked or not.
    Always,
    /// Asked or not, it does not.
    Never,
}

/// What the chunks of a chat carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// `delta.content`.
    Content,
    /// `delta.reasoning_content`, all of it.
    Reasoning,
    /// `delta.tool_calls`, all of it.
    ToolCall,
}

/// How long connections live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// Until the client closes.
    Always,
    /// One request each, and the answer says so (`connection: close`).
    Never,
    /// So many requests each; the last answer says so.
    Requests(u32),
    /// So many requests each, and nothing says so: what a client sends next meets a closed connection.
    RequestsUnannounced(u32),
    /// Closed when nothing was asked for so long, and nothing says so.
    Idle(Duration),
}

/// How events are written down. All of it is allowed by the specification of server-sent events
/// (<https://html.spec.whatwg.org/multipage/server-sent-events.html>, 9.2.5 and 9.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventStyle {
    /// What ends a line.
    pub line_end: LineEnd,
    /// Whether a comment precedes each event.
    pub has_comments: bool,
    /// Whether the data of an event is two lines.
    pub is_multi_line: bool,
    /// Whether a space follows `data:`.
    pub has_space: bool,
    /// How events become writes.
    pub writes: Writes,
}

impl Default for EventStyle {
    fn default() -> Self {
        Self {
            line_end: LineEnd::Lf,
            has_comments: false,
            is_multi_line: false,
            has_space: true,
            writes: Writes::Whole,
        }
    }
}

/// What ends a line of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// `\n`
    Lf,
    /// `\r\n`
    CrLf,
    /// `\r`
    Cr,
}

/// How events become writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// One event, one write.
    Whole,
    /// One byte, one write.
    Bytes,
    /// So many events of output, one write, when the last of them is due. 0 counts as 1.
    Together(u32),
}

/// What goes wrong with an answer, and for which requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What goes wrong.
    pub fault: Fault,
    /// For which requests.
    pub when: When,
}

/// For which requests something goes wrong. Only requests for completions count, from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// For all.
    Always,
    /// For each with this probability, as the seed has it.
    Probability(f64),
    /// For the k-th, the 2k-th, and so on. 0 is for none.
    Every(u64),
    /// For the k-th only.
    Only(u64),
    /// For the first n.
    First(u64),
    /// For all but the first n.
    After(u64),
    /// For those that arrive from the one (inclusive) to the other (exclusive).
    Between(Duration, Duration),
}

/// What goes wrong with an answer. "After n chunks" is when the next would have been due.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The connection is reset when the answer was to begin.
    ResetBeforeHead,
    /// The connection is reset in the middle of the head.
    ResetMidHead,
    /// The connection is reset after so many chunks.
    ResetAfter(u32),
    /// The connection is closed in order when the answer was to begin, without any of it.
    CloseBeforeHead,
    /// The connection is closed in order after so many chunks.
    CloseAfter(u32),
    /// The answer ends in order after so many chunks, but without `[DONE]` and usage.
    EndWithoutDone(u32),
    /// Nothing is sent for a while after so many chunks; then the rest at its pace.
    Stall {
        /// After how many chunks.
        after_chunks: u32,
        /// For how long.
        lasts: Duration,
    },
    /// The request is taken, and nothing ever comes. The connection stays open.
    NeverAnswer,
    /// Refused at once with this status and an error in OpenAI's form.
    Status {
        /// 429, 503, 500, …
        status: u16,
        /// What `Retry-After` says, in whole seconds.
        retry_after_s: Option<u32>,
    },
    /// After so many chunks an event tells of an error; `[DONE]` follows.
    ErrorEvent(u32),
    /// What comes is no answer.
    Garbage(Garbage),
}

/// What comes instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// Bytes of another protocol; then the connection closes.
    NotHttp,
    /// Status 200, and a page of HTML.
    Html,
    /// Status 200, and JSON that breaks off, in an event if a stream was asked for.
    BadJson,
    /// Status 200, and JSON that is not in OpenAI's form, in an event if a stream was asked for.
    OtherJson,
    /// Status 200, and a chunked body whose sizes are no numbers; then the connection closes.
    BadChunkSize,
}

/// A time in which the server as a whole is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// What is bad.
    pub kind: OutageKind,
    /// When it begins.
    pub from: Duration,
    /// When it is over; `Duration::MAX` is never.
    pub until: Duration,
}

/// What is bad about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutageKind {
    /// It stands still: reads nothing, writes nothing, and afterwards goes on where it was, so that
    /// whatever was in progress takes longer by that. The system still accepts connections for it.
    Frozen,
    /// It listens no more; connections that are open go on.
    Refusing,
    /// It is dead: connections are reset, new ones are refused.
    Dead,
}
