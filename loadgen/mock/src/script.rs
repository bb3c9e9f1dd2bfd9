//! What an answer is: steps with a time, bytes, and what follows them.
//!
//! A script knows no clock and no socket. It says when its next step is due,
//! counted from when the request was read, and writes that step into a buffer.

use std::sync::Arc;
use std::time::Duration;

use crate::behaviour::{Behaviour, Fault, Garbage, UsageReport, Writes};
use crate::request::Generation;
use crate::templates::{LAST_CHUNK, Templates, Usage, error_json, response};

/// What follows a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next step.
    Continue,
    /// The next request, if the connection is kept.
    Finish,
    /// An orderly close.
    Close,
    /// A reset.
    Reset,
    /// Nothing, ever.
    Silence,
}

/// One answer.
pub(crate) enum Script {
    Once(Once),
    Stream(Stream),
}

/// An answer in one step.
pub(crate) struct Once {
    due_ns: u64,
    bytes: Vec<u8>,
    tokens: u32,
    then: Then,
}

/// A stream of chunks.
pub(crate) struct Stream {
    templates: Arc<Templates>,
    pace: Pace,
    tokens: u32,
    chunks: u32,
    /// Chunks that go out in one write.
    group: u32,
    next_chunk: u32,
    /// What is to be sent before the next chunk: the head.
    head: Vec<u8>,
    is_head_due: bool,
    usage: Option<Usage>,
    cut: Option<Cut>,
}

/// Where a stream breaks off.
struct Cut {
    after_chunks: u32,
    kind: CutKind,
}

#[derive(Clone, Copy)]
enum CutKind {
    Reset,
    Close,
    End,
    ErrorEvent,
}

/// When chunks are due.
struct Pace {
    ttft_ns: u64,
    itl_ns: u64,
    /// After so many chunks, so much later.
    stall: Option<(u32, u64)>,
}

impl Pace {
    fn due_ns(&self, chunk: u32) -> u64 {
        let stalled_ns = match self.stall {
            Some((after_chunks, lasts_ns)) if chunk >= after_chunks => lasts_ns,
            _ => 0,
        };
        let steps_ns = self.itl_ns.saturating_mul(u64::from(chunk));
        self.ttft_ns
            .saturating_add(steps_ns)
            .saturating_add(stalled_ns)
    }
}

/// What an answer is made from.
pub(crate) struct Order<'a> {
    pub(crate) behaviour: &'a Behaviour,
    pub(crate) templates: &'a Arc<Templates>,
    pub(crate) asked: &'a Generation,
    pub(crate) fault: Option<&'a Fault>,
    pub(crate) keeps_alive: bool,
}

