//! What a deployment costs: GPU-time by state, and exact money.
//!
//! The biller is told when a replica changes stage, and how long replicas
//! computed. It keeps a count and a sum for each state, not a record for each
//! replica, so every call is O(1); money is rounded once, when it is asked for.

mod price;

pub use price::{Price, PriceError};

use thiserror::Error;

use crate::control::replica_set::Stage;
use crate::time::Nanos;

/// Which parts of a replica's life are billed. Ready always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BillingRule {
    /// Whether starting is billed.
    pub starting: bool,
    /// Whether draining is billed.
    pub draining: bool,
}

/// GPU-time by state [GPU ns]. `starting + idle + busy + draining` is all that was held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuTime {
    /// What is paid for, by the billing rule.
    pub billed: u128,
    /// Ready, with a step in flight.
    pub busy: u128,
    /// Ready, with nothing to do.
    pub idle: u128,
    /// Asked for and not ready yet.
    pub starting: u128,
    /// From the order to drain until gone.
    pub draining: u128,
}

impl GpuTime {
    /// All that was held.
    #[must_use]
    pub fn held(&self) -> u128 {
        self.starting + self.idle + self.busy + self.draining
    }
}

/// A report that cannot be true: a bug of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BillerError {
    /// Reports come in order of time.
    #[error("billing cannot go back from {last} ns to {now} ns")]
    TimeWentBack {
        /// The time of this report.
        now: Nanos,
        /// The time of the last report.
        last: Nanos,
    },
    /// No replica is in the stage that one is said to leave.
    #[error("no replica is {stage:?}")]
    NobodyThere {
        /// The stage.
        stage: Stage,
    },
    /// Replicas cannot have computed for longer than they were ready.
    #[error("replicas were busy for {busy} ns but ready for {ready} ns")]
    BusierThanReady {
        /// Time busy, over all replicas [replica ns].
        busy: u128,
        /// Time ready, over all replicas [replica ns].
        ready: u128,
    },
    /// The cost does not fit in 128 bits of nanodollars.
    #[error("the cost is too large to count")]
    Overflow,
}

/// Replicas in one state, and the time that all have spent in it.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    replicas: u32,
    replica_ns: u128,
}

impl State {
    fn replica_ns_after(self, elapsed: Nanos) -> u128 {
        self.replica_ns + u128::from(self.replicas) * u128::from(elapsed)
    }
}

/// Adds up what a deployment holds and what that costs.
#[derive(Clone, Debug)]
pub struct Biller {
    price: Price,
    rule: BillingRule,
    world_size: u32,
    /// Up to when the times below count.
    last: Nanos,
    starting: State,
    ready: State,
    draining: State,
    busy_replica_ns: u128,
}

impl Biller {
    /// A biller at time 0, of a deployment without replicas.
    #[must_use]
    pub fn new(price: Price, rule: BillingRule, world_size: u32) -> Self {
        Biller {
            price,
            rule,
            world_size,
            last: 0,
            starting: State::default(),
            ready: State::default(),
            draining: State::default(),
            busy_replica_ns: 0,
        }
    }

    /// A replica went from one stage to another. It comes from [`Stage::Gone`]
    /// when it is asked for, and ends there.
    ///
    /// # Errors
    /// If time went back, or no replica is in the stage that it leaves. Nothing
    /// is counted then.
    pub fn stage_changed(&mut self, now: Nanos, from: Stage, to: Stage) -> Result<(), BillerError> {
        let elapsed = self.elapsed(now)?;
        if self.state(from).is_some_and(|state| state.replicas == 0) {
            return Err(BillerError::NobodyThere { stage: from });
        }
        for state in [&mut self.starting, &mut self.ready, &mut self.draining] {
            state.replica_ns = state.replica_ns_after(elapsed);
        }
        self.last = now;
        if let Some(state) = self.state(from) {
            state.replicas -= 1;
        }
        if let Some(state) = self.state(to) {
            state.replicas += 1;
        }
        Ok(())
    }

    /// A replica that is ready has computed for so long. Of a step that was under
    /// way when its replica was told to drain, only the time before counts: what
    /// follows is draining.
    pub fn busy(&mut self, duration: Nanos) {
        self.busy_replica_ns += u128::from(duration);
    }

