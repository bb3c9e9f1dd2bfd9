//! The thread that makes bodies ahead of their sends. In an open loop it goes through the plan; in
//! a closed one it asks who sends what next.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use bytes::Bytes;
use foresail_core::time::Nanos;

use super::lane::{Lane, Ready};
use super::patience::patience;
use super::settings::Settings;
use super::shared::Shared;
use super::worker::{Message, Turned};
use crate::plan::Planned;
use crate::record::{Asked, Ended};
use crate::schedule::{ClosedLoop, Plan, Turn};

/// Makes the body of a planned request, or says why it cannot.
pub type MakeBody = Box<dyn FnMut(&Planned) -> Result<Bytes, String> + Send>;

/// How often a halt is looked for while nothing else happens.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct Feeder {
    pub(super) settings: Arc<Settings>,
    pub(super) plan: Arc<Plan>,
    pub(super) make_body: MakeBody,
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Sender<Message>,
}

impl Feeder {
    /// Feeds every worker its share of the plan, in the order of due times.
    pub(super) fn open_loop(mut self) {
        let plan = Arc::clone(&self.plan);
        let ends = self.settings.duration_ns.unwrap_or(Nanos::MAX);
        let offered = plan
            .requests
            .partition_point(|planned| planned.request.due < ends);
        let mut fed = 0;
        for (index, planned) in plan.requests[..offered].iter().enumerate() {
            let worker = index % self.lanes.len();
            if !self.feed(index, planned.request.due, worker) {
                break;
            }
            fed = index + 1;
        }
        self.complete();
        self.unsent(plan.requests[fed..offered].iter());
    }

    /// Feeds workers what users send next, until none has anything left.
    pub(super) fn closed_loop(mut self, mut users: ClosedLoop, ended: &Receiver<Turned>) {
        let plan = Arc::clone(&self.plan);
        let mut is_fed = vec![false; plan.requests.len()];
        let mut busy = 0_usize;
        for (user, turn) in users.start(0).into_iter().enumerate() {
            let worker = user % self.lanes.len();
            busy += usize::from(self.turn(turn, worker, &mut is_fed));
        }
        while busy > 0 && !self.shared.halt.is_cancelled() {
            let turned = match ended.recv_timeout(LOOK) {
                Ok(turned) => turned,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let next = users.ended(turned.index, turned.at_ns);
            let is_busy = next.is_some_and(|turn| self.turn(turn, turned.worker, &mut is_fed));
            busy -= usize::from(!is_busy);
        }
        self.complete();
        if self.shared.halt.is_cancelled() {
            let fed = plan.requests.iter().zip(is_fed);
            self.unsent(fed.filter_map(|(planned, is_fed)| (!is_fed).then_some(planned)));
        }
    }

    /// Feeds a turn, unless it is due too late or the run is halted. A user whose turn is at once sends it
    /// when its body is there.
    fn turn(&mut self, turn: Turn, worker: usize, is_fed: &mut [bool]) -> bool {
        let ends = self.settings.duration_ns.unwrap_or(Nanos::MAX);
        if turn.due_ns >= ends {
            return false;
        }
        is_fed[turn.index] = self.feed(turn.index, turn.due_ns, worker);
        is_fed[turn.index]
    }

    /// Makes a request ready for a worker; false if it will not be sent, because the run is to end.
    fn feed(&mut self, index: usize, due: Nanos, worker: usize) -> bool {
        if self.shared.halt.is_cancelled() {
            return false;
        }
        let plan = Arc::clone(&self.plan);
        let planned = &plan.requests[index];
        let body = match (self.make_body)(planned) {
            Ok(body) => body,
            Err(message) => {
                self.shared
                    .fail(format!("request {}: {message}", planned.id));
                return false;
            }
        };
        let settings = &self.settings;
        let is_closed = settings.load.is_closed();
        let now = self.shared.clock.now();
        let due_ns = if is_closed { due.max(now) } else { due };
        let ready = Ready {
            index,
            asked: Asked::of(planned, due_ns, settings.is_streamed),
            body,
            patience: patience(
                settings.patience,
                &settings.clients,
                settings.seed,
                planned.id,
            ),
            late_ns: now.saturating_sub(due_ns),
        };
        self.lanes[worker].push(ready).is_ok()
    }

    fn complete(&self) {
        self.lanes.iter().for_each(|lane| lane.complete());
    }

    /// Tells the recorder of requests that will not be sent.
    fn unsent<'a>(&self, planned: impl Iterator<Item = &'a Planned>) {
        let now = self.shared.clock.now();
        let is_closed = self.settings.load.is_closed();
        let ended = planned.map(|planned| {
            // In a closed loop nobody knows when it would have been.
            let due_ns = if is_closed { now } else { planned.request.due };
            Ended {
                asked: Asked::of(planned, due_ns, self.settings.is_streamed),
                attempts: Vec::new(),
                end_ns: now.max(due_ns),
            }
        });
        let ended: Vec<_> = ended.collect();
        if !ended.is_empty() {
            // A recorder that is gone has panicked, which is found when it is joined.
            let _ = self.recorder.send(Message::Unsent(ended));
        }
    }
}

/// What a load is, in one word.
pub(super) trait LoadExt {
    /// Whether the next request waits for one to end.
    fn is_closed(&self) -> bool;
}

impl LoadExt for foresail_reports::summary::Load {
    fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}
