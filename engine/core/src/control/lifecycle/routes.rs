//! Models and adapters of accounts, and which deployment serves what a request names.

use super::control_plane::{ControlPlane, DeploymentKey, Order};
use super::deployment::Deployment;
use super::error::LifecycleError;
use super::model::{BaseModel, DeployedModel, Model, ModelView};
use super::names::{AccountId, DeploymentName, ModelId, ModelName, QueryName};

/// Who serves a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The deployment.
    pub deployment: DeploymentKey,
    /// The adapter to apply; `None` is the base model alone.
    pub adapter: Option<ModelName>,
}

/// Models.
impl ControlPlane {
    /// Clones a base model into an account, under its own id (S05). Again is the
    /// same (S06).
    ///
    /// # Errors
    /// If there is no such account, or it has another model of that id.
    pub fn import_model(
        &mut self,
        account: &AccountId,
        base: &BaseModel,
    ) -> Result<ModelName, LifecycleError> {
        self.add_model(account, &base.id, Model::Base(base.clone()))
    }

    /// Adds a PEFT addon, trained on a base model, to an account. Again is the same.
    ///
    /// # Errors
    /// If there is no such account, or it has another model of that id.
    pub fn add_adapter(
        &mut self,
        account: &AccountId,
        id: &ModelId,
        base: &ModelId,
    ) -> Result<ModelName, LifecycleError> {
        self.add_model(account, id, Model::Adapter { base: base.clone() })
    }

    fn add_model(
        &mut self,
        account: &AccountId,
        id: &ModelId,
        model: Model,
    ) -> Result<ModelName, LifecycleError> {
        self.account(account)?;
        let name = ModelName {
            account: account.clone(),
            model: id.clone(),
        };
        if *self
            .models
            .entry(name.clone())
            .or_insert_with(|| model.clone())
            != model
        {
            return Err(LifecycleError::ModelExists { model: name });
        }
        Ok(name)
    }

    /// A model, and where it is deployed (S11).
    ///
    /// # Errors
    /// If the account has no such model.
    pub fn get_model(&self, name: &ModelName) -> Result<ModelView, LifecycleError> {
        let model = self.model(name)?.clone();
        let on = |deployment: &Deployment| {
            let base = deployment
                .model_state()
                .filter(|_| deployment.model() == name);
            let state = base.or_else(|| deployment.adapter_state(name))?;
            Some(DeployedModel {
                deployment: deployment.name().clone(),
                state,
            })
        };
        Ok(ModelView {
            name: name.clone(),
            model,
            deployed: self.deployments.iter().filter_map(on).collect(),
        })
    }

    pub(super) fn model(&self, name: &ModelName) -> Result<&Model, LifecycleError> {
        self.models
            .get(name)
            .ok_or_else(|| LifecycleError::NoModel {
                model: name.clone(),
            })
    }
}

/// Adapters on deployments.
impl ControlPlane {
    /// Adds an adapter to a deployment of its base model (S34).
    ///
    /// # Errors
    /// If its base model is another (S35), or it is there already.
    pub fn deploy_adapter(
        &mut self,
        adapter: &ModelName,
        deployment: &DeploymentName,
    ) -> Result<Vec<Order>, LifecycleError> {
        self.check_base(adapter, deployment)?;
        self.command(deployment, |deployment| deployment.deploy_adapter(adapter))
    }

    /// Takes an adapter from a deployment; requests that have it finish.
    ///
    /// # Errors
    /// If it is not there.
    pub fn undeploy_adapter(
        &mut self,
        adapter: &ModelName,
        deployment: &DeploymentName,
    ) -> Result<Vec<Order>, LifecycleError> {
        self.command(deployment, |deployment| {
            deployment.undeploy_adapter(adapter)
        })
    }

    /// Every replica that is ready has loaded the adapter.
    ///
    /// # Errors
    /// If it was not to be loaded.
    ///
    /// # Panics
    /// If the key is another control plane's.
    pub fn adapter_loaded(
        &mut self,
        key: DeploymentKey,
        adapter: &ModelName,
    ) -> Result<(), LifecycleError> {
        self.deployments[key.index()].adapter_loaded(adapter)
    }

    /// The last request for the adapter has ended, and it is unloaded.
    ///
    /// # Errors
    /// If it was not to be unloaded.
    ///
    /// # Panics
    /// If the key is another control plane's.
    pub fn adapter_unloaded(
        &mut self,
        key: DeploymentKey,
        adapter: &ModelName,
    ) -> Result<(), LifecycleError> {
        self.deployments[key.index()].adapter_unloaded(adapter)
    }

    fn check_base(
        &self,
        adapter: &ModelName,
        deployment: &DeploymentName,
    ) -> Result<(), LifecycleError> {
        let Model::Adapter { base: adapter_base } = self.model(adapter)? else {
            let model = adapter.clone();
            return Err(LifecycleError::NotAnAdapter { model });
        };
        // What is deployed is a clone of a base model, which has its id.
        let deployment_base = &self.get(deployment)?.model().model;
        if adapter_base == deployment_base {
            return Ok(());
        }
        Err(LifecycleError::AdapterOfAnotherBase {
            adapter: adapter.clone(),
            adapter_base: adapter_base.clone(),
            deployment: deployment.clone(),
            deployment_base: deployment_base.clone(),
        })
    }
}

/// Requests.
impl ControlPlane {
    /// Who serves what a request names: the deployment that it names, or else the
    /// first that was created of those that serve the model (S07, S16, B11). It
    /// holds until a deployment or an adapter comes or goes.
    ///
    /// # Errors
    /// If nothing serves it.
    pub fn route(&self, query: &QueryName) -> Result<Route, LifecycleError> {
        let named = query.deployment.as_ref();
        let candidates = (0..)
            .zip(&self.deployments)
            .filter(|(_, deployment)| named.is_none_or(|name| deployment.name() == name));
        let serving = candidates.filter_map(|(index, deployment)| {
            let is_base = *deployment.model() == query.model && deployment.state().serves();
            let is_adapter = deployment.serves_adapter(&query.model);
            (is_base || is_adapter).then(|| Route {
                deployment: DeploymentKey::from_index(index),
                adapter: is_adapter.then(|| query.model.clone()),
            })
        });
        let not_deployed = || LifecycleError::NotDeployed {
            query: query.clone(),
        };
        serving.into_iter().next().ok_or_else(not_deployed)
    }
}
