//! Why a command was refused. Nothing has changed then, and each text says what would.

use thiserror::Error;

use super::model::ModelKind;
use super::names::{AccountId, DeploymentName, ModelId, ModelName, NameError, QueryName};
use super::spec::SettingsError;
use super::state::State;
use super::tiers::{GpuKind, Tier, TiersOf};

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LifecycleError {
    /// A text is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A setting cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// There is no such account.
    #[error("there is no account {account}")]
    NoAccount {
        /// Which.
        account: AccountId,
    },
    /// There is one already.
    #[error("account {account} exists already")]
    AccountExists {
        /// Which.
        account: AccountId,
    },
    /// The account has no such model.
    #[error("there is no model {model}: import it first")]
    NoModel {
        /// Which.
        model: ModelName,
    },
    /// The account has another model of that name.
    #[error("another model {model} exists already: choose another id")]
    ModelExists {
        /// Which.
        model: ModelName,
    },
    /// There is no such deployment.
    #[error("there is no deployment {deployment}")]
    NoDeployment {
        /// Which.
        deployment: DeploymentName,
    },
    /// There is one already.
    #[error("deployment {deployment} exists already: choose another id, or update it")]
    DeploymentExists {
        /// Which.
        deployment: DeploymentName,
    },
    /// An adapter is served by a deployment of its base model, not by one of its own (S34).
    #[error("{model} is an adapter of {base}: deploy it on a deployment of that model")]
    AdapterAlone {
        /// The adapter.
        model: ModelName,
        /// Its base model.
        base: ModelId,
    },
    /// Only what was made to be added to a base model can be added to a deployment (S34).
    #[error("{model} is not an adapter: create a deployment of it")]
    NotAnAdapter {
        /// Which.
        model: ModelName,
    },
    /// S35.
    #[error(
        "adapter {adapter} is of base model {adapter_base}, but {deployment} serves \
         {deployment_base}: choose a deployment of {adapter_base}"
    )]
    AdapterOfAnotherBase {
        /// The adapter.
        adapter: ModelName,
        /// The base model it was trained on.
        adapter_base: ModelId,
        /// The deployment.
        deployment: DeploymentName,
        /// The base model that it serves.
        deployment_base: ModelId,
    },
    /// It is there already.
    #[error("adapter {adapter} is on {deployment} already")]
    AdapterDeployed {
        /// The adapter.
        adapter: ModelName,
        /// The deployment.
        deployment: DeploymentName,
    },
    /// It is not there, or leaves already.
    #[error("adapter {adapter} is not deployed on {deployment}")]
    AdapterNotDeployed {
        /// The adapter.
        adapter: ModelName,
        /// The deployment.
        deployment: DeploymentName,
    },
    /// S04.
    #[error("{model} is a model of kind {kind:?}: only text models can be deployed on demand")]
    NotText {
        /// Which.
        model: ModelName,
        /// What it reads and writes.
        kind: ModelKind,
    },
    /// S04.
    #[error(
        "{model} is a custom base model: only models of the catalogue can be deployed on demand"
    )]
    Custom {
        /// Which.
        model: ModelName,
    },
    /// S36.
    #[error("{gpu} is for {} accounts, and {account} is {tier}: choose another GPU", TiersOf(*.gpu))]
    TierMayNotUse {
        /// Whose.
        account: AccountId,
        /// What it has subscribed to.
        tier: Tier,
        /// What it asked for.
        gpu: GpuKind,
    },
    /// B12. The largest number of replicas has to fit, so that no later scale-up fails.
    #[error(
        "{asked} GPUs {gpu} (max_replica_count x world_size) are more than the {left} that are \
         left of the account's quota: lower max_replica_count or world_size"
    )]
    QuotaExceeded {
        /// Of which kind.
        gpu: GpuKind,
        /// What the deployment may come to hold.
        asked: u64,
        /// What other deployments leave of the quota.
        left: u64,
    },
    /// Replicas of the new world size do not fit beside those that serve.
    #[error(
        "world_size {to} would strand requests: replacing {ready} replicas of {from} GPUs takes \
         {needed} GPUs {gpu} for a while, and the quota has {left}: scale down or raise the quota first"
    )]
    WouldStrandRequests {
        /// The world size now.
        from: u32,
        /// The world size asked for.
        to: u32,
        /// Replicas that serve.
        ready: u32,
        /// Of which kind.
        gpu: GpuKind,
        /// What the replacement holds at its fullest.
        needed: u64,
        /// What other deployments leave of the quota.
        left: u64,
    },
    /// The deployment is past that, or not there yet.
    #[error("{deployment} is {} and cannot be {verb}", .state.name())]
    WrongState {
        /// Which.
        deployment: DeploymentName,
        /// What it is doing.
        state: State,
        /// What it was told: `updated`.
        verb: &'static str,
    },
    /// B10: what is in use is deleted only on insistence.
    #[error(
        "{deployment} is deployed and in use: {in_flight} requests; pass ignore_checks to delete it"
    )]
    InUse {
        /// Which.
        deployment: DeploymentName,
        /// Requests received and not ended.
        in_flight: u64,
    },
    /// Until the limit is raised, nothing is started.
    #[error("account {account} has reached its spend limit: raise it first")]
    SpendLimitReached {
        /// Which.
        account: AccountId,
    },
    /// Nothing serves what a request asks for.
    #[error("{query} is not deployed")]
    NotDeployed {
        /// What was asked for.
        query: QueryName,
    },
}
