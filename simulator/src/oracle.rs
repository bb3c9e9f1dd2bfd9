//! Knowing the future: what the policy `oracle` does, and when.
//!
//! Two passes. The first is a deployment whose replicas start in no time and
//! whose autoscaler waits for nothing: it always has as many replicas as the
//! load calls for. The second is the deployment as it is, with a plan that
//! orders each of those replicas as long before it is needed as its start will
//! take, and lets it go when it is needed no more.
//!
//! A replica that would be gone for no longer than the next one takes to start
//! stays: released, it could not be replaced in time by anybody.
//!
//! So the plan is the least that serves every request at the load target
//! without a wait for a replica. A policy may be cheaper only by letting
//! requests wait, or by batches fuller than the target.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use foresail_core::control::autoscaler::{
    AutoscalerConfig, FireworksConfig, Foreseen, IdleFrom, OracleConfig, WindowSemantics,
};
use foresail_core::time::{Nanos, SECOND};
use foresail_reports::records::{Change, ChangeKind, Gaps, RecordSink, RequestRecord};
use foresail_scenarios::clients::Clients;
use foresail_scenarios::failures::Failures;
use foresail_scenarios::scenario::{AtZero, ColdStart, Deployment, Scenario};

use crate::start::Start;
use crate::{Options, Progress, SimulationError, simulate};

/// Tells the oracle of a scenario what will come under this seed. Every other
/// scenario stays as it is.
///
/// # Errors
/// If the workload cannot be opened, or its first pass ends without a result.
pub fn foresee(
    scenario: &mut Scenario,
    seed: u64,
    watch: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), SimulationError> {
    let AutoscalerConfig::Oracle(config) = &scenario.deployment.autoscaler else {
        return Ok(());
    };
    let ideal = ideal(scenario, config);
    let mut needs = Needs::default();
    let options = Options { seed, leaps: true };
    let requests = scenario.workload.open(seed)?;
    simulate(&ideal, requests, options, &mut needs, watch)?;
    let initial = scenario.deployment.initial_replica_count;
    let deployment = dependable(&scenario.deployment);
    let lead = |replica| Start::draw(&deployment, seed, replica, 1).total;
    let plan = Planner::new(initial, lead).plan(&needs.steps);
    if let AutoscalerConfig::Oracle(config) = &mut scenario.deployment.autoscaler {
        config.plan = Some(plan);
    }
    Ok(())
}

/// The same deployment, were nothing ever to be waited for.
fn ideal(scenario: &Scenario, config: &OracleConfig) -> Scenario {
    let mut ideal = scenario.clone();
    ideal.gpu_pool = None;
    ideal.clients = Clients::default();
    ideal.deployment.failures = Failures::default();
    let deployment = &mut ideal.deployment;
    deployment.at_zero = AtZero::Hold;
    deployment.cold_start = ColdStart { stages: Vec::new() };
    deployment.autoscaler = AutoscalerConfig::Fireworks(FireworksConfig {
        min_replica_count: config.min_replica_count,
        max_replica_count: config.max_replica_count,
        scale_up_window: 0,
        scale_down_window: 0,
        scale_to_zero_window: 0,
        load_targets: config.load_targets,
        window_semantics: WindowSemantics::Sustained,
        tick: SECOND,
        signal_smoothing: 0,
        rate_window: 30 * SECOND,
        occupancy_capped: false,
        idle_from: IdleFrom::LastActive,
    });
    ideal
}

/// The same deployment, were nothing ever to fail. Slow starts are as slow as they are.
fn dependable(deployment: &Deployment) -> Deployment {
    let mut dependable = deployment.clone();
    dependable.failures = Failures {
        slow_start: deployment.failures.slow_start.clone(),
        ..Failures::default()
    };
    dependable
}

/// Keeps how many replicas the ideal deployment has, from when.
#[derive(Debug, Default)]
struct Needs {
    steps: Vec<(Nanos, u32)>,
}

impl RecordSink for Needs {
    fn request(&mut self, _: &RequestRecord) {}

    fn gaps(&mut self, _: Gaps) {}

    fn change(&mut self, change: &Change) {
        if change.kind == ChangeKind::Target {
            self.steps.push((change.at_ns, change.replicas.target));
        }
    }
}

