//! What is checked before a deployment starts: its model, its GPUs, its name, and the money.

use super::control_plane::ControlPlane;
use super::deployment::Deployment;
use super::error::LifecycleError;
use super::model::{BaseModel, Model};
use super::names::{AccountId, DeploymentId, DeploymentName, ModelName};
use super::spec::Resolved;
use super::state::State;
use super::tiers::GpuKind;
use crate::time::Nanos;

/// B12: the largest number of replicas has to fit in what others leave of the
/// quota, so that no later scale-up fails for want of it. The provider may only
/// look when a replica starts; its documentation does not say.
pub(super) fn check_quota(
    gpu: GpuKind,
    resolved: &Resolved,
    left: Option<u64>,
) -> Result<(), LifecycleError> {
    let asked = resolved.gpus_max();
    match left {
        Some(left) if asked > left => Err(LifecycleError::QuotaExceeded { gpu, asked, left }),
        _ => Ok(()),
    }
}

/// What is checked before anything starts.
impl ControlPlane {
    pub(super) fn check_may_start(
        &self,
        now: Nanos,
        account: &AccountId,
        gpu: GpuKind,
        resolved: &Resolved,
    ) -> Result<(), LifecycleError> {
        let tier = self.account(account)?.tier();
        let account = account.clone();
        if !tier.may_use(gpu) {
            return Err(LifecycleError::TierMayNotUse { account, tier, gpu });
        }
        if self.accounts[&account].is_spent(now) {
            return Err(LifecycleError::SpendLimitReached { account });
        }
        check_quota(gpu, resolved, self.quota_left(&account, gpu, None)?)
    }

    /// GPUs of a kind that other deployments leave of the quota; `None` is no limit.
    pub(super) fn quota_left(
        &self,
        account: &AccountId,
        gpu: GpuKind,
        except: Option<&DeploymentName>,
    ) -> Result<Option<u64>, LifecycleError> {
        let others = self.deployments.iter().filter(|deployment| {
            let name = deployment.name();
            deployment.spec().gpu == gpu && name.account == *account && Some(name) != except
        });
        let reserved: u64 = others.map(Deployment::gpus_reserved).sum();
        let quota = self.account(account)?.gpu_quota(gpu);
        Ok(quota.map(|quota| u64::from(quota).saturating_sub(reserved)))
    }

    /// S04: the base model behind a model that can be deployed on demand.
    pub(super) fn deployable(&self, model: &ModelName) -> Result<&BaseModel, LifecycleError> {
        let name = model.clone();
        match self.model(model)? {
            Model::Adapter { base } => Err(LifecycleError::AdapterAlone {
                model: name,
                base: base.clone(),
            }),
            Model::Base(base) if base.is_custom => Err(LifecycleError::Custom { model: name }),
            Model::Base(base) if !base.kind.is_text() => Err(LifecycleError::NotText {
                model: name,
                kind: base.kind,
            }),
            Model::Base(base) => Ok(base),
        }
    }

    /// The name for a new deployment: the one asked for, or the next that is free.
    pub(super) fn name_for(
        &self,
        account: &AccountId,
        id: Option<&DeploymentId>,
    ) -> Result<DeploymentName, LifecycleError> {
        let name = |deployment: DeploymentId| DeploymentName {
            account: account.clone(),
            deployment,
        };
        if let Some(id) = id {
            let deployment = name(id.clone());
            return match self.is_taken(&deployment) {
                true => Err(LifecycleError::DeploymentExists { deployment }),
                false => Ok(deployment),
            };
        }
        let mut number = 1_u64;
        loop {
            let candidate = name(format!("deployment-{number}").parse()?);
            // A name that was used before is not generated again, even if it is free.
            if !self.keys.contains_key(&candidate) {
                return Ok(candidate);
            }
            number += 1;
        }
    }

    /// What is deleted leaves its name to others.
    fn is_taken(&self, name: &DeploymentName) -> bool {
        self.get(name)
            .is_ok_and(|deployment| deployment.state() != State::Deleted)
    }
}
