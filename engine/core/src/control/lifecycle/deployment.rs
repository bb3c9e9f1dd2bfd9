//! One deployment, from its creation to its deletion.

use std::collections::BTreeMap;

use super::error::LifecycleError;
use super::model::DeployedModelState;
use super::names::{DeploymentName, ModelName};
use super::spec::{DeploymentSpec, Profile, Resolved, Settings};
use super::state::{Cause, Effect, Observed, Refusal, Replacement, State, Transition};
use crate::time::Nanos;

/// What is deployed where, as far as it never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: DeploymentName,
    pub(super) model: ModelName,
    /// GPUs a replica of that model by default.
    pub(super) world_size: u32,
}

/// A deployment: what it is, and what it is doing.
#[derive(Clone, Debug)]
pub struct Deployment {
    pub(super) identity: Identity,
    pub(super) spec: DeploymentSpec,
    pub(super) resolved: Resolved,
    pub(super) state: State,
    /// The last request received, or what counts as one: its creation, and a
    /// change of how long it may be unused.
    pub(super) used_at: Nanos,
    /// Why requests are refused now. Read for every request.
    refusal: Option<Refusal>,
    pub(super) is_paused: bool,
    pub(super) observed: Observed,
    pub(super) replacing: Option<Replacing>,
    pub(super) adapters: BTreeMap<ModelName, DeployedModelState>,
}

/// A change of world size, until a replica of the new one was ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replacing {
    /// What was asked for before, to go back to.
    pub(super) settings: Settings,
    /// What that meant.
    pub(super) resolved: Resolved,
    /// The largest world size of those that are replaced.
    pub(super) from: u32,
    /// What old and new replicas may hold together.
    pub(super) gpus_max: Option<u64>,
}

/// What can be seen.
impl Deployment {
    /// Its full name; the id is the last part (S10).
    #[must_use]
    pub fn name(&self) -> &DeploymentName {
        &self.identity.name
    }

    /// The model that it serves.
    #[must_use]
    pub fn model(&self) -> &ModelName {
        &self.identity.model
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What was asked for, updates included.
    #[must_use]
    pub fn spec(&self) -> &DeploymentSpec {
        &self.spec
    }

    /// What that means, every default filled in.
    #[must_use]
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// What was last told of its replicas and requests.
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Why it takes no requests now; `None` if it takes them.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Its adapters, in order of name.
    pub fn adapters(&self) -> impl Iterator<Item = (&ModelName, DeployedModelState)> {
        self.adapters.iter().map(|(name, &state)| (name, state))
    }

    /// What its base model is doing on it (S11); `None` if it is there no more.
    #[must_use]
    pub fn model_state(&self) -> Option<DeployedModelState> {
        match self.state {
            State::Creating => Some(DeployedModelState::Deploying),
            State::Ready | State::Updating => Some(DeployedModelState::Deployed),
            State::Deleting => Some(DeployedModelState::Undeploying),
            State::Deleted | State::Failed => None,
        }
    }

    /// When it will have been unused for too long; `None` is never, or past the
    /// end of time. Every request moves this away, so ask again when it has come.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        // B08: the newer documentation deletes only what has a minimum of 0; the
        // specification exempts nothing (S30).
        let min = self.resolved.scaling.replicas.min;
        let is_exempt = self.spec.profile == Profile::Fireworks2026 && min > 0;
        if !self.state.serves() || is_exempt {
            return None;
        }
        self.used_at.checked_add(self.resolved.unused_auto_delete?)
    }

    /// GPUs that it may come to hold, and that nobody else in its account may have:
    /// those of its settings, of those that it may go back to, and of the way between.
    #[must_use]
    pub fn gpus_reserved(&self) -> u64 {
        let between = self.replacing.map_or(0, |replacing| {
            let back = replacing.resolved.gpus_max();
            replacing.gpus_max.map_or(back, |gpus| gpus.max(back))
        });
        let most = self.resolved.gpus_max().max(between);
        match self.state {
            State::Deleted | State::Failed => 0,
            State::Deleting => most.min(gpus(self.observed.held(), self.world_size_max())),
            State::Creating | State::Ready | State::Updating => most,
        }
    }

