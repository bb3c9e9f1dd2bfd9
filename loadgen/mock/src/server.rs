//! The thread that keeps the appointments: sockets, deadlines, outages.
//!
//! It has two clocks. `now_ns` never stops; `served_ns` stands still while the
//! server is frozen, so that whatever was in progress goes on where it was.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use slab::Slab;

use crate::alarm::Alarm;
use crate::behaviour::{Behaviour, OutageKind};
use crate::connection::Connection;
use crate::rules::{next_change, outage_at};
use crate::stats::{Received, Stats, Tally};
use crate::templates::Templates;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const ALARM: Token = Token(usize::MAX - 2);

/// Deadlines that are met before requests are looked for again: the reading of
/// requests must not wait for a burst of writes.
const DEADLINES_PER_TURN: usize = 32;
/// Sockets that a look at them tells of.
const EVENTS_PER_TURN: usize = 256;
/// Connections that wait to be accepted; the system may allow fewer.
const CONNECTIONS_QUEUED_MAX: i32 = 16_384;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const READ_BUFFER_BYTES: usize = 64 << 10;
/// How long to wait before trying again to listen or accept, where the system would not.
const RETRY_NS: u64 = 10_000_000;

/// What the handle says.
pub(crate) enum Command {
    Set(Box<Behaviour>, Sender<()>),
    Stats(Sender<Stats>),
    Received(Sender<Vec<Received>>),
    Stop,
}

/// When, whose, and which: a connection forgets its older deadlines by counting.
type Deadline = Reverse<(u64, usize, u64)>;

pub(crate) struct Server {
    poll: Poll,
    alarm: Alarm,
    /// When the alarm goes off, if it is set.
    alarm_at_ns: Option<u64>,
    waker: Arc<Waker>,
    commands: Receiver<Command>,
    address: SocketAddr,
    listener: Option<TcpListener>,
    /// When to try again to listen or accept.
    retry_at_ns: Option<u64>,
    pub(crate) connections: Slab<Connection>,
    deadlines: BinaryHeap<Deadline>,
    deadlines_set: u64,
    pub(crate) force: Force,
    zero: Instant,
    frozen_ns: u64,
    pub(crate) tally: Tally,
    /// Tokens of all prompts so far.
    pub(crate) prompt_tokens: u64,
    pub(crate) received: Vec<Received>,
    pub(crate) read_buffer: Vec<u8>,
    /// The step that is being written.
    pub(crate) out: Vec<u8>,
}

/// The behaviour in force.
pub(crate) struct Force {
    pub(crate) behaviour: Behaviour,
    pub(crate) completions: Arc<Templates>,
    pub(crate) chat: Arc<Templates>,
    since_ns: u64,
    /// Requests for completions since then.
    pub(crate) requests: u64,
}

impl Force {
    fn new(behaviour: Behaviour, since_ns: u64) -> Self {
        Self {
            completions: Arc::new(Templates::new(&behaviour, false)),
            chat: Arc::new(Templates::new(&behaviour, true)),
            behaviour,
            since_ns,
            requests: 0,
        }
    }

    /// How long it has been in force.
    pub(crate) fn age(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(now_ns - self.since_ns)
    }
}

