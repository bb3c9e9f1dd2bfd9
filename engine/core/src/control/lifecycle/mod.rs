//! From the import of a model to the deletion of its deployment.
//!
//! The [`ControlPlane`] is what a provider's command line talks to: accounts,
//! models, deployments and adapters by name. Each command is checked as a whole;
//! it either changes nothing and says why, or answers with [`Effect`]s for whoever
//! drives the deployment.
//!
//! ```text
//!   commands --+                        +--> Start, Reconfigure, Scale --> Autoscaler
//!   requests --+--> ControlPlane, one --+--> Replace, DrainAll ---------> Rollout --> replicas
//!   replicas --+    Deployment each     +--> Refuse, Admit -------------> router
//!   spend -----+          |             +--> LoadAdapter, UnloadAdapter
//!                         v
//!                   next_deadline: unused for too long, or all money spent
//! ```
//!
//! Drive it so: tell it of every request, of every change of replicas
//! ([`Observed`]), and of the spend whenever that changes its rate; carry out all
//! that it answers before telling it anything else; come back when `next_deadline`
//! has come. At equal times, events precede deadlines. It does not know whether
//! time is virtual.

mod account;
mod adapters;
mod admission;
mod control_plane;
mod deployment;
mod error;
mod model;
mod names;
mod rollout;
mod routes;
mod spec;
mod state;
mod tiers;
mod update;

pub use account::{Account, Spend};
pub use control_plane::{ControlPlane, Created, DeploymentKey, NewDeployment, Order};
pub use deployment::Deployment;
pub use error::LifecycleError;
pub use model::{BaseModel, DeployedModel, DeployedModelState, Model, ModelKind, ModelView};
pub use names::{
    AccountId, DeploymentId, DeploymentName, ModelId, ModelName, NameError, QueryName,
};
pub use rollout::Rollout;
pub use routes::Route;
pub use spec::{
    DeploymentSpec, GoNanos, Profile, ReplicaLimits, Resolved, Scaling, ScalingWindows, Settings,
    SettingsError,
};
pub use state::{Cause, Effect, Observed, Refusal, Replacement, State, Transition};
pub use tiers::{GpuKind, Tier};