    /// The largest world size of replicas that live or are to come.
    pub(super) fn world_size_max(&self) -> u32 {
        let replaced = self.replacing.map_or(0, |replacing| replacing.from);
        self.resolved.world_size.max(replaced)
    }
}

/// Its beginning and its end.
impl Deployment {
    /// A new deployment; `from` is what it was before, if its deletion is taken back.
    pub(super) fn create(
        now: Nanos,
        identity: Identity,
        (spec, resolved): (DeploymentSpec, Resolved),
        replicas: u32,
        from: Option<State>,
    ) -> (Self, Vec<Effect>) {
        let mut deployment = Deployment {
            identity,
            spec,
            resolved,
            state: State::Creating,
            used_at: now,
            // What was deleted refuses requests, until it says that it takes them.
            refusal: from.map(|_| Refusal::NotDeployed),
            is_paused: false,
            observed: Observed::default(),
            replacing: None,
            adapters: BTreeMap::new(),
        };
        let cause = from.map_or(Cause::Created, |_| Cause::Undeleted);
        let to = State::Creating;
        let mut effects = vec![Effect::Transition(Transition { from, to, cause })];
        deployment.start(replicas, &mut effects);
        deployment.settle(&mut effects);
        (deployment, effects)
    }

    /// Everything that deletes ends here: a command, disuse, the spend limit.
    pub(super) fn delete(&mut self, cause: Cause) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.enter(State::Deleting, cause, &mut effects);
        effects.push(Effect::DrainAll);
        self.undeploy_all_adapters();
        self.settle(&mut effects);
        effects
    }

    /// Whether a command may delete it.
    pub(super) fn check_delete(&self, ignore_checks: bool) -> Result<(), LifecycleError> {
        if self.state != State::Failed {
            self.check_serves("deleted")?;
        }
        let in_flight = self.observed.in_flight;
        // B10 is of the newer interface; S17 knows no checks.
        let is_checked = self.spec.profile == Profile::Fireworks2026 && !ignore_checks;
        if is_checked && in_flight > 0 {
            let deployment = self.name().clone();
            return Err(LifecycleError::InUse {
                deployment,
                in_flight,
            });
        }
        Ok(())
    }

    /// Deletes it if it has been unused for too long.
    pub(super) fn on_deadline(&mut self, now: Nanos) -> Vec<Effect> {
        let is_due = self.next_deadline().is_some_and(|deadline| deadline <= now);
        match self.resolved.unused_auto_delete {
            Some(after) if is_due => self.delete(Cause::Unused { after }),
            _ => Vec::new(),
        }
    }

    /// S30: the specification deletes; B12: the newer documentation pauses.
    pub(super) fn on_spend_limit(&mut self) -> Vec<Effect> {
        match self.spec.profile {
            _ if !self.state.serves() || self.is_paused => Vec::new(),
            Profile::Spec => self.delete(Cause::SpendLimit),
            Profile::Fireworks2026 => self.pause(),
        }
    }

    /// No request is served, and nothing runs that would cost more.
    fn pause(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.is_paused = true;
        self.replacing = None;
        self.admit_or_refuse(&mut effects);
        effects.push(Effect::DrainAll);
        effects
    }

    /// Serves again after a pause, with the fewest replicas: requests ask for more.
    pub(super) fn resume(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.is_paused && self.state.serves() {
            self.is_paused = false;
            let replicas = self.resolved.scaling.replicas;
            self.start(replicas.min.min(replicas.max), &mut effects);
        }
        effects
    }

    fn start(&mut self, replicas: u32, effects: &mut Vec<Effect>) {
        // Until it is told, it believes what it has asked for.
        self.observed.target = replicas;
        self.observed.starting = replicas;
        self.admit_or_refuse(effects);
        effects.push(Effect::Start {
            replicas,
            world_size: self.resolved.world_size,
            scaling: self.resolved.scaling,
        });
    }
}

/// What happens to it.
impl Deployment {
    /// A request was received. This runs for every one, so it must stay this short.
    #[inline]
    pub(super) fn on_request(&mut self, now: Nanos) -> Option<Refusal> {
        self.used_at = now;
        self.refusal
    }

