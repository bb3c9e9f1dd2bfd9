//! What the sums of ranks take that are threads of this machine.

use std::io;
use std::ops::ControlFlow;
use std::thread;
use std::time::Instant;

use super::rounds::Spread;
use crate::comm::{Comm as _, Exchange, Threads};

/// Rounds of all sizes, one after the other, so that a slow moment is not a size's.
const ROUNDS: usize = 25;

/// Sums in a row that are timed together: one alone is as short as the clock's own noise.
const SUMS: usize = 8;

/// How long a sum takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredExchange {
    /// Values of each rank.
    pub values: usize,
    /// The median of the rounds (s).
    pub seconds: f64,
}

/// Times the sums of so many ranks, each a thread that computes nothing else, for each number of values.
/// `watch` is asked before every round, and can stop the measurement: there is nothing then.
///
/// # Errors
/// If the system gives no threads.
pub fn measure_exchanges(
    world_size: usize,
    values: &[usize],
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> io::Result<Vec<MeasuredExchange>> {
    let mut seconds = vec![Vec::with_capacity(ROUNDS); values.len()];
    for _ in 0..=ROUNDS {
        if watch().is_break() {
            return Ok(Vec::new());
        }
        let round = round(world_size, values)?;
        for (all, one) in seconds.iter_mut().zip(round) {
            all.push(one);
        }
    }
    let measured = values.iter().zip(&seconds).filter_map(|(&values, all)| {
        // The first round brings threads and memory to where they are in a run.
        let spread = Spread::of(&all[1..])?;
        Some(MeasuredExchange {
            values,
            seconds: spread.median,
        })
    });
    Ok(measured.collect())
}

/// What a sum of each size takes, as rank 0 sees it.
fn round(world_size: usize, values: &[usize]) -> io::Result<Vec<f64>> {
    let (exchange, mut ranks) = Exchange::world(world_size);
    let others = ranks.split_off(1);
    let mut first = ranks.pop().expect("a world has at least one rank");
    thread::scope(|scope| {
        let mut began = Vec::with_capacity(others.len());
        for mut rank in others {
            let thread = thread::Builder::new().spawn_scoped(scope, move || {
                sums(&mut rank, values);
                // Kept until all are done: a rank that leaves breaks the others' exchange.
                rank
            });
            match thread {
                Ok(thread) => began.push(thread),
                Err(error) => {
                    exchange.break_up();
                    return Err(error);
                }
            }
        }
        let seconds = sums(&mut first, values);
        for thread in began {
            drop(thread.join());
        }
        Ok(seconds)
    })
}

fn sums(rank: &mut Threads, values: &[usize]) -> Vec<f64> {
    let time = |&count: &usize| {
        let mut mine = vec![0.0; count];
        // So that the timed ones begin together.
        rank.all_reduce(&mut mine);
        let began = Instant::now();
        for _ in 0..SUMS {
            rank.all_reduce(&mut mine);
        }
        began.elapsed().as_secs_f64() / SUMS as f64
    };
    values.iter().map(time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_a_time_and_a_stop_is_heard() {
        let mut rounds = 0;
        let mut watch = || {
            rounds += 1;
            ControlFlow::Continue(())
        };
        let measured = measure_exchanges(2, &[1, 100], &mut watch).unwrap();
        assert_eq!(
            measured.iter().map(|one| one.values).collect::<Vec<_>>(),
            [1, 100]
        );
        assert!(measured.iter().all(|one| one.seconds > 0.0));
        assert_eq!(rounds, ROUNDS + 1);
        let stopped = measure_exchanges(2, &[1], &mut || ControlFlow::Break(())).unwrap();
        assert!(stopped.is_empty());
    }
}
