//! Connections: how many there may be, how long they may dawdle, and how they end.
//!
//! This is what `axum::serve` has no settings for. A client that sends its
//! headers byte by byte, or reads nothing of what it asked for, holds one
//! connection for a bounded time and nothing else. Where a client goes away,
//! hyper drops the answer that is under way, and with it what it was made of:
//! that is how a request is cancelled.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};

/// What a client is told at the cap, where reading its request is too much already.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\n\
    content-length: 139\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\r\n\
    {\"error\":{\"message\":\"too many connections; try again later\",\
    \"type\":\"service_unavailable_error\",\"param\":null,\"code\":\"too_many_connections\"}}";

/// How long to wait where the system has no socket to give: others have to close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long an idle connection may take to notice that the server closes.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What a connection may ask of the server before it asks for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at a time; those beyond are answered 503 and closed.
    pub connections_max: usize,
    /// How long headers may take, and how long a connection may be idle.
    pub header_read_timeout: Duration,
    /// Bytes of the request line and the headers.
    pub header_bytes_max: usize,
    /// Headers of a request.
    pub headers_max: usize,
    /// How long a client may read nothing of what is waiting for it.
    pub write_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            header_read_timeout: Duration::from_secs(30),
            header_bytes_max: 64 * 1024,
            headers_max: 100,
            write_timeout: Duration::from_secs(60),
        }
    }
}

/// Takes connections until `close` turns true, then lets those that are idle
/// go and breaks off the others.
pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    close: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut closing = pin!(closed(close.clone()));
    loop {
        tokio::select! {
            () = &mut closing => break,
            // Those that ended are forgotten as they end.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() >= limits.connections_max => refuse(&stream),
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, router.clone(), limits, close.clone()));
                }
                Err(error) => pause_after(&error).await,
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    // Whoever is still there when time is up is aborted with the set.
    let _ = timeout(CLOSE_GRACE, all).await;
}

async fn closed(mut close: watch::Receiver<bool>) {
    // An error is a sender that is gone, which closes as well.
    let _ = close.wait_for(|close| *close).await;
}

/// A client that left before it was let in is no reason to wait; a lack of sockets is.
async fn pause_after(error: &io::Error) {
    let is_of_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    );
    if !is_of_client {
        sleep(ACCEPT_PAUSE).await;
    }
}

fn refuse(stream: &TcpStream) {
    // A new socket takes so few bytes at once; if not, closing it says enough.
    let _ = stream.try_write(TOO_MANY);
}

async fn serve(
    stream: TcpStream,
    router: Router,
    limits: ConnectionLimits,
    close: watch::Receiver<bool>,
) {
    // Tokens are small and must not wait for each other. Where it cannot be set, they do.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Impatient::new(stream, limits.write_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_buf_size(limits.header_bytes_max)
        .max_headers(limits.headers_max)
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    // How a connection ended is the client's business: broken ones are not errors of the server.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = closed(close) => connection.as_mut().graceful_shutdown(),
    }
    let _: Result<(), hyper::Error> = connection.await;
}

/// A stream whose writes fail when the other side takes nothing for too long.
struct Impatient {
    stream: TcpStream,
    patience: Duration,
    /// Runs while there is something to write that is not taken.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            stalled: None,
        }
    }

    fn or_stalled<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let deadline = Instant::now() + self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.or_stalled(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.or_stalled(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let text = std::str::from_utf8(TOO_MANY).expect("it is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("there is a body");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        serde_json::from_str::<serde_json::Value>(body).expect("it is JSON");
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_given_up() {
        use std::future::poll_fn;
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let silent = TcpStream::connect(address).await.expect("it connects");
        let (stream, _) = listener.accept().await.expect("it is accepted");
        let mut stream = Impatient::new(stream, Duration::from_millis(50));
        let block = vec![0; 1 << 20];
        let write = async |stream: &mut Impatient| {
            poll_fn(|context| Pin::new(&mut *stream).poll_write(context, &block)).await
        };
        let written = async { while write(&mut stream).await.is_ok() {} };
        timeout(Duration::from_secs(60), written)
            .await
            .expect("it fails before long");
        drop(silent);
    }
}
