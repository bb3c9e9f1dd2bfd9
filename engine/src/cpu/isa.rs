//! Which vector instructions there are, found out once at run time.

#![allow(
    unsafe_code,
    reason = "functions for processors that have the instructions"
)]

#[cfg(target_arch = "x86_64")]
use super::vector::{Avx2, Avx512};
use super::vector::{Portable, Vector};

/// A set of vector instructions that kernels can use.
///
/// Those that [fuse](Self::fuses) multiplication and addition give the same
/// results as each other, to the last bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512F, with AVX2 and FMA beside it, of x86-64.
    Avx512,
    /// AVX2 and FMA, of x86-64.
    Avx2,
    /// Whatever the compiler makes of plain loops.
    Portable,
}

/// Something to compute with vectors, whichever they are.
///
/// `run`, and every function that it calls with vectors, has to be
/// `#[inline(always)]`: what is not inlined is compiled for any processor.
pub(super) trait Task {
    fn run<V: Vector>(self);
}

impl Isa {
    /// The best that this processor has.
    #[must_use]
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// All that this processor has, the best first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let all = [Self::Avx512, Self::Avx2, Self::Portable];
        all.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this processor has it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            // Whatever has AVX-512F has AVX2, but a hypervisor may hide one and not the other.
            Self::Avx512 => std::arch::is_x86_feature_detected!("avx512f") && has_avx2_and_fma(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => has_avx2_and_fma(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }

    /// Whether a product and a sum are rounded once, together.
    #[must_use]
    pub fn fuses(self) -> bool {
        self != Self::Portable || super::vector::FUSES
    }

    /// Most tokens that a tile of a matrix product has.
    pub(super) fn tile_tokens(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::TILE_TOKENS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::TILE_TOKENS,
            _ => Portable::TILE_TOKENS,
        }
    }

    /// Runs a task with these instructions.
    ///
    /// # Panics
    /// If the processor does not have them.
    #[inline]
    pub(super) fn run<T: Task>(self, task: T) {
        assert!(self.is_available(), "the processor has {self:?}");
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::call(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::call(task),
            _ => Portable::call(task),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2_and_fma() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_something_to_compute_with() {
        let available = Isa::available();
        assert_eq!(available.last(), Some(&Isa::Portable));
        assert_eq!(available[0], Isa::detect());
    }
}
