//! One connection: what came, what is still to go out, and the answer in progress.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use mio::net::TcpStream;

use crate::script::Script;

/// Beyond this a buffer is given back when it is empty, so that ten thousand
/// connections do not each keep the longest prompt that they ever carried.
const IDLE_BUFFER_BYTES_MAX: usize = 4096;

/// A connection of a client.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// How many came before it.
    pub(crate) number: u64,
    /// Bytes that came and are no request yet.
    pub(crate) inbox: Vec<u8>,
    /// Bytes that the system would not take yet.
    outbox: Vec<u8>,
    /// Requests so far.
    pub(crate) requests: u32,
    pub(crate) answer: Option<Answer>,
    /// The one deadline that still counts.
    pub(crate) deadline: u64,
    /// Whether the connection is to be closed once the outbox is empty.
    pub(crate) is_closing: bool,
}

/// An answer in progress.
pub(crate) struct Answer {
    pub(crate) script: Script,
    /// When the request was read.
    pub(crate) since_ns: u64,
    /// Whether the connection is kept afterwards.
    pub(crate) keeps_alive: bool,
    /// Whether it answers a request for completions.
    pub(crate) is_generation: bool,
    /// Whether each byte is a write of its own.
    pub(crate) is_bytewise: bool,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadEnd {
    /// All that there is for now.
    Drained,
    /// The client has closed.
    Closed,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, number: u64) -> Self {
        Self {
            stream,
            number,
            inbox: Vec::new(),
            outbox: Vec::new(),
            requests: 0,
            answer: None,
            deadline: 0,
            is_closing: false,
        }
    }

    /// Reads what there is. `may_be_closed` is what the poll said of it.
    pub(crate) fn read(&mut self, buffer: &mut [u8], may_be_closed: bool) -> io::Result<ReadEnd> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(ReadEnd::Closed),
                Ok(length) => {
                    self.inbox.extend_from_slice(&buffer[..length]);
                    // A short read has drained the socket (epoll(7), question 9), unless its end is to come.
                    if length < buffer.len() && !may_be_closed {
                        return Ok(ReadEnd::Drained);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(ReadEnd::Drained);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Forgets the first bytes that came.
    pub(crate) fn consume(&mut self, length: usize) {
        self.inbox.drain(..length);
        if self.inbox.is_empty() && self.inbox.capacity() > IDLE_BUFFER_BYTES_MAX {
            self.inbox = Vec::new();
        }
    }

    /// Writes as much as the system takes and keeps the rest.
    pub(crate) fn send(&mut self, bytes: &[u8], is_bytewise: bool) -> io::Result<()> {
        let pieces = bytes.chunks(if is_bytewise { 1 } else { bytes.len().max(1) });
        for piece in pieces {
            let taken = if self.outbox.is_empty() {
                write_some(&mut self.stream, piece)?
            } else {
                0
            };
            self.outbox.extend_from_slice(&piece[taken..]);
        }
        Ok(())
    }

    /// Writes what was kept.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let taken = write_some(&mut self.stream, &self.outbox)?;
        self.outbox.drain(..taken);
        Ok(())
    }

    /// Whether a request for completions is being answered.
    pub(crate) fn is_generating(&self) -> bool {
        self.answer
            .as_ref()
            .is_some_and(|answer| answer.is_generation)
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Makes the close that follows a reset: bytes on their way are dropped, and the client is told so.
    pub(crate) fn reset_on_close(&self) {
        // A connection that is gone already needs no reset.
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            Ok(length) => taken += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}
