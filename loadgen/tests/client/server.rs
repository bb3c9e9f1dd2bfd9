//! A server that does to each connection what a function says.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use foresail_loadgen::client::Settings;

pub(crate) const EVENT: &str = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\n";
pub(crate) const LAST: &str = "data: {\"choices\":[{\"text\":\"b\",\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
pub(crate) const DONE: &str = "data: [DONE]\n\n";
pub(crate) const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
pub(crate) const END: &str = "0\r\n\r\n";

/// A chunk of a body.
pub(crate) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A stream of two tokens, whole.
pub(crate) fn stream() -> String {
    [HEAD, &chunk(EVENT), &chunk(LAST), &chunk(DONE), END].concat()
}

/// An answer with a length.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

pub(crate) struct Server {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Server {
    /// Calls `serve` for each connection, on a thread of its own, with its number from 0.
    pub(crate) fn start(serve: impl Fn(usize, Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let is_over = Arc::new(AtomicBool::new(false));
        let (serve, is_stopped) = (Arc::new(serve), is_over.clone());
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                if is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (serve, stream) = (serve.clone(), stream.expect("a connection"));
                thread::spawn(move || serve(index, Peer::new(stream)));
            }
        });
        Self { address, is_over }
    }

    /// Reads each request and writes this; then the connection stays open.
    pub(crate) fn answering(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |_, mut peer| {
            while peer.request().is_some() {
                peer.write(&answer);
            }
        })
    }

    /// Reads a request, writes this, and closes the connection in good order.
    pub(crate) fn closing_after(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |_, mut peer| {
            peer.request();
            peer.write(&answer);
        })
    }

    /// Reads a request, writes this, and nothing more as long as the client stays.
    pub(crate) fn silent_after(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |_, mut peer| {
            peer.request();
            peer.write(&answer);
            peer.wait_for_close();
        })
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::new(format!("http://{}", self.address))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the listener, so that it sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

/// The client's end, as its server sees it.
pub(crate) struct Peer {
    stream: BufReader<TcpStream>,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).expect("a limit of time");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// The next request, head and body; `None` if there is none.
    pub(crate) fn request(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.stream.read_line(&mut head).unwrap_or(0);
            if read == 0 {
                return None;
            }
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some(head + &String::from_utf8(body).expect("UTF-8"))
    }

    /// A client that has gone is no failure of the server.
    pub(crate) fn write(&mut self, text: &str) {
        drop(self.stream.get_mut().write_all(text.as_bytes()));
    }

    /// Reads the beginning of a request only: what is closed with the rest unread is reset.
    pub(crate) fn begin(&mut self) {
        let mut byte = [0];
        drop(self.stream.get_mut().read_exact(&mut byte));
    }

    /// Whether the client closed its end, whatever it said before.
    pub(crate) fn wait_for_close(&mut self) -> bool {
        match self.stream.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}
