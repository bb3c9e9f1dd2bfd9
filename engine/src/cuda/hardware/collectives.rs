//! Exchanges between the GPUs of a group, by NCCL.
//!
//! An exchange is a kernel that waits for those of the other GPUs. So a GPU that fails leaves the others waiting; they
//! are told through the group's alarm, which whoever waits for a GPU looks at.

use super::context::{Alarm, Context};
use crate::cuda::gpu::{Address, GpuError};
use crate::cuda::libraries::libraries;
use crate::cuda::libraries::tables::Nccl;
use cudarc::nccl::sys;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;

/// What the GPUs of a group have in common before they know each other.
#[derive(Clone)]
pub(super) struct Invitation {
    nccl: &'static Nccl,
    id: sys::ncclUniqueId,
    alarm: Arc<Alarm>,
}

impl Invitation {
    pub(super) fn new() -> Result<Self, GpuError> {
        let nccl = libraries().nccl()?;
        let mut id = sys::ncclUniqueId { internal: [0; 128] };
        // SAFETY: it writes one identification.
        let code = unsafe { (nccl.ncclGetUniqueId)(&raw mut id) };
        check(nccl, "forming a group of GPUs", code)?;
        Ok(Self {
            nccl,
            id,
            alarm: Arc::default(),
        })
    }
}

/// A GPU's membership of a group.
pub(super) struct Member {
    nccl: &'static Nccl,
    communicator: sys::ncclComm_t,
}

impl Member {
    /// Joins; waits until all have. Each rank calls it in a thread of its own.
    pub(super) fn join(
        context: &mut Context,
        invitation: &Invitation,
        rank: usize,
        world: usize,
    ) -> Result<Self, GpuError> {
        let nccl = invitation.nccl;
        let index = |number: usize| i32::try_from(number).expect("no machine has so many GPUs");
        let mut communicator = ptr::null_mut();
        // SAFETY: the context is current; it writes one communicator, which is destroyed in `release`.
        let code = unsafe {
            (nccl.ncclCommInitRank)(
                &raw mut communicator,
                index(world),
                invitation.id,
                index(rank),
            )
        };
        check(nccl, "joining a group of GPUs", code)?;
        context.alarm = Arc::clone(&invitation.alarm);
        Ok(Self { nccl, communicator })
    }

    /// Adds up bf16 values over the group, in place.
    pub(super) fn all_reduce(
        &self,
        context: &Context,
        values: Address,
        count: usize,
    ) -> Result<(), GpuError> {
        // SAFETY: there are so many values there by the caller's word, as with a kernel's arguments.
        let code = unsafe {
            (self.nccl.ncclAllReduce)(
                pointer(values),
                pointer(values),
                count,
                sys::ncclDataType_t::ncclBfloat16,
                sys::ncclRedOp_t::ncclSum,
                self.communicator,
                context.stream.cast(),
            )
        };
        check(self.nccl, "adding up over a group of GPUs", code)
    }

    /// Puts the bytes of all ranks one after the other.
    pub(super) fn all_gather(
        &self,
        context: &Context,
        from: Address,
        to: Address,
        bytes: usize,
    ) -> Result<(), GpuError> {
        // SAFETY: there are so many bytes there by the caller's word, as with a kernel's arguments.
        let code = unsafe {
            (self.nccl.ncclAllGather)(
                pointer(from),
                pointer(to),
                bytes,
                sys::ncclDataType_t::ncclUint8,
                self.communicator,
                context.stream.cast(),
            )
        };
        check(self.nccl, "gathering from a group of GPUs", code)
    }

    /// What went wrong in the background, such as another machine's end of a connection.
    pub(super) fn failure(&self) -> Option<String> {
        let mut state = 0_u32;
        // SAFETY: it writes one number, the state of a communicator that exists.
        let code = unsafe {
            (self.nccl.ncclCommGetAsyncError)(self.communicator, (&raw mut state).cast())
        };
        let in_progress = sys::ncclResult_t::ncclInProgress as u32;
        let code = if code == 0 { state } else { code };
        (code != 0 && code != in_progress).then(|| words(self.nccl, code))
    }

    /// Leaves the group. `orderly` is whether all that was asked for is done; else what is under way is given up.
    pub(super) fn release(&mut self, orderly: bool) {
        let communicator = std::mem::replace(&mut self.communicator, ptr::null_mut());
        if communicator.is_null() {
            return;
        }
        // SAFETY: it exists, and is forgotten.
        unsafe {
            if orderly {
                (self.nccl.ncclCommDestroy)(communicator);
            } else {
                (self.nccl.ncclCommAbort)(communicator);
            }
        }
    }
}

fn pointer(at: Address) -> *mut c_void {
    ptr::with_exposed_provenance_mut(at.0 as usize)
}

fn check(nccl: &Nccl, what: &'static str, code: u32) -> Result<(), GpuError> {
    if code == 0 {
        return Ok(());
    }
    let why = words(nccl, code);
    Err(GpuError::Call { what, why })
}

fn words(nccl: &Nccl, code: u32) -> String {
    // SAFETY: it takes any number, and gives a string that stays.
    let words = unsafe { (nccl.ncclGetErrorString)(code) };
    if words.is_null() {
        return format!("NCCL failed with code {code}");
    }
    // SAFETY: it is not null, and ends in a zero.
    let words = unsafe { CStr::from_ptr(words) };
    format!("NCCL failed: {}", words.to_string_lossy())
}
