//! The deployment as a whole: one clock, and everything that happens by it.

mod attempts;
mod governor;
mod provided;

use foresail_core::control::autoscaler::{
    AutoscalerConfig, ConfigError as AutoscalerError, Observation,
};
use foresail_core::step_time::StepTime;
use foresail_core::time::Nanos;
use foresail_reports::records::{Outcome, RecordSink, RunTotals};
use foresail_scenarios::scenario::Scenario;
use foresail_scenarios::workload::Request;

use crate::agenda::What;
use crate::clients::Clients;
use crate::conservation::{InSystem, same};
use crate::fleet::Fleet;
use crate::front::Front;
use crate::passage::Passage;
use crate::provider::Share;
use crate::scene::Scene;
use crate::{Options, Progress, SimulationError, TIME_MAX};
use governor::Governor;

/// Most requests that may be in the system: each takes some 300 bytes, so this
/// is about 5 GB. A queue of that length says what a longer one would.
const IN_SYSTEM_MAX: u64 = 1 << 24;

/// A deployment in virtual time.
pub(crate) struct World<'a, M, S> {
    scenario: &'a Scenario,
    /// Of each world size.
    models: Vec<&'a M>,
    scene: Scene<'a, S>,
    governor: Governor,
    fleet: Fleet<'a>,
    front: Front,
    clients: Clients<'a>,
    /// Tokens generated in attempts that were tried again.
    lost_tokens: u64,
    events: u64,
    received: Received,
    in_system: InSystem,
    turns: Turns,
}

/// Totals of what arrived.
#[derive(Clone, Copy, Debug, Default)]
struct Received {
    requests: u64,
    /// Those, and each time that one was sent or served again.
    sends: u64,
    /// Of all of those.
    prompt_tokens: u64,
    /// Requests that came while no replica was ready, and waited for one.
    while_unready: u64,
}

/// Which way the target went last.
#[derive(Clone, Copy, Debug, Default)]
struct Turns {
    rising: Option<bool>,
    changes: u64,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Arrival,
    /// A request comes into its replica's engine that arrived before.
    Entry,
    Boundary,
    Agenda,
    Look,
    Nothing,
}

impl<'a, M: StepTime, S: RecordSink> World<'a, M, S> {
    pub(crate) fn new(
        scenario: &'a Scenario,
        models: Vec<&'a M>,
        options: Options,
        sink: &'a mut S,
        share: Share,
    ) -> Result<Self, SimulationError> {
        let deployment = &scenario.deployment;
        deployment.batching.validate()?;
        if deployment.autoscaler.validate() == Err(AutoscalerError::NoPlan) {
            return Err(SimulationError::NotForeseen);
        }
        Ok(Self {
            scenario,
            models,
            scene: Scene::new(sink, share),
            governor: Governor::new(deployment),
            fleet: Fleet::new(scenario, options),
            front: Front::new(deployment.router, options.seed),
            clients: Clients::new(&scenario.clients, options.seed),
            lost_tokens: 0,
            events: 0,
            received: Received::default(),
            in_system: InSystem::default(),
            turns: Turns::default(),
        })
    }

    /// Makes what is there when the run begins.
    pub(crate) fn begin(&mut self) -> Result<(), SimulationError> {
        self.fleet.begin(&mut self.scene)?;
        self.tell()
    }

    /// Decides what happens next, if the next request comes at `arrival`, and
    /// when. `Nothing` is at the end of the run, which is `over` if that is known.
    /// At equal times: requests, then those that come into an engine, then the ends of steps, then the agenda, then
    /// the autoscaler's look.
    // This and what it leads to is in several kinds of runs, and so would be called
    // for each event: 2 % of a run.
    #[inline(always)]
    pub(crate) fn next(&self, arrival: Option<Nanos>, over: Option<Nanos>) -> (Nanos, Next) {
        let look = self.next_look(arrival);
        let (mut at, mut next) = (over, Next::Nothing);
        let mut consider = |candidate: Option<Nanos>, what: Next| {
            if let Some(time) = candidate
                && at.is_none_or(|earliest| time < earliest)
            {
                (at, next) = (Some(time), what);
            }
        };
        consider(arrival, Next::Arrival);
        consider(self.fleet.next_entry(), Next::Entry);
        consider(self.fleet.next_boundary(), Next::Boundary);
        consider(self.scene.agenda.next_at(), Next::Agenda);
        consider(look, Next::Look);
        // Nothing left to happen, but requests that wait: they wait to the end.
        let at = at.unwrap_or(self.duration());
        (at.max(self.scene.now), next)
    }

