//! Named random streams: each stochastic component draws from its own
//! generator, derived from (seed, name). Turning one knob does not reshuffle
//! the others, so two scenarios with one seed see the same arrivals
//! (common random numbers).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The generator of every stream. ChaCha8 is specified and portable: a seed
/// gives the same numbers on every machine and in every release.
pub type Stream = ChaCha8Rng;

/// The stream of this name under this seed.
#[must_use]
pub fn stream(seed: u64, name: &str) -> Stream {
    numbered_stream(seed, name, 0)
}

/// One of many streams of a name, each as independent of the others as of those
/// of other names: for what is drawn for one request, whatever is drawn for others.
#[must_use]
pub fn numbered_stream(seed: u64, name: &str, number: u64) -> Stream {
    // FNV-1a (Fowler, Noll, Vo), 64 bits: names are few and short, and the
    // hash must never change.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let mut key = [0_u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    key[16..24].copy_from_slice(&number.to_le_bytes());
    Stream::from_seed(key)
}

/// A number below `end`, each as likely but for one part in 2^32, while `end` is below that.
///
/// # Panics
/// If `end` is 0.
#[must_use]
pub fn below(rng: &mut Stream, end: usize) -> usize {
    (rng.next_u64() % end as u64) as usize
}

/// A seed of its own for the part of a run that has this name.
#[must_use]
pub fn derived(seed: u64, name: &str) -> u64 {
    stream(seed, &format!("seed.{name}")).next_u64()
}
