//! Time that passes on the device: a modelled exchange between GPUs.

use super::{Arguments, launch};
use crate::cuda::gpu::{Gpu, GpuError, Kernel, KernelFacts, Unit};

/// The unit.
#[must_use]
pub fn units() -> Vec<Unit> {
    vec![Unit {
        file: "delay.cu",
        source: include_str!("../../../kernels/delay.cu"),
        constants: Vec::new(),
        kernels: &[KernelFacts {
            name: "delay",
            argument_bytes: 8,
            registers_max: 16,
            instructions: &[],
        }],
    }]
}

/// Lets time pass on a device.
#[derive(Debug)]
pub struct Delay {
    kernel: Kernel,
}

impl Delay {
    /// Compiles the kernel.
    ///
    /// # Errors
    /// As [`Gpu::compile`].
    pub fn new(gpu: &mut dyn Gpu) -> Result<Self, GpuError> {
        let kernels = gpu.compile(&units()[0])?;
        Ok(Self { kernel: kernels[0] })
    }

    /// Has the queue wait, to about a microsecond. The time is part of a recording.
    ///
    /// # Errors
    /// If the launch is not possible.
    pub fn enqueue(&self, gpu: &mut dyn Gpu, nanoseconds: u32) -> Result<(), GpuError> {
        // The upper half of the 64 bits is zero.
        let arguments = Arguments::new().count(nanoseconds as usize).count(0);
        launch(gpu, self.kernel, [1, 1, 1], 32, 0, arguments)
    }
}
