//! Ranks as threads of one process.
//!
//! Each rank has two places that the others can read. It writes what it has
//! into one of them, meets the others, and reads theirs; in the next exchange
//! it uses the other one. So one barrier an exchange is enough: a place is
//! written again only after a barrier that its last readers have reached.
//!
//! ```text
//! rank 0   write A ─┐          ┌─ read all A   write B ─┐          ┌─ read all B   write A ...
//! rank 1   write A ─┴─ barrier ┴─ read all A   write B ─┴─ barrier ┴─ read all B   write A ...
//! ```

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::Comm;
use super::rendezvous::Rendezvous;
use crate::config::Partition;

/// What a rank's exchange panics with when another rank failed. It says nothing
/// of why: that is for the other rank to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another rank failed")]
pub struct ExchangeBroken;

/// What the ranks of a world share, for whoever watches over them.
#[derive(Clone, Debug)]
pub struct Exchange {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Two places for each rank.
    places: Vec<[RwLock<Vec<f32>>; 2]>,
    rendezvous: Rendezvous,
}

/// One rank among threads. When it is dropped, the others find their exchange broken for good.
#[derive(Debug)]
pub struct Threads {
    partition: Partition,
    shared: Arc<Shared>,
}

impl Exchange {
    /// A world of so many ranks, and the end of each.
    #[must_use]
    pub fn world(world_size: usize) -> (Self, Vec<Threads>) {
        let places = (0..world_size).map(|_| Default::default()).collect();
        let shared = Arc::new(Shared {
            places,
            rendezvous: Rendezvous::new(world_size),
        });
        let rank = |rank| Threads {
            partition: Partition { rank, world_size },
            shared: Arc::clone(&shared),
        };
        let ranks = (0..world_size).map(rank).collect();
        (Self { shared }, ranks)
    }

    /// Makes the exchange of every rank fail, those that wait now included: one of them will not come.
    pub fn break_up(&self) {
        self.shared.rendezvous.break_up();
    }

    /// Undoes [`Exchange::break_up`], when no rank is in an exchange any more.
    pub fn mend(&self) {
        self.shared.rendezvous.mend();
    }
}

impl Threads {
    /// Shows the others `mine`, and waits until all show theirs. Says in which of the places they are.
    fn show(&self, mine: &[f32]) -> usize {
        let parity = (self.shared.rendezvous.round() % 2) as usize;
        let place = &self.shared.places[self.partition.rank][parity];
        {
            let mut place = place.write().unwrap_or_else(PoisonError::into_inner);
            place.clear();
            place.extend_from_slice(mine);
        }
        if self.shared.rendezvous.meet().is_err() {
            // Not `panic!`: the hook would print a trace for each rank that did nothing wrong.
            std::panic::resume_unwind(Box::new(ExchangeBroken));
        }
        parity
    }

