//! Memory that workers write at the same time, each in places of its own.

#![allow(
    unsafe_code,
    reason = "that places are disjoint is known only to the kernels"
)]

use std::marker::PhantomData;
use std::ops::Range;

/// A slice of which each worker writes a part that no other worker touches.
pub(super) struct Disjoint<'a, T> {
    first: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are `&mut [T]`, which may be sent where `T` may; that they do not overlap is up to the callers of `part` and `set`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(whole: &'a mut [T]) -> Self {
        Self {
            first: whole.as_mut_ptr(),
            len: whole.len(),
            borrowed: PhantomData,
        }
    }

    /// A part of it.
    ///
    /// # Safety
    /// While the part is in use, no other worker uses any of the same places.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "parts that are in use do not overlap")]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds, and nobody else's, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.len()) }
    }

    /// Writes one place.
    ///
    /// # Safety
    /// At the same time, no other worker reads or writes this place.
    #[inline(always)]
    pub(super) unsafe fn set(&self, place: usize, value: T)
    where
        T: Copy,
    {
        assert!(place < self.len);
        // SAFETY: in bounds, and nobody else's, as the caller promises.
        unsafe { self.first.add(place).write(value) }
    }
}

/// A worker's share of so many things: contiguous, and even to within one.
pub(super) fn share(things: usize, worker: usize, workers: usize) -> Range<usize> {
    things * worker / workers..things * (worker + 1) / workers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_the_whole_and_even() {
        for (things, workers) in [(0, 3), (1, 2), (7, 3), (60, 8)] {
            let shares: Vec<_> = (0..workers).map(|w| share(things, w, workers)).collect();
            assert_eq!(shares[0].start, 0);
            assert_eq!(shares[workers - 1].end, things);
            assert!(shares.windows(2).all(|two| two[0].end == two[1].start));
            assert!(
                shares
                    .iter()
                    .all(|s| s.len().abs_diff(things / workers) <= 1)
            );
        }
    }
}