    /// Whether all requests that have come have ended.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.received.requests == self.scene.sink.ended
    }

    /// Whether more is to come than requests and looks of the autoscaler.
    pub(crate) fn expects_more(&self) -> bool {
        self.fleet.next_boundary().is_some()
            || self.scene.agenda.next_at().is_some()
            || self.fleet.next_entry().is_some()
    }

    /// The workload's own duration, which a run is not shorter than.
    pub(crate) fn duration(&self) -> Nanos {
        self.scenario.workload.duration().unwrap_or(0)
    }

    pub(crate) fn now(&self) -> Nanos {
        self.scene.now
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            now: self.scene.now,
            received: self.received.requests,
        }
    }

    /// Moves the clock to `at`, where `next` happens; an arrival is that of `request`.
    #[inline(always)]
    pub(crate) fn happen(
        &mut self,
        at: Nanos,
        next: Next,
        request: Option<Request>,
    ) -> Result<(), SimulationError> {
        if at > TIME_MAX {
            return Err(SimulationError::TooLong);
        }
        self.scene.now = at;
        self.scene.steps_are_over = matches!(next, Next::Agenda | Next::Look);
        self.events += 1;
        match (next, request) {
            (Next::Arrival, Some(request)) => self.arrive(request),
            (Next::Entry, _) => self.enter(),
            (Next::Boundary, _) => self.pass_boundary(),
            (Next::Agenda, _) => self.proceed(),
            (Next::Look, _) => self.look(),
            (Next::Arrival | Next::Nothing, _) => Ok(()),
        }
    }

    /// When the autoscaler looks next. Once the last request has come and the last
    /// order for a replica was given up, looking would go on for ever: only what
    /// was planned beforehand can still change anything.
    #[inline]
    fn next_look(&self, arrival: Option<Nanos>) -> Option<Nanos> {
        if arrival.is_none() && self.fleet.is_given_up() && !self.is_planned() {
            return None;
        }
        self.governor.next_deadline()
    }

    fn is_planned(&self) -> bool {
        matches!(
            self.scenario.deployment.autoscaler,
            AutoscalerConfig::Scripted { .. } | AutoscalerConfig::Oracle(_)
        )
    }
}

