//! Values as they are stored, little-endian, into values to compute with.

use half::{bf16, f16};

use crate::config::Dtype;
use crate::weights::HostValues;

/// Appends stored values. `bytes` are whole values.
pub(super) fn append(bytes: &[u8], stored: Dtype, values: &mut HostValues) {
    match (stored, values) {
        (Dtype::F32, HostValues::F32(values)) => values.extend(f32s(bytes)),
        (Dtype::F32, HostValues::Bf16(values)) => values.extend(f32s(bytes).map(rounded)),
        (Dtype::Bf16, HostValues::F32(values)) => values.extend(bf16s(bytes).map(bf16::to_f32)),
        (Dtype::Bf16, HostValues::Bf16(values)) => values.extend(bf16s(bytes)),
        (Dtype::F16, HostValues::F32(values)) => values.extend(f16s(bytes).map(f16::to_f32)),
        (Dtype::F16, HostValues::Bf16(values)) => {
            let wide = f16s(bytes).map(f16::to_f32);
            values.extend(wide.map(rounded));
        }
    }
}

fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|chunk| f32::from_le_bytes(*chunk))
}

fn bf16s(bytes: &[u8]) -> impl Iterator<Item = bf16> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|chunk| bf16::from_le_bytes(*chunk))
}

fn f16s(bytes: &[u8]) -> impl Iterator<Item = f16> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|chunk| f16::from_le_bytes(*chunk))
}

/// The nearest bf16, ties to even. The same as `bf16::from_f32`, which is a call and a branch a value
/// and takes five times as long.
pub(super) fn rounded(value: f32) -> bf16 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    // Rounding could turn a NaN into an infinity: it stays one, and quiet.
    let not_a_number = (bits >> 16) | 0x40;
    let upper = if value.is_nan() {
        not_a_number
    } else {
        nearest
    };
    bf16::from_bits(upper as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rounding_is_that_of_the_number_format(bits: u32) {
            let value = f32::from_bits(bits);
            prop_assert_eq!(rounded(value).to_bits(), bf16::from_f32(value).to_bits());
        }
    }

    #[test]
    fn ties_and_extremes_are_rounded_as_the_number_format_says() {
        for bits in [
            0,
            0x8000,
            0x1_8000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7f80_0001,
            0xffff_ffff,
        ] {
            let value = f32::from_bits(bits);
            assert_eq!(rounded(value).to_bits(), bf16::from_f32(value).to_bits());
        }
    }
}
