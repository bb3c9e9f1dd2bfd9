//! What the machine can do at most, measured: the denominators of every
//! statement about how fast something is.

use std::hint::black_box;
use std::time::Instant;

use super::disjoint::share;
use super::isa::{Isa, Task};
use super::pool::Pool;
use super::vector::{LANES, Vector, sum};

/// More than any cache holds (bytes).
const BUFFER_BYTES: usize = 512 << 20;

/// Multiplications and additions that are in flight at once.
const CHAINS: usize = 6;

/// Multiplications and additions of a chain in one burst.
const BURST: usize = 200_000;

/// How fast all workers together read memory (bytes a second): the best of so
/// many passes over half a gibibyte, each worker over a part of its own.
#[must_use]
pub fn read_bandwidth(pool: &mut Pool, isa: Isa, passes: usize) -> f64 {
    // Ones, as memory that was never written may be a single page of zeros.
    let memory = vec![[1.0_f32; LANES]; BUFFER_BYTES / size_of::<[f32; LANES]>()];
    let workers = pool.workers();
    let seconds = best_of(passes, || {
        pool.run(&|worker| {
            let values = &memory[share(memory.len(), worker, workers)];
            isa.run(Read { values });
        });
    });
    size_of_val(memory.as_slice()) as f64 / seconds
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

struct Read<'a> {
    values: &'a [[f32; LANES]],
}

impl Task for Read<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        // As far ahead as products ask for weights.
        const AHEAD_BYTES: usize = 1024;
        let mut totals = [V::splat(0.0); 4];
        let (fours, _) = self.values.as_chunks::<4>();
        for four in fours {
            for (total, values) in totals.iter_mut().zip(four) {
                V::prefetch(values.as_ptr().cast(), AHEAD_BYTES);
                *total = total.add(V::load(values));
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
        let rate = read_bandwidth(&mut pool, Isa::detect(), 1);
        assert!((1e6..1e14).contains(&rate), "{rate} bytes a second");
    }
}
