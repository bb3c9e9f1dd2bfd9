//! Sixteen f32 at a time, whatever the processor has for it.
//!
//! A [`Vector`] always has sixteen lanes: one AVX-512 register, two of AVX2, or
//! an array. So every kernel is written once, and gives the same bits on
//! each: lanes never meet but in [`sum`] and [`largest`], whose order is fixed.
//!
//! Values of a vector type are made in [`super::isa::Isa::run`] and in what it
//! calls, after it has seen that the processor has the instructions: that is why
//! the operations are safe functions.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use portable::{FUSES, Portable};
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

use super::isa::Task;

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// Sixteen f32.
pub(super) trait Vector: Copy {
    /// Most tokens that a tile of a matrix product has: as many sums as there are registers for.
    const TILE_TOKENS: usize;
    /// Most sums, of a token and a panel, that a tile of a matrix product has.
    const SUMS: usize;

    /// Runs a task in a function of its own, which may use the instructions of this vector.
    /// It is compiled once for all that run tasks of this type.
    fn call<T: Task>(task: T);

    fn splat(value: f32) -> Self;
    fn load(values: &[f32; LANES]) -> Self;
    fn store(self, values: &mut [f32; LANES]);
    /// `self * factor + addend`, rounded once where the processor can.
    fn multiply_add(self, factor: Self, addend: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn multiply(self, other: Self) -> Self;
    fn divide(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    /// Lanes that are below the limit become zero.
    fn zero_below(self, place: Self, limit: f32) -> Self;
    /// The lower and the upper halves of each pair of bf16, widened.
    fn widen(pairs: &[[u16; 2]; LANES]) -> (Self, Self);
    /// Adds the integer in the lowest bits of `shift` to the exponent.
    fn shift_exponent(self, shift: Self) -> Self;
    /// Asks for the cache line at so many bytes from a place, which may be anywhere.
    fn prefetch(place: *const u8, bytes_ahead: usize);
}

/// The sum of all lanes, in halves: lane `i` and lane `i + 8` first.
#[inline(always)]
pub(super) fn sum<V: Vector>(vector: V) -> f32 {
    let mut lanes = [0.0; LANES];
    vector.store(&mut lanes);
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest of all lanes.
#[inline(always)]
pub(super) fn largest<V: Vector>(vector: V) -> f32 {
    let mut lanes = [0.0; LANES];
    vector.store(&mut lanes);
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// `exp(x)`, within 2 units in the last place; 0 below -87.3, and the value at 88 above 88.
///
/// `exp(x) = 2ⁿ exp(r)`, with `n` the integer next to `x / ln 2`, and `r` within
/// ± ln 2 / 2, where the polynomial of the Cephes library (`expf.c`, S. Moshier) is used.
#[inline(always)]
pub(super) fn exp<V: Vector>(x: V) -> V {
    // Adding 1.5 * 2^23 leaves the integer in the lowest bits of the sum.
    const ROUNDER: f32 = 12_582_912.0;
    // Both parts of ln 2, so that the product with the upper is exact (Cody and Waite 1980).
    const LN_2_UPPER: f32 = 355.0 / 512.0;
    const LN_2_LOWER: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    const LOWEST: f32 = -87.3;
    let bounded = x.max(V::splat(LOWEST)).min(V::splat(88.0));
    let shift = bounded.multiply_add(V::splat(std::f32::consts::LOG2_E), V::splat(ROUNDER));
    let n = shift.add(V::splat(-ROUNDER));
    let r = n.multiply_add(V::splat(-LN_2_UPPER), bounded);
    let r = n.multiply_add(V::splat(-LN_2_LOWER), r);
    let mut polynomial = V::splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        polynomial = polynomial.multiply_add(r, V::splat(*coefficient));
    }
    let exp = polynomial.multiply_add(r.multiply(r), r.add(V::splat(1.0)));
    exp.shift_exponent(shift).zero_below(x, LOWEST)
}

/// `x / (1 + exp(-x))` (Elfwing et al. 2017).
#[inline(always)]
pub(super) fn silu<V: Vector>(x: V) -> V {
    let exp = exp(x.multiply(V::splat(-1.0)));
    x.divide(exp.add(V::splat(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    struct Map<'a> {
        function: &'a str,
        input: &'a [[f32; LANES]],
        output: &'a mut Vec<[f32; LANES]>,
    }

    impl Task for Map<'_> {
        #[inline(always)]
        fn run<V: Vector>(self) {
            for values in self.input {
                let x = V::load(values);
                let y = match self.function {
                    "exp" => exp(x),
                    "silu" => silu(x),
                    _ => V::splat(sum(x)),
                };
                let mut result = [0.0; LANES];
                y.store(&mut result);
                self.output.push(result);
            }
        }
    }

    fn map(isa: Isa, function: &str, input: &[[f32; LANES]]) -> Vec<[f32; LANES]> {
        let mut output = Vec::new();
        isa.run(Map {
            function,
            input,
            output: &mut output,
        });
        output
    }

    fn ramp(from: f32, to: f32, steps: usize) -> Vec<[f32; LANES]> {
        let at = |step: usize| from + (to - from) * step as f32 / (steps * LANES) as f32;
        (0..steps)
            .map(|step| std::array::from_fn(|lane| at(step * LANES + lane)))
            .collect()
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let input = ramp(-87.0, 88.0, 20_000);
        for isa in Isa::available() {
            let output = map(isa, "exp", &input);
            for (x, y) in input.iter().flatten().zip(output.iter().flatten()) {
                let exact = f64::from(*x).exp();
                let error = (f64::from(*y) - exact).abs() / exact;
                assert!(
                    error < 2.0 * f64::from(f32::EPSILON),
                    "{isa:?}: exp({x}) is {y}"
                );
            }
        }
    }

    #[test]
    fn exp_ends_in_zero_and_never_in_infinity() {
        for isa in Isa::available() {
            let mut input = [0.0; LANES];
            input[..4].copy_from_slice(&[f32::NEG_INFINITY, -100.0, 89.0, f32::INFINITY]);
            let output = map(isa, "exp", &[input])[0];
            assert_eq!(output[..2], [0.0, 0.0]);
            assert!(output[2].is_finite() && output[3].is_finite());
            assert_eq!(output[4..], [1.0; 12]);
        }
    }

    #[test]
    fn silu_is_itself_far_to_the_right_and_zero_far_to_the_left() {
        for isa in Isa::available() {
            let mut input = [0.0; LANES];
            input[..3].copy_from_slice(&[200.0, -200.0, 1.0]);
            let output = map(isa, "silu", &[input])[0];
            assert_eq!(output[0], 200.0);
            assert!(output[1].abs() < 1e-30);
            assert!((output[2] - 0.731_058_6).abs() < 1e-6);
            assert_eq!(output[3], 0.0);
        }
    }

    #[test]
    fn all_instruction_sets_agree_to_the_last_bit() {
        let input = ramp(-90.0, 90.0, 1000);
        for function in ["exp", "silu", "sum"] {
            let mut of_each = Isa::available()
                .into_iter()
                .filter(|isa| isa.fuses())
                .map(|isa| map(isa, function, &input));
            let first = of_each.next();
            for other in of_each {
                assert_eq!(first.as_ref(), Some(&other), "{function}");
            }
        }
    }
}
