//! A connection of HTTP/1.1: one request at a time, and the next when its answer is over.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::RequestBody;
use super::connect::{NotConnected, Stream};
use super::counts::{Counters, Open};
use super::stamped::Stamp;

/// It has no task of its own: whoever sends on it polls it along.
pub(super) struct Http1 {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) connection: Pin<Box<Connection<TokioIo<Stream>, RequestBody>>>,
    pub(super) stamp: Stamp,
    _open: Open,
}

impl Http1 {
    pub(super) async fn start(
        stream: Stream,
        stamp: Stamp,
        counters: &Counters,
    ) -> Result<Self, NotConnected> {
        let handshake = Builder::new().handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| NotConnected {
            message: error.to_string(),
            is_local: false,
        })?;
        Ok(Self {
            sender,
            connection: Box::pin(connection),
            stamp,
            _open: counters.opened(),
        })
    }

    /// Whether the next request can be sent: the last answer is over, and the
    /// server has not closed the connection.
    ///
    /// Nobody is woken by what happens to it later, so that a task which used it can go.
    pub(super) fn is_ready(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.connection.as_mut().poll(&mut context).is_pending() && self.sender.is_ready()
    }
}
