//! Weights from nothing: the same on every device and for every partition, as
//! each value is a formula of the seed, the tensor's name and its place in the whole tensor.
//!
//! ```text
//! key     = mix(seed xor fnv1a(name))
//! z       = mix(key + (index + 1) * 0x9e3779b97f4a7c15)       index = row * columns + column
//! s       = the sum of the four 16-bit parts of z             0 ..= 262140
//! c       = 2 s - 262139                                      odd, so never 0
//! matrix, bias:   c * 2^-22
//! norm scale: 1 + c * 2^-22
//! ```
//!
//! All of it is in wrapping 64-bit integers; the last line is exact in f32 (`c`
//! has 19 bits), whether or not it is contracted to a fused multiply-add, so any
//! device has the same bits. Weights "stored" as bf16 are that, rounded to nearest even.
//!
//! `z` is output `index` of SplitMix64 with state `key` (Steele, Lea and Flood
//! 2014, "Fast splittable pseudorandom number generators", figure 17, with the
//! constants of `java.util.SplittableRandom`). The sum of four uniform numbers is
//! close to normal (Irwin and Hall 1927), here with standard deviation
//! `2 sqrt((65536² - 1) / 3) * 2^-22 = 0.018`, near the 0.02 with which these families
//! are initialised (`initializer_range` of Hugging Face transformers).

use half::f16;

use crate::config::{Dtype, ModelConfig};
use crate::weights::HostValues;

use super::decode;
use super::error::CheckpointError;
use super::layout::{Piece, Tensor, TensorKind};
use super::load::TensorSource;

/// The increment of SplitMix64: 2^64 divided by the golden ratio, made odd.
const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// Weights of any shape, from a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DummyWeights {
    /// Other seeds give other weights.
    pub seed: u64,
    /// What the values are rounded to, as if they were stored so.
    pub dtype: Dtype,
}

impl DummyWeights {
    /// Where the counter of a tensor begins, for devices that make its values themselves.
    #[must_use]
    pub fn key(&self, name: &str) -> u64 {
        mix(self.seed ^ fnv1a(name))
    }
}

impl TensorSource for DummyWeights {
    fn check(&self, _config: &ModelConfig) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn dtype(&self, _tensor: &Tensor) -> Result<Dtype, CheckpointError> {
        Ok(self.dtype)
    }

    fn read(&self, piece: &Piece, values: &mut HostValues) -> Result<(), CheckpointError> {
        let key = self.key(&piece.tensor.name);
        let offset = match piece.tensor.kind {
            TensorKind::Matrix | TensorKind::Bias => 0.0,
            TensorKind::NormScales => 1.0,
        };
        for row in piece.rows.clone() {
            let first = row * piece.tensor.columns + piece.columns.start;
            // The counter goes on by addition, so that no value waits for a multiplication of it.
            let mut state = key.wrapping_add((first as u64).wrapping_mul(INCREMENT));
            let generated = piece.columns.clone().map(|_| {
                state = state.wrapping_add(INCREMENT);
                offset + centred(state) * SCALE
            });
            append(generated, self.dtype, values);
        }
        Ok(())
    }
}

/// By what the integers are multiplied.
const SCALE: f32 = 1.0 / (1 << 22) as f32;

/// The 64-bit FNV-1a hash (Fowler, Noll and Vo; RFC 9923).
fn fnv1a(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The output function of SplitMix64.
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `c` of the formula, of a counter; f32 holds it exactly.
fn centred(state: u64) -> f32 {
    let z = mix(state);
    // Two additions of two parts each, side by side in one word.
    let pairs = (z & 0x0000_ffff_0000_ffff).wrapping_add((z >> 16) & 0x0000_ffff_0000_ffff);
    let sum = (pairs as u32).wrapping_add((pairs >> 32) as u32);
    (sum as i32).wrapping_mul(2).wrapping_sub(262_139) as f32
}

/// Appends values, rounded to what they are stored as, and then to what is wanted.
fn append(generated: impl Iterator<Item = f32>, stored: Dtype, values: &mut HostValues) {
    match (stored, values) {
        (Dtype::F32, HostValues::F32(values)) => values.extend(generated),
        (Dtype::Bf16, HostValues::F32(values)) => {
            values.extend(generated.map(|value| decode::rounded(value).to_f32()));
        }
        (Dtype::F32 | Dtype::Bf16, HostValues::Bf16(values)) => {
            values.extend(generated.map(decode::rounded));
        }
        (Dtype::F16, HostValues::F32(values)) => {
            values.extend(generated.map(|value| f16::from_f32(value).to_f32()));
        }
        (Dtype::F16, HostValues::Bf16(values)) => {
            let stored = generated.map(|value| f16::from_f32(value).to_f32());
            values.extend(stored.map(decode::rounded));
        }
    }
}
