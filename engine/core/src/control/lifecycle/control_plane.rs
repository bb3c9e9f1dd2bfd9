//! What people say to a provider: accounts, models, deployments and adapters, by name.

use std::collections::BTreeMap;

use super::account::Account;
use super::deployment::{Deployment, Identity};
use super::error::LifecycleError;
use super::model::Model;
use super::names::{AccountId, DeploymentId, DeploymentName, ModelId, ModelName};
use super::spec::{DeploymentSpec, Resolved, Settings};
use super::state::{Cause, Effect, Observed, Refusal, State};
use crate::time::Nanos;

/// A deployment, for as long as the control plane lives: what replaces its name
/// where names are too slow. A name that is used again has another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeploymentKey(u32);

impl DeploymentKey {
    /// Counted up from 0 in order of creation.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }

    pub(super) fn from_index(index: u32) -> Self {
        DeploymentKey(index)
    }
}

/// What is to be done for which deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// For which.
    pub deployment: DeploymentKey,
    /// What.
    pub effect: Effect,
}

/// A deployment that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDeployment {
    /// Of which model of the account: its id (S08).
    pub model: ModelId,
    /// Under which id; `None` counts one up (S08).
    pub id: Option<DeploymentId>,
    /// What it should be.
    pub spec: DeploymentSpec,
}

/// A deployment that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its key from now on.
    pub deployment: DeploymentKey,
    /// Its name from now on.
    pub name: DeploymentName,
    /// What has to be done for it.
    pub orders: Vec<Order>,
}

/// All that a provider knows of its accounts, and decides for them.
#[derive(Clone, Debug, Default)]
pub struct ControlPlane {
    pub(super) accounts: BTreeMap<AccountId, Account>,
    pub(super) models: BTreeMap<ModelName, Model>,
    /// In order of creation, the deleted ones included.
    pub(super) deployments: Vec<Deployment>,
    /// The last of each name.
    pub(super) keys: BTreeMap<DeploymentName, DeploymentKey>,
}

/// Deployments.
impl ControlPlane {
    /// A provider without accounts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a deployment. It is there at once, and ready when its state says so (S09).
    ///
    /// # Errors
    /// If anything about it is refused. Nothing changes then.
    ///
    /// # Panics
    /// If there have been 2^32 deployments.
    pub fn create(
        &mut self,
        now: Nanos,
        account: &AccountId,
        new: NewDeployment,
    ) -> Result<Created, LifecycleError> {
        let (name, resolved) = self.validate_create(now, account, &new)?;
        let model = ModelName {
            account: account.clone(),
            model: new.model,
        };
        let base = self.deployable(&model)?;
        let identity = Identity {
            name: name.clone(),
            world_size: base.world_size,
            model,
        };
        let replicas = new.spec.initial_replicas(resolved.scaling.replicas)?;
        let what = (new.spec, resolved);
        let (deployment, effects) = Deployment::create(now, identity, what, replicas, None);
        let key = u32::try_from(self.deployments.len()).expect("fewer than 2^32 deployments");
        let key = DeploymentKey(key);
        self.deployments.push(deployment);
        self.keys.insert(name.clone(), key);
        Ok(Created {
            deployment: key,
            name,
            orders: ordered(key, effects).collect(),
        })
    }

    /// What creating it would come to, without creating it (B06, `validateOnly`).
    ///
    /// # Errors
    /// Those of [`create`](Self::create).
    pub fn validate_create(
        &self,
        now: Nanos,
        account: &AccountId,
        new: &NewDeployment,
    ) -> Result<(DeploymentName, Resolved), LifecycleError> {
        self.account(account)?;
        let name = self.name_for(account, new.id.as_ref())?;
        let model = ModelName {
            account: account.clone(),
            model: new.model.clone(),
        };
        let base = self.deployable(&model)?;
        let resolved = new
            .spec
            .settings
            .resolve(new.spec.profile, base.world_size)?;
        new.spec.initial_replicas(resolved.scaling.replicas)?;
        self.check_may_start(now, account, new.spec.gpu, &resolved)?;
        Ok((name, resolved))
    }

