//! What the machine can do at most, measured: the denominators of every
//! statement about how fast something is.

use std::hint::black_box;
use std::time::Instant;

use super::disjoint::share;
use super::entry::{Entry, F32Entry};
use super::isa::{Isa, Task};
use super::memory::Arena;
use super::pool::Pool;
use super::product::PREFETCH_BYTES;
use super::vector::{LANES, Vector, sum};

/// More than any cache holds (bytes).
const BUFFER_BYTES: usize = 512 << 20;

/// Multiplications and additions that are in flight at once.
const CHAINS: usize = 6;

/// Multiplications and additions of a chain in one burst.
const BURST: usize = 200_000;

/// There is not so much memory (bytes) as reading it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {0} bytes of memory to measure how fast it is read")]
pub struct OutOfMemory(pub usize);

/// How fast all workers together read memory (bytes a second): the best of so
/// many passes over half a gibibyte, each worker over a part of its own. Products
/// read a worker's part from one place or from two, so both are tried.
///
/// # Errors
/// If there is no memory.
pub fn read_bandwidth(pool: &mut Pool, isa: Isa, passes: usize) -> Result<f64, OutOfMemory> {
    // It is memory of the same kind as that of weights, and has been written: what
    // was not may be a single page of zeros.
    let memory = Arena::default().zeros::<F32Entry>(BUFFER_BYTES / size_of::<F32Entry>(), pool);
    let memory = memory.ok_or(OutOfMemory(BUFFER_BYTES))?;
    let (values, _) = F32Entry::values(&memory).as_chunks::<LANES>();
    let workers = pool.workers();
    let seconds = best_of(passes, || {
        pool.run(&|worker| {
            let values = &values[share(values.len(), worker, workers)];
            isa.run(Read::<1> { values });
        });
    });
    let seconds_of_two = best_of(passes, || {
        pool.run(&|worker| {
            let values = &values[share(values.len(), worker, workers)];
            isa.run(Read::<2> { values });
        });
    });
    Ok(size_of_val(values) as f64 / seconds.min(seconds_of_two))
}

/// How fast all workers together multiply and add in f32 (floating-point
/// operations a second, two for each fused pair): the best of so many bursts.
#[must_use]
pub fn multiply_add_rate(pool: &mut Pool, isa: Isa, bursts: usize) -> f64 {
    let operations = 2 * LANES * CHAINS * BURST * pool.workers();
    let seconds = best_of(bursts, || pool.run(&|_| isa.run(MultiplyAdd)));
    operations as f64 / seconds
}

fn best_of(times: usize, mut what: impl FnMut()) -> f64 {
    let seconds = (0..times.max(1)).map(|_| {
        let begin = Instant::now();
        what();
        begin.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}

/// Reads from so many places in turn.
struct Read<'a, const STREAMS: usize> {
    values: &'a [[f32; LANES]],
}

impl<const STREAMS: usize> Task for Read<'_, STREAMS> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let len = self.values.len() / STREAMS;
        let streams: [_; STREAMS] =
            std::array::from_fn(|stream| self.values[stream * len..][..len].as_chunks::<4>().0);
        let mut totals = [V::splat(0.0); 4];
        for place in 0..len / 4 {
            for stream in streams {
                for (total, values) in totals.iter_mut().zip(&stream[place]) {
                    V::prefetch(values.as_ptr().cast(), PREFETCH_BYTES);
                    *total = total.add(V::load(values));
                }
            }
        }
        let [one, two, three, four] = totals;
        black_box(sum(one.add(two).add(three.add(four))));
    }
}

struct MultiplyAdd;

impl Task for MultiplyAdd {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let factor = V::splat(black_box(0.999));
        let addend = V::splat(black_box(0.001));
        let mut totals = [V::splat(1.0); CHAINS];
        for _ in 0..BURST {
            for total in &mut totals {
                *total = total.multiply_add(factor, addend);
            }
        }
        for total in totals {
            black_box(sum(total));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_this_world() {
        let mut pool = Pool::new(2).unwrap();
        for isa in Isa::available() {
            let rate = multiply_add_rate(&mut pool, isa, 1);
            assert!((1e6..1e14).contains(&rate), "{rate} operations a second");
        }
        let rate = read_bandwidth(&mut pool, Isa::detect(), 1).unwrap();
        assert!((1e6..1e14).contains(&rate), "{rate} bytes a second");
    }
}
