//! A run: one deployment, or several that share nothing but GPUs.
//!
//! Each deployment is a [`World`] of its own, with its own clock, queue and
//! replicas (S01). A run of one goes from event to event. A run of several
//! always takes the earliest event of all, so that GPUs are claimed and given
//! back in the order of time; at equal times stock-outs come first, then the
//! deployments in the order of the scenario.

use std::cell::RefCell;
use std::iter::Peekable;
use std::ops::ControlFlow;
use std::rc::Rc;

use foresail_core::step_time::StepTime;
use foresail_core::time::{HOUR, Nanos};
use foresail_reports::records::{RecordSink, RunTotals};
use foresail_scenarios::workload::{Request, WorkloadError};

use crate::pool::SharedPool;
use crate::world::{Next, World};
use crate::{Progress, SimulationError};

/// Events between two calls of the watcher.
const EVENTS_PER_WATCH: u64 = 1 << 16;

/// For how long the autoscalers of a run may be all that happens while requests
/// wait for GPUs. After a day nobody who could give GPUs back will.
const ONLY_LOOKS_MAX: Nanos = 24 * HOUR;

/// A deployment and the requests that it will get.
pub(crate) struct Member<'a, M, S, R: Iterator> {
    world: World<'a, M, S>,
    requests: Peekable<R>,
}

impl<'a, M: StepTime, S: RecordSink, R> Member<'a, M, S, R>
where
    R: Iterator<Item = Result<Request, WorkloadError>>,
{
    pub(crate) fn new(world: World<'a, M, S>, requests: R) -> Self {
        Self {
            world,
            requests: requests.peekable(),
        }
    }

    /// When the next request comes.
    #[inline]
    fn arrival(&mut self) -> Result<Option<Nanos>, SimulationError> {
        match self.requests.peek() {
            Some(Ok(request)) => Ok(Some(request.due)),
            Some(Err(_)) => {
                let error = self.requests.next().and_then(Result::err);
                Err(error.map_or(SimulationError::Interrupted, Into::into))
            }
            None => Ok(None),
        }
    }

    /// Runs until all requests have ended and the workload's time is over.
    pub(crate) fn run_alone(
        mut self,
        mut watch: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<RunTotals, SimulationError> {
        self.world.begin()?;
        let mut events = 0_u64;
        loop {
            let arrival = self.arrival()?;
            let is_over = arrival.is_none() && self.world.is_empty();
            let over = is_over.then(|| self.world.now().max(self.world.duration()));
            let (at, next) = self.world.next(arrival, over);
            if next == Next::Nothing {
                return self.world.end(at);
            }
            self.happen(at, next)?;
            events += 1;
            if events.is_multiple_of(EVENTS_PER_WATCH) && watch(self.world.progress()).is_break() {
                return Err(SimulationError::Interrupted);
            }
        }
    }

    #[inline]
    fn happen(&mut self, at: Nanos, next: Next) -> Result<(), SimulationError> {
        let request = match next {
            Next::Arrival => self.requests.next().and_then(Result::ok),
            _ => None,
        };
        self.world.happen(at, next, request)
    }
}

/// A member of a group, whatever its step-time model.
pub(crate) trait Joined {
    fn begin(&mut self) -> Result<(), SimulationError>;
    /// What happens next to it, and when.
    fn next(&mut self, over: Option<Nanos>) -> Result<(Nanos, Next), SimulationError>;
    /// Whether all its requests have come and ended; then since when it may end.
    fn may_end(&mut self) -> Result<Option<Nanos>, SimulationError>;
    /// Whether it has more to come than looks of its autoscaler.
    fn expects_more(&mut self) -> bool;
    fn happen(&mut self, at: Nanos, next: Next) -> Result<(), SimulationError>;
    fn granted(&mut self, at: Nanos, replica: u32) -> Result<(), SimulationError>;
    fn progress(&self) -> Progress;
    fn end(self: Box<Self>, at: Nanos) -> Result<RunTotals, SimulationError>;
}

impl<M: StepTime, S: RecordSink, R> Joined for Member<'_, M, S, R>
where
    R: Iterator<Item = Result<Request, WorkloadError>>,
{
    fn begin(&mut self) -> Result<(), SimulationError> {
        self.world.begin()
    }

    fn next(&mut self, over: Option<Nanos>) -> Result<(Nanos, Next), SimulationError> {
        let arrival = self.arrival()?;
        Ok(self.world.next(arrival, over))
    }

    fn may_end(&mut self) -> Result<Option<Nanos>, SimulationError> {
        let is_over = self.arrival()?.is_none() && self.world.is_empty();
        Ok(is_over.then(|| self.world.now().max(self.world.duration())))
    }

    fn expects_more(&mut self) -> bool {
        self.requests.peek().is_some() || self.world.expects_more()
    }

    fn happen(&mut self, at: Nanos, next: Next) -> Result<(), SimulationError> {
        Member::happen(self, at, next)
    }

    fn granted(&mut self, at: Nanos, replica: u32) -> Result<(), SimulationError> {
        self.world.granted(at, replica)
    }

    fn progress(&self) -> Progress {
        self.world.progress()
    }

    fn end(self: Box<Self>, at: Nanos) -> Result<RunTotals, SimulationError> {
        self.world.end(at)
    }
}

/// Several deployments under one clock.
pub(crate) struct Group<'a> {
    members: Vec<Box<dyn Joined + 'a>>,
    pool: Rc<RefCell<SharedPool>>,
    now: Nanos,
    /// When something last happened that was no look of an autoscaler.
    last_happening: Nanos,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Stock(Nanos),
    Member(usize, Nanos, Next),
    Over(Nanos),
}

