//! Sends a plan: each request when it is due, whatever becomes of those before.
//!
//! ```text
//!  plan ─> feeder ─ bodies, made ahead ─> lane ─> worker: at due, Client::exchange ─┐
//!             ^                                     └ worker: …                      ├─ sends, ends ─> keeper: Recorder ─> Sink
//!             └──── closed loop only: who has ended, and sends what next ────────────┘                    └ Watch ─> Verdict
//! ```
//!
//! A worker is a thread with an event loop, a client and connections of its own. It sleeps on a timer of the
//! kernel until the next request is due, starts it, and sleeps again; answers are followed
//! by tasks beside it. So send k is never delayed by answer j, except through the processor,
//! and that is [watched](crate::watch).

mod feeder;
mod keeper;
mod lane;
mod outcome;
mod patience;
mod settings;
mod shared;
mod timer;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use foresail_core::time::Nanos;
use foresail_reports::summary::Load;
use thiserror::Error;
use tokio::sync::Semaphore;

pub use feeder::MakeBody;
pub use outcome::RunOutcome;
pub use settings::{Ahead, HEAD_START, Settings};
pub use shared::Live;

use crate::client::Target;
use crate::clock::RunClock;
use crate::record::{Recorder, Sink};
use crate::schedule::{ClosedLoop, Plan};
use feeder::{Feeder, LoadExt};
use keeper::{Keeper, Kept};
use lane::Lane;
use shared::Shared;
use worker::{Message, Parts, Turned};

/// Why a run came to nothing.
#[derive(Debug, Error)]
pub enum RunError {
    /// A setting that cannot be.
    #[error("{0}")]
    Settings(&'static str),
    /// The system gives no thread or no event loop.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What it refuses.
        what: &'static str,
        /// What it says.
        source: io::Error,
    },
    /// A bug of the client: one of its threads panicked.
    #[error("{0} panicked, which is a bug of foresail; please report it")]
    Panicked(&'static str),
}

/// A run under way. Dropped, it goes on unwatched.
pub struct Run<S> {
    stopper: Stopper,
    plan: Arc<Plan>,
    settings: Arc<Settings>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    feeder: JoinHandle<()>,
    keeper: JoinHandle<Kept<S>>,
}

/// Ends a run early, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    shared: Arc<Shared>,
}

impl Stopper {
    /// No more sends. What is in flight has so long to end, and is then cancelled; with no time at
    /// all, at once. What was not sent is recorded as such.
    pub fn stop(&self, drain: Duration) {
        self.shared.stop(drain);
    }
}

/// Starts a run. Its first request is sent when it is due by the clock, which should
/// start [`HEAD_START`] from now or later.
///
/// # Errors
/// If a setting cannot be, or the system gives no thread.
pub fn start<S: Sink + Send + 'static>(
    settings: Settings,
    plan: Arc<Plan>,
    make_body: MakeBody,
    target: &Target,
    clock: RunClock,
    sink: S,
) -> Result<Run<S>, RunError> {
    check(&settings)?;
    let settings = Arc::new(settings);
    let shared = Arc::new(Shared::new(clock, settings.threads));
    let (recorder, messages) = mpsc::channel();
    let lanes: Vec<_> = (0..settings.threads)
        .map(|_| Arc::new(Lane::new(settings.ahead)))
        .collect();
    let (users, ended) = mpsc::channel();
    let is_closed = settings.load.is_closed();
    let workers = workers(
        &settings,
        target,
        &lanes,
        &shared,
        &recorder,
        is_closed.then_some(users),
    )?;
    let feeder = Feeder {
        settings: Arc::clone(&settings),
        plan: Arc::clone(&plan),
        make_body,
        lanes,
        shared: Arc::clone(&shared),
        recorder,
    };
    let feeder = match settings.load {
        Load::Open | Load::Capped { .. } => spawn("feeder", || feeder.open_loop())?,
        Load::Closed { concurrency } => {
            let users = ClosedLoop::new(&plan, usize::try_from(concurrency).unwrap_or(usize::MAX));
            spawn("feeder", move || feeder.closed_loop(users, &ended))?
        }
    };
    let planned_until_ns = (!is_closed).then(|| last_due(&plan, settings.duration_ns));
    let keeper = Keeper {
        recorder: Recorder::new(sink, settings.window, planned_until_ns, settings.threads),
        messages,
        shared: Arc::clone(&shared),
        planned_until_ns,
    };
    Ok(Run {
        stopper: Stopper { shared },
        plan,
        settings,
        workers,
        feeder,
        keeper: spawn("recorder", || keeper.keep())?,
    })
}

