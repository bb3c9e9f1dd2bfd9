//! One thread that sends: an event loop, a client with connections of its own, and a share of the plan.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use foresail_core::time::Nanos;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::lane::{Lane, Ready, Upcoming};
use super::patience;
use super::settings::Settings;
use super::shared::Shared;
use super::timer::Timer;
use crate::client::{Client, ConnectionCounts, Target};
use crate::exchange::{Attempt, Exchange};
use crate::record::{Batch, Ended};
use crate::watch::{TICK, Watch, system};

/// What there is told to the recorder every so many ticks.
const TICKS_PER_BATCH: u32 = 5;

/// So many sends in a row that were all due, before others have their turn.
const SENDS_PER_TURN: usize = 32;

/// What goes to the recorder's thread.
#[derive(Debug)]
pub(super) enum Message {
    /// What a worker has seen.
    Batch(Batch),
    /// Requests that will not be sent.
    Unsent(Vec<Ended>),
    /// A worker has nothing more to tell.
    Done(Box<Done>),
}

/// What a worker tells at its end.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) watch: Watch,
    pub(super) connections: ConnectionCounts,
    /// Why not all connections could be opened ahead.
    pub(super) not_warmed: Option<String>,
}

/// What a worker is told about the end of a request, in a closed loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turned {
    pub(super) index: usize,
    pub(super) worker: usize,
    pub(super) at_ns: Nanos,
}

/// What a worker is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) index: usize,
    pub(super) settings: Arc<Settings>,
    pub(super) target: Target,
    pub(super) lane: Arc<Lane>,
    pub(super) shared: Arc<Shared>,
    pub(super) cap: Option<Arc<Semaphore>>,
    pub(super) recorder: Sender<Message>,
    /// Who is told of ends, in a closed loop.
    pub(super) users: Option<Sender<Turned>>,
}

struct Worker {
    parts: Parts,
    client: Client,
    watch: RefCell<Watch>,
    batch: RefCell<Batch>,
    in_flight: Cell<usize>,
    idle: Notify,
    /// When the cap of concurrency last let a send go that had waited for it: what was due before is
    /// late because of the cap.
    held_until_ns: Cell<Nanos>,
}

/// Runs a worker to its end.
pub(super) fn run(parts: Parts) -> std::io::Result<()> {
    // Tasks of one thread, without the queue of a `LocalSet` in between.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    runtime.block_on(work(parts))
}

async fn work(parts: Parts) -> std::io::Result<()> {
    let shared = &parts.shared;
    let cancellation = shared.cancellation.clone();
    let worker = Rc::new(Worker {
        client: Client::new(parts.target.clone(), shared.clock, cancellation),
        watch: RefCell::default(),
        batch: RefCell::new(Batch {
            worker: parts.index,
            ..Batch::default()
        }),
        in_flight: Cell::new(0),
        idle: Notify::new(),
        held_until_ns: Cell::new(0),
        parts,
    });
    let warmed = worker.client.warm(worker.parts.settings.warm_connections);
    let not_warmed = warmed.await.err().map(|error| error.to_string());
    let ticking = tokio::task::spawn_local(tick(Rc::clone(&worker)));
    let sent = worker.send_all().await;
    worker.parts.shared.sending.fetch_sub(1, Ordering::SeqCst);
    worker.drain().await;
    ticking.abort();
    worker.tell();
    let done = Done {
        watch: worker.watch.take(),
        connections: worker.client.counts(),
        not_warmed,
    };
    worker.send_message(Message::Done(Box::new(done)));
    sent
}

impl Worker {
    /// Sends everything when it is due, or until the run is halted.
    async fn send_all(self: &Rc<Self>) -> std::io::Result<()> {
        let mut upcoming = Upcoming::default();
        let sent = self.send_until_halted(&mut upcoming).await;
        let rest = self.parts.lane.abandon();
        let taken = std::iter::from_fn(|| upcoming.pop());
        let unsent: Vec<_> = taken.chain(rest).map(|ready| self.unsent(ready)).collect();
        if !unsent.is_empty() {
            self.send_message(Message::Unsent(unsent));
        }
        sent
    }