/// What happens.
impl<M: StepTime, S: RecordSink> World<'_, M, S> {
    /// A request is received.
    fn arrive(&mut self, request: Request) -> Result<(), SimulationError> {
        let id = self.received.requests;
        if request.prompt_tokens == 0 || request.output_tokens == 0 {
            let Request {
                prompt_tokens,
                output_tokens,
                ..
            } = request;
            return Err(SimulationError::EmptyRequest {
                id,
                prompt_tokens,
                output_tokens,
            });
        }
        self.check_adapter(id, request.adapter)?;
        check_backlog(id - self.scene.sink.ended, self.scene.now)?;
        self.received.requests += 1;
        self.settle();
        self.send(Passage::new(id, request))
    }

    /// Whether the adapter that a request asks for is deployed.
    fn check_adapter(&self, id: u64, adapter: Option<u32>) -> Result<(), SimulationError> {
        let Some(adapter) = adapter else {
            return Ok(());
        };
        let adapters = self.scenario.deployment.adapters.as_ref();
        let deployed = adapters.map_or(0, |adapters| adapters.deployed.len());
        if (adapter as usize) < deployed {
            return Ok(());
        }
        Err(SimulationError::UnknownAdapter {
            id,
            adapter,
            deployed,
        })
    }

    /// Gives a request to a replica, or holds it: behind those that are held
    /// already, or if none can take it.
    #[inline]
    fn dispatch(&mut self, passage: Passage) {
        let now = self.scene.now;
        let chosen = if self.front.held() > 0 {
            None
        } else {
            self.front.choose(
                &passage.request,
                self.fleet.candidates(self.scene.joins_from()),
            )
        };
        match chosen {
            Some(index) => self.give(index, passage),
            None => self.front.hold(passage, self.fleet.unready_ns(now)),
        }
    }

    #[inline]
    fn give(&mut self, index: usize, passage: Passage) {
        let request = passage.id();
        let seat = self
            .fleet
            .give(index, passage, &self.models, &mut self.scene);
        if seat.is_some() {
            self.clients.seated(request, seat);
        } else {
            self.settle();
        }
    }

    /// Gives requests that are held to replicas, oldest first, while one can take them.
    #[inline]
    fn release_held(&mut self) {
        let now = self.scene.now;
        while self.front.held() > 0
            && let Some(index) = self
                .front
                .choose_for_first(self.fleet.candidates(self.scene.joins_from()))
        {
            if let Some(passage) = self.front.release(self.fleet.unready_ns(now)) {
                self.give(index, passage);
            }
        }
    }

    /// A step or leap of a replica ends.
    fn pass_boundary(&mut self) -> Result<(), SimulationError> {
        self.fleet.boundary(&self.models, &mut self.scene)?;
        self.settle();
        self.release_held();
        self.tell_news()
    }

    /// The next entry of the agenda comes up.
    fn proceed(&mut self) -> Result<(), SimulationError> {
        let Some((_, what)) = self.scene.agenda.take() else {
            return Ok(());
        };
        match what {
            What::Resend { request } => self.resend(request)?,
            What::Phase { replica } => self.fleet.phase(replica, &mut self.scene)?,
            What::Restart { replica } => self.fleet.restart(replica, &mut self.scene)?,
            What::Crash { replica } => self.crash(replica)?,
            What::DrainTimeout { replica } => self.drain_timeout(replica)?,
            What::AdapterLoaded { replica, adapter } => {
                let scene = &mut self.scene;
                self.fleet
                    .adapter_loaded(replica, adapter, &self.models, scene);
            }
            What::ClientTimeout {
                request,
                sends,
                awaits,
            } => self.client_timeout(request, sends, awaits)?,
        }
        self.governor.replicas_changed(self.scene.now);
        self.settle();
        self.release_held();
        self.tell_news()
    }

    /// Requests have come or ended: count those that are in the system from now on.
    fn settle(&mut self) {
        self.in_system.set(
            self.scene.now,
            self.received.requests - self.scene.sink.ended,
        );
    }

    /// The autoscaler looks at the load.
    fn look(&mut self) -> Result<(), SimulationError> {
        let load = self.fleet.load();
        let counts = self.fleet.counts();
        let replicas = if self.governor.wants_each_replica() {
            self.fleet.each_load(self.scene.now)
        } else {
            Vec::new()
        };
        let observation = Observation {
            running: load.running,
            queued: load.waiting + self.front.held(),
            held: self.front.held(),
            batch_slots: self.scenario.deployment.batching.max_num_seqs,
            ready: counts.ready,
            starting: counts.starting,
            tokens_generated: self.fleet.tokens_by(self.scene.now),
            prompt_tokens: self.received.prompt_tokens,
            requests_received: self.received.sends,
            in_flight_request_ns: self.in_system.integral_by(self.scene.now)
                - self.clients.waiting_by(self.scene.now),
        };
        let now = self.scene.now;
        if let Some(decision) = self.governor.observe(now, &observation, &replicas) {
            self.scale(decision.target, &decision.reason)?;
        }
        Ok(())
    }

    fn scale(
        &mut self,
        target: u32,
        reason: &impl std::fmt::Display,
    ) -> Result<(), SimulationError> {
        let rising = target > self.fleet.counts().target;
        self.turns.changes += u64::from(self.turns.rising.is_some_and(|before| before != rising));
        self.turns.rising = Some(rising);
        self.fleet.scale(target, reason, &mut self.scene)?;
        self.governor.replicas_changed(self.scene.now);
        // A cold start that takes no time is over.
        self.release_held();
        self.tell_news()
    }

    /// The run is over at `at`: fails what was never served, releases the
    /// replicas, and checks the sums.
    pub(crate) fn end(mut self, at: Nanos) -> Result<RunTotals, SimulationError> {
        if at > TIME_MAX {
            return Err(SimulationError::TooLong);
        }
        self.scene.now = at;
        while let Some(passage) = self.front.release(self.fleet.unready_ns(self.scene.now)) {
            self.scene.sink.request(&passage.record(
                self.scene.now,
                Outcome::FailedUnserved,
                0,
                None,
            ));
        }
        self.settle();
        let fleet = self.fleet.finish(self.scene.now)?;
        let totals = RunTotals {
            offered: self.received.requests,
            end_ns: self.scene.now,
            direction_changes: self.turns.changes,
            events: self.events,
            waited_for_cold_start: self.received.while_unready,
            output_tokens_retried: self.lost_tokens,
            ..fleet.totals
        };
        let held = totals.gpu_ns.starting
            + totals.gpu_ns.idle
            + totals.gpu_ns.busy
            + totals.gpu_ns.draining;
        same(
            "requests offered and ended",
            self.received.requests,
            self.scene.sink.ended,
        )?;
        same(
            "tokens generated, and recorded or lost",
            fleet.tokens,
            self.scene.sink.tokens + self.lost_tokens,
        )?;
        same("GPU-time held and accounted for", fleet.held_gpu_ns, held)?;
        same(
            "time of requests and its parts",
            self.scene.sink.sojourn_ns,
            self.scene.sink.parts_ns,
        )?;
        same(
            "requests in the system over time and their times (Little's law)",
            self.in_system.integral_ns,
            self.scene.sink.sojourn_ns,
        )?;
        Ok(totals)
    }
}

/// Whether so many requests in the system leave room for another one.
fn check_backlog(requests: u64, at_ns: Nanos) -> Result<(), SimulationError> {
    if requests < IN_SYSTEM_MAX {
        return Ok(());
    }
    Err(SimulationError::Overloaded { requests, at_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_without_end_is_refused_with_what_to_change() {
        assert!(check_backlog(IN_SYSTEM_MAX - 1, 0).is_ok());
        let error = check_backlog(IN_SYSTEM_MAX, 2_500_000_000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "16777216 requests wait after 2.5 s, far more than this deployment can serve; lower \
             the rate, raise max_replica_count, or simulate a shorter time"
        );
    }
}
