//! A server with threads of its own, for those who have none that wait.

use std::io;
use std::net;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::server::{App, Ended, serve};

/// Threads that encode long texts and read adapters.
const BLOCKING_THREADS_MAX: usize = 2;

/// A server that runs.
#[derive(Debug)]
pub struct Host {
    stop: watch::Sender<bool>,
    thread: JoinHandle<io::Result<Ended>>,
}

impl Host {
    /// Serves what comes to this socket.
    ///
    /// # Errors
    /// If the system gives no threads, or the socket cannot be used.
    pub fn start(listener: net::TcpListener, app: Arc<App>) -> io::Result<Self> {
        let runtime = runtime()?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _within = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (stop, mut stopped) = watch::channel(false);
        let shutdown = async move {
            // Whoever holds the other end going away asks to stop as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let thread = thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || runtime.block_on(serve(listener, app, shutdown)))?;
        Ok(Self { stop, thread })
    }

    /// Asks it to finish what it has, and to take nothing new.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// If the socket could not be used.
    pub fn join(self) -> io::Result<Ended> {
        let ended = self.thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// One thread that answers: the cores belong to the model, and answering takes a few percent of one. It takes requests
/// in the order in which they arrived, which several did not: each begins with the last of those that woke it.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("server-worker")
        .enable_all()
        .build()
}
