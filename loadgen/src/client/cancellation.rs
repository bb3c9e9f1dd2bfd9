//! The end of a run, told to every exchange at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Ends exchanges early, from any thread: each ends as
/// [`Ending::Cancelled`](crate::exchange::Ending::Cancelled) with what it had received. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Cancellation {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    is_cancelled: AtomicBool,
    notify: Notify,
}

impl Cancellation {
    /// Nothing is cancelled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels what is under way and what is asked for later.
    pub fn cancel(&self) {
        self.inner.is_cancelled.store(true, Ordering::SeqCst);
        self.inner.notify.notify_waiters();
    }

    /// Whether that has happened.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner.is_cancelled.load(Ordering::SeqCst)
    }

    /// Ends when that has happened.
    pub async fn cancelled(&self) {
        // Registered before the flag is read: whoever cancels in between wakes this.
        let notified = self.inner.notify.notified();
        if !self.is_cancelled() {
            notified.await;
        }
    }
}
