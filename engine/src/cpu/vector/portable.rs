//! Vectors as arrays, for processors of which nothing is known. The compiler
//! makes of them what vectors it has.

use super::{LANES, Vector};
use crate::cpu::isa::Task;

#[derive(Clone, Copy)]
pub(in crate::cpu) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn map(self, other: Self, function: impl Fn(f32, f32) -> f32) -> Self {
        let mut lanes = self.0;
        for (lane, other) in lanes.iter_mut().zip(other.0) {
            *lane = function(*lane, other);
        }
        Self(lanes)
    }
}

impl Vector for Portable {
    const TILE_TOKENS: usize = 2;
    const SUMS: usize = 2;

    #[inline(never)]
    fn call<T: Task>(task: T) {
        task.run::<Self>();
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        Self(*values)
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        *values = self.0;
    }

    /// Two roundings, unless the target is known to have an instruction for one:
    /// in software, one rounding takes a hundred times as long.
    #[inline(always)]
    fn multiply_add(self, factor: Self, addend: Self) -> Self {
        let mut lanes = addend.0;
        for (lane, (one, other)) in lanes.iter_mut().zip(self.0.into_iter().zip(factor.0)) {
            if FUSES {
                *lane = one.mul_add(other, *lane);
            } else {
                *lane += one * other;
            }
        }
        Self(lanes)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.map(other, |one, other| one + other)
    }

    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        self.map(other, |one, other| one * other)
    }

    #[inline(always)]
    fn divide(self, other: Self) -> Self {
        self.map(other, |one, other| one / other)
    }

    // As the instructions of x86 have it: the second where either is not a number.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.map(other, |one, other| if one > other { one } else { other })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.map(other, |one, other| if one < other { one } else { other })
    }

    #[inline(always)]
    fn zero_below(self, place: Self, limit: f32) -> Self {
        self.map(
            place,
            |value, place| if place < limit { 0.0 } else { value },
        )
    }

    #[inline(always)]
    fn widen(pairs: &[[u16; 2]; LANES]) -> (Self, Self) {
        let (mut lower, mut upper) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            lower[lane] = f32::from_bits(u32::from(pairs[lane][0]) << 16);
            upper[lane] = f32::from_bits(u32::from(pairs[lane][1]) << 16);
        }
        (Self(lower), Self(upper))
    }

    #[inline(always)]
    fn shift_exponent(self, shift: Self) -> Self {
        self.map(shift, |value, shift| {
            f32::from_bits(value.to_bits().wrapping_add(shift.to_bits() << 23))
        })
    }

    #[inline(always)]
    fn prefetch(_place: *const u8, _bytes_ahead: usize) {}
}

/// Whether the target multiplies and adds in one instruction without being asked for more.
pub(in crate::cpu) const FUSES: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
