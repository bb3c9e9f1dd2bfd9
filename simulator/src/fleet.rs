//! The replicas of the deployment, from the order to start until their GPUs are free.

mod failures;
mod server;
mod sizes;
mod view;
mod without_gpus;

use std::collections::BTreeMap;

use foresail_core::batching::SequenceId;
use foresail_core::control::gpu_pool::Claimed;
use foresail_core::control::lifecycle::{Replacement, Rollout};
use foresail_core::control::replica_set::{Counts, ReplicaAction, Stage};
use foresail_core::control::router::{Candidate, RouterPolicy};
use foresail_core::step_time::StepTime;
use foresail_core::time::{Nanos, seconds};
use foresail_reports::records::{
    AdapterTotals, Change, ChangeKind, Outcome, RecordSink, ReplicaCounts, RunTotals,
};
use foresail_scenarios::scenario::{ColdStartPhase, Deployment, Scenario};

use crate::agenda::{Agenda, What};
use crate::boundaries::Boundaries;
use crate::integrals::{Held, Span};
use crate::outside::Outside;
use crate::passage::Passage;
use crate::replica::{Lost, Replica};
use crate::scene::Scene;
use crate::start::{Start, StartEnd};
use crate::{Options, SimulationError, TIME_MAX};
use failures::Mishaps;
use server::Server;
use sizes::Sizes;
use without_gpus::WithoutGpus;

/// The replicas, what they hold, and what that costs.
pub(crate) struct Fleet<'a> {
    /// The deployment as it began; its world size may become another.
    deployment: &'a Deployment,
    sizes: Sizes<'a>,
    options: Options,
    rollout: Rollout,
    /// What starting replicas have still to go through.
    starting: BTreeMap<u32, Start>,
    /// Replicas that start as soon as there are GPUs for them.
    without_gpus: WithoutGpus,
    /// Replicas that serve: ready and draining, in order of id.
    servers: Vec<Server<'a>>,
    /// When what each of those computes ends.
    boundaries: Boundaries,
    /// When a request comes into the engine of each.
    entries: Boundaries,
    /// The ready ones, as the router sees them, in order of id.
    candidates: Vec<Candidate>,
    /// Whether the router looks at KV use, which takes time to tell.
    shows_kv_use: bool,
    unready: Span,
    held: Held,
    done: Done,
    mishaps: Mishaps,
    /// Whether something changed that its provider has not been told.
    has_changed: bool,
}

/// Where a request is being served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) replica: u32,
    /// `None` if it waited for its adapter when it came, or is on its way into the engine.
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
    /// GPUs held, integrated over time beside the bill.
    pub(crate) held_gpu_ns: u128,
}

/// Starting and stopping.
impl<'a> Fleet<'a> {
    pub(crate) fn new(scenario: &'a Scenario, options: Options) -> Self {
        let deployment = &scenario.deployment;
        Self {
            deployment,
            sizes: Sizes::new(scenario),
            options,
            rollout: Rollout::new(deployment.world_size),
            starting: BTreeMap::new(),
            without_gpus: WithoutGpus::default(),
            servers: Vec::new(),
            boundaries: Boundaries::default(),
            entries: Boundaries::default(),
            candidates: Vec::new(),
            shows_kv_use: deployment.router.policy == RouterPolicy::LeastKvUse,
            unready: Span::from_the_beginning(),
            held: Held::default(),
            done: Done::default(),
            mishaps: Mishaps::default(),
            has_changed: false,
        }
    }