    async fn send_until_halted(self: &Rc<Self>, upcoming: &mut Upcoming) -> std::io::Result<()> {
        let timer = Timer::new()?;
        let halt = &self.parts.shared.halt;
        let mut in_a_row = 0;
        while self.parts.lane.take(upcoming) && !halt.is_cancelled() {
            let Some(due) = upcoming.due() else {
                tokio::select! {
                    () = halt.cancelled() => {}
                    () = self.parts.lane.filled() => {}
                }
                continue;
            };
            let instant = self.parts.shared.clock.instant(due);
            if std::time::Instant::now() < instant {
                in_a_row = 0;
                tokio::select! {
                    biased;
                    () = halt.cancelled() => continue,
                    fired = timer.until(instant) => fired?,
                    // In a closed loop what comes later may be due earlier.
                    () = self.parts.lane.filled(), if self.parts.users.is_some() => continue,
                }
            }
            let Some(permit) = self.permit().await else {
                continue;
            };
            if let Some(ready) = upcoming.pop() {
                self.begin(ready, permit);
            }
            in_a_row += 1;
            if in_a_row % SENDS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Leave to send one more; `None` if the run was halted meanwhile.
    async fn permit(&self) -> Option<Permit> {
        let Some(cap) = &self.parts.cap else {
            return Some(Permit::Free);
        };
        if let Ok(permit) = Arc::clone(cap).try_acquire_owned() {
            return Some(Permit::Capped(permit));
        }
        tokio::select! {
            () = self.parts.shared.halt.cancelled() => None,
            permit = Arc::clone(cap).acquire_owned() => {
                self.held_until_ns.set(self.parts.shared.clock.now());
                permit.ok().map(Permit::Capped)
            }
        }
    }

    fn begin(self: &Rc<Self>, ready: Ready, permit: Permit) {
        let now = self.parts.shared.clock.now();
        let due = ready.asked.due_ns;
        let mut watch = self.watch.borrow_mut();
        if due < self.held_until_ns.get() {
            watch.held_back(now.saturating_sub(due));
        } else {
            watch.sent(due, now);
        }
        if ready.late_ns > 0 {
            watch.feeder_behind(ready.late_ns);
        }
        drop(watch);
        self.parts.lane.sent(ready.body.len());
        self.parts.shared.sent(due);
        self.batch.borrow_mut().sent_ns.push(now);
        self.in_flight.set(self.in_flight.get() + 1);
        tokio::task::spawn_local(follow(Rc::clone(self), ready, permit));
    }

    /// Waits for what is in flight, as long as that may take.
    async fn drain(&self) {
        let shared = &self.parts.shared;
        let drain_ns = self.parts.settings.drain_ns;
        let by = shared.clock.now().saturating_add(drain_ns);
        while self.in_flight.get() > 0 {
            let until = by.min(shared.drain_until());
            let left = until.saturating_sub(shared.clock.now());
            if left == 0 {
                shared.cancellation.cancel();
            }
            // Looked at again now and then: a drain may be cut short meanwhile.
            let nap = std::time::Duration::from_nanos(left.clamp(1, 10 * TICK));
            tokio::select! {
                () = self.idle.notified() => {}
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// How long until a request is sent again after this attempt; `None` if it is not.
    fn retry(&self, id: u64, attempts: u32, last: &Exchange) -> Option<Nanos> {
        let settings = &self.parts.settings;
        let retry = settings.clients.retry.as_ref()?;
        patience::wait(retry, settings.seed, id, attempts, last)
    }

    /// Waits before another attempt; false if the run is halted meanwhile.
    async fn wait(&self, wait: Nanos) -> bool {
        let shared = &self.parts.shared;
        tokio::select! {
            biased;
            () = shared.halt.cancelled() => false,
            () = shared.cancellation.cancelled() => false,
            () = tokio::time::sleep(std::time::Duration::from_nanos(wait)) => true,
        }
    }

    fn ended(&self, index: usize, ended: Ended) {
        if let Some(users) = &self.parts.users {
            // Nobody listens any more once all is sent.
            let _ = users.send(Turned {
                index,
                worker: self.parts.index,
                at_ns: ended.end_ns,
            });
        }
        self.batch.borrow_mut().ended.push(ended);
        self.in_flight.set(self.in_flight.get() - 1);
        if self.in_flight.get() == 0 {
            self.idle.notify_one();
        }
    }

    fn unsent(&self, ready: Ready) -> Ended {
        let now = self.parts.shared.clock.now();
        Ended {
            end_ns: now.max(ready.asked.due_ns),
            asked: ready.asked,
            attempts: Vec::new(),
        }
    }

    /// Tells the recorder what there is to tell.
    fn tell(&self) {
        let mut batch = self.batch.borrow_mut();
        let next = Batch {
            worker: batch.worker,
            ..Batch::default()
        };
        let mut told = std::mem::replace(&mut *batch, next);
        drop(batch);
        told.until_ns = self.parts.shared.clock.now();
        self.parts.shared.ended(&told.ended);
        let gauges = &self.parts.shared.workers[self.parts.index];
        gauges.cpu_ns.store(system::thread_cpu(), Ordering::Relaxed);
        let open = self.client.counts().open;
        gauges.connections.store(open, Ordering::Relaxed);
        self.send_message(Message::Batch(told));
    }

    fn send_message(&self, message: Message) {
        // A recorder that is gone has panicked, which is found when it is joined.
        let _ = self.parts.recorder.send(message);
    }
}

/// Leave to have one more in flight.
enum Permit {
    /// There is no cap.
    Free,
    /// There is one, and this counts against it until it is dropped.
    Capped(#[expect(dead_code, reason = "only held")] OwnedSemaphorePermit),
}

/// Sends a request and follows it to its end, through as many attempts as it takes.
async fn follow(worker: Rc<Worker>, ready: Ready, permit: Permit) {
    let mut attempts = Vec::with_capacity(1);
    loop {
        let exchange = worker.client.exchange(Attempt {
            body: ready.body.clone(),
            is_streamed: ready.asked.is_streamed,
            patience: ready.patience,
        });
        let exchange = exchange.await;
        let again = worker.retry(ready.asked.id, attempts.len() as u32 + 1, &exchange);
        attempts.push(exchange);
        match again {
            Some(wait) if worker.wait(wait).await => {}
            _ => break,
        }
    }
    let end_ns = attempts.last().map_or(0, |last: &Exchange| last.end_ns);
    let ended = Ended {
        asked: ready.asked,
        attempts,
        end_ns,
    };
    worker.ended(ready.index, ended);
    drop(permit);
}

/// Looks at the event loop every [`TICK`], and now and then tells the recorder what there is.
async fn tick(worker: Rc<Worker>) {
    let clock = worker.parts.shared.clock;
    let Ok(timer) = Timer::new() else {
        return;
    };
    let (mut due, mut ticks) = (0, 0_u32);
    loop {
        if timer.until(clock.instant(due)).await.is_err() {
            return;
        }
        let now = clock.now();
        // A tick that nobody was late for, before anything is sent, only sets the first.
        due = match due {
            0 => now + TICK,
            due => worker.watch.borrow_mut().tick(due, now),
        };
        ticks += 1;
        if ticks.is_multiple_of(TICKS_PER_BATCH) {
            worker.tell();
        }
    }
}