    /// The deployment of that name; one that is deleted as long as its name is not used again.
    ///
    /// # Errors
    /// If there never was one.
    pub fn get(&self, name: &DeploymentName) -> Result<&Deployment, LifecycleError> {
        let key = self.key(name)?;
        Ok(&self.deployments[key.index()])
    }

    /// The key of the deployment of that name.
    ///
    /// # Errors
    /// If there never was one.
    pub fn key(&self, name: &DeploymentName) -> Result<DeploymentKey, LifecycleError> {
        let no_deployment = || LifecycleError::NoDeployment {
            deployment: name.clone(),
        };
        self.keys.get(name).copied().ok_or_else(no_deployment)
    }

    /// The deployment of that key.
    ///
    /// # Panics
    /// If the key is another control plane's.
    #[must_use]
    pub fn deployment(&self, key: DeploymentKey) -> &Deployment {
        &self.deployments[key.index()]
    }

    /// The deployments of an account that are not deleted, in order of id.
    pub fn list(&self, account: &AccountId) -> impl Iterator<Item = &Deployment> {
        let all = self.keys.values().map(|key| &self.deployments[key.index()]);
        all.filter(move |deployment| {
            deployment.name().account == *account && deployment.state() != State::Deleted
        })
    }

    /// Changes settings of a deployment that runs.
    ///
    /// # Errors
    /// If a setting is refused, or the change would strand requests. Nothing changes then.
    pub fn update(
        &mut self,
        now: Nanos,
        name: &DeploymentName,
        update: Settings,
    ) -> Result<Vec<Order>, LifecycleError> {
        let gpu = self.get(name)?.spec().gpu;
        let left = self.quota_left(&name.account, gpu, Some(name))?;
        self.command(name, |deployment| deployment.update(now, update, left))
    }

    /// Sets how many replicas there are now (B10); the autoscaler goes on from there.
    ///
    /// # Errors
    /// If the deployment's limits do not allow so many, or it does not run.
    pub fn scale(
        &mut self,
        name: &DeploymentName,
        replicas: u32,
    ) -> Result<Vec<Order>, LifecycleError> {
        self.command(name, |deployment| deployment.scale(replicas))
    }

    /// Deletes a deployment: its replicas finish what they have, and are gone (S17).
    /// `ignore_checks` deletes what is in use as well (B10).
    ///
    /// # Errors
    /// If it is deleted already, or in use.
    pub fn delete(
        &mut self,
        name: &DeploymentName,
        ignore_checks: bool,
    ) -> Result<Vec<Order>, LifecycleError> {
        self.command(name, |deployment| {
            deployment.check_delete(ignore_checks)?;
            Ok(deployment.delete(Cause::DeleteRequested))
        })
    }

    /// Takes a deletion back (B10): the deployment starts as it was created and
    /// updated, without adapters.
    ///
    /// # Errors
    /// If it is not deleted, or could not be created now.
    pub fn undelete(
        &mut self,
        now: Nanos,
        name: &DeploymentName,
    ) -> Result<Vec<Order>, LifecycleError> {
        let key = self.key(name)?;
        let deployment = self.get(name)?;
        let (state, resolved) = (deployment.state(), *deployment.resolved());
        if state != State::Deleted {
            return Err(LifecycleError::WrongState {
                deployment: name.clone(),
                state,
                verb: "undeleted",
            });
        }
        let (identity, spec) = (deployment.identity.clone(), deployment.spec().clone());
        let limits = resolved.scaling.replicas;
        let replicas = spec
            .initial_replicas(limits)
            .unwrap_or(limits.min.min(limits.max));
        self.check_may_start(now, &name.account, spec.gpu, &resolved)?;
        let what = (spec, resolved);
        let (deployment, effects) = Deployment::create(now, identity, what, replicas, Some(state));
        self.deployments[key.index()] = deployment;
        Ok(ordered(key, effects).collect())
    }

