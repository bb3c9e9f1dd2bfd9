//! The handle to an endpoint that runs in its own thread.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use mio::Waker;

use crate::behaviour::Behaviour;
use crate::server::{Command, Server};
use crate::stats::{Received, Stats};

/// An endpoint that runs. It stops when this is dropped.
pub struct MockEndpoint {
    address: SocketAddr,
    started: Instant,
    commands: Sender<Command>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl MockEndpoint {
    /// Starts on a free port of this machine's own network.
    ///
    /// # Errors
    ///
    /// If there is no port or thread to be had.
    pub fn start(behaviour: Behaviour) -> io::Result<Self> {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), behaviour)
    }

    /// Starts on this address. Port 0 is a free one.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on, or there is no thread to be had.
    pub fn start_on(listen: SocketAddr, behaviour: Behaviour) -> io::Result<Self> {
        let (commands, inbox) = channel();
        let started = Instant::now();
        let server = Server::new(listen, behaviour, inbox, started)?;
        let (address, waker) = (server.address(), server.waker());
        let thread = std::thread::Builder::new()
            .name("mock-endpoint".to_owned())
            .spawn(move || server.run())?;
        Ok(Self {
            address,
            started,
            commands,
            waker,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` and the address.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// When it started: the zero of [`Received::at`].
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.ask(Command::Stats).unwrap_or_default()
    }

    /// The requests for completions so far, in the order in which they arrived.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.ask(Command::Received).unwrap_or_default()
    }

    /// Behaves otherwise from now on. Answers in progress go on as they began; when this returns, the next
    /// request is answered in the new way.
    pub fn set(&self, behaviour: Behaviour) {
        let _: Option<()> = self.ask(|done| Command::Set(Box::new(behaviour), done));
    }

    /// Stops, closes all connections, and says what it did.
    pub fn stop(mut self) -> Stats {
        let stats = self.stats();
        self.end();
        stats
    }

    /// `None` only if the thread has ended, which it does not before it is told to.
    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = channel();
        self.commands.send(command(reply)).ok()?;
        self.waker.wake().ok()?;
        answer.recv().ok()
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        let _ = self.commands.send(Command::Stop);
        let _ = self.waker.wake();
        // A panic of the thread has been printed; there is nobody to hand it to in a drop.
        let _ = thread.join();
    }
}

impl Drop for MockEndpoint {
    fn drop(&mut self) {
        self.end();
    }
}
