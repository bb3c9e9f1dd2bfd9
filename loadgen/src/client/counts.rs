//! How many connections a client opened, used again, and lost.

use std::cell::Cell;
use std::rc::Rc;

/// What became of a client's connections so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Opened, ready to send on.
    pub opened: u64,
    /// Requests sent on a connection that had carried others before, or
    /// carries others meanwhile.
    pub reused: u64,
    /// Could not be opened, for whatever reason, or not in time.
    pub failed: u64,
    /// Of those: because this machine had no file descriptors, ports or memory left.
    pub failed_locally: u64,
    /// Found closed by the server when they were to be used again.
    pub lost: u64,
    /// Requests sent anew on another connection, as theirs was closed before any of them left.
    pub resent: u64,
    /// Open now, in use or not.
    pub open: u64,
}

/// The counts of one client, shared with its connections.
#[derive(Clone, Default)]
pub(super) struct Counters(Rc<Cell<ConnectionCounts>>);

impl Counters {
    pub(super) fn get(&self) -> ConnectionCounts {
        self.0.get()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut ConnectionCounts)) {
        let mut counts = self.0.get();
        change(&mut counts);
        self.0.set(counts);
    }

    /// A connection was opened; it counts as open until this is dropped.
    pub(super) fn opened(&self) -> Open {
        self.update(|counts| {
            counts.opened += 1;
            counts.open += 1;
        });
        Open(self.clone())
    }
}

/// A connection that is open.
pub(super) struct Open(Counters);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.update(|counts| counts.open -= 1);
    }
}