    /// What a rank shows.
    fn shown(&self, rank: usize, parity: usize) -> RwLockReadGuard<'_, Vec<f32>> {
        let place = &self.shared.places[rank][parity];
        place.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Comm for Threads {
    fn partition(&self) -> Partition {
        self.partition
    }

    fn all_reduce(&mut self, values: &mut [f32]) {
        let parity = self.show(values);
        for rank in 0..self.partition.world_size {
            let theirs = self.shown(rank, parity);
            assert_eq!(values.len(), theirs.len(), "ranks add up different sums");
            if rank == 0 {
                values.copy_from_slice(&theirs);
                continue;
            }
            for (value, other) in values.iter_mut().zip(theirs.iter()) {
                *value += other;
            }
        }
    }

    fn gather(&mut self, rows: usize, part: &[f32], whole: &mut Vec<f32>) {
        let parity = self.show(part);
        whole.clear();
        if self.partition.rank > 0 || rows == 0 {
            return;
        }
        let ranks = 0..self.partition.world_size;
        let parts: Vec<_> = ranks.map(|rank| self.shown(rank, parity)).collect();
        for row in 0..rows {
            for part in &parts {
                let width = part.len() / rows;
                whole.extend_from_slice(&part[row * width..(row + 1) * width]);
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.rendezvous.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;
    use std::time::Duration;

    /// Long enough for the slowest machine; a test that waits so long has failed.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// What each rank returns, in order.
    fn in_world<T: Send>(world_size: usize, rank: impl Fn(&mut Threads) -> T + Sync) -> Vec<T> {
        let (_exchange, ranks) = Exchange::world(world_size);
        let rank = &rank;
        std::thread::scope(|scope| {
            let threads: Vec<_> = ranks
                .into_iter()
                .map(|mut comm| scope.spawn(move || (rank(&mut comm), comm)))
                .collect();
            // Ranks stay until all are done, as those of a backend do.
            let ended: Vec<_> = threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect();
            ended.into_iter().map(|(result, _)| result).collect()
        })
    }

    /// Values whose sum depends on the order in which they are added.
    fn values(rank: usize, round: usize, len: usize) -> Vec<f32> {
        let value = |place: usize| {
            let mixed = (rank * 7919 + round * 104_729 + place * 31) % 1009;
            (mixed as f32 - 500.0) * 1.000_1_f32.powi((mixed % 97) as i32 * 50)
        };
        (0..len).map(value).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn sums_are_those_of_one_thread_in_the_order_of_ranks(
            world_size in 1_usize..6,
            lens in prop::collection::vec(0_usize..200, 1..20),
        ) {
            let sums = in_world(world_size, |comm| {
                let rank = comm.partition().rank;
                lens.iter().enumerate().map(|(round, &len)| {
                    let mut sum = values(rank, round, len);
                    comm.all_reduce(&mut sum);
                    sum
                }).collect::<Vec<_>>()
            });
            let expected: Vec<Vec<f32>> = lens.iter().enumerate().map(|(round, &len)| {
                let mut sum = values(0, round, len);
                for rank in 1..world_size {
                    let other = values(rank, round, len);
                    sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
                }
                sum
            }).collect();
            for sum in &sums {
                prop_assert_eq!(sum, &expected);
            }
        }

        #[test]
        fn uneven_parts_are_put_side_by_side(
            widths in prop::collection::vec(0_usize..9, 1..6),
            rows in 0_usize..5,
        ) {
            let wholes = in_world(widths.len(), |comm| {
                let rank = comm.partition().rank;
                let part: Vec<f32> = (0..rows * widths[rank])
                    .map(|place| (rank * 1000 + place) as f32)
                    .collect();
                let mut whole = vec![f32::NAN; 3];
                comm.gather(rows, &part, &mut whole);
                whole
            });
            let mut expected = Vec::new();
            for row in 0..rows {
                for (rank, width) in widths.iter().enumerate() {
                    expected.extend((0..*width).map(|column| (rank * 1000 + row * width + column) as f32));
                }
            }
            prop_assert_eq!(&wholes[0], &expected);
            prop_assert!(wholes[1..].iter().all(Vec::is_empty));
        }
    }

    /// What became of rank 0's sum when rank 1 does `instead` of adding up.
    fn when_rank_1(instead: impl FnOnce(Threads, Exchange) + Send + 'static) -> ExchangeBroken {
        let (exchange, mut ranks) = Exchange::world(2);
        let other = ranks.pop().unwrap();
        let mut comm = ranks.pop().unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let sum = catch_unwind(AssertUnwindSafe(|| comm.all_reduce(&mut [1.0])));
            sender.send(sum.map_err(|panic| panic.downcast::<ExchangeBroken>().unwrap()))
        });
        std::thread::spawn(move || instead(other, exchange));
        let told = receiver.recv_timeout(PATIENCE);
        *told.expect("rank 0 hangs").unwrap_err()
    }

    #[test]
    fn a_rank_that_leaves_or_fails_does_not_hang_the_others() {
        assert_eq!(when_rank_1(|comm, _| drop(comm)), ExchangeBroken);
        // Kept, so that it is the failure that is told, not the drop.
        let broken = when_rank_1(|comm, exchange| {
            exchange.break_up();
            std::mem::forget(comm);
        });
        assert_eq!(broken, ExchangeBroken);
    }

    #[test]
    fn a_mended_exchange_adds_up_again() {
        let (exchange, ranks) = Exchange::world(2);
        // Rank 0 is one exchange ahead of rank 1 when it fails.
        exchange.break_up();
        let mut ranks: Vec<_> = ranks.into_iter().collect();
        let failed = catch_unwind(AssertUnwindSafe(|| ranks[0].all_reduce(&mut [7.0])));
        assert!(failed.is_err());
        exchange.mend();
        std::thread::scope(|scope| {
            for comm in &mut ranks {
                scope.spawn(move || {
                    for value in [1.0, 2.0, 3.0] {
                        let mut sum = [value];
                        comm.all_reduce(&mut sum);
                        assert_eq!(sum, [2.0 * value]);
                    }
                });
            }
        });
    }
}
