//! The replicas of the deployment, from the order to start until their GPUs are free.

mod failures;

use std::collections::{BTreeMap, BTreeSet};

use foresail_core::batching::SequenceId;
use foresail_core::control::autoscaler::ReplicaLoad;
use foresail_core::control::biller::Biller;
use foresail_core::control::gpu_pool::Claimed;
use foresail_core::control::replica_set::{Counts, ReplicaAction, ReplicaSet, Stage};
use foresail_core::control::router::{Candidate, RouterPolicy};
use foresail_core::step_time::StepTime;
use foresail_core::time::{Nanos, seconds};
use foresail_reports::records::{
    AdapterTotals, Change, ChangeKind, GpuTime, Outcome, RecordSink, ReplicaCounts, RunTotals,
};
use foresail_scenarios::scenario::{ColdStartPhase, Deployment};

use crate::agenda::{Agenda, What};
use crate::boundaries::Boundaries;
use crate::integrals::{Held, Span};
use crate::passage::Passage;
use crate::replica::{Lost, Replica};
use crate::scene::Scene;
use crate::start::{Start, StartEnd};
use crate::{Options, SimulationError, TIME_MAX};
use failures::Mishaps;

/// The replicas, what they hold, and what that costs.
pub(crate) struct Fleet<'a> {
    deployment: &'a Deployment,
    options: Options,
    set: ReplicaSet,
    biller: Biller,
    /// What starting replicas have still to go through.
    starting: BTreeMap<u32, Start>,
    /// Replicas that start as soon as there are GPUs for them.
    without_gpus: BTreeSet<u32>,
    /// Replicas that serve: ready and draining, in order of id.
    servers: Vec<Server<'a>>,
    /// When what each of those computes ends.
    boundaries: Boundaries,
    /// The ready ones, as the router sees them, in order of id.
    candidates: Vec<Candidate>,
    /// Whether the router looks at KV use, which takes time to tell.
    shows_kv_use: bool,
    unready: Span,
    held: Held,
    done: Done,
    mishaps: Mishaps,
}

/// A replica that serves.
struct Server<'a> {
    replica: Replica<'a>,
    draining: bool,
}

/// Where a request is being served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) replica: u32,
    /// `None` if it waited for its adapter when it came.
    sequence: Option<SequenceId>,
}

/// Sums over replicas that are gone.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    tokens: u64,
    steps: u64,
    starts: u64,
    wasted_starts: u64,
    adapters: AdapterTotals,
}

/// Requests at replicas.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) running: u64,
    pub(crate) waiting: u64,
}

/// What the fleet knows at the end of a run.
pub(crate) struct Finished {
    pub(crate) totals: RunTotals,
    pub(crate) tokens: u64,
}

/// Starting and stopping.
impl<'a> Fleet<'a> {
    pub(crate) fn new(deployment: &'a Deployment, options: Options) -> Self {
        Self {
            deployment,
            options,
            set: ReplicaSet::new(),
            biller: Biller::new(deployment.price, deployment.billing, deployment.world_size),
            starting: BTreeMap::new(),
            without_gpus: BTreeSet::new(),
            servers: Vec::new(),
            boundaries: Boundaries::default(),
            candidates: Vec::new(),
            shows_kv_use: deployment.router.policy == RouterPolicy::LeastKvUse,
            unready: Span::from_the_beginning(),
            held: Held::default(),
            done: Done::default(),
            mishaps: Mishaps::default(),
        }
    }

    /// Makes the replicas that are there, and ready, when the run begins.
    pub(crate) fn begin(
        &mut self,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        for action in self
            .set
            .set_target(0, self.deployment.initial_replica_count)
        {
            if let ReplicaAction::Start(id) = action {
                // The first replicas are there already, so they have their GPUs.
                if let Some(share) = &scene.share
                    && share.claim(id) != Claimed::Granted
                {
                    return Err(SimulationError::PoolTooSmall);
                }
                self.biller.stage_changed(0, Stage::Gone, Stage::Pending)?;
                self.ready(id, "there from the beginning", scene)?;
            }
        }
        Ok(())
    }

