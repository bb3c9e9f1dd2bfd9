//! A provider in miniature: carries out what the machines ask for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foresail_core::control::autoscaler::{
    Autoscaler, Event, FireworksConfig, IdleFrom, LoadTargets, Observation, WindowSemantics,
};
use foresail_core::control::lifecycle::{
    AccountId, BaseModel, ControlPlane, Deployment, DeploymentKey, DeploymentName, DeploymentSpec,
    Effect, GpuKind, LifecycleError, ModelKind, ModelName, NewDeployment, Observed, Order, Profile,
    QueryName, Refusal, Rollout, Route, Settings, State, Tier,
};
use foresail_core::control::replica_set::{ReplicaAction, ReplicaId, Stage};
use foresail_core::time::{HOUR, MINUTE, Nanos, SECOND};

/// From the order of a replica until it is ready (B16 saw about as much).
pub(crate) const COLD_START: Nanos = 75 * SECOND;
/// How long a replica drains that has something to finish.
pub(crate) const DRAIN: Nanos = 10 * SECOND;
/// Requests in the largest batch of a replica.
const BATCH: u32 = 10;

/// The control plane, and all that it decides over.
pub(crate) struct Provider {
    pub(crate) plane: ControlPlane,
    pub(crate) now: Nanos,
    /// All that it asked for, with the time.
    pub(crate) log: Vec<(Nanos, DeploymentKey, Effect)>,
    fleets: BTreeMap<DeploymentKey, Fleet>,
}

/// The replicas of a deployment.
struct Fleet {
    rollout: Rollout,
    autoscaler: Option<Autoscaler>,
    /// Requests that are being served, set by tests.
    in_flight: u64,
    /// When starting replicas will be ready, and draining ones gone.
    due: BTreeSet<(Nanos, ReplicaId)>,
}

/// Whose turn it is, in the order of turns at equal times: events precede deadlines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Replica(DeploymentKey),
    Autoscaler(DeploymentKey),
    ControlPlane,
}

/// An account with two models, of which one is large.
impl Provider {
    pub(crate) fn new() -> Self {
        Self::of_tier(Tier::Developer)
    }

    pub(crate) fn of_tier(tier: Tier) -> Self {
        let mut plane = ControlPlane::new();
        plane.add_account(acme(), tier).expect("it is the first");
        for base in [text("llama-3-8b", 1), text("llama-3-70b", 4)] {
            plane.import_model(&acme(), &base).expect("it is new");
        }
        Provider {
            plane,
            now: 0,
            log: Vec::new(),
            fleets: BTreeMap::new(),
        }
    }

    /// A deployment of the small model, under the id `chat`.
    pub(crate) fn deploy(&mut self, settings: Settings) -> DeploymentKey {
        self.deploy_as(Profile::Spec, settings)
    }

    pub(crate) fn deploy_as(&mut self, profile: Profile, settings: Settings) -> DeploymentKey {
        let new = new("chat", profile, settings);
        self.create(new).expect("nothing is wrong with it")
    }

    /// The same, with as many replicas as its minimum ready already.
    pub(crate) fn ready(&mut self, settings: Settings) -> DeploymentKey {
        self.ready_as(Profile::Spec, settings)
    }

    pub(crate) fn ready_as(&mut self, profile: Profile, settings: Settings) -> DeploymentKey {
        let key = self.deploy_as(profile, settings);
        self.run_for(COLD_START);
        key
    }
}

/// What people and drivers say.
impl Provider {
    pub(crate) fn create(&mut self, new: NewDeployment) -> Result<DeploymentKey, LifecycleError> {
        let created = self.plane.create(self.now, &acme(), new)?;
        self.carry_out(created.orders);
        Ok(created.deployment)
    }

    pub(crate) fn update(&mut self, settings: Settings) -> Result<(), LifecycleError> {
        let orders = self.plane.update(self.now, &chat(), settings)?;
        self.carry_out(orders);
        Ok(())
    }

    pub(crate) fn scale(&mut self, replicas: u32) -> Result<(), LifecycleError> {
        let orders = self.plane.scale(&chat(), replicas)?;
        self.carry_out(orders);
        Ok(())
    }

