//! What the sums of ranks take that are threads of this machine.
//!
//! Ranks that do nothing but add up arrive together, and a sum is a copy. Ranks that compute in between do
//! not: each waits for the slowest, asleep if it is long, and has to be woken. So both are measured:
//!
//! ```text
//! sums alone             sum sum sum …                        at least so long
//! work and sums          work sum work sum …   ┐
//! work                   work work …           ┘ what the sums add, with waiting and waking
//! ```

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

/// Values that a rank reads between two sums, and how often: as long as a part of a layer takes.
const WORK_VALUES: usize = 1 << 15;
const WORK_PASSES: usize = 8;

/// How long a sum takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredExchange {
    /// Values of each rank.
    pub values: usize,
    /// What it adds to the time of ranks that compute in between: the median of the rounds, and at
    /// least `alone_seconds` (s).
    pub seconds: f64,
    /// What it takes ranks that do nothing else: the median of the rounds (s).
    pub alone_seconds: f64,
}

/// Times the sums of so many ranks, each a thread, for each number of values. `watch` is asked before every
/// round, and can stop the measurement: there is nothing then.
///
/// # Errors
/// If the system gives no threads.
pub fn measure_exchanges(
    world_size: usize,
    values: &[usize],
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> io::Result<Vec<MeasuredExchange>> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..=ROUNDS {
        if watch().is_break() {
            return Ok(Vec::new());
        }
        rounds.push(round(world_size, values)?);
    }
    // The first round brings threads and memory to where they are in a run.
    let rounds = &rounds[1..];
    let median = |index: usize, of: fn(&Timed) -> f64| {
        let all: Vec<f64> = rounds.iter().map(|round| of(&round[index])).collect();
        Spread::of(&all).map_or(0.0, |spread| spread.median)
    };
    let measured = values.iter().enumerate().map(|(index, &values)| {
        let alone_seconds = median(index, |timed| timed.alone_s);
        let added = median(index, |timed| timed.with_work_s - timed.work_s);
        MeasuredExchange {
            values,
            seconds: added.max(alone_seconds),
            alone_seconds,
        }
    });
    Ok(measured.collect())
}

/// What rank 0 saw of one size in one round, a sum (s).
#[derive(Clone, Copy, Debug)]
struct Timed {
    alone_s: f64,
    with_work_s: f64,
    work_s: f64,
}

/// What a sum of each size takes, as rank 0 sees it.
fn round(world_size: usize, values: &[usize]) -> io::Result<Vec<Timed>> {
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
                    // Those that had begun panic at the broken exchange; a panic that nobody has
                    // looked at would become the scope's.
                    for thread in began {
                        drop(thread.join());
                    }
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

fn sums(rank: &mut Threads, values: &[usize]) -> Vec<Timed> {
    let mine: Vec<f32> = (0..WORK_VALUES).map(|place| place as f32).collect();
    let time = |&count: &usize| {
        let mut sums = vec![0.0; count];
        let mut timed = |works: bool, adds: bool| {
            // So that the timed ones begin together.
            rank.all_reduce(&mut sums);
            let began = Instant::now();
            for _ in 0..SUMS {
                if works {
                    work(&mine);
                }
                if adds {
                    rank.all_reduce(&mut sums);
                }
            }
            began.elapsed().as_secs_f64() / SUMS as f64
        };
        Timed {
            alone_s: timed(false, true),
            with_work_s: timed(true, true),
            work_s: timed(true, false),
        }
    };
    values.iter().map(time).collect()
}

/// Something to do between two sums.
fn work(values: &[f32]) {
    for _ in 0..WORK_PASSES {
        let sum: f32 = std::hint::black_box(values).iter().sum();
        std::hint::black_box(sum);
    }
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
        let is_sound =
            |one: &MeasuredExchange| one.seconds >= one.alone_seconds && one.alone_seconds > 0.0;
        assert!(measured.iter().all(is_sound), "{measured:?}");
        assert_eq!(rounds, ROUNDS + 1);
        let stopped = measure_exchanges(2, &[1], &mut || ControlFlow::Break(())).unwrap();
        assert!(stopped.is_empty());
    }
}
