//! The number formats of what kernels stream: weights, keys and values.

#![allow(unsafe_code, reason = "an entry is also seen as its values")]

use half::bf16;

use super::vector::{LANES, Vector};

/// Two columns of sixteen rows, as they lie in memory: what one load of bf16,
/// or two of f32, brings. Columns are in pairs because a register of bf16 pairs
/// becomes two of f32 by a shift and a mask, without moving anything between lanes.
pub(super) trait Entry: Copy + Default + Send + Sync + 'static {
    /// A single value.
    type Value: Copy + Default + Send + 'static;

    /// Values in an entry.
    const VALUES: usize = 2 * LANES;

    /// The even column and the odd one.
    fn widen<V: Vector>(&self) -> (V, V);

    /// Where a value is among an entry's: `odd` is 0 or 1.
    fn place(lane: usize, odd: usize) -> usize;

    /// A value in this format, rounded to nearest even.
    fn value(value: f32) -> Self::Value;

    /// Values, entry after entry.
    fn values(entries: &[Self]) -> &[Self::Value];

    /// Values, entry after entry, to be written.
    fn values_mut(entries: &mut [Self]) -> &mut [Self::Value];

    /// What a value is.
    fn to_f32(value: Self::Value) -> f32;

    /// Its value at a lane of the even (0) or the odd (1) column.
    #[inline(always)]
    fn at(&self, lane: usize, odd: usize) -> f32 {
        let values = Self::values(std::slice::from_ref(self));
        Self::to_f32(values[Self::place(lane, odd)])
    }
}

/// An entry in bf16: pairs of an even and an odd column, lane after lane.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub(super) struct Bf16Entry([[u16; 2]; LANES]);

/// An entry in f32: all lanes of the even column, then of the odd one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub(super) struct F32Entry([[f32; LANES]; 2]);

impl Entry for Bf16Entry {
    type Value = u16;

    #[inline(always)]
    fn widen<V: Vector>(&self) -> (V, V) {
        V::widen(&self.0)
    }

    #[inline(always)]
    fn place(lane: usize, odd: usize) -> usize {
        2 * lane + odd
    }

    #[inline(always)]
    fn value(value: f32) -> u16 {
        bf16::from_f32(value).to_bits()
    }

    #[inline(always)]
    fn to_f32(value: u16) -> f32 {
        f32::from_bits(u32::from(value) << 16)
    }

    #[inline(always)]
    fn values(entries: &[Self]) -> &[u16] {
        as_values(entries)
    }

    #[inline(always)]
    fn values_mut(entries: &mut [Self]) -> &mut [u16] {
        as_values_mut(entries)
    }
}

impl Entry for F32Entry {
    type Value = f32;

    #[inline(always)]
    fn widen<V: Vector>(&self) -> (V, V) {
        (V::load(&self.0[0]), V::load(&self.0[1]))
    }

    #[inline(always)]
    fn place(lane: usize, odd: usize) -> usize {
        odd * LANES + lane
    }

    #[inline(always)]
    fn value(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn to_f32(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn values(entries: &[Self]) -> &[f32] {
        as_values(entries)
    }

    #[inline(always)]
    fn values_mut(entries: &mut [Self]) -> &mut [f32] {
        as_values_mut(entries)
    }
}

#[inline(always)]
fn as_values<E: Entry>(entries: &[E]) -> &[E::Value] {
    const { assert!(size_of::<E>() == E::VALUES * size_of::<E::Value>()) };
    // SAFETY: an entry is an array of its values without gaps, whose alignment is not smaller.
    unsafe { std::slice::from_raw_parts(entries.as_ptr().cast(), entries.len() * E::VALUES) }
}

#[inline(always)]
fn as_values_mut<E: Entry>(entries: &mut [E]) -> &mut [E::Value] {
    const { assert!(size_of::<E>() == E::VALUES * size_of::<E::Value>()) };
    let len = entries.len() * E::VALUES;
    // SAFETY: as above; any value is one of an entry.
    unsafe { std::slice::from_raw_parts_mut(entries.as_mut_ptr().cast(), len) }
}