impl Order<'_> {
    /// The tokens of the prompt, as `usage` tells them.
    pub(crate) fn prompt_tokens(&self) -> u32 {
        self.behaviour
            .prompt_tokens
            .unwrap_or(self.asked.prompt_tokens)
    }

    fn tokens(&self) -> u32 {
        let told = self.behaviour.tokens_default.max(1);
        self.asked.max_tokens.unwrap_or(told)
    }

    fn usage(&self) -> Option<Usage> {
        let tells = match self.behaviour.usage {
            UsageReport::WhenAsked => self.asked.wants_usage || !self.asked.is_streamed,
            UsageReport::Always => true,
            UsageReport::Never => false,
        };
        tells.then(|| Usage {
            prompt_tokens: self.prompt_tokens(),
            completion_tokens: self.tokens(),
            cached_tokens: self.behaviour.cached_tokens,
        })
    }

    fn pace(&self) -> Pace {
        let stall = match self.fault {
            Some(&Fault::Stall {
                after_chunks,
                lasts,
            }) => Some((after_chunks, nanos(lasts))),
            _ => None,
        };
        Pace {
            ttft_ns: nanos(self.behaviour.ttft),
            itl_ns: nanos(self.behaviour.itl),
            stall,
        }
    }

    /// Where the answer breaks off, if it begins as it should.
    fn cut(&self) -> Option<Cut> {
        let (after_chunks, kind) = match *self.fault? {
            Fault::ResetAfter(chunks) => (chunks, CutKind::Reset),
            Fault::CloseAfter(chunks) => (chunks, CutKind::Close),
            Fault::EndWithoutDone(chunks) => (chunks, CutKind::End),
            Fault::ErrorEvent(chunks) => (chunks, CutKind::ErrorEvent),
            _ => return None,
        };
        Some(Cut { after_chunks, kind })
    }

    /// The answer.
    pub(crate) fn script(&self) -> Script {
        if let Some(once) = self.spoilt() {
            Script::Once(once)
        } else if self.asked.is_streamed {
            Script::Stream(self.stream())
        } else {
            Script::Once(self.whole())
        }
    }

    /// An answer that does not even begin as it should.
    fn spoilt(&self) -> Option<Once> {
        let ttft_ns = nanos(self.behaviour.ttft);
        let once = |due_ns, bytes, then| Once {
            due_ns,
            bytes,
            tokens: 0,
            then,
        };
        Some(match *self.fault? {
            Fault::ResetBeforeHead => once(ttft_ns, Vec::new(), Then::Reset),
            Fault::ResetMidHead => {
                let mut head = Templates::stream_head(self.keeps_alive);
                head.truncate(head.len() / 2);
                once(ttft_ns, head, Then::Reset)
            }
            Fault::CloseBeforeHead => once(ttft_ns, Vec::new(), Then::Close),
            Fault::NeverAnswer => once(0, Vec::new(), Then::Silence),
            Fault::Status {
                status,
                retry_after_s,
            } => once(0, self.refusal(status, retry_after_s), Then::Finish),
            Fault::Garbage(garbage) => {
                let (bytes, then) = self.garbage(garbage);
                once(ttft_ns, bytes, then)
            }
            _ => return None,
        })
    }

    fn refusal(&self, status: u16, retry_after_s: Option<u32>) -> Vec<u8> {
        let header = retry_after_s.map_or(String::new(), |seconds| {
            format!("retry-after: {seconds}\r\n")
        });
        let body = error_json(status, "the mock was told to refuse");
        let json = "application/json";
        response(status, json, &header, body.as_bytes(), self.keeps_alive)
    }

    fn garbage(&self, garbage: Garbage) -> (Vec<u8>, Then) {
        let page = |content_type, body: &str| {
            let bytes = response(200, content_type, "", body.as_bytes(), self.keeps_alive);
            (bytes, Then::Finish)
        };
        let json = |json: &str| {
            if !self.asked.is_streamed {
                return page("application/json", json);
            }
            let mut bytes = Templates::stream_head(self.keeps_alive);
            bytes.extend(self.templates.text_chunk(json));
            bytes.extend(self.templates.done_chunk());
            bytes.extend_from_slice(LAST_CHUNK);
            (bytes, Then::Finish)
        };
        match garbage {
            Garbage::NotHttp => (b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), Then::Close),
            Garbage::Html => page("text/html", "<!DOCTYPE html>\n<title>Welcome</title>\n"),
            Garbage::BadJson => json("{\"id\":\"cmpl-mock\",\"choices\":[{\"ind"),
            Garbage::OtherJson => json("{\"hello\":\"world\"}"),
            Garbage::BadChunkSize => {
                let mut bytes = Templates::stream_head(self.keeps_alive);
                bytes.extend_from_slice(b"one\r\ndata: {}\n\n\r\nmany\r\n");
                (bytes, Then::Close)
            }
        }
    }

    /// An answer that is no stream, due when its last token is. If it breaks off,
    /// then in the middle: it has no chunks to count.
    fn whole(&self) -> Once {
        let tokens = self.tokens();
        let last_chunk = tokens.div_ceil(self.templates.tokens_per_chunk) - 1;
        let due_ns = self.pace().due_ns(last_chunk);
        let json = self.templates.whole_json(tokens, self.usage());
        let kind = self.cut().map(|cut| cut.kind);
        let body = match kind {
            Some(CutKind::ErrorEvent) => error_json(500, "the mock was told to fail here"),
            _ => json,
        };
        let json = "application/json";
        let mut bytes = response(200, json, "", body.as_bytes(), self.keeps_alive);
        let then = match kind {
            None | Some(CutKind::ErrorEvent) => Then::Finish,
            Some(cut) => {
                bytes.truncate(bytes.len() - body.len() / 2);
                match cut {
                    CutKind::Reset => Then::Reset,
                    _ => Then::Close,
                }
            }
        };
        Once {
            due_ns,
            bytes,
            tokens,
            then,
        }
    }

    fn stream(&self) -> Stream {
        let tokens = self.tokens();
        let mut head = Templates::stream_head(self.keeps_alive);
        let has_role = self.behaviour.is_role_first && self.asked.is_chat;
        if has_role {
            head.extend(self.templates.role_chunk());
        }
        Stream {
            templates: Arc::clone(self.templates),
            pace: self.pace(),
            tokens,
            chunks: tokens.div_ceil(self.templates.tokens_per_chunk),
            group: match self.behaviour.events.writes {
                Writes::Together(chunks) => chunks.max(1),
                Writes::Whole | Writes::Bytes => 1,
            },
            next_chunk: 0,
            head,
            is_head_due: has_role || self.behaviour.is_head_early,
            usage: self.usage(),
            cut: self.cut(),
        }
    }
}