fn check(settings: &Settings) -> Result<(), RunError> {
    let none = match settings.load {
        Load::Capped { in_flight_max: 0 } => Some("the most requests in flight must be at least 1"),
        Load::Closed { concurrency: 0 } => Some("the concurrency must be at least 1"),
        _ if settings.threads == 0 => Some("there must be at least 1 thread"),
        _ => None,
    };
    none.map_or(Ok(()), |text| Err(RunError::Settings(text)))
}

/// When the last request is due that will be offered.
fn last_due(plan: &Plan, duration: Option<Nanos>) -> Nanos {
    let ends = duration.unwrap_or(Nanos::MAX);
    let offered = plan
        .requests
        .partition_point(|planned| planned.request.due < ends);
    plan.requests[..offered]
        .last()
        .map_or(0, |planned| planned.request.due)
}

fn workers(
    settings: &Arc<Settings>,
    target: &Target,
    lanes: &[Arc<Lane>],
    shared: &Arc<Shared>,
    recorder: &Sender<Message>,
    users: Option<Sender<Turned>>,
) -> Result<Vec<JoinHandle<io::Result<()>>>, RunError> {
    let cap = match settings.load {
        Load::Capped { in_flight_max } => {
            let permits = usize::try_from(in_flight_max).unwrap_or(usize::MAX);
            Some(Arc::new(Semaphore::new(
                permits.min(Semaphore::MAX_PERMITS),
            )))
        }
        Load::Open | Load::Closed { .. } => None,
    };
    let parts = |(index, lane): (usize, &Arc<Lane>)| Parts {
        index,
        settings: Arc::clone(settings),
        target: target.clone(),
        lane: Arc::clone(lane),
        shared: Arc::clone(shared),
        cap: cap.clone(),
        recorder: recorder.clone(),
        users: users.clone(),
    };
    let parts = lanes.iter().enumerate().map(parts);
    parts
        .map(|parts| spawn("worker", || worker::run(parts)))
        .collect()
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RunError> {
    let spawned = Builder::new().name(format!("load-{name}")).spawn(work);
    spawned.map_err(|source| RunError::System {
        what: "a thread",
        source,
    })
}

impl<S> Run<S> {
    /// How it goes.
    #[must_use]
    pub fn live(&self) -> Live {
        let shared = &self.stopper.shared;
        let asked = match self.settings.load {
            Load::Closed { .. } => 0,
            Load::Open | Load::Capped { .. } => self.due_by(shared.clock.now()),
        };
        shared.live(asked)
    }

    fn due_by(&self, now: Nanos) -> u64 {
        let ends = self.settings.duration_ns.unwrap_or(Nanos::MAX);
        let is_due = |due: Nanos| due <= now && due < ends;
        let due = self
            .plan
            .requests
            .partition_point(|planned| is_due(planned.request.due));
        due as u64
    }

    /// What ends it early, for another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Whether everything is over and recorded, so that [`Run::wait`] returns at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.keeper.is_finished()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If the system gave no event loop, or a thread panicked.
    pub fn wait(self) -> Result<RunOutcome<S>, RunError> {
        let mut refused = None;
        for worker in self.workers {
            let ended = worker.join().map_err(|_| RunError::Panicked("a worker"))?;
            refused = refused.or(ended.err());
        }
        self.feeder
            .join()
            .map_err(|_| RunError::Panicked("the feeder"))?;
        let kept = self
            .keeper
            .join()
            .map_err(|_| RunError::Panicked("the recorder"))?;
        if let Some(source) = refused {
            let what = "an event loop";
            return Err(RunError::System { what, source });
        }
        Ok(RunOutcome::new(kept, &self.stopper.shared, &self.settings))
    }
}