    /// The GPU-time up to `now`. Steps that are still under way count as idle
    /// until they are reported.
    ///
    /// # Errors
    /// If time went back, or replicas were busier than they were ready.
    pub fn gpu_time(&self, now: Nanos) -> Result<GpuTime, BillerError> {
        let elapsed = self.elapsed(now)?;
        let gpus = u128::from(self.world_size);
        let ready = self.ready.replica_ns_after(elapsed);
        let busy = self.busy_replica_ns;
        let idle = ready
            .checked_sub(busy)
            .ok_or(BillerError::BusierThanReady { busy, ready })?;
        let starting = gpus * self.starting.replica_ns_after(elapsed);
        let draining = gpus * self.draining.replica_ns_after(elapsed);
        let billed_if = |billed: bool, gpu_ns: u128| if billed { gpu_ns } else { 0 };
        Ok(GpuTime {
            billed: gpus * ready
                + billed_if(self.rule.starting, starting)
                + billed_if(self.rule.draining, draining),
            busy: gpus * busy,
            idle: gpus * idle,
            starting,
            draining,
        })
    }

    /// What the deployment costs up to `now` [1e-9 USD], rounded half up.
    ///
    /// # Errors
    /// As [`Biller::gpu_time`], or if the cost is too large to count.
    pub fn cost_nanodollars(&self, now: Nanos) -> Result<u128, BillerError> {
        let billed = self.gpu_time(now)?.billed;
        self.price
            .cost_nanodollars(billed)
            .ok_or(BillerError::Overflow)
    }

    /// What it goes on to cost while nothing changes [1e-9 USD/h].
    #[must_use]
    pub fn nanodollars_per_hour(&self) -> u128 {
        let billed_if = |billed: bool, state: State| if billed { state.replicas } else { 0 };
        let replicas = u128::from(self.ready.replicas)
            + u128::from(billed_if(self.rule.starting, self.starting))
            + u128::from(billed_if(self.rule.draining, self.draining));
        let gpus = replicas * u128::from(self.world_size);
        gpus * u128::from(self.price.nanodollars_per_gpu_hour)
    }

    fn elapsed(&self, now: Nanos) -> Result<Nanos, BillerError> {
        now.checked_sub(self.last).ok_or(BillerError::TimeWentBack {
            now,
            last: self.last,
        })
    }