    /// Carries out a decision of the autoscaler.
    pub(crate) fn scale(
        &mut self,
        target: u32,
        reason: &impl std::fmt::Display,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let actions = self.order(target, scene);
        self.report(ChangeKind::Target, None, &reason.to_string(), scene);
        self.carry_out(actions, scene)
    }

    /// What it takes to have so many replicas.
    fn order(&mut self, target: u32, scene: &Scene<'_, impl RecordSink>) -> Vec<ReplicaAction> {
        let actions = self.set.set_target(scene.now, target);
        if scene.share.is_some() {
            self.without_gpus.extend(starts(&actions));
        }
        actions
    }

    fn carry_out(
        &mut self,
        actions: Vec<ReplicaAction>,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        for action in actions {
            match action {
                ReplicaAction::Start(id) => self.start(id, scene)?,
                ReplicaAction::Cancel(id) => self.cancel(id, scene)?,
                ReplicaAction::Drain(id) => self.drain(id, scene)?,
            }
        }
        Ok(())
    }

    /// A replica is ordered: it starts when there are GPUs for it.
    fn start(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        self.done.starts += 1;
        let Some(share) = &scene.share else {
            return self.begin_start(id, scene);
        };
        match share.claim(id) {
            Claimed::Granted => self.granted(id, scene),
            Claimed::Waits { free, ahead } => {
                let reason = match ahead {
                    0 => format!("waits for GPUs: {free} to be had"),
                    _ => format!("waits for GPUs: {free} to be had, {ahead} replicas before it"),
                };
                self.report(ChangeKind::Pending, Some(id), &reason, scene);
                Ok(())
            }
        }
    }

    /// A replica that was ordered has its GPUs.
    pub(crate) fn granted(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        if self.without_gpus.remove(&id) {
            self.begin_start(id, scene)?;
        }
        Ok(())
    }

    fn begin_start(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        self.biller
            .stage_changed(scene.now, Stage::Gone, Stage::Pending)?;
        self.attempt_start(id, 1, scene)
    }

    fn attempt_start(
        &mut self,
        id: u32,
        attempt: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let start = Start::draw(self.deployment, self.options.seed, id, attempt);
        let (total, end) = (start.total, start.end);
        if total > TIME_MAX {
            return Err(SimulationError::TooLong);
        }
        self.starting.insert(id, start);
        let what = match end {
            StartEnd::Ready => "will be ready in",
            StartEnd::Failed | StartEnd::TimedOut => "will fail in",
        };
        let reason = format!("{what} {:.1} s", seconds(total));
        self.report(ChangeKind::Pending, Some(id), &reason, scene);
        self.phase(id, scene)
    }

    /// A starting replica comes to its next phase, or is ready. Nothing happens
    /// if it does not start any more.
    pub(crate) fn phase(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let Some(start) = self.starting.get_mut(&id) else {
            return Ok(());
        };
        let Some((phase, duration)) = start.phases.pop_front() else {
            return match start.end {
                StartEnd::Ready => self.ready(id, "started", scene),
                StartEnd::Failed | StartEnd::TimedOut => self.start_failed(id, scene),
            };
        };
        scene
            .agenda
            .add(scene.now + duration, What::Phase { replica: id });
        let (stage, kind) = match phase {
            ColdStartPhase::Pending => (Stage::Pending, ChangeKind::Pending),
            ColdStartPhase::Downloading => (Stage::Downloading, ChangeKind::Downloading),
            ColdStartPhase::Initialising => (Stage::Initialising, ChangeKind::Initialising),
        };
        let from = self
            .set
            .get(id)
            .map_or(Stage::Pending, |replica| replica.stage);
        if stage > from {
            self.set.advance(scene.now, id, stage)?;
            self.biller.stage_changed(scene.now, from, stage)?;
            self.report(
                kind,
                Some(id),
                &format!("takes {:.1} s", seconds(duration)),
                scene,
            );
        }
        Ok(())
    }

