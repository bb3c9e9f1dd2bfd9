//! What a machine can do at best, measured in the same run as what is compared with it.

use std::io;
use std::num::NonZeroUsize;

use foresail_reports::bench::{Ceilings, Flops};

use crate::cpu::{Isa, Pool, ceilings};

/// Passes over memory, the best of which counts: machines are shared.
const PASSES: usize = 8;

/// Bursts of arithmetic, likewise; each takes a few milliseconds.
const BURSTS: usize = 40;

/// What so many threads of this CPU do a second, with its best vectors.
///
/// # Errors
/// If the system has not so many threads, or too little memory.
pub fn cpu_ceilings(threads: NonZeroUsize) -> io::Result<Ceilings> {
    let mut pool = Pool::new(threads.get())?;
    let isa = Isa::detect();
    Ok(Ceilings {
        read_bytes_per_s: ceilings::read_bandwidth(&mut pool, isa, PASSES)
            .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?,
        flops_per_s: ceilings::multiply_add_rate(&mut pool, isa, BURSTS),
        flops_of: Flops::F32,
    })
}

/// The higher of each of two measurements.
#[must_use]
pub fn higher(one: Ceilings, other: Ceilings) -> Ceilings {
    Ceilings {
        read_bytes_per_s: one.read_bytes_per_s.max(other.read_bytes_per_s),
        flops_per_s: one.flops_per_s.max(other.flops_per_s),
        flops_of: one.flops_of,
    }
}
