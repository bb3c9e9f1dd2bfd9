//! Which replica gets a request.

/// How requests are spread over the ready replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// The rule.
    pub policy: RouterPolicy,
    /// Requests a replica may hold, running and queued; further ones wait
    /// centrally, first come first served. `None` is no limit.
    pub max_outstanding: Option<u32>,
}

/// The rule by which a replica is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterPolicy {
    /// Each in turn.
    RoundRobin,
    /// Fewest requests running and queued; ties go to the oldest replica.
    LeastOutstanding,
    /// Fewest KV blocks in use; ties go to the oldest replica.
    LeastKvUse,
    /// The less loaded of two drawn at random.
    PowerOfTwoChoices,
    /// The same replica for the same prefix, unless it has far more than its share.
    PrefixAffinity,
}
