//! The deployments of a file, as their provider knows them: accounts, models and
//! deployments by name, in the core's [`ControlPlane`].

use foresail_core::control::lifecycle::{
    AccountId, BaseModel, ControlPlane, Created, DeploymentName, GpuKind, LifecycleError, ModelId,
    ModelKind, NewDeployment, Tier,
};

use crate::scenario::{Account, Scenario};

/// A provider that has created the deployments of a file.
#[derive(Clone, Debug)]
pub struct Provider {
    /// What decides for all of them.
    pub plane: ControlPlane,
    /// Their account.
    pub account: AccountId,
    /// Each, in the order of the file.
    pub deployments: Vec<Created>,
}

impl Provider {
    /// Opens the account, imports the models, and creates the deployments, at time 0.
    ///
    /// # Errors
    /// If the provider refuses one of them: its GPU is not for the account's tier
    /// (S36), the account's quota has no room for it, or two have one name. The
    /// position of the deployment comes with the error.
    pub fn new(deployments: &[&Scenario]) -> Result<Self, (usize, LifecycleError)> {
        let Some(first) = deployments.first() else {
            return Ok(Self {
                plane: ControlPlane::new(),
                account: default_account(),
                deployments: Vec::new(),
            });
        };
        let account = &first.account;
        let kinds = deployments.iter().map(|each| each.deployment.spec.gpu);
        let plane = open(account, kinds).map_err(|error| (0, error))?;
        let mut provider = Self {
            plane,
            account: account.id.clone(),
            deployments: Vec::new(),
        };
        for (index, scenario) in deployments.iter().enumerate() {
            let created = provider.create(scenario).map_err(|error| (index, error))?;
            provider.deployments.push(created);
        }
        Ok(provider)
    }

    fn create(&mut self, scenario: &Scenario) -> Result<Created, LifecycleError> {
        let deployment = &scenario.deployment;
        let model: ModelId = id_of(&deployment.model).parse()?;
        let base = BaseModel {
            id: model.clone(),
            // The catalogue has text models only, and a shape of one's own is one (S04).
            kind: ModelKind::Text,
            is_custom: false,
            world_size: deployment.world_size,
        };
        self.plane.import_model(&self.account, &base)?;
        let new = NewDeployment {
            model,
            id: Some(id_of(&scenario.name).parse()?),
            spec: deployment.spec.clone(),
        };
        self.plane.create(0, &self.account, new)
    }

    /// The full name of a deployment, by its place in the file.
    #[must_use]
    pub fn name(&self, index: usize) -> &DeploymentName {
        &self.deployments[index].name
    }
}

/// The account of a file that does not say whose it is.
#[must_use]
pub fn default_account() -> AccountId {
    "my-account".parse().expect("this is an id")
}

fn open(
    account: &Account,
    kinds: impl Iterator<Item = GpuKind> + Clone,
) -> Result<ControlPlane, LifecycleError> {
    let mut plane = ControlPlane::new();
    // Nobody says: a tier that may use what the file uses, if there is one.
    let may_use_all = |tier: &Tier| kinds.clone().all(|kind| tier.may_use(kind));
    let tiers = [Tier::Enterprise, Tier::Business];
    let tier = account.tier.or(tiers.into_iter().find(may_use_all));
    plane.add_account(account.id.clone(), tier.unwrap_or(Tier::Enterprise))?;
    for &(kind, gpus) in &account.gpu_quota {
        plane.set_gpu_quota(&account.id, kind, Some(gpus))?;
    }
    let limit = account.spend_limit_nanodollars;
    // Nothing has been created yet that the limit could end.
    plane.set_spend_limit(0, &account.id, limit)?;
    Ok(plane)
}

/// The nearest id to a name that people gave: ids have no spaces and no capitals.
fn id_of(name: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '-' | '.') => c,
        _ => '-',
    };
    let id: String = name.chars().map(plain).take(63).collect();
    let id = id.trim_matches(['-', '.']);
    if id.is_empty() {
        "unnamed".to_owned()
    } else {
        id.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people_become_ids() {
        assert_eq!(id_of("Qwen 3 (32B)"), "qwen-3--32b");
        assert_eq!(id_of("llama-3.1-70b"), "llama-3.1-70b");
        assert_eq!(id_of("ü"), "unnamed");
        for name in ["x", "Qwen 3 (32B)", &"long ".repeat(40)] {
            assert!(id_of(name).parse::<ModelId>().is_ok(), "{name}");
        }
    }
}