impl<'a> Group<'a> {
    pub(crate) fn new(members: Vec<Box<dyn Joined + 'a>>, pool: Rc<RefCell<SharedPool>>) -> Self {
        Self {
            members,
            pool,
            now: 0,
            last_happening: 0,
        }
    }

    /// Runs until all requests of all deployments have ended and the time of
    /// each workload is over.
    pub(crate) fn run(
        mut self,
        mut watch: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<RunTotals>, SimulationError> {
        for member in &mut self.members {
            member.begin()?;
        }
        let mut events = 0_u64;
        let end = loop {
            match self.turn()? {
                Turn::Over(at) => break at,
                Turn::Stock(at) => {
                    self.now = at;
                    self.pool.borrow_mut().turn(at);
                }
                Turn::Member(index, at, next) => {
                    self.now = at;
                    if next != Next::Look {
                        self.last_happening = at;
                    }
                    self.members[index].happen(at, next)?;
                }
            }
            self.tell_granted()?;
            events += 1;
            if events.is_multiple_of(EVENTS_PER_WATCH) && watch(self.progress()).is_break() {
                return Err(SimulationError::Interrupted);
            }
        };
        let members = self.members.into_iter();
        members.map(|member| member.end(end)).collect()
    }

    fn turn(&mut self) -> Result<Turn, SimulationError> {
        let over = self.over()?;
        let mut earliest: Option<(Nanos, usize, Next)> = None;
        for (index, member) in self.members.iter_mut().enumerate() {
            let (at, next) = member.next(over)?;
            let is_earlier = earliest.is_none_or(|(before, ..)| at < before);
            if next != Next::Nothing && is_earlier {
                earliest = Some((at, index, next));
            }
        }
        let stock = self.pool.borrow().next_at();
        let turn = match (earliest, stock) {
            (None, _) if over.is_some() => Turn::Over(over.unwrap_or(self.now)),
            (None, None) => Turn::Over(self.now),
            (None, Some(stock)) => Turn::Stock(stock),
            (Some((at, index, next)), stock) => match stock {
                Some(stock) if stock <= at => Turn::Stock(stock),
                _ => Turn::Member(index, at, next),
            },
        };
        // Requests may wait for what will not come: they wait to the end.
        let is_stuck = match turn {
            Turn::Stock(at) | Turn::Member(_, at, Next::Look) => {
                let patience = self.last_happening.saturating_add(ONLY_LOOKS_MAX);
                over.is_none() && at > patience && !self.expects_more()
            }
            Turn::Member(..) | Turn::Over(_) => false,
        };
        Ok(if is_stuck { Turn::Over(self.now) } else { turn })
    }

    /// Whether any deployment has more to come than looks of its autoscaler.
    fn expects_more(&mut self) -> bool {
        self.members.iter_mut().any(|member| member.expects_more())
    }

    /// When the run ends, if all requests have come and ended.
    fn over(&mut self) -> Result<Option<Nanos>, SimulationError> {
        let mut over = 0;
        for member in &mut self.members {
            match member.may_end()? {
                Some(at) => over = over.max(at),
                None => return Ok(None),
            }
        }
        Ok(Some(over))
    }

    fn tell_granted(&mut self) -> Result<(), SimulationError> {
        loop {
            let granted = self.pool.borrow_mut().take_granted();
            let Some(claim) = granted else { return Ok(()) };
            self.last_happening = self.now;
            self.members[claim.deployment as usize].granted(self.now, claim.replica)?;
        }
    }

    fn progress(&self) -> Progress {
        let received = self.members.iter().map(|member| member.progress().received);
        Progress {
            now: self.now,
            received: received.sum(),
        }
    }
}
