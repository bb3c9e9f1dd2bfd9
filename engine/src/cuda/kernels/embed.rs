//! The first rows of the residual stream.

use super::{Arguments, launch};
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Unit};

const WARPS: u32 = 8;

const KERNELS: &[KernelFacts] = &[KernelFacts {
    name: "embed",
    argument_bytes: 72,
    registers_max: 64,
    instructions: &["LDG", "STG", "SHFL"],
}];

/// `x = E[token]`, or zeros where another rank has the token, and the first half of the norm that follows.
#[derive(Clone, Copy, Debug)]
pub struct EmbedCall {
    /// How many tokens.
    pub tokens: usize,
    /// Which: u32 `[tokens]`.
    pub ids: Address,
    /// This rank's part of the embedding: bf16 `[count][embedding_stride]`.
    pub embedding: Address,
    /// Values from one row to the next: a multiple of 8, and zeros beyond the width.
    pub embedding_stride: usize,
    /// The token of its first row.
    pub first: usize,
    /// Its rows.
    pub count: usize,
    /// Values of a row.
    pub width: usize,
    /// bf16 `[tokens][x_stride]`.
    pub x: Address,
    /// As `embedding_stride`.
    pub x_stride: usize,
    /// The norm that follows, of which one sum of squares a token is written: `parts` is 1.
    pub next: Option<super::skinny::NextNorm>,
}

/// The launcher of `embed.cu`.
#[derive(Debug)]
pub struct Embed {
    kernel: Kernel,
}

impl Embed {
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
    /// If strides are too short for the width, or as [`Gpu::launch`].
    pub fn enqueue(&self, gpu: &mut dyn Gpu, call: &EmbedCall) -> Result<(), GpuError> {
        let scaled_stride = call.next.map_or(call.x_stride, |next| next.scaled_stride);
        let strides = [call.embedding_stride, call.x_stride, scaled_stride];
        if strides
            .iter()
            .any(|&stride| stride < call.width || !stride.is_multiple_of(8))
        {
            return Err(GpuError::Call {
                what: "an embedding",
                why: format!("strides of {strides:?} for rows of {} values", call.width),
            });
        }
        let Ok(blocks @ 1..) = u32::try_from(call.tokens) else {
            return Ok(());
        };
        let arguments = Arguments::new()
            .address(call.ids)
            .address(call.embedding)
            .address(call.x)
            .address(call.next.map_or(Address::NONE, |next| next.scales))
            .address(call.next.map_or(Address::NONE, |next| next.scaled))
            .address(call.next.map_or(Address::NONE, |next| next.sums))
            .count(call.first)
            .count(call.count)
            .count(call.width)
            .count(call.embedding_stride)
            .count(call.x_stride)
            .count(scaled_stride);
        launch(
            gpu,
            self.kernel,
            [blocks, 1, 1],
            32 * WARPS,
            4 * WARPS,
            arguments,
        )
    }
}

fn unit() -> Unit {
    Unit {
        file: "embed.cu",
        source: include_str!("../../../kernels/embed.cu"),
        constants: Vec::new(),
        kernels: KERNELS,
    }
}

/// What there is to compile.
#[must_use]
pub fn units() -> Vec<Unit> {
    vec![unit()]
}