/// Turns what is needed into what has to be done for it.
struct Planner<L> {
    initial: u32,
    lead: L,
    /// The id of the next replica to start, which its lead depends on.
    next_replica: u32,
    /// Of each place among the replicas that is free: since when. The first
    /// place is that of the first replica, and so on.
    free_since: BTreeMap<u32, Nanos>,
    /// (when, one more or one fewer, what for).
    moves: Vec<(Nanos, i64, Nanos)>,
    /// Nothing is ordered before this, as a falling target would cancel it.
    earliest_order: Nanos,
}

impl<L: Fn(u32) -> Nanos> Planner<L> {
    fn new(initial: u32, lead: L) -> Self {
        Self {
            initial,
            lead,
            next_replica: initial,
            free_since: BTreeMap::new(),
            moves: Vec::new(),
            earliest_order: 0,
        }
    }

    /// `needs` is how many there have to be, from when on.
    fn plan(mut self, needs: &[(Nanos, u32)]) -> Vec<Foreseen> {
        let mut present = self.initial;
        for &(at, needed) in needs {
            for place in present..needed {
                self.take(place, at);
            }
            for place in needed..present {
                self.free_since.insert(place, at);
            }
            present = needed;
        }
        for at in std::mem::take(&mut self.free_since).into_values() {
            self.moves.push((at, -1, at));
        }
        self.steps()
    }

    /// A replica is needed in a place from `at` on.
    fn take(&mut self, place: u32, at: Nanos) {
        let lead = (self.lead)(self.next_replica);
        let order_at = at.saturating_sub(lead);
        if let Some(since) = self.free_since.remove(&place) {
            if since >= order_at {
                return;
            }
            self.moves.push((since, -1, since));
            self.earliest_order = self.earliest_order.max(since);
        }
        // Replicas are numbered in the order in which they are ordered.
        let order_at = order_at.max(self.earliest_order);
        self.earliest_order = order_at;
        self.next_replica += 1;
        self.moves.push((order_at, 1, at));
    }

    /// The target after the moves of each instant.
    fn steps(mut self) -> Vec<Foreseen> {
        self.moves.sort_unstable();
        let mut replicas = i64::from(self.initial);
        let mut plan: Vec<Foreseen> = Vec::new();
        for (at, change, needed_at) in self.moves {
            replicas += change;
            let step = Foreseen {
                at,
                replicas: replicas as u32,
                needed_at,
            };
            match plan.last_mut().filter(|last| last.at == at) {
                Some(last) => *last = step,
                None => plan.push(step),
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (when, how many) by a plan in which the replica of each id takes so long to start.
    fn plan(initial: u32, leads_s: &[u64], needs_s: &[(u64, u32)]) -> Vec<(u64, u32)> {
        let lead = |replica: u32| leads_s[(replica - initial) as usize % leads_s.len()] * SECOND;
        let needs: Vec<_> = needs_s.iter().map(|&(at, n)| (at * SECOND, n)).collect();
        let plan = Planner::new(initial, lead).plan(&needs);
        plan.iter()
            .map(|step| (step.at / SECOND, step.replicas))
            .collect()
    }

    #[test]
    fn a_replica_is_ordered_so_that_it_is_ready_when_needed() {
        let needs = [(100, 2), (300, 3), (700, 1)];
        let expected = [(40, 2), (250, 3), (700, 1)];
        assert_eq!(plan(1, &[60, 50], &needs), expected);
    }

    #[test]
    fn a_gap_shorter_than_a_start_is_bridged() {
        let needs = [(100, 2), (200, 1), (250, 2), (400, 1), (500, 2), (900, 1)];
        // The first gap is 50 s long, the second 100 s; a start takes 60 s.
        let expected = [(40, 2), (400, 1), (440, 2), (900, 1)];
        assert_eq!(plan(1, &[60], &needs), expected);
    }

    #[test]
    fn what_is_needed_at_once_is_ordered_at_once() {
        assert_eq!(plan(0, &[60], &[(10, 1), (500, 0)]), [(0, 1), (500, 0)]);
    }

    #[test]
    fn an_order_never_comes_before_a_fall_that_would_cancel_it() {
        // Place 2 falls at 100 for good; place 2 again at 170 with a long start.
        let needs = [(50, 3), (100, 1), (170, 2), (175, 3), (600, 1)];
        let steps = plan(1, &[10, 10, 60, 200], &needs);
        assert!(
            steps.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "{steps:?}"
        );
        assert_eq!(steps.last(), Some(&(600, 1)));
    }
}
