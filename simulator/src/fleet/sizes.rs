//! The deployment at each world size that its replicas have, and the bill of each.
//! Most deployments have one; an update to another replaces replicas one by one,
//! so that for a while there are two.

use foresail_core::control::biller::{Biller, GpuTime as Billed};
use foresail_core::control::lifecycle::Spend;
use foresail_core::control::replica_set::Stage;
use foresail_core::step_time::RequestOverhead;
use foresail_core::time::Nanos;
use foresail_reports::records::GpuTime;
use foresail_scenarios::scenario::{Deployment, Scenario};

use crate::SimulationError;

/// Each world size.
pub(super) struct Sizes<'a> {
    all: Vec<Size<'a>>,
}

struct Size<'a> {
    deployment: &'a Deployment,
    biller: Biller,
    /// What a request takes before it comes into the engine.
    overhead: RequestOverhead,
}

impl<'a> Sizes<'a> {
    /// That with which the run begins comes first; the others as they come in the scenario.
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        let first = std::iter::once(&scenario.deployment);
        let size = |deployment: &'a Deployment| Size {
            deployment,
            biller: Biller::new(deployment.price, deployment.billing, deployment.world_size),
            overhead: deployment.request_overhead(),
        };
        Self {
            all: first.chain(&scenario.other_world_sizes).map(size).collect(),
        }
    }

    /// The place of a world size.
    pub(super) fn place(&self, world_size: u32) -> usize {
        let place = (self.all.iter()).position(|size| size.deployment.world_size == world_size);
        place.expect("a scenario has each world size that its operations ask for")
    }

    /// The deployment at that world size.
    pub(super) fn deployment(&self, place: usize) -> &'a Deployment {
        self.all[place].deployment
    }

    /// What a request with so long a prompt takes at a replica of that world size before it comes into the engine.
    #[inline]
    pub(super) fn overhead(&self, place: usize, prompt_tokens: u32) -> Nanos {
        self.all[place].overhead.of(prompt_tokens)
    }

    /// Tells the biller of that world size of a replica.
    pub(super) fn stage_changed(
        &mut self,
        place: usize,
        now: Nanos,
        from: Stage,
        to: Stage,
    ) -> Result<(), SimulationError> {
        Ok(self.all[place].biller.stage_changed(now, from, to)?)
    }

    /// A replica of that world size has computed for so long.
    pub(super) fn busy(&mut self, place: usize, duration: Nanos) {
        self.all[place].biller.busy(duration);
    }

    /// GPU-time of all of them.
    pub(super) fn gpu_time(&self, now: Nanos) -> Result<GpuTime, SimulationError> {
        let mut sum = GpuTime::default();
        for size in &self.all {
            let Billed {
                billed,
                busy,
                idle,
                starting,
                draining,
            } = size.biller.gpu_time(now)?;
            sum.billed += billed;
            sum.busy += busy;
            sum.idle += idle;
            sum.starting += starting;
            sum.draining += draining;
        }
        Ok(sum)
    }

    /// What has been spent, and what is spent an hour while nothing changes.
    pub(super) fn spend(&self, now: Nanos) -> Result<Spend, SimulationError> {
        let mut spend = Spend::default();
        for size in &self.all {
            spend.nanodollars += size.biller.cost_nanodollars(now)?;
            spend.nanodollars_per_hour += size.biller.nanodollars_per_hour();
        }
        Ok(spend)
    }
}