impl Server {
    pub(crate) fn new(
        listen: SocketAddr,
        behaviour: Behaviour,
        commands: Receiver<Command>,
        zero: Instant,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let listener = listen_on(listen, poll.registry())?;
        let registry = poll.registry();
        Ok(Self {
            alarm: Alarm::register(registry, ALARM)?,
            alarm_at_ns: None,
            waker: Arc::new(Waker::new(registry, WAKER)?),
            poll,
            commands,
            address: listener.local_addr()?,
            listener: Some(listener),
            retry_at_ns: None,
            connections: Slab::new(),
            deadlines: BinaryHeap::new(),
            deadlines_set: 0,
            force: Force::new(behaviour, 0),
            zero,
            frozen_ns: 0,
            tally: Tally::new(),
            prompt_tokens: 0,
            received: Vec::new(),
            read_buffer: vec![0; READ_BUFFER_BYTES],
            out: Vec::new(),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Time since the endpoint started.
    pub(crate) fn now_ns(&self) -> u64 {
        // Half a thousand years of nanoseconds fit.
        self.zero.elapsed().as_nanos() as u64
    }

    /// Time since the endpoint started that it was not frozen.
    pub(crate) fn served_ns(&self) -> u64 {
        self.now_ns() - self.frozen_ns
    }

    /// Serves until told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut busy_since_ns = self.now_ns();
        while self.suffer_outage() {
            self.meet_deadlines();
            let timeout = self.set_alarm();
            let busy_ns = self.now_ns() - busy_since_ns;
            let gap = Duration::from_nanos(busy_ns);
            self.tally.stats.read_gap_max = self.tally.stats.read_gap_max.max(gap);
            if self.poll.poll(&mut events, timeout).is_err() {
                // Interrupted by a signal: nothing is lost.
                events.clear();
            }
            busy_since_ns = self.now_ns();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    WAKER => {
                        if self.obey_all().is_break() {
                            return;
                        }
                    }
                    ALARM => self.alarm_at_ns = None,
                    Token(key) => self.look_at(key, event),
                }
            }
        }
    }