    fn state(&mut self, stage: Stage) -> Option<&mut State> {
        match stage {
            Stage::Pending | Stage::Downloading | Stage::Initialising => Some(&mut self.starting),
            Stage::Ready => Some(&mut self.ready),
            Stage::Draining => Some(&mut self.draining),
            Stage::Gone => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{HOUR, SECOND};
    use Stage::{Draining, Gone, Initialising, Pending, Ready};
    use proptest::prelude::*;

    const EIGHT_DOLLARS: Price = Price {
        nanodollars_per_gpu_hour: 8_000_000_000,
    };
    const READY_ONLY: BillingRule = BillingRule {
        starting: false,
        draining: false,
    };

    #[test]
    fn a_life_is_split_by_state_and_billed_by_the_rule() {
        let life = |rule| {
            let mut biller = Biller::new(EIGHT_DOLLARS, rule, 2);
            let steps = [
                (0, Gone, Pending),
                (60, Pending, Initialising),
                (90, Initialising, Ready),
            ];
            for (at, from, to) in steps {
                biller
                    .stage_changed(at * SECOND, from, to)
                    .expect("in order");
            }
            biller.busy(300 * SECOND);
            biller
                .stage_changed(1_090 * SECOND, Ready, Draining)
                .expect("in order");
            biller
                .stage_changed(1_100 * SECOND, Draining, Gone)
                .expect("in order");
            let end = 5_000 * SECOND;
            (
                biller.gpu_time(end).expect("it is the end"),
                biller.cost_nanodollars(end).expect("it is small"),
            )
        };
        let gpu_seconds = |n: u128| n * u128::from(SECOND);
        let (time, cost) = life(READY_ONLY);
        assert_eq!(time.starting, gpu_seconds(180));
        assert_eq!(time.busy, gpu_seconds(600));
        assert_eq!(time.idle, gpu_seconds(1_400));
        assert_eq!(time.draining, gpu_seconds(20));
        assert_eq!(time.billed, gpu_seconds(2_000));
        // 2000 GPU-seconds at 8 USD an hour are 4.444444444... USD.
        assert_eq!(cost, 4_444_444_444);
        let everything = BillingRule {
            starting: true,
            draining: true,
        };
        let (time, _) = life(everything);
        assert_eq!(time.billed, time.held());
    }

    #[test]
    fn money_is_rounded_once_and_half_up() {
        let price = Price {
            nanodollars_per_gpu_hour: 1,
        };
        let half_hour = u128::from(HOUR) / 2;
        assert_eq!(price.cost_nanodollars(half_hour - 1), Some(0));
        assert_eq!(price.cost_nanodollars(half_hour), Some(1));
        assert_eq!(price.cost_nanodollars(3 * half_hour), Some(2));
        // Many small pieces cost what they cost together.
        let mut biller = Biller::new(price, READY_ONLY, 1);
        for hour in 0..10 {
            biller
                .stage_changed(hour * HOUR, Gone, Ready)
                .expect("in order");
            biller
                .stage_changed(hour * HOUR + HOUR / 4, Ready, Gone)
                .expect("in order");
        }
        assert_eq!(biller.cost_nanodollars(10 * HOUR), Ok(3));
    }

    #[test]
    fn a_thousand_replicas_of_eight_gpus_for_a_year_fit() {
        let year = 365 * 24 * HOUR;
        let mut biller = Biller::new(EIGHT_DOLLARS, READY_ONLY, 8);
        for _ in 0..1_000 {
            biller.stage_changed(0, Gone, Ready).expect("in order");
        }
        let dollars = 1_000 * 8 * 365 * 24 * 8;
        assert_eq!(biller.cost_nanodollars(year), Ok(dollars * 1_000_000_000));
        // Even at the highest price there is.
        let dearest = Price {
            nanodollars_per_gpu_hour: u64::MAX,
        };
        let gpu_ns = biller.gpu_time(year).expect("it is the end").billed;
        let expected = 1_000 * 8 * 365 * 24 * u128::from(u64::MAX);
        assert_eq!(dearest.cost_nanodollars(gpu_ns), Some(expected));
        assert_eq!(dearest.cost_nanodollars(u128::MAX), None);
    }

    #[test]
    fn what_cannot_be_is_an_error_and_counts_nothing() {
        let mut biller = Biller::new(EIGHT_DOLLARS, READY_ONLY, 1);
        let nobody = Err(BillerError::NobodyThere { stage: Ready });
        assert_eq!(biller.stage_changed(5, Ready, Draining), nobody);
        biller.stage_changed(5, Gone, Ready).expect("in order");
        let back = BillerError::TimeWentBack { now: 4, last: 5 };
        assert_eq!(biller.stage_changed(4, Ready, Gone), Err(back));
        assert_eq!(biller.gpu_time(4), Err(back));
        biller.busy(11);
        let busier = BillerError::BusierThanReady {
            busy: 11,
            ready: 10,
        };
        assert_eq!(biller.gpu_time(15), Err(busier));
        assert_eq!(biller.gpu_time(16).map(|time| time.billed), Ok(11));
    }

    proptest! {
        /// Independent lives: start, ready, drain, gone, each after some time.
        #[test]
        fn the_states_add_up_to_all_that_was_held(
            lives in prop::collection::vec([0_u64..100, 0..100, 0..100, 0..100, 0..101], 0..20),
            world_size in 1_u32..9,
        ) {
            let mut biller = Biller::new(EIGHT_DOLLARS, READY_ONLY, world_size);
            let mut changes = Vec::new();
            let (mut held, mut ready, mut busy) = (0, 0, 0);
            for [start, starting, serving, draining, percent_busy] in lives {
                changes.push((start, Gone, Pending));
                changes.push((start + starting, Pending, Ready));
                changes.push((start + starting + serving, Ready, Draining));
                changes.push((start + starting + serving + draining, Draining, Gone));
                held += starting + serving + draining;
                ready += serving;
                busy += serving * percent_busy / 100;
                biller.busy(serving * percent_busy / 100);
            }
            changes.sort_by_key(|change| change.0);
            for (now, from, to) in changes {
                prop_assert_eq!(biller.stage_changed(now, from, to), Ok(()));
            }
            let time = biller.gpu_time(400).expect("it is the end");
            let gpus = u128::from(world_size);
            prop_assert_eq!(time.held(), gpus * u128::from(held));
            prop_assert_eq!(time.billed, gpus * u128::from(ready));
            prop_assert_eq!(time.busy, gpus * u128::from(busy));
        }
    }
}
