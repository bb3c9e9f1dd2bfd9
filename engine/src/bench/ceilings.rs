//! What a machine can do at best, measured in the same run as what is compared with it.

use std::io;
use std::num::NonZeroUsize;

use foresail_reports::bench::Ceilings;

use crate::cpu::{Isa, Pool, ceilings};

/// Passes over memory, the best of which counts: machines are shared.
const PASSES: usize = 8;

/// Bursts of arithmetic, likewise; each takes a few milliseconds.
const BURSTS: usize = 40;

/// What so many threads of this CPU do a second, with its best vectors.
///
/// # Errors
/// If the system has not so many threads.
pub fn cpu_ceilings(threads: NonZeroUsize) -> io::Result<Ceilings> {
    let mut pool = Pool::new(threads.get())?;
    let isa = Isa::detect();
    Ok(Ceilings {
        read_bytes_per_s: ceilings::read_bandwidth(&mut pool, isa, PASSES),
        f32_flops_per_s: ceilings::multiply_add_rate(&mut pool, isa, BURSTS),
    })
}