    pub(crate) fn delete(&mut self, ignore_checks: bool) -> Result<(), LifecycleError> {
        let orders = self.plane.delete(&chat(), ignore_checks)?;
        self.carry_out(orders);
        Ok(())
    }

    pub(crate) fn undelete(&mut self) -> Result<(), LifecycleError> {
        let orders = self.plane.undelete(self.now, &chat())?;
        self.carry_out(orders);
        Ok(())
    }

    /// A request that is over as soon as it began.
    pub(crate) fn request(&mut self, key: DeploymentKey) -> Option<Refusal> {
        let refusal = self.plane.on_request(self.now, key);
        let fleet = self.fleets.get_mut(&key).expect("it was created");
        let autoscaler = fleet.autoscaler.as_mut().filter(|_| refusal.is_none());
        let decision = autoscaler.and_then(|a| a.on_event(self.now, Event::RequestReceived));
        if let Some(decision) = decision {
            let actions = fleet.rollout.set_target(self.now, decision.target);
            self.settle(key, actions);
        }
        refusal
    }

    /// From now on, so many requests are being served.
    pub(crate) fn set_in_flight(&mut self, key: DeploymentKey, requests: u64) {
        self.fleets.get_mut(&key).expect("it was created").in_flight = requests;
        self.observe(key);
    }

    pub(crate) fn route(&self, query: &str) -> Result<Route, LifecycleError> {
        let query: QueryName = query.parse()?;
        self.plane.route(&query)
    }

    /// All of an answer, before anything is observed again.
    pub(crate) fn carry_out(&mut self, orders: Vec<Order>) {
        let mut touched = BTreeSet::new();
        for Order { deployment, effect } in orders {
            self.log.push((self.now, deployment, effect.clone()));
            let actions = self.effect(deployment, &effect);
            self.act(deployment, actions);
            touched.insert(deployment);
        }
        for deployment in touched {
            self.observe(deployment);
        }
    }
}

/// What can be seen.
impl Provider {
    pub(crate) fn get(&self, key: DeploymentKey) -> &Deployment {
        self.plane.deployment(key)
    }

    pub(crate) fn state(&self, key: DeploymentKey) -> State {
        self.get(key).state()
    }

    /// Replicas that take requests.
    pub(crate) fn ready_replicas(&self, key: DeploymentKey) -> u32 {
        self.fleets[&key].rollout.counts().ready
    }

    pub(crate) fn target(&self, key: DeploymentKey) -> u32 {
        self.fleets[&key].rollout.counts().target
    }

    pub(crate) fn gpus_held(&self, key: DeploymentKey) -> u64 {
        self.fleets[&key].rollout.gpus_held()
    }

    /// GPUs of replicas that start or are ready, which is what a quota counts.
    pub(crate) fn gpus_in_use(&self, key: DeploymentKey) -> u64 {
        let rollout = &self.fleets[&key].rollout;
        let in_use = rollout
            .replicas()
            .iter()
            .filter(|replica| replica.stage <= Stage::Ready);
        in_use
            .map(|replica| u64::from(rollout.world_size(replica.id)))
            .sum()
    }

    /// The states that a deployment went through, with the reasons.
    pub(crate) fn passage(&self, key: DeploymentKey) -> Vec<String> {
        let transitions = self
            .log
            .iter()
            .filter_map(|(now, of, effect)| match effect {
                Effect::Transition(transition) if *of == key => Some((now, transition)),
                _ => None,
            });
        transitions
            .map(|(now, transition)| {
                let (state, cause) = (transition.to.name(), transition.cause);
                format!("{} s {state}: {cause}", now / SECOND)
            })
            .collect()
    }
}

/// Time.
impl Provider {
    pub(crate) fn run_for(&mut self, duration: Nanos) {
        self.run_until(self.now + duration);
    }