    fn ready(
        &mut self,
        id: u32,
        reason: &str,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        self.starting.remove(&id);
        let from = self
            .set
            .get(id)
            .map_or(Stage::Pending, |replica| replica.stage);
        self.set.advance(scene.now, id, Stage::Ready)?;
        self.biller.stage_changed(scene.now, from, Stage::Ready)?;
        let replica = Replica::new(id, self.deployment, self.options.leaps)?;
        let place = self
            .servers
            .partition_point(|server| server.replica.id < id);
        let draining = false;
        self.servers.insert(place, Server { replica, draining });
        self.boundaries.insert(place);
        let place = self
            .candidates
            .partition_point(|candidate| candidate.replica < id);
        let candidate = Candidate {
            replica: id,
            outstanding: 0,
            kv_blocks_used: 0,
        };
        self.candidates.insert(place, candidate);
        self.report(ChangeKind::Ready, Some(id), reason, scene);
        self.foresee_crash(id, scene);
        Ok(())
    }

    fn cancel(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        release(id, scene);
        if !self.without_gpus.remove(&id) {
            self.starting.remove(&id);
            // All stages before ready are one state to the biller.
            self.biller
                .stage_changed(scene.now, Stage::Pending, Stage::Gone)?;
        }
        self.done.wasted_starts += 1;
        self.report(
            ChangeKind::Cancelled,
            Some(id),
            "not needed any more",
            scene,
        );
        Ok(())
    }

    fn drain(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        self.biller
            .stage_changed(scene.now, Stage::Ready, Stage::Draining)?;
        self.candidates.retain(|candidate| candidate.replica != id);
        let Some(place) = self.place(id) else {
            return Ok(());
        };
        self.servers[place].draining = true;
        let replica = &self.servers[place].replica;
        self.biller.busy(replica.busy_by(scene.now));
        let outstanding = replica.tally.outstanding;
        let reason = format!("{outstanding} requests to finish");
        self.report(ChangeKind::Draining, Some(id), &reason, scene);
        if outstanding == 0 {
            return self.remove(place, ChangeKind::Gone, "nothing to finish", scene);
        }
        scene.agenda.add(
            scene.now.saturating_add(self.deployment.drain_timeout),
            What::DrainTimeout { replica: id },
        );
        Ok(())
    }