impl Script {
    /// An answer that is ready.
    pub(crate) fn at_once(bytes: Vec<u8>, then: Then) -> Self {
        Self::Once(Once {
            due_ns: 0,
            bytes,
            tokens: 0,
            then,
        })
    }

    /// When the next step is due, from when the request was read.
    pub(crate) fn due_ns(&self) -> u64 {
        match self {
            Self::Once(once) => once.due_ns,
            Self::Stream(stream) => stream.due_ns(),
        }
    }

    /// Appends the bytes of the next step, and says how many tokens they carry and what follows.
    pub(crate) fn step(&mut self, out: &mut Vec<u8>) -> (u32, Then) {
        match self {
            Self::Once(once) => {
                out.append(&mut once.bytes);
                (once.tokens, once.then)
            }
            Self::Stream(stream) => stream.step(out),
        }
    }
}

impl Stream {
    /// Where this stream breaks off, or ends.
    fn chunks_to_send(&self) -> u32 {
        match &self.cut {
            Some(cut) => cut.after_chunks.min(self.chunks),
            None => self.chunks,
        }
    }

    fn due_ns(&self) -> u64 {
        if self.is_head_due {
            return 0;
        }
        let end = self.chunks_to_send();
        if self.next_chunk >= end {
            return self.pace.due_ns(end);
        }
        self.pace
            .due_ns(self.next_chunk.saturating_add(self.group).min(end) - 1)
    }

    fn step(&mut self, out: &mut Vec<u8>) -> (u32, Then) {
        // A head that breaks off before the first chunk still goes out.
        out.append(&mut self.head);
        if self.is_head_due {
            self.is_head_due = false;
            return (0, Then::Continue);
        }
        let end = self.chunks_to_send();
        if self.next_chunk >= end {
            return (0, self.break_off(out));
        }
        let group_end = self.next_chunk.saturating_add(self.group).min(end);
        let mut tokens = 0;
        for chunk in self.next_chunk..group_end {
            tokens += self.write_chunk(chunk, out);
        }
        self.next_chunk = group_end;
        if group_end == self.chunks && self.cut.is_none() {
            self.write_end(out);
            return (tokens, Then::Finish);
        }
        (tokens, Then::Continue)
    }

    fn write_chunk(&self, chunk: u32, out: &mut Vec<u8>) -> u32 {
        let full = self.templates.tokens_per_chunk;
        if chunk + 1 < self.chunks {
            out.extend_from_slice(&self.templates.output_chunk);
            return full;
        }
        let tokens = self.tokens - full * chunk;
        out.extend(self.templates.last_output_chunk(tokens));
        tokens
    }

    fn write_end(&self, out: &mut Vec<u8>) {
        if let Some(usage) = self.usage {
            out.extend(self.templates.usage_chunk(usage));
        }
        out.extend(self.templates.done_chunk());
        out.extend_from_slice(LAST_CHUNK);
    }

    fn break_off(&self, out: &mut Vec<u8>) -> Then {
        match self.cut.as_ref().map(|cut| cut.kind) {
            Some(CutKind::Reset) => Then::Reset,
            Some(CutKind::Close) => Then::Close,
            Some(CutKind::ErrorEvent) => {
                out.extend(self.templates.error_chunk());
                out.extend(self.templates.done_chunk());
                out.extend_from_slice(LAST_CHUNK);
                Then::Finish
            }
            Some(CutKind::End) | None => {
                out.extend_from_slice(LAST_CHUNK);
                Then::Finish
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
