//! Memory of a GPU, and copies to it and from it.
//!
//! The driver copies at full speed, and without being waited for, only from memory that
//! it has pinned. So what is written goes through a ring of pinned parts: it is copied into the one at hand, and
//! from there while the next is filled. A small write of every step costs a copy of its bytes
//! and one call; a large one runs at the speed of whichever is slower, memory or bus.

use super::context::Context;
use crate::cuda::gpu::{Address, GpuError, Reading};
use cudarc::driver::sys;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::thread;

/// Bytes of a part of the ring.
const PART_BYTES: usize = 16 << 20;
/// Parts of the ring.
const PARTS: usize = 4;
/// What each write begins at a multiple of.
const ALIGNMENT: usize = 256;
/// Memory for readings of up to so many bytes is kept for the next.
const READING_BYTES_KEPT: usize = 16 << 20;
/// From so many bytes on, several threads copy: one has about a tenth of what a server's memory can do.
const SHARED_COPY_BYTES: usize = 4 << 20;
/// How many threads.
const COPYING_THREADS: usize = 4;

/// What a GPU's memory is used for.
pub(super) struct Memory {
    /// What was allocated: from each address, so many bytes.
    allocations: BTreeMap<u64, usize>,
    staging: Option<Staging>,
    readings: Vec<Destination>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            allocations: BTreeMap::new(),
            staging: None,
            readings: Vec::new(),
        }
    }

    pub(super) fn free_bytes(context: &mut Context) -> Result<u64, GpuError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: it writes two numbers.
        let code = unsafe { (context.driver.cuMemGetInfo_v2)(&raw mut free, &raw mut total) };
        context.check("asking for free memory", code)?;
        Ok(free as u64)
    }

    pub(super) fn allocate(
        &mut self,
        context: &mut Context,
        bytes: usize,
    ) -> Result<Address, GpuError> {
        let mut at = 0;
        // The driver allocates nothing if it is asked for nothing, and an address must be one's own.
        // SAFETY: it writes one number.
        let code = unsafe { (context.driver.cuMemAlloc_v2)(&raw mut at, bytes.max(1)) };
        if code == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY as u32 {
            return Err(GpuError::OutOfMemory {
                asked: bytes as u64,
                free: Self::free_bytes(context)?,
            });
        }
        context.check("allocating memory", code)?;
        self.allocations.insert(at, bytes);
        Ok(Address(at))
    }

    pub(super) fn free(&mut self, context: &mut Context, at: Address) -> Result<(), GpuError> {
        if self.allocations.remove(&at.0).is_none() {
            return Err(GpuError::Call {
                what: "freeing memory",
                why: format!("nothing was allocated at {at:?}"),
            });
        }
        // SAFETY: it was allocated, and is not any more. The driver waits for what uses it.
        let code = unsafe { (context.driver.cuMemFree_v2)(at.0) };
        context.check("freeing memory", code)
    }

    /// Fails unless so many bytes from there on are all of one allocation.
    fn holds(&self, what: &'static str, at: Address, bytes: usize) -> Result<(), GpuError> {
        let end = at.0.checked_add(bytes as u64);
        let before = self.allocations.range(..=at.0).next_back();
        let holds = before.zip(end).is_some_and(|((from, length), end)| {
            // An address behind the last byte is one of nothing.
            end <= from + *length as u64
        });
        if holds {
            return Ok(());
        }
        Err(GpuError::Call {
            what,
            why: format!("{bytes} bytes at {at:?} are not within what was allocated"),
        })
    }

    pub(super) fn fill(
        &self,
        context: &mut Context,
        at: Address,
        bytes: usize,
        value: u8,
    ) -> Result<(), GpuError> {
        let what = "filling memory";
        self.holds(what, at, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: all these bytes are allocated.
        let code = unsafe { (context.driver.cuMemsetD8Async)(at.0, value, bytes, context.stream) };
        context.check(what, code)
    }

    pub(super) fn write(
        &mut self,
        context: &mut Context,
        to: Address,
        bytes: &[u8],
    ) -> Result<(), GpuError> {
        let what = "copying to the GPU";
        self.holds(what, to, bytes.len())?;
        let staging = match &mut self.staging {
            Some(staging) => staging,
            None => self.staging.insert(Staging::new(context)?),
        };
        let mut done = 0;
        while done < bytes.len() {
            let count = staging.room(context)?.min(bytes.len() - done);
            let from = staging.put(&bytes[done..done + count]);
            // SAFETY: the bytes at the destination are allocated, those at the source are in a part of the ring
            // that is not filled again before an event behind this copy.
            let code = unsafe {
                (context.driver.cuMemcpyHtoDAsync_v2)(
                    to.offset(done).0,
                    from,
                    count,
                    context.stream,
                )
            };
            context.check(what, code)?;
            done += count;
        }
        Ok(())
    }

    /// Copies from one place of the GPU to another.
    pub(super) fn copy(
        &self,
        context: &mut Context,
        from: Address,
        to: Address,
        bytes: usize,
    ) -> Result<(), GpuError> {
        let what = "copying on the GPU";
        self.holds(what, from, bytes)?;
        self.holds(what, to, bytes)?;
        if from == to || bytes == 0 {
            return Ok(());
        }
        // SAFETY: all bytes of both are allocated.
        let code =
            unsafe { (context.driver.cuMemcpyDtoDAsync_v2)(to.0, from.0, bytes, context.stream) };
        context.check(what, code)
    }

    pub(super) fn read(
        &mut self,
        context: &mut Context,
        from: Address,
        bytes: usize,
    ) -> Result<Reading, GpuError> {
        let what = "copying from the GPU";
        self.holds(what, from, bytes)?;
        let index = self.destination(context, bytes)?;
        let destination = &mut self.readings[index];
        if bytes > 0 {
            // SAFETY: the bytes at the source are allocated; there is room for them, which is not
            // read before the event behind this copy.
            let code = unsafe {
                (context.driver.cuMemcpyDtoHAsync_v2)(
                    destination.memory.start.cast(),
                    from.0,
                    bytes,
                    context.stream,
                )
            };
            context.check(what, code)?;
        }
        context.record(destination.arrived)?;
        destination.bytes = Some(bytes);
        Ok(Reading(index))
    }

    /// Pinned memory that nothing is being read to: of those at hand the smallest that is enough, or a new one.
    fn destination(&mut self, context: &mut Context, bytes: usize) -> Result<usize, GpuError> {
        let unused = self.readings.iter().enumerate().filter(|(_, destination)| {
            destination.bytes.is_none() && destination.memory.bytes >= bytes
        });
        let smallest = unused.min_by_key(|(_, destination)| destination.memory.bytes);
        if let Some((index, _)) = smallest {
            return Ok(index);
        }
        let memory = Pinned::new(context, bytes.next_power_of_two().max(4 << 10))?;
        // One that was emptied, if there is one, so that their number does not grow.
        let empty = |destination: &Destination| {
            destination.bytes.is_none() && destination.memory.bytes == 0
        };
        if let Some(index) = self.readings.iter().position(empty) {
            self.readings[index].memory = memory;
            return Ok(index);
        }
        self.readings.push(Destination {
            memory,
            arrived: context.event(false)?,
            bytes: None,
        });
        Ok(self.readings.len() - 1)
    }

    pub(super) fn finish(
        &mut self,
        context: &mut Context,
        reading: Reading,
    ) -> Result<Vec<u8>, GpuError> {
        let destination = self.readings.get_mut(reading.0);
        let Some((destination, bytes)) =
            destination.and_then(|there| there.bytes.take().map(|bytes| (there, bytes)))
        else {
            return Err(GpuError::Call {
                what: "finishing a copy from the GPU",
                why: "it was not begun on this GPU".to_owned(),
            });
        };
        context.wait_for(destination.arrived)?;
        // SAFETY: there are so many bytes, which the copy has written: its event has happened.
        let copied = unsafe { slice::from_raw_parts(destination.memory.start, bytes) }.to_vec();
        if destination.memory.bytes > READING_BYTES_KEPT {
            destination.memory.release(context);
        }
        Ok(copied)
    }

    /// Gives everything back. Nothing may be under way any more.
    pub(super) fn release(&mut self, context: &mut Context) {
        for (at, _) in std::mem::take(&mut self.allocations) {
            // SAFETY: it was allocated, and is forgotten.
            unsafe { (context.driver.cuMemFree_v2)(at) };
        }
        for mut destination in self.readings.drain(..) {
            destination.memory.release(context);
            // SAFETY: it was made by this context, and is forgotten.
            unsafe { (context.driver.cuEventDestroy_v2)(destination.arrived) };
        }
        if let Some(mut staging) = self.staging.take() {
            staging.memory.release(context);
            for part in staging.parts {
                // SAFETY: it was made by this context, and is forgotten.
                unsafe { (context.driver.cuEventDestroy_v2)(part.copied) };
            }
        }
    }
}

