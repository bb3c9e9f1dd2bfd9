//! A run: one deployment, or several that share nothing but a provider.
//!
//! Each deployment is a [`World`] of its own, with its own clock, queue and
//! replicas (S01). A run always takes the earliest event of all, so that GPUs are
//! claimed and given back in the order of time. At equal times, what comes from
//! outside the deployments is first (stock-outs and operations), then the
//! deployments in the order of the scenario, and the provider's deadlines last.

use std::iter::Peekable;
use std::ops::ControlFlow;

use foresail_core::step_time::StepTime;
use foresail_core::time::{HOUR, Nanos};
use foresail_reports::records::{RecordSink, RunTotals};
use foresail_scenarios::workload::{Request, WorkloadError};

use crate::provider::{Notice, Shared, Times};
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
    /// When something last came from outside, which a run is not shorter than.
    last_outside: Nanos,
}

impl<'a, M: StepTime, S: RecordSink, R> Member<'a, M, S, R>
where
    R: Iterator<Item = Result<Request, WorkloadError>>,
{
    pub(crate) fn new(world: World<'a, M, S>, requests: R) -> Self {
        Self {
            world,
            requests: requests.peekable(),
            last_outside: 0,
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

    /// When the run ends, if all requests have come and ended.
    fn may_end_at(&self) -> Nanos {
        let happened = self.world.now().max(self.last_outside);
        happened.max(self.world.duration())
    }

    /// Runs until all requests have ended and the workload's time is over. The
    /// same as [`Group::run`] for a deployment that never waits for GPUs, without
    /// asking who is next at every event.
    pub(crate) fn run_alone(
        mut self,
        provider: &Shared,
        mut watch: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<RunTotals, SimulationError> {
        self.world.begin()?;
        provider.borrow_mut().begin();
        let mut times = provider.borrow_mut().times();
        let mut events = 0_u64;
        loop {
            if provider.borrow().has_news() {
                self.deliver(provider)?;
                times = provider.borrow_mut().times();
            }
            let arrival = self.arrival()?;
            let is_over = arrival.is_none() && self.world.is_empty() && !times.has_operations;
            let over = is_over.then(|| self.may_end_at());
            let (at, next) = self.world.next(arrival, over);
            let times = times.not_before(self.world.now().max(self.last_outside));
            match turn(times, at, next, over.is_some()) {
                Turn::Outside(at) => {
                    self.world.pass_to(at);
                    self.world.tell()?;
                    self.last_outside = at;
                    self.deliver(provider)?;
                    provider.borrow_mut().outside(at)?;
                }
                Turn::Deadline(at) => {
                    self.world.pass_to(at);
                    provider.borrow_mut().deadline(at);
                }
                Turn::Over(at) => return self.world.end(at),
                Turn::Member(at) => self.happen(at, next)?,
            }
            events += 1;
            if events.is_multiple_of(EVENTS_PER_WATCH) && watch(self.world.progress()).is_break() {
                return Err(SimulationError::Interrupted);
            }
        }
    }

    #[cold]
    fn deliver(&mut self, provider: &Shared) -> Result<(), SimulationError> {
        loop {
            let notices = provider.borrow_mut().take_notices();
            if notices.is_empty() {
                return Ok(());
            }
            for (_, notice) in notices {
                self.world.notice(notice)?;
            }
            self.world.tell_news()?;
        }
    }

    #[inline(always)]
    fn happen(&mut self, at: Nanos, next: Next) -> Result<(), SimulationError> {
        let request = match next {
            Next::Arrival => self.requests.next().and_then(Result::ok),
            _ => None,
        };
        self.world.happen(at, next, request)
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Outside(Nanos),
    Member(Nanos),
    Deadline(Nanos),
    Over(Nanos),
}

/// Whose turn it is when the next event of a deployment, or the end of the run,
/// is `next` at `at`.
#[inline]
fn turn(times: Times, at: Nanos, next: Next, is_over: bool) -> Turn {
    let is_nothing = next == Next::Nothing;
    // Requests may wait for what only the end of a stock-out, or an operation, can bring.
    let waits = is_nothing && !is_over;
    let outside = times.outside.filter(|outside| *outside <= at || waits);
    match (outside, times.deadline) {
        (Some(outside), Some(deadline)) if deadline < outside => Turn::Deadline(deadline),
        (Some(outside), _) => Turn::Outside(outside),
        (None, Some(deadline)) if deadline < at => Turn::Deadline(deadline),
        _ if is_nothing => Turn::Over(at),
        _ => Turn::Member(at),
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
    /// It is now as late as this.
    fn pass_to(&mut self, at: Nanos);
    fn tell(&mut self) -> Result<(), SimulationError>;
    fn notice(&mut self, notice: Notice) -> Result<(), SimulationError>;
    fn tell_news(&mut self) -> Result<(), SimulationError>;
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
        Ok(is_over.then(|| self.may_end_at()))
    }

    fn expects_more(&mut self) -> bool {
        self.requests.peek().is_some() || self.world.expects_more()
    }

    fn happen(&mut self, at: Nanos, next: Next) -> Result<(), SimulationError> {
        Member::happen(self, at, next)
    }

    fn pass_to(&mut self, at: Nanos) {
        self.world.pass_to(at);
    }

    fn tell(&mut self) -> Result<(), SimulationError> {
        self.world.tell()
    }

    fn notice(&mut self, notice: Notice) -> Result<(), SimulationError> {
        self.world.notice(notice)
    }

    fn tell_news(&mut self) -> Result<(), SimulationError> {
        self.world.tell_news()
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
    provider: Shared,
    now: Nanos,
    /// When something last happened that was no look of an autoscaler.
    last_happening: Nanos,
}

impl<'a> Group<'a> {
    pub(crate) fn new(members: Vec<Box<dyn Joined + 'a>>, provider: Shared) -> Self {
        Self {
            members,
            provider,
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
        self.provider.borrow_mut().begin();
        let mut events = 0_u64;
        let end = loop {
            let (turn, index, next) = self.turn()?;
            match turn {
                Turn::Over(at) => break at,
                Turn::Outside(at) => {
                    self.now = at;
                    for member in &mut self.members {
                        member.pass_to(at);
                        member.tell()?;
                    }
                    self.deliver()?;
                    self.provider.borrow_mut().outside(at)?;
                }
                Turn::Deadline(at) => {
                    self.now = at;
                    self.provider.borrow_mut().deadline(at);
                }
                Turn::Member(at) => {
                    self.now = at;
                    if next != Next::Look {
                        self.last_happening = at;
                    }
                    self.members[index].happen(at, next)?;
                }
            }
            self.deliver()?;
            events += 1;
            if events.is_multiple_of(EVENTS_PER_WATCH) && watch(self.progress()).is_break() {
                return Err(SimulationError::Interrupted);
            }
        };
        let members = self.members.into_iter();
        members.map(|member| member.end(end)).collect()
    }

    /// Whose turn it is; if a member's, which, and what happens to it.
    fn turn(&mut self) -> Result<(Turn, usize, Next), SimulationError> {
        let times = self.provider.borrow_mut().times();
        let over = if times.has_operations {
            None
        } else {
            self.over()?
        };
        let mut earliest = (over.unwrap_or(self.now), 0, Next::Nothing);
        for (index, member) in self.members.iter_mut().enumerate() {
            let (at, next) = member.next(over)?;
            let (before, _, what) = earliest;
            if next != Next::Nothing && (what == Next::Nothing || at < before) {
                earliest = (at, index, next);
            }
        }
        let (at, index, next) = earliest;
        let turn = turn(times.not_before(self.now), at, next, over.is_some());
        // Requests may wait for what will not come: they wait to the end.
        let is_stuck = match (turn, next) {
            (Turn::Outside(at) | Turn::Deadline(at), _) | (Turn::Member(at), Next::Look) => {
                let patience = self.last_happening.saturating_add(ONLY_LOOKS_MAX);
                let hopes = times.has_operations || self.expects_more();
                over.is_none() && at > patience && !hopes
            }
            _ => false,
        };
        let turn = if is_stuck { Turn::Over(self.now) } else { turn };
        Ok((turn, index, next))
    }

    /// Whether any deployment has more to come than looks of its autoscaler.
    fn expects_more(&mut self) -> bool {
        self.members.iter_mut().any(|member| member.expects_more())
    }

    /// When the run ends, if all requests have come and ended.
    fn over(&mut self) -> Result<Option<Nanos>, SimulationError> {
        let mut over = self.now;
        for member in &mut self.members {
            match member.may_end()? {
                Some(at) => over = over.max(at),
                None => return Ok(None),
            }
        }
        Ok(Some(over))
    }

    /// Tells deployments what the provider has to say to them, and the provider
    /// what came of it, until nobody has anything more to say.
    fn deliver(&mut self) -> Result<(), SimulationError> {
        while self.provider.borrow().has_notices() {
            let notices = self.provider.borrow_mut().take_notices();
            self.last_happening = self.now;
            for (deployment, notice) in notices {
                self.members[deployment].pass_to(self.now);
                self.members[deployment].notice(notice)?;
            }
            for member in &mut self.members {
                member.tell_news()?;
            }
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        let received = self.members.iter().map(|member| member.progress().received);
        Progress {
            now: self.now,
            received: received.sum(),
        }
    }
}