    /// A replica that still drains has had its time. Returns the requests that it had.
    pub(crate) fn drain_timeout(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<Vec<Lost>, SimulationError> {
        let Some(place) = self.place(id) else {
            return Ok(Vec::new());
        };
        let lost = self.servers[place]
            .replica
            .evict(scene.now, &mut scene.sink);
        let reason = format!("drain timeout; {} requests failed", lost.len());
        self.remove(place, ChangeKind::Gone, &reason, scene)?;
        Ok(lost)
    }

    /// A replica that serves is no more.
    fn remove(
        &mut self,
        place: usize,
        kind: ChangeKind,
        reason: &str,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let replica = self.servers.remove(place).replica;
        self.boundaries.remove(place);
        let was = self.set.gone(scene.now, replica.id)?;
        self.biller
            .stage_changed(scene.now, was.stage, Stage::Gone)?;
        release(replica.id, scene);
        self.add_up(&replica);
        self.report(kind, Some(replica.id), reason, scene);
        Ok(())
    }

    fn add_up(&mut self, replica: &Replica<'_>) {
        let adapters = replica.adapter_tally();
        self.done.adapters.loads += adapters.loads;
        self.done.adapters.evictions += adapters.evictions;
        self.done.tokens += replica.tally.tokens;
        self.done.steps += replica.tally.steps;
        let started = replica.id >= self.deployment.initial_replica_count;
        self.done.wasted_starts += u64::from(started && replica.tally.received == 0);
    }

    /// Says that something changed, and keeps the integrals that depend on it.
    fn report(
        &mut self,
        kind: ChangeKind,
        replica: Option<u32>,
        reason: &str,
        scene: &mut Scene<'_, impl RecordSink>,
    ) {
        let Counts {
            target,
            starting,
            ready,
            draining,
        } = self.set.counts();
        self.unready.set(scene.now, ready == 0);
        let without_gpus = self.without_gpus.len() as u32;
        self.held
            .set(scene.now, starting - without_gpus + ready + draining);
        let replicas = ReplicaCounts {
            target,
            starting,
            ready,
            draining,
        };
        scene.sink.change(&Change {
            at_ns: scene.now,
            kind,
            replica,
            reason: reason.to_string(),
            replicas,
        });
    }
}

/// Serving.
impl Fleet<'_> {
    /// Gives a request to the candidate at `index`. `None` if it was refused, and so has ended.
    pub(crate) fn give(
        &mut self,
        index: usize,
        passage: Passage,
        model: &impl StepTime,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Option<Seat> {
        let id = self.candidates[index].replica;
        let place = self
            .servers
            .partition_point(|server| server.replica.id < id);
        let server = &mut self.servers[place];
        let received = server
            .replica
            .receive(scene.now, scene.joins_from(), passage, model);
        match received {
            Ok((sequence, end)) => {
                note_loads(&mut server.replica, &mut scene.agenda);
                self.candidates[index].outstanding += 1;
                if end.is_some() {
                    self.boundaries.set(place, end);
                }
                let replica = id;
                Some(Seat { replica, sequence })
            }
            Err((reject, passage)) => {
                scene
                    .sink
                    .request(&passage.record(scene.now, refusal(reject), 0, Some(id)));
                None
            }
        }
    }

    /// The request that has this seat, if it has it still.
    pub(crate) fn served(&self, seat: Seat, request: u64) -> Option<&Passage> {
        let place = self.place(seat.replica)?;
        self.servers[place].replica.serves(seat.sequence, request)
    }

    /// The client of the request that has this seat gives it up; `None` if the
    /// replica is gone.
    pub(crate) fn withdraw(
        &mut self,
        seat: Seat,
        request: u64,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<Option<Lost>, SimulationError> {
        let Some(place) = self.place(seat.replica) else {
            return Ok(None);
        };
        let replica = &mut self.servers[place].replica;
        let (lost, end) = replica.withdraw(scene.now, seat.sequence, request, &mut scene.sink);
        note_loads(replica, &mut scene.agenda);
        if end.is_some() {
            self.boundaries.set(place, end);
        }
        self.requests_left(place, scene)?;
        Ok(lost)
    }

    /// When the next step or leap of a replica ends.
    pub(crate) fn next_boundary(&self) -> Option<Nanos> {
        self.boundaries.first().map(|(at, _)| at)
    }

    /// The step or leap that is the next to end does.
    pub(crate) fn boundary(
        &mut self,
        model: &impl StepTime,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let Some((_, place)) = self.boundaries.first() else {
            return Ok(());
        };
        let server = &mut self.servers[place];
        let end = server.replica.advance(model, &mut scene.sink);
        note_loads(&mut server.replica, &mut scene.agenda);
        self.boundaries.set(place, end);
        self.requests_left(place, scene)
    }

    /// Requests of a replica have ended: its client gave one up, or a step ended.
    fn requests_left(
        &mut self,
        place: usize,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let server = &self.servers[place];
        let (id, outstanding) = (server.replica.id, server.replica.tally.outstanding);
        if !server.draining {
            let index = self
                .candidates
                .partition_point(|candidate| candidate.replica < id);
            self.candidates[index].outstanding = outstanding;
        } else if outstanding == 0 {
            self.remove(place, ChangeKind::Gone, "finished", scene)?;
        }
        Ok(())
    }

    /// A replica has loaded an adapter. Nothing happens if the replica is gone.
    pub(crate) fn adapter_loaded(
        &mut self,
        id: u32,
        adapter: u32,
        model: &impl StepTime,
        scene: &mut Scene<'_, impl RecordSink>,
    ) {
        let Some(place) = self.place(id) else {
            return;
        };
        let replica = &mut self.servers[place].replica;
        let end = replica.adapter_loaded(scene.now, adapter, model);
        note_loads(replica, &mut scene.agenda);
        if end.is_some() {
            self.boundaries.set(place, end);
        }
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.servers
            .binary_search_by_key(&id, |server| server.replica.id)
            .ok()
    }
}

/// What others may look at.
impl Fleet<'_> {
    /// The ready replicas, oldest first, to a request that can join the steps that
    /// begin at or after this time.
    pub(crate) fn candidates(&mut self, joins_from: Nanos) -> &[Candidate] {
        if self.shows_kv_use {
            let ready = self.servers.iter().filter(|server| !server.draining);
            for (candidate, server) in self.candidates.iter_mut().zip(ready) {
                candidate.kv_blocks_used = server.replica.kv_blocks_used(joins_from);
            }
        }
        &self.candidates
    }

    pub(crate) fn counts(&self) -> Counts {
        self.set.counts()
    }

    /// For how long no replica has been ready, up to `now`.
    pub(crate) fn unready_ns(&self, now: Nanos) -> Nanos {
        self.unready.by(now)
    }

    pub(crate) fn load(&self) -> Load {
        let mut load = Load::default();
        for server in &self.servers {
            let (running, waiting) = server.replica.load();
            load.running += u64::from(running);
            load.waiting += u64::from(waiting);
        }
        load
    }

    /// The load of each ready replica, oldest first.
    pub(crate) fn each_load(&self, now: Nanos) -> Vec<ReplicaLoad> {
        let ready = self.servers.iter().filter(|server| !server.draining);
        ready.map(|server| server.replica.observed(now)).collect()
    }

    /// Tokens generated by all replicas, gone ones included.
    pub(crate) fn tokens_by(&self, now: Nanos) -> u64 {
        let living: u64 = self
            .servers
            .iter()
            .map(|server| server.replica.tokens_by(now))
            .sum();
        self.done.tokens + living
    }

    /// The run is over.
    pub(crate) fn finish(mut self, now: Nanos) -> Result<Finished, SimulationError> {
        for server in std::mem::take(&mut self.servers) {
            if !server.draining {
                self.biller.busy(server.replica.busy_by(now));
            }
            self.add_up(&server.replica);
        }
        self.held.set(now, 0);
        let gpu = self.biller.gpu_time(now)?;
        let totals = RunTotals {
            replica_ns: self.held.replica_ns(),
            replicas_max: self.held.most(),
            starts: self.done.starts,
            start_failures: self.mishaps.start_failures,
            starts_given_up: self.mishaps.given_up,
            crashes: self.mishaps.crashes,
            wasted_starts: self.done.wasted_starts,
            gpu_ns: GpuTime {
                billed: gpu.billed,
                busy: gpu.busy,
                idle: gpu.idle,
                starting: gpu.starting,
                draining: gpu.draining,
            },
            cost_nanodollars: self.biller.cost_nanodollars(now)?,
            steps: self.done.steps,
            adapters: self
                .deployment
                .adapters
                .as_ref()
                .map(|_| self.done.adapters),
            ..RunTotals::default()
        };
        Ok(Finished {
            totals,
            tokens: self.done.tokens,
        })
    }
}

/// The replicas that are to start.
fn starts(actions: &[ReplicaAction]) -> impl Iterator<Item = u32> + '_ {
    actions.iter().filter_map(|action| match action {
        ReplicaAction::Start(id) => Some(*id),
        ReplicaAction::Cancel(_) | ReplicaAction::Drain(_) => None,
    })
}

/// Gives back the GPUs of a replica.
fn release<S>(replica: u32, scene: &Scene<'_, S>) {
    if let Some(share) = &scene.share {
        share.release(replica);
    }
}

/// Puts the ends of adapter loads that a replica has ordered on the agenda.
fn note_loads(replica: &mut Replica<'_>, agenda: &mut Agenda) {
    let id = replica.id;
    let Some(adapters) = replica.adapters() else {
        return;
    };
    for (at, adapter) in adapters.take_ordered() {
        let replica = id;
        agenda.add(at, What::AdapterLoaded { replica, adapter });
    }
}

/// How a request ends that a replica refuses.
fn refusal(reject: foresail_core::batching::Reject) -> Outcome {
    use foresail_core::batching::Reject;
    match reject {
        Reject::TooLong => Outcome::RejectedTooLong,
        Reject::NeverFits => Outcome::RejectedNeverFits,
        // `World::arrive` lets no empty request in, and none with an adapter that is not deployed.
        Reject::Empty | Reject::NoAdapters => unreachable!("{reject}"),
    }
}