    /// Does what is said, if anything is.
    fn obey_all(&mut self) -> ControlFlow<()> {
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command)?;
        }
        ControlFlow::Continue(())
    }

    fn obey(&mut self, command: Command) -> ControlFlow<()> {
        // Whoever asked may have gone meanwhile.
        match command {
            Command::Set(behaviour, done) => {
                self.force = Force::new(*behaviour, self.now_ns());
                let _ = done.send(());
            }
            Command::Stats(reply) => {
                let _ = reply.send(self.stats());
            }
            Command::Received(reply) => {
                let _ = reply.send(self.received.clone());
            }
            Command::Stop => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            connections_open: self.connections.len() as u64,
            elapsed: Duration::from_nanos(self.now_ns()),
            cpu: thread_cpu(),
            ..self.tally.stats()
        }
    }

    /// Is as bad as it is told to be now. Returns whether to go on.
    fn suffer_outage(&mut self) -> bool {
        if self.retry_at_ns.is_some_and(|at_ns| at_ns <= self.now_ns()) {
            self.retry_at_ns = None;
            self.accept();
        }
        let outages = &self.force.behaviour.outages;
        if outages.is_empty() && self.listener.is_some() {
            return true;
        }
        let age = self.force.age(self.now_ns());
        let outage = outage_at(outages, age).map(|outage| (outage.kind, outage.until));
        match outage {
            None => self.listen_again(),
            Some((OutageKind::Frozen, until)) => {
                self.listen_again();
                return self.freeze(until).is_continue();
            }
            Some((OutageKind::Refusing, _)) => self.listener = None,
            Some((OutageKind::Dead, _)) => {
                self.listener = None;
                self.reset_all();
            }
        }
        true
    }

    /// Stands still until the behaviour is that old, or is another.
    fn freeze(&mut self, until: Duration) -> ControlFlow<()> {
        let begun_ns = self.now_ns();
        let in_force_since_ns = self.force.since_ns;
        while self.force.since_ns == in_force_since_ns {
            let left = until.saturating_sub(self.force.age(self.now_ns()));
            if left.is_zero() {
                break;
            }
            // What never ends is waited for by the year, which adds up the same.
            match self.commands.recv_timeout(left.min(YEAR)) {
                Ok(command) => self.obey(command)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
            }
        }
        self.frozen_ns += self.now_ns() - begun_ns;
        ControlFlow::Continue(())
    }

    fn reset_all(&mut self) {
        for connection in self.connections.drain() {
            connection.reset_on_close();
            self.tally.stats.running -= u64::from(connection.is_generating());
        }
        self.deadlines.clear();
    }

    fn listen_again(&mut self) {
        if self.listener.is_some() || self.retry_at_ns.is_some() {
            return;
        }
        let listener = listen_on(self.address, self.poll.registry());
        match listener {
            Ok(listener) => self.listener = Some(listener),
            Err(_) => self.retry_later(),
        }
    }

    fn retry_later(&mut self) {
        self.tally.stats.accept_errors += 1;
        self.retry_at_ns = Some(self.now_ns() + RETRY_NS);
    }

    fn accept(&mut self) {
        while let Some(listener) = &self.listener {
            match listener.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The client has gone already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => return self.retry_later(),
            }
        }
    }

    fn welcome(&mut self, mut stream: TcpStream) {
        // Without it a token would wait for the one before it to be acknowledged.
        let _ = stream.set_nodelay(true);
        let entry = self.connections.vacant_entry();
        let token = Token(entry.key());
        let registry = self.poll.registry();
        if registry
            .register(&mut stream, token, Interest::READABLE)
            .is_err()
        {
            self.tally.stats.accept_errors += 1;
            return;
        }
        entry.insert(Connection::new(
            stream,
            self.tally.stats.connections_accepted,
        ));
        self.tally.stats.connections_accepted += 1;
    }

    fn look_at(&mut self, key: usize, event: &Event) {
        if event.is_writable() {
            self.flush(key);
        }
        if event.is_readable() || event.is_read_closed() {
            self.read(key, event.is_read_closed());
        }
    }

    /// Wants to know when this connection takes bytes again.
    pub(crate) fn watch_for_room(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        if registry
            .reregister(&mut connection.stream, Token(key), interest)
            .is_err()
        {
            self.tally.stats.accept_errors += 1;
        }
    }

    /// Comes back to this connection then, and not when it was to be before.
    pub(crate) fn set_deadline(&mut self, key: usize, at_served_ns: u64) {
        self.deadlines_set += 1;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.deadline = self.deadlines_set;
        self.deadlines
            .push(Reverse((at_served_ns, key, self.deadlines_set)));
    }

    fn meet_deadlines(&mut self) {
        for _ in 0..DEADLINES_PER_TURN {
            match self.deadlines.peek() {
                Some(&Reverse((at_ns, key, number))) if at_ns <= self.served_ns() => {
                    self.deadlines.pop();
                    if self
                        .connections
                        .get(key)
                        .is_some_and(|it| it.deadline == number)
                    {
                        self.come_back(key);
                    }
                }
                _ => return,
            }
        }
    }

    /// Sets the alarm to whatever comes next, and says how long the poll may wait.
    fn set_alarm(&mut self) -> Option<Duration> {
        let now_ns = self.now_ns();
        let deadline = self.deadlines.peek();
        let deadline_ns = deadline.map(|&Reverse((at_ns, ..))| at_ns + self.frozen_ns);
        let change_ns = next_change(&self.force.behaviour.outages, self.force.age(now_ns))
            .map(|age| self.force.since_ns.saturating_add(age.as_nanos() as u64));
        let next_ns = [deadline_ns, change_ns, self.retry_at_ns]
            .into_iter()
            .flatten()
            .min()?;
        if next_ns <= now_ns {
            return Some(Duration::ZERO);
        }
        // An alarm that goes off too early does no harm, and saves setting it each time.
        if self.alarm_at_ns.is_none_or(|at_ns| at_ns > next_ns) {
            if self.alarm.set(next_ns - now_ns).is_err() {
                return Some(Duration::from_nanos(next_ns - now_ns));
            }
            self.alarm_at_ns = Some(next_ns);
        }
        Alarm::poll_timeout(next_ns - now_ns)
    }
}

/// Listens, and tells the poll of it.
fn listen_on(address: SocketAddr, registry: &Registry) -> io::Result<TcpListener> {
    let mut listener = TcpListener::bind(address)?;
    // Listening again only makes the queue longer: a client that opens thousands of connections at
    // once would lose some for a second, which is how long a SYN waits for its answer.
    rustix::net::listen(&listener, CONNECTIONS_QUEUED_MAX)?;
    registry.register(&mut listener, LISTENER, Interest::READABLE)?;
    Ok(listener)
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}
