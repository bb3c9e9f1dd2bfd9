//! Notes when bytes arrive: at the read that returns them, below TLS and HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use foresail_core::time::Nanos;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::RunClock;

/// When the last read that returned bytes did so. Clones are one.
///
/// It is atomic because the task of an HTTP/2 connection has to be one that could move
/// between threads; it never does.
#[derive(Clone, Debug, Default)]
pub(super) struct Stamp(Arc<AtomicU64>);

impl Stamp {
    #[inline]
    pub(super) fn get(&self) -> Nanos {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn set(&self, at: Nanos) {
        self.0.store(at, Ordering::Relaxed);
    }
}

/// A socket that sets a [`Stamp`] at each read that returns bytes.
pub(super) struct Stamped<S> {
    socket: S,
    stamp: Stamp,
    clock: RunClock,
}

impl<S> Stamped<S> {
    pub(super) fn new(socket: S, stamp: Stamp, clock: RunClock) -> Self {
        Self {
            socket,
            stamp,
            clock,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stamped<S> {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.socket).poll_read(context, buffer));
        if buffer.filled().len() > filled {
            this.stamp.set(this.clock.now());
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stamped<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
