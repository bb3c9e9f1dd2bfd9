//! The front door: who gets a request, and the queue of those that nobody can take.

use std::collections::VecDeque;

use foresail_core::batching::BlockHash;
use foresail_core::control::router::{Candidate, Routed, Router, RouterConfig, RouterPolicy};
use foresail_core::time::Nanos;
use foresail_scenarios::random::{Stream, stream};
use foresail_scenarios::workload::Request;
use rand::Rng;

use crate::passage::Passage;

/// Router and central queue.
pub(crate) struct Front {
    router: Router,
    by: Affinity,
    rng: Stream,
    /// Requests that wait for a replica, oldest first, each with the time that
    /// no replica had been ready when it came.
    held: VecDeque<(Passage, Nanos)>,
}

impl Front {
    pub(crate) fn new(config: RouterConfig, seed: u64) -> Self {
        Self {
            router: Router::new(config),
            by: Affinity::of(config.policy),
            rng: stream(seed, "router"),
            held: VecDeque::new(),
        }
    }

    /// The candidate that gets this request; `None` if none can.
    pub(crate) fn choose(&mut self, request: &Request, candidates: &[Candidate]) -> Option<usize> {
        let prefix = self.by.key(request);
        self.router
            .route(Routed { prefix }, candidates, || self.rng.next_u64())
    }

    /// Queues a request. `unready_ns` is for how long no replica has been ready so far.
    pub(crate) fn hold(&mut self, passage: Passage, unready_ns: Nanos) {
        self.held.push_back((passage, unready_ns));
    }

    /// Takes the oldest request out of the queue and notes how much of its wait was cold start.
    pub(crate) fn release(&mut self, unready_ns: Nanos) -> Option<Passage> {
        let (mut passage, unready_before) = self.held.pop_front()?;
        passage.dispatched(unready_ns - unready_before);
        Some(passage)
    }

    /// Takes a request out of the queue, if it is there, that its client gives up.
    pub(crate) fn withdraw(&mut self, request: u64, unready_ns: Nanos) -> Option<Passage> {
        let place = (self.held.iter()).position(|(passage, _)| passage.id() == request)?;
        let (mut passage, unready_before) = self.held.remove(place)?;
        passage.dispatched(unready_ns - unready_before);
        Some(passage)
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.len() as u64
    }

    /// The candidate that gets the oldest request in the queue; `None` if there is none, or no request.
    pub(crate) fn choose_for_first(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let (passage, _) = self.held.front()?;
        let prefix = self.by.key(&passage.request);
        self.router
            .route(Routed { prefix }, candidates, || self.rng.next_u64())
    }
}

/// What keeps requests together that should go to one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Affinity {
    None,
    Prefix,
    Adapter,
}

impl Affinity {
    fn of(policy: RouterPolicy) -> Self {
        match policy {
            RouterPolicy::PrefixAffinity => Self::Prefix,
            RouterPolicy::AdapterAffinity => Self::Adapter,
            RouterPolicy::RoundRobin
            | RouterPolicy::LeastOutstanding
            | RouterPolicy::LeastKvUse
            | RouterPolicy::PowerOfTwoChoices => Self::None,
        }
    }

    fn key(self, request: &Request) -> Option<BlockHash> {
        match self {
            Self::None => None,
            Self::Prefix => request.affinity(),
            Self::Adapter => request.adapter.map(BlockHash::from),
        }
    }
}
