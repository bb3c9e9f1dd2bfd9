//! A [`Backend`] that computes: a model, split over the ranks of a world.
//!
//! ```text
//!                 StepInput ── checked, made flat ──> Batch
//!                                                       │
//!            caller's thread        thread 1        thread n - 1
//!            rank 0: forward        forward   ...   forward          <── Comm: sums and parts
//!                  │
//!               logits ──> sampled tokens
//! ```
//!
//! Rank 0 works on the thread that calls the backend, so a world of one rank
//! has no other thread. Each other rank has a thread that makes its operations
//! and its weights, owns them, and drops them. All get the same batch.
//!
//! A panic in a rank is caught there and breaks the exchange, so that the other
//! ranks do not wait for it; the step fails, and the next one may succeed.

mod plan;
mod rank;

use std::sync::Arc;

use crate::backend::{Backend, Limits, RowOutput, StepError, StepInput};
use crate::choose::Wants;
use crate::comm::{Comm, Exchange, Modelled, Solo};
use crate::config::{ModelConfig, Partition, PartitionError};
use crate::ops::Ops;
use crate::weights::Adapter;

use self::plan::Plan;
pub use self::rank::Rank;
use self::rank::{Failure, Follower, Order, attempt, caught};

/// Which ranks there are, and where.
#[derive(Clone, Debug)]
pub enum World {
    /// This many, all here.
    Ranks(usize),
    /// One of several, the others nowhere: for timing only, as its results are wrong.
    Shard(Modelled),
    /// This many, all here, which compute side by side and exchange nothing: for timing only as well.
    Apart(usize),
}

/// A model on the ranks of a world.
pub struct RankBackend<O: Ops> {
    leader: Rank<O>,
    followers: Vec<Follower>,
    /// Between the leader and the followers.
    exchange: Exchange,
    config: Arc<ModelConfig>,
    limits: Limits,
    /// Which slots have an adapter.
    loaded: Vec<bool>,
    /// Whether a rank's device failed while others went on: what they exchange next would not belong together.
    is_apart: bool,
}

/// Why a world could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RankError<E> {
    /// The model cannot be split like this.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// A rank could not be made.
    #[error(transparent)]
    Make(E),
    /// A rank panicked while it was made.
    #[error("rank {rank} failed to start: {reason}")]
    Panicked {
        /// Which.
        rank: usize,
        /// What it said.
        reason: String,
    },
}

impl<O: Ops + 'static> RankBackend<O> {
    /// Makes every rank, all at once, each on the thread that it stays on: `make`
    /// is given the rank's end of the exchange, and loads its weights.
    ///
    /// # Errors
    /// If the model cannot be split over the world, or the first rank, in order, that could not be made.
    pub fn start<E: Send + 'static>(
        world: World,
        config: Arc<ModelConfig>,
        limits: Limits,
        make: impl Fn(Box<dyn Comm>) -> Result<Rank<O>, E> + Send + Sync + 'static,
    ) -> Result<Self, RankError<E>> {
        let (exchange, mut comms) = ends(world, &config)?;
        let make = Arc::new(make);
        let others = comms.split_off(1);
        let starting: Vec<_> = (1..)
            .zip(others)
            .map(|(rank, comm)| Follower::start(rank, comm, &exchange, &make))
            .collect();
        let first = comms.pop().expect("a world has at least one rank");
        let leader = caught(&exchange, || make(first));
        // All are waited for, so that no thread is left behind by an error.
        let started: Vec<_> = starting.into_iter().map(|start| start.finish()).collect();
        let leader = leader.map_err(|failure| panicked(0, failure))?;
        let leader = leader.map_err(RankError::Make)?;
        let followers = started.into_iter().collect::<Result<_, _>>()?;
        Ok(Self {
            leader,
            followers,
            exchange,
            loaded: vec![false; limits.max_loras],
            is_apart: false,
            config,
            limits,
        })
    }

    /// Ranks whose work is done here.
    #[must_use]
    pub fn ranks(&self) -> usize {
        1 + self.followers.len()
    }

    /// Has every rank do the same thing, and the leader `then` as well.
    fn all<T>(
        &mut self,
        order: &Order,
        then: impl FnOnce(&mut Rank<O>) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        for follower in &self.followers {
            follower.order(order.clone());
        }
        let leader = &mut self.leader;
        let done = attempt(&self.exchange, || then(leader));
        let answers = (1..).zip(self.followers.iter().map(Follower::answer));
        let failed = answers.filter_map(|(rank, answer)| Some((rank, answer.err()?)));
        let mut failures: Vec<_> = failed.collect();
        match done {
            Ok(value) if failures.is_empty() => Ok(value),
            done => {
                // Every rank has answered, so none is in an exchange any more.
                self.exchange.mend();
                failures.extend(done.err().map(|failure| (0, failure)));
                let is_of_device =
                    |(_, failure): &(usize, Failure)| matches!(failure, Failure::Failed(_));
                self.is_apart |= self.ranks() > 1 && failures.iter().any(is_of_device);
                Err(cause(failures))
            }
        }
    }
}

