//! Memory that steps stream: weights, keys and values.
//!
//! It is in huge pages where the system gives them to who asks, as Linux does
//! by default. A step reads all weights once, and so meets each page once: with
//! pages of 4 KiB a core looks up an address every few hundred nanoseconds, and
//! the processor's own prefetching ends at each. Most matrices are smaller than a
//! huge page, so many share one: an [`Arena`] deals them out of large chunks.

#![allow(unsafe_code, reason = "memory with an alignment of its own")]

use std::alloc::{Layout, alloc, dealloc};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::disjoint::{Disjoint, share};
use super::entry::Entry;
use super::pool::Pool;

/// A huge page of x86-64, and of AArch64 with pages of 4 KiB.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What is asked of the system at once, if no matrix is larger. What is not used of
/// it is never touched, and so takes no memory.
const CHUNK_BYTES: usize = 32 << 20;

/// Deals out memory.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// The chunk that has room left, and how much of it is used (bytes).
    chunk: Option<(Arc<Chunk>, usize)>,
}

/// Entries at a place of their own in a chunk, which is given back to the
/// system when nobody has entries in it.
#[derive(Debug)]
pub(super) struct Region<E> {
    first: NonNull<E>,
    len: usize,
    /// Keeps the memory.
    _chunk: Arc<Chunk>,
    owns: PhantomData<E>,
}

/// A stretch of memory that begins with a huge page.
#[derive(Debug)]
struct Chunk {
    first: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a region is the only one that has its entries.
unsafe impl<E: Send> Send for Region<E> {}
// SAFETY: as above, and they change only through `&mut`.
unsafe impl<E: Sync> Sync for Region<E> {}
// SAFETY: a chunk is used only through its regions, and to free it.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Arena {
    /// So many entries of zeros, or nothing if there is no memory. Memory is slow
    /// when it is touched for the first time, so all workers do that, each to its share.
    pub(super) fn zeros<E: Entry>(&mut self, len: usize, pool: &mut Pool) -> Option<Region<E>> {
        let bytes = len.checked_mul(size_of::<E>())?;
        let (chunk, used) = match self.chunk.take() {
            Some((chunk, used)) if bytes <= chunk.layout.size() - used => (chunk, used),
            _ => (Arc::new(Chunk::new(bytes.max(CHUNK_BYTES))?), 0),
        };
        // SAFETY: `used` is at most the size of the chunk.
        let first = unsafe { chunk.first.add(used) }.cast::<E>();
        assert!(first.is_aligned(), "all entries have the same alignment");
        fill(first, len, pool);
        // An entry's size is a multiple of its alignment, and all entries have the same alignment.
        self.chunk = Some((Arc::clone(&chunk), used + bytes));
        Some(Region {
            first,
            len,
            _chunk: chunk,
            owns: PhantomData,
        })
    }
}

/// Writes zeros to memory that was never written.
fn fill<E: Entry>(first: NonNull<E>, len: usize, pool: &mut Pool) {
    // SAFETY: the memory is nobody else's, and `MaybeUninit` may be anything.
    let spare = unsafe { std::slice::from_raw_parts_mut(first.as_ptr().cast(), len) };
    let (spare, workers) = (
        Disjoint::<std::mem::MaybeUninit<E>>::new(spare),
        pool.workers(),
    );
    pool.run(&|worker| {
        // SAFETY: each worker has its own share.
        for entry in unsafe { spare.part(share(len, worker, workers)) } {
            entry.write(E::default());
        }
    });
}

impl<E> Deref for Region<E> {
    type Target = [E];

    #[inline(always)]
    fn deref(&self) -> &[E] {
        // SAFETY: it has so many entries there, all of which were written, and nobody else has them.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<E> DerefMut for Region<E> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [E] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl Chunk {
    fn new(bytes: usize) -> Option<Self> {
        let bytes = bytes.checked_next_multiple_of(HUGE_PAGE_BYTES)?;
        let layout = Layout::from_size_align(bytes, HUGE_PAGE_BYTES).ok()?;
        // SAFETY: the size is not zero.
        let first = NonNull::new(unsafe { alloc(layout) })?;
        ask_for_huge_pages(first, bytes);
        Some(Self { first, layout })
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and no region is left.
        unsafe { dealloc(self.first.as_ptr(), self.layout) }
    }
}

/// Whether the system follows is its own affair: it is as correct without.
#[cfg(target_os = "linux")]
fn ask_for_huge_pages(first: NonNull<u8>, bytes: usize) {
    // SAFETY: the range is whole pages of memory that was allocated, and the advice changes no content.
    unsafe { libc::madvise(first.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_first: NonNull<u8>, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::entry::{Bf16Entry, F32Entry};

    #[test]
    fn regions_are_zeros_and_do_not_overlap() {
        let (mut arena, mut pool) = (Arena::default(), Pool::new(2).unwrap());
        let mut regions: Vec<Region<F32Entry>> = (0..40)
            .map(|place| arena.zeros(place * 700, &mut pool).unwrap())
            .collect();
        for (place, region) in regions.iter_mut().enumerate() {
            assert!(region.iter().all(|entry| *entry == F32Entry::default()));
            F32Entry::values_mut(region).fill(place as f32);
        }
        for (place, region) in regions.iter().enumerate() {
            assert_eq!(region.len(), place * 700);
            let mut values = F32Entry::values(region).iter();
            assert!(values.all(|value| *value == place as f32));
        }
    }

    #[test]
    fn a_region_outlives_its_arena_and_may_be_larger_than_a_chunk() {
        let mut pool = Pool::new(1).unwrap();
        let len = CHUNK_BYTES / size_of::<Bf16Entry>() + 1;
        let region = Arena::default().zeros::<Bf16Entry>(len, &mut pool).unwrap();
        assert!(region.iter().all(|entry| *entry == Bf16Entry::default()));
        assert_eq!(region.len(), len);
    }

    #[test]
    fn more_than_there_is_is_refused() {
        let (mut arena, mut pool) = (Arena::default(), Pool::new(1).unwrap());
        for len in [usize::MAX, usize::MAX / 64, usize::MAX / 256] {
            assert!(arena.zeros::<Bf16Entry>(len, &mut pool).is_none());
        }
        assert!(arena.zeros::<Bf16Entry>(1, &mut pool).is_some());
    }
}
