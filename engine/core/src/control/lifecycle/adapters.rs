//! PEFT addons on a deployment (S34): which are on it, and what they are doing.
//!
//! A replica loads the adapters of its deployment when it starts. So where there
//! is no replica, an adapter is deployed at once, and undeployed at once.

use super::deployment::Deployment;
use super::error::LifecycleError;
use super::model::DeployedModelState;
use super::names::ModelName;
use super::state::{Effect, State};

impl Deployment {
    pub(super) fn deploy_adapter(
        &mut self,
        adapter: &ModelName,
    ) -> Result<Vec<Effect>, LifecycleError> {
        self.check_serves("given an adapter")?;
        if self.adapters.contains_key(adapter) {
            return Err(LifecycleError::AdapterDeployed {
                adapter: adapter.clone(),
                deployment: self.name().clone(),
            });
        }
        let state = DeployedModelState::Deploying;
        self.adapters.insert(adapter.clone(), state);
        self.settle_adapters();
        Ok(vec![Effect::LoadAdapter(adapter.clone())])
    }

    pub(super) fn undeploy_adapter(
        &mut self,
        adapter: &ModelName,
    ) -> Result<Vec<Effect>, LifecycleError> {
        use DeployedModelState::{Deployed, Deploying, Undeploying};
        self.move_adapter(adapter, &[Deploying, Deployed], Undeploying)?;
        self.settle_adapters();
        Ok(vec![Effect::UnloadAdapter(adapter.clone())])
    }

    pub(super) fn adapter_loaded(&mut self, adapter: &ModelName) -> Result<(), LifecycleError> {
        use DeployedModelState::{Deployed, Deploying};
        // Where there is no replica it was said to be deployed before it was loaded.
        self.move_adapter(adapter, &[Deploying, Deployed], Deployed)
    }

    pub(super) fn adapter_unloaded(&mut self, adapter: &ModelName) -> Result<(), LifecycleError> {
        let undeploying = DeployedModelState::Undeploying;
        self.move_adapter(adapter, &[undeploying], undeploying)?;
        self.adapters.remove(adapter);
        Ok(())
    }

    pub(super) fn undeploy_all_adapters(&mut self) {
        for state in self.adapters.values_mut() {
            *state = DeployedModelState::Undeploying;
        }
    }

    pub(super) fn adapter_state(&self, adapter: &ModelName) -> Option<DeployedModelState> {
        self.adapters.get(adapter).copied()
    }

    /// Whether requests for the adapter are sent here.
    pub(super) fn serves_adapter(&self, adapter: &ModelName) -> bool {
        self.state().serves() && self.adapters.get(adapter) == Some(&DeployedModelState::Deployed)
    }

    /// What needs no replica to come true.
    pub(super) fn settle_adapters(&mut self) {
        let observed = self.observed();
        if observed.held() == 0 {
            self.adapters
                .retain(|_, state| *state != DeployedModelState::Undeploying);
        }
        let is_up = matches!(self.state(), State::Ready | State::Updating);
        if is_up && self.observed().starting + self.observed().ready == 0 {
            for state in self.adapters.values_mut() {
                if *state == DeployedModelState::Deploying {
                    *state = DeployedModelState::Deployed;
                }
            }
        }
    }

    fn move_adapter(
        &mut self,
        adapter: &ModelName,
        from: &[DeployedModelState],
        to: DeployedModelState,
    ) -> Result<(), LifecycleError> {
        match self.adapters.get_mut(adapter) {
            Some(state) if from.contains(state) => {
                *state = to;
                Ok(())
            }
            _ => Err(LifecycleError::AdapterNotDeployed {
                adapter: adapter.clone(),
                deployment: self.name().clone(),
            }),
        }
    }
}
