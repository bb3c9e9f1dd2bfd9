//! A software device's memory: each allocation lies beside a page that no one may touch.

#![allow(
    unsafe_code,
    reason = "kernels and the host share this memory by its address"
)]

use std::collections::BTreeMap;

use super::runtime::Runtime;
use crate::cuda::gpu::{Address, GpuError};

/// Allocations, and how much of them there may be.
pub(super) struct Memory {
    runtime: &'static Runtime,
    /// Bytes of each, by its address.
    by_address: BTreeMap<u64, usize>,
    /// Those that are given back as soon as the queue comes to it.
    leaving: BTreeMap<u64, usize>,
    bytes_max: u64,
    used_bytes: u64,
}

impl Memory {
    pub(super) fn new(runtime: &'static Runtime, bytes_max: u64) -> Self {
        Self {
            runtime,
            by_address: BTreeMap::new(),
            leaving: BTreeMap::new(),
            bytes_max,
            used_bytes: 0,
        }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.bytes_max - self.used_bytes
    }

    pub(super) fn allocate(&mut self, bytes: usize) -> Result<Address, GpuError> {
        let out = GpuError::OutOfMemory {
            asked: bytes as u64,
            free: self.free_bytes(),
        };
        if bytes as u64 > self.free_bytes() {
            return Err(out);
        }
        let Some(at) = self.runtime.allocate(bytes) else {
            return Err(out);
        };
        self.used_bytes += bytes as u64;
        self.by_address.insert(at, bytes);
        Ok(Address(at))
    }

    /// From now on it may not be named any more; it is given back by [`Memory::release`].
    pub(super) fn forget(&mut self, at: Address) -> Result<(), GpuError> {
        let bytes = self.by_address.remove(&at.0).ok_or(GpuError::Call {
            what: "free",
            why: format!("nothing is allocated at {at:?}"),
        })?;
        self.leaving.insert(at.0, bytes);
        self.used_bytes -= bytes as u64;
        Ok(())
    }

    pub(super) fn release(&mut self, at: Address) {
        if self.leaving.remove(&at.0).is_some() {
            self.runtime.free(at.0);
        }
    }

    /// Whether all of these bytes are in one allocation.
    pub(super) fn check(
        &self,
        what: &'static str,
        at: Address,
        bytes: usize,
    ) -> Result<(), GpuError> {
        let within = |(first, allocated): (&u64, &usize)| {
            let offset = at.0 - first;
            offset
                .checked_add(bytes as u64)
                .is_some_and(|end| end <= *allocated as u64)
        };
        let last_before = self.by_address.range(..=at.0).next_back();
        if bytes == 0 || last_before.is_some_and(within) {
            return Ok(());
        }
        Err(GpuError::Call {
            what,
            why: format!("{bytes} bytes at {at:?} are not in one allocation"),
        })
    }

    /// Whether no kernel has written between the end of an allocation and the page after it.
    pub(super) fn check_intact(&self) -> Result<(), GpuError> {
        match self
            .by_address
            .iter()
            .find(|(at, _)| !self.runtime.is_intact(**at))
        {
            None => Ok(()),
            Some((at, bytes)) => Err(GpuError::Lost(format!(
                "a kernel wrote after the end of the allocation of {bytes} bytes at {at:#x}"
            ))),
        }
    }

    /// Bytes that [`Memory::check`] has found to be there.
    pub(super) fn bytes(&self, at: Address, bytes: usize) -> &[u8] {
        if bytes == 0 {
            return &[];
        }
        // SAFETY: The bytes were in one allocation when they were asked for, and what gives an
        // allocation back is in the queue behind this. Kernels only run through `&mut` of the device.
        unsafe {
            std::slice::from_raw_parts(std::ptr::with_exposed_provenance(at.0 as usize), bytes)
        }
    }

    /// The same, to change them.
    pub(super) fn bytes_mut(&mut self, at: Address, bytes: usize) -> &mut [u8] {
        if bytes == 0 {
            return &mut [];
        }
        // SAFETY: As in `bytes`; and `self` is borrowed for as long.
        unsafe {
            std::slice::from_raw_parts_mut(
                std::ptr::with_exposed_provenance_mut(at.0 as usize),
                bytes,
            )
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for at in self.by_address.keys().chain(self.leaving.keys()) {
            self.runtime.free(*at);
        }
    }
}
