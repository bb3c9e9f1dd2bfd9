//! One rank: what it computes with, and its thread if it is not rank 0.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::{RankError, panicked};
use crate::backend::StepError;
use crate::batch::Batch;
use crate::choose::Wants;
use crate::comm::{Comm, Exchange, ExchangeBroken};
use crate::model::Model;
use crate::ops::Ops;
use crate::weights::Adapter;

/// What one rank computes with.
pub struct Rank<O: Ops> {
    /// Its operations, with its part of the KV cache.
    pub ops: O,
    /// Its part of the model.
    pub model: Model<O>,
}

impl<O: Ops> Rank<O> {
    /// Computes a batch. The logits are rank 0's; see [`Ops::logits`].
    pub(super) fn compute(
        &mut self,
        batch: &Batch,
        wants: Option<&Wants<'_>>,
    ) -> Result<(), StepError> {
        self.model.compute(&mut self.ops, batch, wants)
    }

    pub(super) fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError> {
        self.ops.load_adapter(slot, adapter)
    }

    pub(super) fn unload_adapter(&mut self, slot: usize) {
        self.ops.unload_adapter(slot);
    }

    fn obey(&mut self, order: &Order) -> Result<(), StepError> {
        match order {
            Order::Forward(batch) => self.compute(batch, None),
            Order::Load(slot, adapter) => self.load_adapter(*slot, adapter),
            Order::Unload(slot) => {
                self.unload_adapter(*slot);
                Ok(())
            }
        }
    }
}

/// What all ranks do together.
#[derive(Clone)]
pub(super) enum Order {
    Forward(Arc<Batch>),
    Load(usize, Arc<Adapter>),
    Unload(usize),
}

/// Why a rank did not do what all do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Its device failed.
    #[error("{0}")]
    Failed(StepError),
    /// It panicked.
    #[error("{0}")]
    Panicked(String),
    /// Another rank failed, which it needed.
    #[error("another rank failed")]
    OfAnother,
}

/// Does something of which a panic ends neither the thread nor the other ranks' patience.
pub(super) fn caught<T>(exchange: &Exchange, work: impl FnOnce() -> T) -> Result<T, Failure> {
    // Whatever a step leaves half done (activations, KV cache) the next one writes before it reads.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        exchange.break_up();
        failure(panic.as_ref())
    })
}

/// The same with something that may fail, which the other ranks need not wait for either.
pub(super) fn attempt<T>(
    exchange: &Exchange,
    work: impl FnOnce() -> Result<T, StepError>,
) -> Result<T, Failure> {
    caught(exchange, work)?.map_err(|error| {
        exchange.break_up();
        Failure::Failed(error)
    })
}

fn failure(panic: &(dyn Any + Send)) -> Failure {
    if panic.is::<ExchangeBroken>() {
        return Failure::OfAnother;
    }
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    Failure::Panicked(text.unwrap_or("a panic without a message").to_owned())
}

/// A rank on a thread of its own. When it is dropped, the thread has ended.
pub(super) struct Follower {
    /// `None` only while it is dropped.
    orders: Option<Sender<Order>>,
    answers: Receiver<Result<(), Failure>>,
    thread: Option<JoinHandle<()>>,
}

/// A follower that is being made.
pub(super) struct Starting<E> {
    follower: Follower,
    rank: usize,
    made: Receiver<Result<Result<(), E>, Failure>>,
}

impl Follower {
    /// Begins to make a rank on its thread.
    pub(super) fn start<O, E, Make>(
        rank: usize,
        comm: Box<dyn Comm>,
        exchange: &Exchange,
        make: &Arc<Make>,
    ) -> Starting<E>
    where
        O: Ops + 'static,
        E: Send + 'static,
        Make: Fn(Box<dyn Comm>) -> Result<Rank<O>, E> + Send + Sync + 'static,
    {
        let (orders, ordered) = channel();
        let (answer, answers) = channel();
        let (tell, made) = channel();
        let (exchange, make) = (exchange.clone(), Arc::clone(make));
        let live = move || match caught(&exchange, || make(comm)) {
            Ok(Ok(made)) => {
                drop(make);
                _ = tell.send(Ok(Ok(())));
                serve(made, &ordered, &answer, &exchange);
            }
            Ok(Err(error)) => _ = tell.send(Ok(Err(error))),
            Err(failure) => _ = tell.send(Err(failure)),
        };
        let thread = Builder::new().name(format!("rank-{rank}")).spawn(live);
        let follower = Self {
            orders: Some(orders),
            answers,
            thread: thread.ok(),
        };
        Starting {
            follower,
            rank,
            made,
        }
    }

    /// Has it do something; [`Follower::answer`] says what came of it.
    pub(super) fn order(&self, order: Order) {
        // If its thread has ended, so has the channel of answers.
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }

    /// Waits until it has done what it was ordered to do.
    pub(super) fn answer(&self) -> Result<(), Failure> {
        let ended = |_| Failure::Panicked("its thread has ended".to_owned());
        self.answers.recv().map_err(ended)?
    }
}

impl<E> Starting<E> {
    /// Waits until it is made.
    pub(super) fn finish(self) -> Result<Follower, RankError<E>> {
        let rank = self.rank;
        // The thread tells before it ends, if there is one.
        let none = |_| Failure::Panicked("the system gives it no thread".to_owned());
        let made = self.made.recv().map_err(none).and_then(|made| made);
        made.map_err(|failure| panicked(rank, failure))?
            .map_err(RankError::Make)?;
        Ok(self.follower)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // It has caught every panic but one of a destructor, which has been printed.
            let _ = thread.join();
        }
    }
}

/// Obeys until there are no more orders to come.
fn serve<O: Ops>(
    mut rank: Rank<O>,
    orders: &Receiver<Order>,
    answers: &Sender<Result<(), Failure>>,
    exchange: &Exchange,
) {
    for order in orders {
        let done = attempt(exchange, || rank.obey(&order));
        drop(order);
        if answers.send(done).is_err() {
            return;
        }
    }
}