/// Memory of the host that the driver has pinned. It is not freed by itself, as that takes a context.
struct Pinned {
    start: *mut u8,
    bytes: usize,
}

impl Pinned {
    fn new(context: &mut Context, bytes: usize) -> Result<Self, GpuError> {
        let mut start: *mut c_void = ptr::null_mut();
        // SAFETY: it writes one address.
        let code = unsafe { (context.driver.cuMemHostAlloc)(&raw mut start, bytes, 0) };
        context.check("pinning memory of the host", code)?;
        let start = start.cast();
        // So that all of it is initialised, and its pages are there before the first copy.
        // SAFETY: there are so many bytes, and no one else has them.
        unsafe { ptr::write_bytes(start, 0, bytes) };
        Ok(Self { start, bytes })
    }

    fn release(&mut self, context: &mut Context) {
        if !self.start.is_null() {
            // SAFETY: it was pinned by this context, and is forgotten.
            unsafe { (context.driver.cuMemFreeHost)(self.start.cast()) };
        }
        *self = Self {
            start: ptr::null_mut(),
            bytes: 0,
        };
    }
}

/// Where a reading arrives.
struct Destination {
    memory: Pinned,
    arrived: sys::CUevent,
    /// What is being read; `None` if nothing is.
    bytes: Option<usize>,
}

