//! A stream of server-sent events, cut out of bytes that come in pieces of any size.
//!
//! Follows the WHATWG's HTML standard, section 9.2.6, "Interpreting an event stream":
//! lines end with CR, LF or both, a byte order mark may lead, lines that begin with a
//! colon are comments, an event is its `data` lines joined, and an event that
//! is not followed by an empty line never was. `id` and `retry` mean nothing
//! here, as nothing reconnects.

use memchr::memchr2;

/// The longest event that is taken in. An answer of a million tokens in one event fits.
pub(super) const EVENT_BYTES_MAX: usize = 64 << 20;

/// An event is longer than [`EVENT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub(super) data: &'a [u8],
    /// Whether its type is `error`.
    pub(super) is_error: bool,
}

/// What is left over between one piece and the next. An event that is whole in
/// one piece, which most are, is never copied.
#[derive(Debug, Default)]
pub(super) struct EventStream {
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The data lines of an event whose end has not come, each ended by LF.
    data: Vec<u8>,
    is_error: bool,
    /// A CR ended the last line: an LF that follows belongs to it.
    is_after_return: bool,
    /// The first line, which a byte order mark may lead, is over.
    is_begun: bool,
}

impl EventStream {
    /// Takes the next piece in, and hands on each event that ends in it.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        mut on_event: impl FnMut(Event<'_>),
    ) -> Result<(), TooLong> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.is_after_return) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', rest) else {
                self.line.extend_from_slice(rest);
                break;
            };
            let is_return = rest[end] == b'\r';
            let line = &rest[..end];
            rest = &rest[end + 1..];
            self.is_after_return = is_return;
            // What is most often there: the only line of an event, and the empty line.
            let is_last = !is_return && rest.first() == Some(&b'\n');
            if is_last && self.is_whole(line, &mut on_event) {
                rest = &rest[1..];
                continue;
            }
            self.end_line(line, &mut on_event);
        }
        let is_too_long = self.line.len() + self.data.len() > EVENT_BYTES_MAX;
        if is_too_long { Err(TooLong) } else { Ok(()) }
    }

    /// Hands on an event of this one line, without a copy, if it is one.
    fn is_whole(&mut self, line: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> bool {
        if !self.is_begun || !self.line.is_empty() || !self.data.is_empty() {
            return false;
        }
        let Some(data) = line.strip_prefix(b"data:") else {
            return false;
        };
        on_event(Event {
            data: data.strip_prefix(b" ").unwrap_or(data),
            is_error: std::mem::take(&mut self.is_error),
        });
        true
    }

    fn end_line(&mut self, line: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        if self.line.is_empty() {
            return self.take_line(line, on_event);
        }
        let mut whole = std::mem::take(&mut self.line);
        whole.extend_from_slice(line);
        self.take_line(&whole, on_event);
        // The next line that is cut in two finds the memory there.
        whole.clear();
        self.line = whole;
    }

    fn take_line(&mut self, mut line: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        if !std::mem::replace(&mut self.is_begun, true) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_event(on_event);
        }
        let colon = memchr::memchr(b':', line);
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => self.is_error = value == b"error",
            _ => {}
        }
    }

    fn end_event(&mut self, on_event: &mut impl FnMut(Event<'_>)) {
        let is_error = std::mem::take(&mut self.is_error);
        let Some((_, data)) = self.data.split_last() else {
            return;
        };
        on_event(Event { data, is_error });
        self.data.clear();
    }
}

#[cfg(test)]
mod tests;