    /// Everything that is due until then, that moment included.
    pub(crate) fn run_until(&mut self, until: Nanos) {
        while let Some((at, turn)) = self.next().filter(|&(at, _)| at <= until) {
            self.now = at;
            match turn {
                Turn::Replica(key) => self.replica(key),
                Turn::Autoscaler(key) => self.look(key),
                Turn::ControlPlane => {
                    let orders = self.plane.on_deadline(self.now);
                    self.carry_out(orders);
                }
            }
        }
        self.now = until;
    }

    fn next(&self) -> Option<(Nanos, Turn)> {
        let fleets = self.fleets.iter().flat_map(|(&key, fleet)| {
            let replica = fleet.due.first().map(|&(at, _)| (at, Turn::Replica(key)));
            let autoscaler = fleet
                .autoscaler
                .as_ref()
                .and_then(Autoscaler::next_deadline);
            [replica, autoscaler.map(|at| (at, Turn::Autoscaler(key)))]
        });
        let plane = self.plane.next_deadline();
        let plane = plane.map(|at| (at.max(self.now), Turn::ControlPlane));
        fleets.flatten().chain(plane).min()
    }

    /// A replica is ready, or gone.
    fn replica(&mut self, key: DeploymentKey) {
        let fleet = self.fleets.get_mut(&key).expect("it has a turn");
        let Some((_, id)) = fleet.due.pop_first() else {
            return;
        };
        let stage = fleet
            .rollout
            .replicas()
            .get(id)
            .map(|replica| replica.stage);
        let actions = match stage {
            Some(Stage::Draining) => fleet.rollout.gone(self.now, id).map(|(_, actions)| actions),
            _ => fleet.rollout.advance(self.now, id, Stage::Ready),
        };
        self.settle(key, actions.expect("what is due lives"));
    }

    fn look(&mut self, key: DeploymentKey) {
        let fleet = self.fleets.get_mut(&key).expect("it has a turn");
        let counts = fleet.rollout.counts();
        let observation = Observation {
            running: fleet.in_flight,
            batch_slots: BATCH,
            ready: counts.ready,
            starting: counts.starting,
            ..Observation::default()
        };
        let autoscaler = fleet.autoscaler.as_mut();
        let decision = autoscaler.and_then(|a| a.on_event(self.now, Event::Observed(observation)));
        if let Some(decision) = decision {
            let actions = fleet.rollout.set_target(self.now, decision.target);
            self.settle(key, actions);
        }
    }
}

/// Doing.
impl Provider {
    fn effect(&mut self, key: DeploymentKey, effect: &Effect) -> Vec<ReplicaAction> {
        let now = self.now;
        let fleet = self.fleets.entry(key).or_insert_with(Fleet::new);
        match effect {
            Effect::Start {
                replicas,
                world_size,
                scaling,
            } => {
                let config = scaling.applied_to(&defaults());
                let autoscaler = Autoscaler::beginning_at(now, &config, *replicas);
                fleet.autoscaler = Some(autoscaler.expect("it was checked"));
                fleet.rollout.begin(now, *world_size, *replicas)
            }
            Effect::Reconfigure(scaling) => {
                let autoscaler = fleet.autoscaler.as_mut().expect("it was started");
                let config = scaling.applied_to(&defaults());
                let decision = autoscaler
                    .reconfigure(now, &config)
                    .expect("it was checked");
                fleet.follow(now, decision.map(|decision| decision.target))
            }
            Effect::Scale { replicas } => {
                let autoscaler = fleet.autoscaler.as_mut().expect("it was started");
                let decision = autoscaler
                    .scale(now, *replicas)
                    .expect("it follows no plan");
                fleet.follow(now, decision.map(|decision| decision.target))
            }
            Effect::Replace(replacement) => fleet.rollout.replace(now, *replacement),
            Effect::DrainAll => {
                fleet.autoscaler = None;
                fleet.rollout.set_target(now, 0)
            }
            Effect::Transition(_)
            | Effect::Refuse(_)
            | Effect::Admit
            | Effect::LoadAdapter(_)
            | Effect::UnloadAdapter(_) => Vec::new(),
        }
    }

