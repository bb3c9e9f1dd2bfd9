//! RMS norms of any number of rows, with what is added to the residual stream before them.
//!
//! Where products are [`super::skinny`]'s, norms are part of those; here are the others.

use super::{Arguments, launch};
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Unit};

/// The widest row: 1,024 threads of two vectors of 8 values.
pub const WIDTH_MAX: usize = 16_384;

const KERNELS: &[KernelFacts] = &[KernelFacts {
    name: "rms_norm",
    argument_bytes: 64,
    // Those of 1,024 threads; 40 of fewer.
    registers_max: 64,
    instructions: &["LDG", "STG", "SHFL", "MUFU"],
}];

/// `n = rmsnorm(x) * scales`, after `x += y + bias` if there is a `y`.
#[derive(Clone, Copy, Debug)]
pub struct NormCall {
    /// Rows of `n`.
    pub rows: usize,
    /// bf16 `[rows][x_stride]`, the residual stream; written only if something is added.
    pub x: Address,
    /// Values from one row to the next: a multiple of 8, and zeros beyond the width.
    pub x_stride: usize,
    /// Which rows of `x` are normed, and what is added to them.
    pub of: Rows,
    /// f32 `[width]`.
    pub scales: Address,
    /// What is added to the mean square.
    pub eps: f32,
    /// bf16 `[rows][n_stride]`: zeros are written to the padding up to a multiple of 8.
    pub n: Address,
    /// As `x_stride`.
    pub n_stride: usize,
}

/// Which rows of `x` are normed.
#[derive(Clone, Copy, Debug)]
pub enum Rows {
    /// All, as they are.
    All,
    /// All, after something is added to them.
    Added {
        /// bf16 `[rows][y_stride]`; what is beyond the width does not matter.
        y: Address,
        /// As `x_stride`.
        y_stride: usize,
        /// f32 `[width]`.
        bias: Option<Address>,
    },
    /// Row `i` of `n` is that of row `rows[i]` of `x`: u32 `[rows]`.
    Chosen(Address),
}

/// How a row is divided over a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Division {
    warps: usize,
    /// Of 8 values, of each thread.
    vectors: usize,
}

impl Division {
    /// Two vectors a thread, or one where a warp has the row.
    fn of(width: usize) -> Self {
        let vectors = width.div_ceil(8);
        let warps = vectors.div_ceil(64).max(1);
        Self {
            warps,
            vectors: vectors.div_ceil(32 * warps),
        }
    }
}

/// The launcher of `norm.cu`, for rows of one width.
#[derive(Debug)]
pub struct Norm {
    kernel: Kernel,
    width: usize,
    division: Division,
}

impl Norm {
    /// For rows of `width` values, up to [`WIDTH_MAX`].
    ///
    /// # Errors
    /// If rows are wider, or as [`Gpu::compile`].
    pub fn new(gpu: &mut dyn Gpu, width: usize) -> Result<Self, GpuError> {
        if !(1..=WIDTH_MAX).contains(&width) {
            return Err(GpuError::Call {
                what: "a norm",
                why: format!("rows of {width} values; they have 1 to {WIDTH_MAX}"),
            });
        }
        let kernel = gpu.compile(&unit(width))?[0];
        Ok(Self {
            kernel,
            width,
            division: Division::of(width),
        })
    }

    /// Launches it.
    ///
    /// # Errors
    /// If strides are too short for the width, or as [`Gpu::launch`].
    pub fn enqueue(&self, gpu: &mut dyn Gpu, call: &NormCall) -> Result<(), GpuError> {
        let (y, y_stride, bias, rows) = match call.of {
            Rows::All => (Address::NONE, call.x_stride, None, Address::NONE),
            Rows::Added { y, y_stride, bias } => (y, y_stride, bias, Address::NONE),
            Rows::Chosen(rows) => (Address::NONE, call.x_stride, None, rows),
        };
        let strides = [call.x_stride, y_stride, call.n_stride];
        if strides
            .iter()
            .any(|&stride| stride < self.width || !stride.is_multiple_of(8))
        {
            return Err(GpuError::Call {
                what: "a norm",
                why: format!("strides of {strides:?} for rows of {} values", self.width),
            });
        }
        let Ok(blocks @ 1..) = u32::try_from(call.rows) else {
            return Ok(());
        };
        let arguments = Arguments::new()
            .address(call.x)
            .address(y)
            .address(bias.unwrap_or(Address::NONE))
            .address(call.scales)
            .address(call.n)
            .address(rows)
            .count(call.x_stride)
            .count(y_stride)
            .count(call.n_stride)
            .number(call.eps);
        let warps = self.division.warps as u32;
        launch(
            gpu,
            self.kernel,
            [blocks, 1, 1],
            32 * warps,
            4 * warps,
            arguments,
        )
    }
}

fn unit(width: usize) -> Unit {
    let Division { warps, vectors } = Division::of(width);
    Unit {
        file: "norm.cu",
        source: include_str!("../../../kernels/norm.cu"),
        constants: vec![
            ("WIDTH", width as u32),
            ("VECTORS", vectors as u32),
            ("WARPS", warps as u32),
        ],
        kernels: KERNELS,
    }
}

/// What there is to compile: the widths of Llama 3 8B and 70B, the widest, and an odd one.
#[must_use]
pub fn units() -> Vec<Unit> {
    [4096, 8192, WIDTH_MAX, 577].map(unit).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_row_has_a_thread() {
        for width in 1..=WIDTH_MAX {
            let Division { warps, vectors } = Division::of(width);
            assert!(
                (1..=32).contains(&warps) && (1..=2).contains(&vectors),
                "{width}"
            );
            assert!(32 * warps * vectors * 8 >= width, "{width}");
        }
    }
}
