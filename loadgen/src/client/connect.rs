//! From an address to an open connection: TCP, then TLS if it is asked for.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::settings::HttpVersion;
use super::stamped::{Stamp, Stamped};
use super::target::Target;
use super::tls;
use crate::clock::RunClock;

/// An open connection, which notes when bytes arrive.
pub(super) enum Stream {
    Plain(Stamped<TcpStream>),
    Tls(Box<TlsStream<Stamped<TcpStream>>>),
}

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotConnected {
    pub(super) message: String,
    /// Whether it was this machine, and not the endpoint, that had no more to give.
    pub(super) is_local: bool,
}

/// Opens a connection to the first address that answers, beginning with the one
/// that did last time.
pub(super) async fn open(
    target: &Target,
    clock: RunClock,
    preferred: &Cell<usize>,
) -> Result<(Stream, Stamp), NotConnected> {
    let tcp = open_tcp(target.addresses(), preferred).await?;
    // A small write that waits for the answer to the one before it would be a late one.
    tcp.set_nodelay(true)
        .map_err(|error| NotConnected::from(&error))?;
    let stamp = Stamp::default();
    let tcp = Stamped::new(tcp, stamp.clone(), clock);
    let Some((configuration, name)) = target.tls() else {
        return Ok((Stream::Plain(tcp), stamp));
    };
    let connector = TlsConnector::from(configuration.clone());
    let stream = connector.connect(name.clone(), tcp).await;
    let stream = stream.map_err(|error| NotConnected {
        message: format!("TLS failed: {error}"),
        is_local: false,
    })?;
    check_protocol(&stream, target.http())?;
    Ok((Stream::Tls(Box::new(stream)), stamp))
}

async fn open_tcp(
    addresses: &[SocketAddr],
    preferred: &Cell<usize>,
) -> Result<TcpStream, NotConnected> {
    let mut failure = None;
    let first = preferred.get();
    for index in 0..addresses.len() {
        let index = (first + index) % addresses.len();
        match TcpStream::connect(addresses[index]).await {
            Ok(stream) => {
                preferred.set(index);
                return Ok(stream);
            }
            Err(error) => {
                let failed = NotConnected::from(&error);
                if failed.is_local {
                    return Err(failed);
                }
                failure.get_or_insert(failed);
            }
        }
    }
    Err(failure.unwrap_or_else(|| NotConnected {
        message: "there is no address to connect to".into(),
        is_local: false,
    }))
}

/// A server that knows no ALPN speaks HTTP/1.1; HTTP/2 has to be agreed upon.
fn check_protocol(
    stream: &TlsStream<Stamped<TcpStream>>,
    http: HttpVersion,
) -> Result<(), NotConnected> {
    let (_, connection) = stream.get_ref();
    let agreed = connection.alpn_protocol();
    if http == HttpVersion::Http2 && agreed != Some(tls::protocol(http)) {
        return Err(NotConnected {
            message: "the server does not offer HTTP/2; use HTTP/1.1".into(),
            is_local: false,
        });
    }
    Ok(())
}

impl From<&io::Error> for NotConnected {
    fn from(error: &io::Error) -> Self {
        // File descriptors of the process or the machine, ports, memory for sockets.
        let limits = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::ADDRNOTAVAIL,
            Errno::NOBUFS,
            Errno::NOMEM,
        ];
        let is_local = Errno::from_io_error(error).is_some_and(|errno| limits.contains(&errno));
        Self {
            message: error.to_string(),
            is_local,
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_this_machine_are_told_from_what_the_endpoint_does() {
        let is_local = |errno: Errno| NotConnected::from(&io::Error::from(errno)).is_local;
        assert!(is_local(Errno::MFILE) && is_local(Errno::ADDRNOTAVAIL));
        assert!(!is_local(Errno::CONNREFUSED) && !is_local(Errno::HOSTUNREACH));
    }
}
