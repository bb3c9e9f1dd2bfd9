//! What a deployment is doing, what it asks of whoever drives it, and why.
//!
//! ```text
//!   CREATING ---first replica ready---> READY <--all as asked for--> UPDATING
//!    |    |                               |                             |
//!    |    +--------------delete, unused, spend limit--------------------+
//!    |                                    |
//!    +--cannot start--> FAILED ------> DELETING --all replicas gone--> DELETED
//! ```

use std::fmt;

use super::names::ModelName;
use super::spec::Scaling;
use crate::time::{Nanos, Span};

/// What a deployment is doing (B04). It says nothing of how many replicas there
/// are: a deployment at zero replicas stays ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for its first replica.
    Creating,
    /// Serves, or would at the next request.
    Ready,
    /// Serves, while replicas become what an update asks for.
    Updating,
    /// Takes no more requests and finishes those it has.
    Deleting,
    /// Is no more.
    Deleted,
    /// Could not start.
    Failed,
}

impl State {
    /// As the provider writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Creating => "CREATING",
            State::Ready => "READY",
            State::Updating => "UPDATING",
            State::Deleting => "DELETING",
            State::Deleted => "DELETED",
            State::Failed => "FAILED",
        }
    }

    /// Whether requests are sent there.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, State::Creating | State::Ready | State::Updating)
    }
}

/// Why a deployment went from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody created it.
    Created,
    /// Somebody took its deletion back (B10).
    Undeleted,
    /// Its first replica takes requests.
    FirstReplicaReady,
    /// There is no replica to wait for.
    NothingToStart,
    /// Somebody updated it.
    Updated,
    /// Replicas are what the last update asked for.
    UpdateDone,
    /// Replicas of the new world size could not start; all is as before.
    UpdateFailed,
    /// Its replicas could not start.
    StartFailed,
    /// Somebody deleted it.
    DeleteRequested,
    /// It received no request for so long (S30).
    Unused {
        /// `unused_auto_delete_duration`.
        after: Nanos,
    },
    /// Its account has spent all it may (S30).
    SpendLimit,
    /// Its last replica is gone.
    ReplicasGone,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cause::Created => f.write_str("created"),
            Cause::Undeleted => f.write_str("undeleted"),
            Cause::FirstReplicaReady => f.write_str("first replica ready"),
            Cause::NothingToStart => f.write_str("no replica to wait for"),
            Cause::Updated => f.write_str("updated"),
            Cause::UpdateDone => f.write_str("all replicas as updated"),
            Cause::UpdateFailed => f.write_str("replicas of the new world size do not start"),
            Cause::StartFailed => f.write_str("replicas do not start"),
            Cause::DeleteRequested => f.write_str("delete requested"),
            Cause::Unused { after } => {
                write!(f, "no request received for {}", Span(after))
            }
            Cause::SpendLimit => f.write_str("spend limit reached"),
            Cause::ReplicasGone => f.write_str("all replicas gone"),
        }
    }
}

/// From one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before; `None` of one that is new.
    pub from: Option<State>,
    /// The state after.
    pub to: State,
    /// Why.
    pub cause: Cause,
}

/// Why a deployment takes no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is being deleted, is deleted, or has failed.
    NotDeployed,
    /// It is parked: its `max_replica_count` is 0, so that no request wakes it.
    Parked,
    /// Its account has reached its spend limit, which pauses all requests (B12).
    SpendLimit,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NotDeployed => "the model is not deployed",
            Refusal::Parked => "the deployment is parked: max_replica_count is 0",
            Refusal::SpendLimit => "the account has reached its spend limit",
        })
    }
}

/// What whoever drives a deployment has to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Note that the state changed; there is nothing else to do about it.
    Transition(Transition),
    /// Begin: an autoscaler as of now, under these limits, and this many replicas
    /// ([`Rollout::begin`](super::Rollout::begin)).
    Start {
        /// How many replicas.
        replicas: u32,
        /// GPUs a replica.
        world_size: u32,
        /// The autoscaler's limits and windows.
        scaling: Scaling,
    },
    /// Give the autoscaler other limits and windows.
    Reconfigure(Scaling),
    /// Set the autoscaler's target, apart from load.
    Scale {
        /// How many replicas.
        replicas: u32,
    },
    /// Replace the replicas by others: hand this to the [`Rollout`](super::Rollout).
    Replace(Replacement),
    /// End: drain all replicas, and let the autoscaler go.
    DrainAll,
    /// Refuse requests from now on, and those that no replica has taken yet.
    Refuse(Refusal),
    /// Take requests again.
    Admit,
    /// Load an adapter on each replica, and on those to come; then say so.
    LoadAdapter(ModelName),
    /// Take no more requests for an adapter, unload it when its last has ended; then say so.
    UnloadAdapter(ModelName),
}

/// How replicas are to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// GPUs a replica from now on.
    pub world_size: u32,
    /// The most GPUs that the deployment may hold meanwhile, those that drain included.
    pub gpus_max: Option<u64>,
    /// Whether to drain before anything new is ready: only when nothing is served.
    pub drain_first: bool,
}

/// What a deployment's replicas and requests are at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// How many replicas there should be.
    pub target: u32,
    /// Asked for and not ready yet.
    pub starting: u32,
    /// Taking requests.
    pub ready: u32,
    /// Finishing.
    pub draining: u32,
    /// Of those that start or are ready, those of another world size than is asked for.
    pub outdated: u32,
    /// Requests received and not ended, those held included.
    pub in_flight: u64,
}

impl Observed {
    /// Replicas that hold GPUs.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.starting + self.ready + self.draining
    }
}
