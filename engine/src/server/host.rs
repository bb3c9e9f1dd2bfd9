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

/// One thread that answers: the cores belong to the model, and answering takes a few percent of one. It reads requests
/// in the order in which they arrived, which several did not: each begins with the last of those that woke it.
/// A body that is encoded on another thread, as it is long, can still be overtaken by short ones.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("server-blocking")
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn who_was_woken_first_runs_first() {
        let ran = runtime().expect("a runtime").block_on(async {
            let (note, mut ran) = tokio::sync::mpsc::unbounded_channel();
            let wakers = (0..9).map(|number| {
                let (wake, woken) = oneshot::channel::<()>();
                let note = note.clone();
                tokio::spawn(async move {
                    let _ = woken.await;
                    let _ = note.send(number);
                });
                wake
            });
            let wakers: Vec<_> = wakers.collect();
            // All of them wait.
            tokio::task::yield_now().await;
            tokio::spawn(async move {
                for wake in wakers {
                    let _ = wake.send(());
                }
            });
            let mut numbers = Vec::new();
            ran.recv_many(&mut numbers, 9).await;
            while numbers.len() < 9 {
                ran.recv_many(&mut numbers, 9).await;
            }
            numbers
        });
        assert_eq!(ran, (0..9).collect::<Vec<_>>());
    }
}
