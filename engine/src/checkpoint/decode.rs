//! Values as they are stored, little-endian, into values to compute with.

use half::{bf16, f16};

use crate::config::Dtype;
use crate::weights::HostValues;

/// Appends stored values. `bytes` are whole values.
pub(super) fn append(bytes: &[u8], stored: Dtype, values: &mut HostValues) {
    match (stored, values) {
        (Dtype::F32, HostValues::F32(values)) => values.extend(f32s(bytes)),
        (Dtype::F32, HostValues::Bf16(values)) => values.extend(f32s(bytes).map(bf16::from_f32)),
        (Dtype::Bf16, HostValues::F32(values)) => values.extend(bf16s(bytes).map(bf16::to_f32)),
        (Dtype::Bf16, HostValues::Bf16(values)) => values.extend(bf16s(bytes)),
        (Dtype::F16, HostValues::F32(values)) => values.extend(f16s(bytes).map(f16::to_f32)),
        (Dtype::F16, HostValues::Bf16(values)) => {
            let wide = f16s(bytes).map(f16::to_f32);
            values.extend(wide.map(bf16::from_f32));
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
