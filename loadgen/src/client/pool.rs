//! The connections of one client: which to send on, and when to open another.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use foresail_core::time::Nanos;
use tokio::sync::{Mutex, Notify, Semaphore, SemaphorePermit};

use super::connect::{self, NotConnected, Stream};
use super::counts::Counters;
use super::http1::Http1;
use super::http2::{Http2, Place};
use super::stamped::Stamp;
use super::target::Target;
use crate::clock::RunClock;
use crate::exchange::Connection;

/// Why a request found no connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoConnection {
    Failed(NotConnected),
    TimedOut,
}

impl fmt::Display for NoConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failed) => formatter.write_str(&failed.message),
            Self::TimedOut => formatter.write_str("there was no answer in time"),
        }
    }
}

pub(super) struct Pool {
    target: Target,
    clock: RunClock,
    pub(super) counters: Counters,
    /// The address that answered last.
    preferred: Cell<usize>,
    /// HTTP/1.1: idle ones. The one used last is used next, so that as few as
    /// are needed stay in use, and the others are closed by the server in time.
    idle: RefCell<Vec<Http1>>,
    /// HTTP/1.1: one for each connection that may be in use.
    permits: Option<Semaphore>,
    /// HTTP/2: all that are open.
    shared: RefCell<Vec<Rc<Http2>>>,
    /// HTTP/2: one connection is opened at a time, as all who wait for it may find room on it.
    opening: Mutex<()>,
    /// HTTP/2: told when a request is over.
    freed: Rc<Notify>,
}

impl Pool {
    pub(super) fn new(target: Target, clock: RunClock) -> Self {
        Self {
            permits: target.connections_max().map(Semaphore::new),
            target,
            clock,
            counters: Counters::default(),
            preferred: Cell::new(0),
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Mutex::new(()),
            freed: Rc::default(),
        }
    }

    /// Waits until one more connection may be in use; at once if there is no limit.
    pub(super) async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed, so this fails for nobody.
        self.permits.as_ref()?.acquire().await.ok()
    }

    /// A connection to send one request on: idle, or else opened for it.
    pub(super) async fn http1(
        &self,
        connect_ns: Option<Nanos>,
    ) -> Result<(Http1, Connection), NoConnection> {
        if let Some(line) = self.take_idle() {
            self.counters.update(|counts| counts.reused += 1);
            return Ok((line, Connection::Reused));
        }
        let start = self.clock.now();
        let line = self.open_http1(connect_ns).await?;
        let took_ns = self.clock.now() - start;
        Ok((line, Connection::Opened { took_ns }))
    }

    pub(super) async fn open_http1(
        &self,
        connect_ns: Option<Nanos>,
    ) -> Result<Http1, NoConnection> {
        self.within(connect_ns, async {
            let (stream, stamp) = self.connect().await?;
            Http1::start(stream, stamp, &self.counters).await
        })
        .await
    }

    fn take_idle(&self) -> Option<Http1> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut line) = idle.pop() {
            if line.is_ready() {
                return Some(line);
            }
            self.counters.update(|counts| counts.lost += 1);
        }
        None
    }

    /// Takes a connection in that carried nothing yet.
    pub(super) fn add(&self, line: Http1) {
        self.idle.borrow_mut().push(line);
    }

    /// Takes a connection back, if it can be used again.
    pub(super) fn keep(&self, mut line: Http1) {
        if line.is_ready() {
            self.idle.borrow_mut().push(line);
        }
    }

    /// A place for one request on a shared connection, or on one opened for it.
    pub(super) async fn http2(
        &self,
        connect_ns: Option<Nanos>,
    ) -> Result<(Place, Connection), NoConnection> {
        let start = self.clock.now();
        loop {
            if let Some(place) = self.place() {
                self.counters.update(|counts| counts.reused += 1);
                return Ok((place, Connection::Reused));
            }
            if self.is_full() {
                self.freed.notified().await;
                continue;
            }
            if let Some(place) = self.open_http2(connect_ns).await? {
                let took_ns = self.clock.now() - start;
                return Ok((place, Connection::Opened { took_ns }));
            }
        }
    }

    /// Opens a connection, or waits until somebody else has: then nothing is returned.
    /// To wait for another's is to wait for a connection: patience is for both.
    pub(super) async fn open_http2(
        &self,
        connect_ns: Option<Nanos>,
    ) -> Result<Option<Place>, NoConnection> {
        self.within(connect_ns, async {
            let Ok(_opening) = self.opening.try_lock() else {
                drop(self.opening.lock().await);
                return Ok(None);
            };
            let (stream, stamp) = self.connect().await?;
            let connection = Rc::new(Http2::start(stream, stamp, &self.counters).await?);
            let place = Place::on(&connection, &self.freed);
            self.shared.borrow_mut().push(connection);
            Ok(Some(place))
        })
        .await
    }

    fn place(&self) -> Option<Place> {
        let mut shared = self.shared.borrow_mut();
        let before = shared.len();
        shared.retain(|connection| !connection.is_closed());
        let lost = (before - shared.len()) as u64;
        self.counters.update(|counts| counts.lost += lost);
        let connection = shared.iter().find(|connection| connection.has_room())?;
        Some(Place::on(connection, &self.freed))
    }

    fn is_full(&self) -> bool {
        let open = self.shared.borrow().len();
        self.target.connections_max().is_some_and(|max| open >= max)
    }

    /// Closes what nobody uses.
    pub(super) fn close_idle(&self) {
        self.idle.borrow_mut().clear();
        // Requests under way keep theirs open until they are over.
        self.shared.borrow_mut().clear();
    }

    async fn connect(&self) -> Result<(Stream, Stamp), NotConnected> {
        connect::open(&self.target, self.clock, &self.preferred).await
    }

    /// Bounds how long opening takes, and counts what fails.
    async fn within<T>(
        &self,
        connect_ns: Option<Nanos>,
        opening: impl Future<Output = Result<T, NotConnected>>,
    ) -> Result<T, NoConnection> {
        let opened = match connect_ns.map(Duration::from_nanos) {
            None => opening.await.map_err(NoConnection::Failed),
            Some(limit) => match tokio::time::timeout(limit, opening).await {
                Ok(opened) => opened.map_err(NoConnection::Failed),
                Err(_) => Err(NoConnection::TimedOut),
            },
        };
        if let Err(failure) = &opened {
            let is_local = matches!(failure, NoConnection::Failed(failed) if failed.is_local);
            self.counters.update(|counts| {
                counts.failed += 1;
                counts.failed_locally += u64::from(is_local);
            });
        }
        opened
    }
}