    /// Makes the replicas that are there, and ready, when the run begins.
    pub(crate) fn begin(
        &mut self,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let initial = self.deployment.initial_replica_count;
        for action in self.rollout.set_target(0, initial) {
            if let ReplicaAction::Start(id) = action {
                // The first replicas are there already, so they have their GPUs.
                if scene.share.claim(id, self.rollout.world_size(id)) != Claimed::Granted {
                    return Err(SimulationError::PoolTooSmall);
                }
                self.bill(id, 0, Stage::Gone, Stage::Pending)?;
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
        let actions = self.rollout.set_target(scene.now, target);
        self.without_gpus.ordered(&actions);
        actions
    }

    /// Begins to replace the replicas by others.
    pub(crate) fn replace(
        &mut self,
        replacement: Replacement,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let actions = self.rollout.replace(scene.now, replacement);
        self.carry_out(actions, scene)
    }

    /// Begins again, with so many replicas of this world size.
    pub(crate) fn begin_again(
        &mut self,
        world_size: u32,
        replicas: u32,
        reason: &str,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let actions = self.rollout.begin(scene.now, world_size, replicas);
        self.without_gpus.ordered(&actions);
        self.report(ChangeKind::Target, None, reason, scene);
        self.carry_out(actions, scene)
    }

    /// The place of a replica's world size.
    fn size(&self, id: u32) -> usize {
        self.sizes.place(self.rollout.world_size(id))
    }

    fn bill(&mut self, id: u32, now: Nanos, from: Stage, to: Stage) -> Result<(), SimulationError> {
        let size = self.size(id);
        self.sizes.stage_changed(size, now, from, to)
    }

    fn carry_out(
        &mut self,
        actions: Vec<ReplicaAction>,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        self.without_gpus.ordered(&actions);
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
        match scene.share.claim(id, self.rollout.world_size(id)) {
            Claimed::Granted => self.granted(id, scene),
            Claimed::Waits { free, ahead } => {
                self.without_gpus.wait(id, scene.now);
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
        if self.without_gpus.granted(id, scene.now) {
            self.begin_start(id, scene)?;
        }
        Ok(())
    }

    fn begin_start(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        self.bill(id, scene.now, Stage::Gone, Stage::Pending)?;
        self.attempt_start(id, 1, scene)
    }

    fn attempt_start(
        &mut self,
        id: u32,
        attempt: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let deployment = self.sizes.deployment(self.size(id));
        let start = Start::draw(deployment, self.options.seed, id, attempt);
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
        let from = self.stage(id);
        if stage > from {
            // Only a replica that is ready lets another go.
            let _ = self.rollout.advance(scene.now, id, stage)?;
            self.bill(id, scene.now, from, stage)?;
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
        let from = self.stage(id);
        let follow = self.rollout.advance(scene.now, id, Stage::Ready)?;
        self.bill(id, scene.now, from, Stage::Ready)?;
        let size = self.size(id);
        let deployment = self.sizes.deployment(size);
        let adapters = deployment.adapters.as_ref();
        let replica = Replica::new(id, deployment.batching, adapters, self.options.leaps)?;
        let place = self
            .servers
            .partition_point(|server| server.replica.id < id);
        let server = Server {
            replica,
            outside: Outside::default(),
            size,
            draining: false,
        };
        self.servers.insert(place, server);
        self.boundaries.insert(place);
        self.entries.insert(place);
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
        self.carry_out(follow, scene)
    }

    fn stage(&self, id: u32) -> Stage {
        let replica = self.rollout.replicas().get(id);
        replica.map_or(Stage::Pending, |replica| replica.stage)
    }

    fn cancel(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        scene.share.release(id, self.rollout.world_size(id));
        self.without_gpus.end_wait(id, scene.now);
        if self.starting.remove(&id).is_some() {
            // All stages before ready are one state to the biller.
            self.bill(id, scene.now, Stage::Pending, Stage::Gone)?;
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
        self.bill(id, scene.now, Stage::Ready, Stage::Draining)?;
        self.candidates.retain(|candidate| candidate.replica != id);
        let Some(place) = self.place(id) else {
            return Ok(());
        };
        self.servers[place].draining = true;
        let server = &self.servers[place];
        let busy = server.replica.busy_by(scene.now);
        self.sizes.busy(server.size, busy);
        let outstanding = server.outstanding();
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
        let lost = self.servers[place].evict(scene.now, &mut scene.sink);
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
        self.entries.remove(place);
        let (was, follow) = self.rollout.gone(scene.now, replica.id)?;
        self.bill(was.id, scene.now, was.stage, Stage::Gone)?;
        scene.share.release(was.id, self.rollout.world_size(was.id));
        self.add_up(&replica);
        self.report(kind, Some(was.id), reason, scene);
        self.carry_out(follow, scene)
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

    /// Something happens to the deployment as a whole.
    pub(crate) fn note(&mut self, what: &str, scene: &mut Scene<'_, impl RecordSink>) {
        self.report(ChangeKind::Deployment, None, what, scene);
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
        } = self.rollout.counts();
        self.has_changed = true;
        self.unready.set(scene.now, ready == 0);
        let without_gpus = self.without_gpus.count();
        let waiting = self.without_gpus.iter();
        let missing = waiting.map(|id| u64::from(self.rollout.world_size(id)));
        let gpus = self.rollout.gpus_held() - missing.sum::<u64>();
        let replicas = starting - without_gpus + ready + draining;
        self.held.set(scene.now, replicas, gpus);
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
    pub(crate) fn give<M: StepTime>(
        &mut self,
        index: usize,
        passage: Passage,
        models: &[&M],
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Option<Seat> {
        let id = self.candidates[index].replica;
        let place = self
            .servers
            .partition_point(|server| server.replica.id < id);
        let server = &mut self.servers[place];
        let overhead = (self.sizes).overhead(server.size, passage.request.prompt_tokens);
        if overhead > 0 || server.outside.len() > 0 {
            server.outside.add(scene.now, overhead, passage);
            self.entries.set(place, server.outside.next_at());
            self.candidates[index].outstanding += 1;
            let (replica, sequence) = (id, None);
            return Some(Seat { replica, sequence });
        }
        let received =
            server
                .replica
                .receive(scene.now, scene.joins_from(), passage, models[server.size]);
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
        self.servers[place].serves(seat, request)
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
        let server = &mut self.servers[place];
        if seat.sequence.is_none()
            && let Some(passage) = server.outside.withdraw(scene.now, request)
        {
            self.entries.set(place, server.outside.next_at());
            self.requests_left(place, scene)?;
            return Ok(Some(Lost { passage, tokens: 0 }));
        }
        let replica = &mut server.replica;
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
    pub(crate) fn boundary<M: StepTime>(
        &mut self,
        models: &[&M],
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let Some((_, place)) = self.boundaries.first() else {
            return Ok(());
        };
        let server = &mut self.servers[place];
        let end = server.replica.advance(models[server.size], &mut scene.sink);
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
        let (id, outstanding) = (server.replica.id, server.outstanding());
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
    pub(crate) fn adapter_loaded<M: StepTime>(
        &mut self,
        id: u32,
        adapter: u32,
        models: &[&M],
        scene: &mut Scene<'_, impl RecordSink>,
    ) {
        let Some(place) = self.place(id) else {
            return;
        };
        let Server { replica, size, .. } = &mut self.servers[place];
        let end = replica.adapter_loaded(scene.now, adapter, models[*size]);
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