    fn act(&mut self, key: DeploymentKey, actions: Vec<ReplicaAction>) {
        let now = self.now;
        let fleet = self.fleets.get_mut(&key).expect("it was created");
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                ReplicaAction::Start(id) => {
                    fleet.due.insert((now + COLD_START, id));
                }
                ReplicaAction::Cancel(id) => fleet.due.retain(|&(_, other)| other != id),
                ReplicaAction::Drain(id) if fleet.in_flight > 0 => {
                    fleet.due.insert((now + DRAIN, id));
                }
                ReplicaAction::Drain(id) => {
                    let (_, more) = fleet.rollout.gone(now, id).expect("it drains");
                    actions.extend(more);
                }
            }
        }
    }

    /// Does what replicas ask for, and looks at the outcome.
    fn settle(&mut self, key: DeploymentKey, actions: Vec<ReplicaAction>) {
        self.act(key, actions);
        self.observe(key);
    }

    fn observe(&mut self, key: DeploymentKey) {
        let fleet = &self.fleets[&key];
        let counts = fleet.rollout.counts();
        let observed = Observed {
            target: counts.target,
            starting: counts.starting,
            ready: counts.ready,
            draining: counts.draining,
            outdated: fleet.rollout.outdated(),
            in_flight: fleet.in_flight,
        };
        let orders = self.plane.observe(key, observed);
        if !orders.is_empty() {
            self.carry_out(orders);
        }
    }
}

impl Fleet {
    fn new() -> Self {
        Fleet {
            rollout: Rollout::new(1),
            autoscaler: None,
            in_flight: 0,
            due: BTreeSet::new(),
        }
    }

    fn follow(&mut self, now: Nanos, target: Option<u32>) -> Vec<ReplicaAction> {
        target.map_or_else(Vec::new, |target| self.rollout.set_target(now, target))
    }
}

pub(crate) fn acme() -> AccountId {
    "acme".parse().expect("an id")
}

pub(crate) fn chat() -> DeploymentName {
    "accounts/acme/deployments/chat".parse().expect("a name")
}

pub(crate) fn llama() -> ModelName {
    "accounts/acme/models/llama-3-8b".parse().expect("a name")
}

pub(crate) fn text(id: &str, world_size: u32) -> BaseModel {
    BaseModel {
        id: id.parse().expect("an id"),
        kind: ModelKind::Text,
        is_custom: false,
        world_size,
    }
}

/// A deployment of the small model.
pub(crate) fn new(id: &str, profile: Profile, settings: Settings) -> NewDeployment {
    NewDeployment {
        model: llama().model,
        id: Some(id.parse().expect("an id")),
        spec: DeploymentSpec {
            gpu: GpuKind::A100Gb80,
            profile,
            initial_replica_count: None,
            settings,
        },
    }
}

/// Fewest and most replicas.
pub(crate) fn replicas(min: u32, max: u32) -> Settings {
    Settings {
        min_replica_count: Some(min),
        max_replica_count: Some(max),
        ..Settings::default()
    }
}

pub(crate) fn world_size(world_size: u32) -> Settings {
    Settings {
        world_size: Some(world_size),
        ..Settings::default()
    }
}

pub(crate) fn unused_auto_delete(nanos: i64) -> Settings {
    Settings {
        unused_auto_delete_duration: Some(nanos),
        ..Settings::default()
    }
}

/// Nanoseconds as people write durations, of which there are negative ones.
pub(crate) fn go(nanos: Nanos) -> Option<i64> {
    Some(i64::try_from(nanos).expect("it is short"))
}

/// What a deployment does not set of its autoscaler.
fn defaults() -> FireworksConfig {
    FireworksConfig {
        min_replica_count: 0,
        max_replica_count: 1,
        scale_up_window: 30 * SECOND,
        scale_down_window: 10 * MINUTE,
        scale_to_zero_window: HOUR,
        load_targets: LoadTargets {
            default: Some(0.8),
            tokens_generated_per_second: None,
            prompt_tokens_per_second: None,
            requests_per_second: None,
            concurrent_requests: None,
        },
        window_semantics: WindowSemantics::Sustained,
        tick: SECOND,
        signal_smoothing: 0,
        rate_window: 0,
        occupancy_capped: false,
        idle_from: IdleFrom::LastReceived,
    }
}