/// The ends of a world's exchange, in the order of ranks.
fn ends(
    world: World,
    config: &ModelConfig,
) -> Result<(Exchange, Vec<Box<dyn Comm>>), PartitionError> {
    match world {
        World::Ranks(1) => {
            Partition::check(config, 1)?;
            Ok((Exchange::world(1).0, vec![Box::new(Solo)]))
        }
        World::Ranks(world_size) => {
            Partition::check(config, world_size)?;
            let (exchange, ranks) = Exchange::world(world_size);
            let boxed = |comm| Box::new(comm) as Box<dyn Comm>;
            Ok((exchange, ranks.into_iter().map(boxed).collect()))
        }
        World::Shard(shard) => {
            Partition::check(config, shard.partition().world_size)?;
            Ok((Exchange::world(1).0, vec![Box::new(shard)]))
        }
        World::Apart(world_size) => {
            Partition::check(config, world_size)?;
            let ranks = (0..world_size).map(|rank| Partition { rank, world_size });
            let boxed =
                |partition| Box::new(Modelled::free(partition, config.vocab_size)) as Box<dyn Comm>;
            Ok((Exchange::world(1).0, ranks.map(boxed).collect()))
        }
    }
}

fn panicked<E>(rank: usize, failure: Failure) -> RankError<E> {
    let reason = failure.to_string();
    RankError::Panicked { rank, reason }
}

/// What a step failed of: the first failure that is not another one's consequence.
fn cause(mut failures: Vec<(usize, Failure)>) -> StepError {
    failures.sort_by_key(|(rank, failure)| (*failure == Failure::OfAnother, *rank));
    let (rank, failure) = &failures[0];
    StepError(format!("rank {rank} failed: {failure}"))
}

impl<O> Backend for RankBackend<O>
where
    O: Ops + Send + 'static,
    O::Matrix: Send,
    O::Buffer: Send,
{
    fn step(&mut self, step: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        let plan = Plan::new(step, &self.config, &self.limits, &self.loaded)?;
        // Other ranks are told batch by batch.
        let is_alone = self.followers.is_empty() && plan.passes.len() == 1;
        let ahead = if is_alone { step.ahead } else { 0 };
        let mut outputs = vec![RowOutput::default(); step.rows.len()];
        for pass in plan.passes {
            let batch = Arc::new(pass.batch);
            let order = Order::Forward(Arc::clone(&batch));
            let wants = Wants {
                wants: &pass.wants,
                rows: &step.rows,
                ahead,
            };
            let chosen = self.all(&order, |rank| {
                rank.compute(&batch, Some(&wants))?;
                rank.ops.choose(&wants)
            })?;
            for (want, choice) in pass.wants.iter().zip(chosen) {
                choice.add_to(&mut outputs[want.row]);
            }
        }
        Ok(outputs)
    }

    fn warm_up_steps(&self) -> usize {
        self.leader.ops.warm_up_steps()
    }

    fn warm_up_batches(&self) -> Vec<usize> {
        self.leader.ops.warm_up_batches()
    }

    fn take_busy_seconds(&mut self) -> Option<f64> {
        self.leader.ops.take_busy_seconds()
    }

    fn is_lost(&self) -> bool {
        self.is_apart || self.leader.ops.is_lost()
    }

    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError> {
        plan::check_adapter(slot, adapter, &self.config, &self.limits, &self.loaded)?;
        let adapter = Arc::new(adapter.clone());
        let order = Order::Load(slot, Arc::clone(&adapter));
        let loaded = self.all(&order, |rank| rank.load_adapter(slot, &adapter));
        self.loaded[slot] = true;
        if loaded.is_err() {
            // Some ranks may have it.
            self.unload_adapter(slot);
        }
        loaded
    }

    fn unload_adapter(&mut self, slot: usize) {
        if let Some(loaded) = self.loaded.get_mut(slot) {
            *loaded = false;
            // A slot that could not be emptied is overwritten by its next adapter.
            let _ = self.all(&Order::Unload(slot), |rank| {
                rank.unload_adapter(slot);
                Ok(())
            });
        }
    }
}
