//! What a test wants to go wrong.

use crate::cuda::gpu::GpuError;

/// What a fault waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// A kernel, a product or a recording is asked for.
    Launch,
    /// Memory is asked for.
    Allocation,
    /// A unit is compiled for the first time.
    Compilation,
}

/// An error at the n-th occasion from when it was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which occasion.
    pub occasion: Occasion,
    /// How many of them go well before.
    pub after: u64,
    /// What goes wrong. [`GpuError::Lost`] loses the device.
    pub error: GpuError,
}

/// Those that are planned.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn plan(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// An occasion: the error that was planned for it, if any.
    pub(super) fn meet(&mut self, occasion: Occasion) -> Option<GpuError> {
        let due = self
            .0
            .iter()
            .position(|fault| fault.occasion == occasion && fault.after == 0);
        for fault in self.0.iter_mut().filter(|fault| fault.occasion == occasion) {
            fault.after = fault.after.saturating_sub(1);
        }
        due.map(|index| self.0.remove(index).error)
    }
}
