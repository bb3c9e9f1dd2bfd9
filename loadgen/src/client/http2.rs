//! A connection of HTTP/2: as many requests at once as the server allows.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::ready;

use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Notify;

use super::RequestBody;
use super::connect::{NotConnected, Stream};
use super::counts::{Counters, Open};
use super::stamped::Stamp;

/// What its task polls: shared, as only it knows how many requests the server
/// takes, and gone when it is over. Never contended: both sides are on one thread.
type Shared = Arc<Mutex<Option<Connection<TokioIo<Stream>, RequestBody, TokioExecutor>>>>;

/// A task of its own polls it, for it has to answer the server's pings and settings.
/// The task ends with the last clone of the sender.
pub(super) struct Http2 {
    sender: SendRequest<RequestBody>,
    shared: Shared,
    pub(super) stamp: Stamp,
    in_flight: Cell<usize>,
    _open: Open,
}

impl Http2 {
    pub(super) async fn start(
        stream: Stream,
        stamp: Stamp,
        counters: &Counters,
    ) -> Result<Self, NotConnected> {
        let handshake = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| NotConnected {
            message: error.to_string(),
            is_local: false,
        })?;
        let shared = Arc::new(Mutex::new(Some(connection)));
        tokio::spawn(run(shared.clone()));
        Ok(Self {
            sender,
            shared,
            stamp,
            in_flight: Cell::new(0),
            _open: counters.opened(),
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether the server takes one more request. Before it has said how many it takes, 100 are
    /// assumed: as few as RFC 9113, section 6.5.2, recommends.
    pub(super) fn has_room(&self) -> bool {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let streams_max = shared
            .as_ref()
            .map_or(0, Connection::current_max_send_streams);
        !self.is_closed() && self.in_flight.get() < streams_max
    }
}

async fn run(shared: Shared) {
    poll_fn(|context| {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = shared.as_mut() {
            // What fails in a connection fails its requests, and is told there.
            drop(ready!(Pin::new(connection).poll(context)));
        }
        *shared = None;
        std::task::Poll::Ready(())
    })
    .await;
}

/// A request's place on a connection.
pub(super) struct Place {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) connection: Rc<Http2>,
    freed: Rc<Notify>,
}

impl Place {
    /// Takes a place. `freed` is told when it is given up.
    pub(super) fn on(connection: &Rc<Http2>, freed: &Rc<Notify>) -> Self {
        connection.in_flight.update(|count| count + 1);
        Self {
            sender: connection.sender.clone(),
            connection: connection.clone(),
            freed: freed.clone(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connection.in_flight.update(|count| count - 1);
        self.freed.notify_one();
    }
}
