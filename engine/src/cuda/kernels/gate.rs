//! `h = silu(gate) * up` after a product of large matrices; after one with few tokens, it is [`super::skinny`]'s.

use super::{Arguments, launch};
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Unit};

const THREADS: usize = 256;

const KERNELS: &[KernelFacts] = &[KernelFacts {
    name: "gate",
    argument_bytes: 32,
    registers_max: 32,
    instructions: &["LDG", "STG", "MUFU"],
}];

/// `h = silu(gate) * up`, where of 16 columns of `both` the first 8 are those of the gate, and the others those of up.
#[derive(Clone, Copy, Debug)]
pub struct GateCall {
    /// How many.
    pub rows: usize,
    /// Columns of `h`, and half of those of `both`: a multiple of 8.
    pub width: usize,
    /// bf16 `[rows][both_stride]`.
    pub both: Address,
    /// Values from one row to the next: a multiple of 8.
    pub both_stride: usize,
    /// bf16 `[rows][h_stride]`.
    pub h: Address,
    /// As `both_stride`.
    pub h_stride: usize,
}

/// The launcher of `gate.cu`.
#[derive(Debug)]
pub struct Gate {
    kernel: Kernel,
}

impl Gate {
    /// Compiles it.
    ///
    /// # Errors
    /// As [`Gpu::compile`].
    pub fn new(gpu: &mut dyn Gpu) -> Result<Self, GpuError> {
        let kernel = gpu.compile(&unit())?[0];
        Ok(Self { kernel })
    }

    /// Launches it.
    ///
    /// # Errors
    /// If widths or strides are not multiples of 8 or too short, or as [`Gpu::launch`].
    pub fn enqueue(&self, gpu: &mut dyn Gpu, call: &GateCall) -> Result<(), GpuError> {
        let short = call.both_stride < 2 * call.width || call.h_stride < call.width;
        if short || !(call.width | call.both_stride | call.h_stride).is_multiple_of(8) {
            return Err(GpuError::Call {
                what: "a gate",
                why: format!(
                    "strides of {} and {} for {} columns",
                    call.both_stride, call.h_stride, call.width
                ),
            });
        }
        let row_blocks = call.width.div_ceil(8 * THREADS);
        let Ok(blocks @ 1..) = u32::try_from(call.rows * row_blocks) else {
            return Ok(());
        };
        let arguments = Arguments::new()
            .address(call.both)
            .address(call.h)
            .count(call.width)
            .count(row_blocks)
            .count(call.both_stride)
            .count(call.h_stride);
        launch(
            gpu,
            self.kernel,
            [blocks, 1, 1],
            THREADS as u32,
            0,
            arguments,
        )
    }
}

fn unit() -> Unit {
    Unit {
        file: "gate.cu",
        source: include_str!("../../../kernels/gate.cu"),
        constants: Vec::new(),
        kernels: KERNELS,
    }
}

/// What there is to compile.
#[must_use]
pub fn units() -> Vec<Unit> {
    vec![unit()]
}
