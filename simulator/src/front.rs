//! The front door: who gets a request, and the queue of those that nobody can take.

use std::collections::VecDeque;

use foresail_core::batching::BlockHash;
use foresail_core::control::router::{Candidate, Routed, Router, RouterConfig, RouterPolicy};
use foresail_core::time::Nanos;
use foresail_scenarios::random::{Stream, stream};
use foresail_scenarios::workload::Content;
use rand::Rng;

use crate::passage::Passage;

/// Router and central queue.
pub(crate) struct Front {
    router: Router,
    by_prefix: bool,
    rng: Stream,
    /// Requests that wait for a replica, oldest first, each with the time that
    /// no replica had been ready when it came.
    held: VecDeque<(Passage, Nanos)>,
}

impl Front {
    pub(crate) fn new(config: RouterConfig, seed: u64) -> Self {
        Self {
            router: Router::new(config),
            by_prefix: config.policy == RouterPolicy::PrefixAffinity,
            rng: stream(seed, "router"),
            held: VecDeque::new(),
        }
    }

    /// The candidate that gets a request with this content; `None` if none can.
    pub(crate) fn choose(&mut self, content: &Content, candidates: &[Candidate]) -> Option<usize> {
        let prefix = self.prefix(content);
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

    pub(crate) fn held(&self) -> u64 {
        self.held.len() as u64
    }

    /// The candidate that gets the oldest request in the queue; `None` if there is none, or no request.
    pub(crate) fn choose_for_first(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let (passage, _) = self.held.front()?;
        let prefix = self.prefix(&passage.request.content);
        self.router
            .route(Routed { prefix }, candidates, || self.rng.next_u64())
    }

    fn prefix(&self, content: &Content) -> Option<BlockHash> {
        if self.by_prefix {
            content.affinity()
        } else {
            None
        }
    }
}
