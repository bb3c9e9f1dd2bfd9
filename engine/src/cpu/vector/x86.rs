//! Vectors of x86-64: one register of AVX-512, or two of AVX2.

#![allow(unsafe_code, reason = "instructions that not every processor has")]

use std::arch::x86_64::*;

use super::{LANES, Vector};
use crate::cpu::isa::Task;

/// One register of AVX-512 (`avx512f`, and `avx2` and `fma` for what is compiled beside it).
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx512(__m512);

// SAFETY, of every block below: `Isa::run` is alone in choosing this type, after
// it has seen that the processor has AVX-512F, AVX2 and FMA; pointers are those
// of references to as much as is read or written.
impl Vector for Avx512 {
    // 12 * 2 sums, 4 weights and a value: 29 of 32 registers.
    const TILE_TOKENS: usize = 12;
    const SUMS: usize = 24;

    #[inline(always)]
    fn call<T: Task>(task: T) {
        #[target_feature(enable = "avx512f,avx2,fma")]
        #[inline(never)]
        fn call<T: Task>(task: T) {
            task.run::<Avx512>();
        }
        // SAFETY: see above.
        unsafe { call(task) }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_loadu_ps(values.as_ptr())) }
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn multiply_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn divide(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_div_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_min_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn zero_below(self, place: Self, limit: f32) -> Self {
        // SAFETY: see above.
        unsafe {
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(place.0, _mm512_set1_ps(limit));
            Self(_mm512_maskz_mov_ps(!below, self.0))
        }
    }

    #[inline(always)]
    fn widen(pairs: &[[u16; 2]; LANES]) -> (Self, Self) {
        // SAFETY: see above.
        unsafe {
            let pairs = _mm512_loadu_si512(pairs.as_ptr().cast());
            let lower = _mm512_slli_epi32::<16>(pairs);
            let upper = _mm512_and_si512(pairs, _mm512_set1_epi32(UPPER_HALF));
            let both = (_mm512_castsi512_ps(lower), _mm512_castsi512_ps(upper));
            (Self(both.0), Self(both.1))
        }
    }

    #[inline(always)]
    fn shift_exponent(self, shift: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let shift = _mm512_slli_epi32::<23>(_mm512_castps_si512(shift.0));
            let sum = _mm512_add_epi32(_mm512_castps_si512(self.0), shift);
            Self(_mm512_castsi512_ps(sum))
        }
    }

    #[inline(always)]
    fn prefetch(place: *const u8, bytes_ahead: usize) {
        prefetch(place, bytes_ahead);
    }
}

/// Two registers of AVX2 (`avx2` and `fma`).
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx2(__m256, __m256);

impl Avx2 {
    #[inline(always)]
    fn map(self, other: Self, function: impl Fn(__m256, __m256) -> __m256) -> Self {
        Self(function(self.0, other.0), function(self.1, other.1))
    }
}

// SAFETY, of every block below: `Isa::run` is alone in choosing this type, after
// it has seen that the processor has AVX2 and FMA; pointers are those of
// references to as much as is read or written.
impl Vector for Avx2 {
    // 6 * 2 sums, 2 weights and a value: 15 of 16 registers.
    const TILE_TOKENS: usize = 6;
    const SUMS: usize = 6;

    #[inline(always)]
    fn call<T: Task>(task: T) {
        #[target_feature(enable = "avx2,fma")]
        #[inline(never)]
        fn call<T: Task>(task: T) {
            task.run::<Avx2>();
        }
        // SAFETY: see above.
        unsafe { call(task) }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        let (lower, upper) = values.split_at(LANES / 2);
        // SAFETY: see above.
        unsafe {
            let lower = _mm256_loadu_ps(lower.as_ptr());
            Self(lower, _mm256_loadu_ps(upper.as_ptr()))
        }
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        let (lower, upper) = values.split_at_mut(LANES / 2);
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(lower.as_mut_ptr(), self.0);
            _mm256_storeu_ps(upper.as_mut_ptr(), self.1);
        }
    }

    #[inline(always)]
    fn multiply_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let lower = _mm256_fmadd_ps(self.0, factor.0, addend.0);
            Self(lower, _mm256_fmadd_ps(self.1, factor.1, addend.1))
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        self.map(other, |one, other| unsafe { _mm256_add_ps(one, other) })
    }

    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        // SAFETY: see above.
        self.map(other, |one, other| unsafe { _mm256_mul_ps(one, other) })
    }

    #[inline(always)]
    fn divide(self, other: Self) -> Self {
        // SAFETY: see above.
        self.map(other, |one, other| unsafe { _mm256_div_ps(one, other) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        self.map(other, |one, other| unsafe { _mm256_max_ps(one, other) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        self.map(other, |one, other| unsafe { _mm256_min_ps(one, other) })
    }

    #[inline(always)]
    fn zero_below(self, place: Self, limit: f32) -> Self {
        // SAFETY: see above.
        self.map(place, |value, place| unsafe {
            let below = _mm256_cmp_ps::<_CMP_LT_OQ>(place, _mm256_set1_ps(limit));
            _mm256_andnot_ps(below, value)
        })
    }

    #[inline(always)]
    fn widen(pairs: &[[u16; 2]; LANES]) -> (Self, Self) {
        let (first, second) = pairs.split_at(LANES / 2);
        // SAFETY: see above.
        unsafe {
            let first = _mm256_loadu_si256(first.as_ptr().cast());
            let second = _mm256_loadu_si256(second.as_ptr().cast());
            let lower = |pairs| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
            let mask = _mm256_set1_epi32(UPPER_HALF);
            let upper = |pairs| _mm256_castsi256_ps(_mm256_and_si256(pairs, mask));
            let lower = Self(lower(first), lower(second));
            (lower, Self(upper(first), upper(second)))
        }
    }

    #[inline(always)]
    fn shift_exponent(self, shift: Self) -> Self {
        // SAFETY: see above.
        self.map(shift, |value, shift| unsafe {
            let shift = _mm256_slli_epi32::<23>(_mm256_castps_si256(shift));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value), shift))
        })
    }

    #[inline(always)]
    fn prefetch(place: *const u8, bytes_ahead: usize) {
        prefetch(place, bytes_ahead);
    }
}

/// The upper of two bf16 in 32 bits, which so is an f32.
const UPPER_HALF: i32 = 0xffff_0000_u32.cast_signed();

#[inline(always)]
fn prefetch(place: *const u8, bytes_ahead: usize) {
    // SAFETY: a prefetch is a hint and reads nothing, wherever it points (SSE is
    // part of x86-64).
    unsafe { _mm_prefetch::<_MM_HINT_T0>(place.wrapping_add(bytes_ahead).cast()) }
}