    /// Its replicas or requests are other than before.
    pub(super) fn observe(&mut self, observed: Observed) -> Vec<Effect> {
        self.observed = observed;
        let mut effects = Vec::new();
        self.settle(&mut effects);
        effects
    }

    /// Replicas that were ordered do not start, and trying again is in vain.
    pub(super) fn on_start_failed(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.state == State::Creating {
            self.enter(State::Failed, Cause::StartFailed, &mut effects);
            effects.push(Effect::DrainAll);
        } else if self.state.serves() {
            self.take_back_update(&mut effects);
        }
        effects
    }

    /// Everything goes back to what last worked, as the settings belong together.
    /// Replicas that did start keep their GPUs until they are replaced in turn.
    fn take_back_update(&mut self, effects: &mut Vec<Effect>) {
        let is_change = |replacing: &Replacing| replacing.settings != self.spec.settings;
        let Some(replacing) = self.replacing.filter(is_change) else {
            return;
        };
        self.replacing = Some(Replacing {
            from: self.world_size_max(),
            ..replacing
        });
        self.spec.settings = replacing.settings;
        self.resolved = replacing.resolved;
        effects.push(Effect::Replace(Replacement {
            world_size: self.resolved.world_size,
            gpus_max: replacing.gpus_max,
            drain_first: false,
        }));
        effects.push(Effect::Reconfigure(self.resolved.scaling));
        self.enter(State::Ready, Cause::UpdateFailed, effects);
    }

    /// Goes on to the state that what was observed allows.
    pub(super) fn settle(&mut self, effects: &mut Vec<Effect>) {
        let Observed {
            target,
            ready,
            outdated,
            ..
        } = self.observed;
        match self.state {
            State::Creating if ready > 0 => {
                self.enter(State::Ready, Cause::FirstReplicaReady, effects);
            }
            State::Creating if target == 0 => {
                self.enter(State::Ready, Cause::NothingToStart, effects);
            }
            State::Updating if self.is_as_asked() => {
                self.enter(State::Ready, Cause::UpdateDone, effects);
            }
            State::Deleting if self.observed.held() == 0 => {
                self.enter(State::Deleted, Cause::ReplicasGone, effects);
            }
            _ => {}
        }
        if self.state == State::Ready && outdated > 0 {
            self.enter(State::Updating, Cause::Updated, effects);
        }
        if outdated == 0 && ready > 0 {
            // The new world size has shown that it can start.
            self.replacing = None;
        }
        self.settle_adapters();
    }

    /// Whether the replicas are what the last update asked for. As for a creation,
    /// one that is ready proves that it works, where any is asked for.
    pub(super) fn is_as_asked(&self) -> bool {
        let Observed {
            target,
            ready,
            outdated,
            ..
        } = self.observed;
        let fewest = self.resolved.scaling.replicas.min.max(1);
        outdated == 0 && ready >= fewest.min(target)
    }

    pub(super) fn enter(&mut self, to: State, cause: Cause, effects: &mut Vec<Effect>) {
        let from = Some(self.state);
        self.state = to;
        effects.push(Effect::Transition(Transition { from, to, cause }));
        self.admit_or_refuse(effects);
    }

    pub(super) fn admit_or_refuse(&mut self, effects: &mut Vec<Effect>) {
        let refusal = if !self.state.serves() {
            Some(Refusal::NotDeployed)
        } else if self.is_paused {
            Some(Refusal::SpendLimit)
        } else {
            let is_parked = self.resolved.scaling.replicas.is_parked();
            is_parked.then_some(Refusal::Parked)
        };
        if refusal != self.refusal {
            self.refusal = refusal;
            effects.push(refusal.map_or(Effect::Admit, Effect::Refuse));
        }
    }

    pub(super) fn check_serves(&self, verb: &'static str) -> Result<(), LifecycleError> {
        if self.state.serves() {
            return Ok(());
        }
        Err(LifecycleError::WrongState {
            deployment: self.name().clone(),
            state: self.state,
            verb,
        })
    }
}

fn gpus(replicas: u32, world_size: u32) -> u64 {
    u64::from(replicas) * u64::from(world_size)
}
