//! A client that hides nothing: a socket, and what came over it.

use std::io::ErrorKind;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::net::TcpStream;

#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            headers: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let json = self.clone().with("content-type", "application/json");
        json.send("POST", path, body.to_string().as_bytes()).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let mut wire = self.begin(method, path, body).await;
        wire.read_to_end().await;
        Answer::parse(&wire.received)
    }

    /// Sends a request, and leaves the answer to whoever asked.
    pub(crate) async fn begin(&self, method: &str, path: &str, body: &[u8]) -> Wire {
        let wire = Wire::connect(self.address).await;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        wire.write(head.as_bytes()).await;
        wire.write(body).await;
        wire
    }

    /// Sends the head of a request and the beginning of its body, and waits.
    pub(crate) async fn send_half(&self, path: &str) -> Answer {
        let mut wire = Wire::connect(self.address).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\n{{");
        wire.write(head.as_bytes()).await;
        wire.read_to_end().await;
        Answer::parse(&wire.received)
    }

    /// Begins a stream and reads until its first event has come.
    pub(crate) async fn begin_stream(&self, path: &str, body: &Value) -> Wire {
        let json = self.clone().with("content-type", "application/json");
        let mut wire = json.begin("POST", path, body.to_string().as_bytes()).await;
        while !wire.text().contains("data: ") {
            assert!(wire.read().await, "the stream ended before its first event");
        }
        wire
    }
}

/// A connection, and what came over it so far.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    pub(crate) received: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it connects");
        let received = Vec::new();
        Self { stream, received }
    }

    /// Sends everything, unless the other side has had enough: a server that
    /// refuses a body closes while it is sent.
    pub(crate) async fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.stream.writable().await.expect("it is a socket");
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Waits for more, and says whether there was some before the end.
    pub(crate) async fn read(&mut self) -> bool {
        let mut buffer = [0; 1 << 14];
        loop {
            self.stream.readable().await.expect("it is a socket");
            match self.stream.try_read(&mut buffer) {
                Ok(read) => {
                    self.received.extend_from_slice(&buffer[..read]);
                    return read > 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A reset ends it as well.
                Err(_) => return false,
            }
        }
    }

    pub(crate) async fn read_to_end(&mut self) {
        while self.read().await {}
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

impl Answer {
    #[track_caller]
    fn parse(received: &[u8]) -> Self {
        let end = received.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(received)));
        let head = std::str::from_utf8(&received[..end]).expect("the head is text");
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let body = &received[end + 4..];
        let is_chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
        Self {
            status: status.expect("there is a status"),
            headers,
            body: if is_chunked {
                unchunk(body)
            } else {
                body.to_vec()
            },
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(other, _)| other == name);
        header.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn with_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    /// The events of a stream that is whole.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let (mut events, is_whole) = self.events_so_far();
        assert!(is_whole, "{}", self.text());
        events.shrink_to_fit();
        events
    }

    /// The events of a stream, and whether it says that it is whole.
    #[track_caller]
    pub(crate) fn events_so_far(&self) -> (Vec<Value>, bool) {
        let text = self.text();
        let mut data: Vec<_> = text
            .split_terminator("\n\n")
            .map(|event| event.strip_prefix("data: ").expect("events are data"))
            .collect();
        let is_whole = data.last() == Some(&"[DONE]");
        data.truncate(data.len() - usize::from(is_whole));
        let read = |data: &str| serde_json::from_str(data).expect("events are JSON");
        (data.into_iter().map(read).collect(), is_whole)
    }
}

/// The pieces of a chunked body, put together as far as they came.
fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).expect("sizes are text");
        let size = usize::from_str_radix(size, 16).expect("sizes are hexadecimal");
        let piece = &rest[end + 2..];
        if size == 0 || piece.len() < size + 2 {
            break;
        }
        body.extend_from_slice(&piece[..size]);
        rest = &piece[size + 2..];
    }
    body
}