/// The ring that writes go through.
struct Staging {
    memory: Pinned,
    parts: [Part; PARTS],
    current: usize,
    used: usize,
}

#[derive(Clone, Copy)]
struct Part {
    /// Behind the last copy from it.
    copied: sys::CUevent,
    /// Whether that event was recorded since it was last waited for.
    leaving: bool,
}

impl Staging {
    fn new(context: &mut Context) -> Result<Self, GpuError> {
        let mut parts = [Part {
            copied: ptr::null_mut(),
            leaving: false,
        }; PARTS];
        for part in &mut parts {
            part.copied = context.event(false)?;
        }
        Ok(Self {
            memory: Pinned::new(context, PARTS * PART_BYTES)?,
            parts,
            current: 0,
            used: 0,
        })
    }

    /// Bytes that there is room for, at least one: if the part is full, after the next has been copied from.
    fn room(&mut self, context: &mut Context) -> Result<usize, GpuError> {
        if self.used == PART_BYTES {
            context.record(self.parts[self.current].copied)?;
            self.parts[self.current].leaving = true;
            self.current = (self.current + 1) % PARTS;
            self.used = 0;
            let next = &mut self.parts[self.current];
            if next.leaving {
                next.leaving = false;
                context.wait_for(next.copied)?;
            }
        }
        Ok(PART_BYTES - self.used)
    }

    /// Copies bytes, for which there is room, into the part. Says where they are.
    fn put(&mut self, bytes: &[u8]) -> *const c_void {
        let offset = self.current * PART_BYTES + self.used;
        assert!(bytes.len() <= PART_BYTES - self.used, "there is room");
        // SAFETY: these bytes are within the ring and initialised, and nothing copies from them: the
        // part was waited for, and no byte of it is used twice before it is left.
        let to = unsafe { slice::from_raw_parts_mut(self.memory.start.add(offset), bytes.len()) };
        copy(bytes, to);
        self.used = after(self.used, bytes.len());
        to.as_ptr().cast()
    }
}

/// Where the next write begins in a part of the ring.
fn after(used: usize, bytes: usize) -> usize {
    (used + bytes).next_multiple_of(ALIGNMENT).min(PART_BYTES)
}

/// Copies, in several threads if there is much.
fn copy(from: &[u8], to: &mut [u8]) {
    if from.len() < SHARED_COPY_BYTES {
        to.copy_from_slice(from);
        return;
    }
    let share = from.len().div_ceil(COPYING_THREADS);
    thread::scope(|scope| {
        for (from, to) in from.chunks(share).zip(to.chunks_mut(share)) {
            scope.spawn(|| to.copy_from_slice(from));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_copy_is_the_same_in_several_threads() {
        for bytes in [0, 1, SHARED_COPY_BYTES - 1, SHARED_COPY_BYTES + 3] {
            let from: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
            let mut to = vec![255; bytes];
            copy(&from, &mut to);
            assert!(from == to, "{bytes} bytes");
        }
    }

    #[test]
    fn writes_begin_aligned_and_a_part_becomes_full() {
        assert_eq!(after(0, 1), ALIGNMENT);
        assert_eq!(after(ALIGNMENT, ALIGNMENT), 2 * ALIGNMENT);
        assert_eq!(after(PART_BYTES - ALIGNMENT, 1), PART_BYTES);
        assert_eq!(after(0, PART_BYTES), PART_BYTES);
    }

    #[test]
    fn only_what_was_allocated_is_copied() {
        let mut memory = Memory::new();
        memory.allocations.extend([(0x1000, 0x100), (0x2000, 0x10)]);
        let holds = |at, bytes| memory.holds("copying", Address(at), bytes).is_ok();
        assert!(holds(0x1000, 0x100) && holds(0x10ff, 1) && holds(0x1100, 0));
        assert!(holds(0x2000, 0x10));
        assert!(!holds(0x1000, 0x101) && !holds(0xfff, 1) && !holds(0x1800, 1));
        assert!(!holds(0, 0) && !holds(u64::MAX, 1) && !holds(0x2000, usize::MAX));
    }
}