    pub(super) fn for_all_of(
        &mut self,
        account: &AccountId,
        mut what: impl FnMut(&mut Deployment) -> Vec<Effect>,
    ) -> Vec<Order> {
        let of_account = |deployment: &Deployment| deployment.name().account == *account;
        let mut orders = Vec::new();
        for (index, deployment) in (0..).zip(&mut self.deployments) {
            if of_account(deployment) {
                orders.extend(ordered(DeploymentKey(index), what(deployment)));
            }
        }
        orders
    }

    pub(super) fn command(
        &mut self,
        name: &DeploymentName,
        what: impl FnOnce(&mut Deployment) -> Result<Vec<Effect>, LifecycleError>,
    ) -> Result<Vec<Order>, LifecycleError> {
        let key = self.key(name)?;
        let effects = what(&mut self.deployments[key.index()])?;
        Ok(ordered(key, effects).collect())
    }
}

/// What happens to deployments.
impl ControlPlane {
    /// A request for the deployment was received. `Some` is why it is refused.
    ///
    /// # Panics
    /// If the key is another control plane's.
    #[inline]
    pub fn on_request(&mut self, now: Nanos, key: DeploymentKey) -> Option<Refusal> {
        self.deployments[key.index()].on_request(now)
    }

    /// The deployment's replicas or requests are other than before. Tell it before
    /// commands as well, as they are judged by it.
    ///
    /// # Panics
    /// If the key is another control plane's.
    pub fn observe(&mut self, key: DeploymentKey, observed: Observed) -> Vec<Order> {
        let effects = self.deployments[key.index()].observe(observed);
        ordered(key, effects).collect()
    }

    /// Replicas of the deployment do not start, and trying again is in vain: what
    /// never was ready has failed, and an update to another world size is taken
    /// back, with all that was updated since. What was ready with the same settings
    /// is left alone: try on.
    ///
    /// # Panics
    /// If the key is another control plane's.
    pub fn start_failed(&mut self, key: DeploymentKey) -> Vec<Order> {
        let effects = self.deployments[key.index()].on_start_failed();
        ordered(key, effects).collect()
    }

    /// When to call [`on_deadline`](Self::on_deadline) if nothing happens: when a
    /// deployment will have been unused for too long, or an account will have spent
    /// all it may. Requests only move it away, so there is no need to ask again
    /// before it has come.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        let unused = self
            .deployments
            .iter()
            .filter_map(Deployment::next_deadline);
        let spent = self.accounts.iter().filter_map(|(id, account)| {
            let deadline = account.spend_deadline()?;
            self.is_affected_by_limit(id).then_some(deadline)
        });
        unused.chain(spent).min()
    }

    /// A deadline has come; nothing happens if it has moved away.
    pub fn on_deadline(&mut self, now: Nanos) -> Vec<Order> {
        let mut orders = Vec::new();
        let accounts: Vec<_> = self.accounts.keys().cloned().collect();
        for account in &accounts {
            orders.extend(self.end_what_is_spent(now, account));
        }
        for (index, deployment) in (0..).zip(&mut self.deployments) {
            orders.extend(ordered(DeploymentKey(index), deployment.on_deadline(now)));
        }
        orders
    }

    /// Whether the account has anything that its spend limit would end or pause.
    fn is_affected_by_limit(&self, account: &AccountId) -> bool {
        self.deployments.iter().any(|deployment| {
            let spends = deployment.state().serves() && !deployment.is_paused;
            spends && deployment.name().account == *account
        })
    }
}

fn ordered(deployment: DeploymentKey, effects: Vec<Effect>) -> impl Iterator<Item = Order> {
    effects
        .into_iter()
        .map(move |effect| Order { deployment, effect })
}
