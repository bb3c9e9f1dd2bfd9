//! Dummy weights made on the device: those of [`crate::checkpoint::DummyWeights`], bit for bit.

use std::ops::Range;

use super::{Arguments, launch};
use crate::config::Dtype;
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Unit};

const THREADS: usize = 256;
/// Values a thread makes.
const VALUES: usize = 8;

/// The unit.
#[must_use]
pub fn units() -> Vec<Unit> {
    vec![Unit {
        file: "dummy.cu",
        source: include_str!("../../../kernels/dummy.cu"),
        constants: Vec::new(),
        kernels: &[KernelFacts {
            name: "dummy",
            argument_bytes: 3 * 8 + 8 * 4,
            registers_max: 64,
            instructions: &[],
        }],
    }]
}

/// A piece of a tensor.
#[derive(Clone, Debug)]
pub struct DummyCall {
    /// Where the tensor's counter begins: [`crate::checkpoint::DummyWeights::key`].
    pub key: u64,
    /// Columns of the whole tensor.
    pub tensor_columns: usize,
    /// The rows of it that are wanted.
    pub rows: Range<usize>,
    /// The columns of it that are wanted.
    pub columns: Range<usize>,
    /// What every value is added to: 1 for scales of norms, otherwise 0.
    pub offset: f32,
    /// What the weights are stored as before they become bf16.
    pub stored: Dtype,
    /// Where the first of these values goes, at a multiple of 16: bf16.
    pub to: Address,
    /// Values from one row to the next there: a multiple of 8.
    pub stride: usize,
    /// Rows that stay together, and from the first of one such group to that of the next there: `(8, 16)`
    /// if another matrix is in between, 8 rows by 8 rows. `None` if there are no gaps.
    pub groups: Option<(usize, usize)>,
}

/// Makes dummy weights.
#[derive(Debug)]
pub struct Dummy {
    kernel: Kernel,
}

impl Dummy {
    /// Compiles the kernel.
    ///
    /// # Errors
    /// As [`Gpu::compile`].
    pub fn new(gpu: &mut dyn Gpu) -> Result<Self, GpuError> {
        let kernels = gpu.compile(&units()[0])?;
        Ok(Self { kernel: kernels[0] })
    }

    /// Makes a piece. Columns of the stride beyond its own are not written.
    ///
    /// # Errors
    /// If it has more than 2^34 values, or the launch is not possible.
    pub fn enqueue(&self, gpu: &mut dyn Gpu, call: &DummyCall) -> Result<(), GpuError> {
        let (rows, columns) = (call.rows.len(), call.columns.len());
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        let first = (call.rows.start * call.tensor_columns + call.columns.start) as u64;
        let (group_rows, group_step) = call.groups.unwrap_or((rows, rows));
        // Numbers of 64 bits go where addresses do.
        let arguments = Arguments::new()
            .address(call.to)
            .address(Address(call.key))
            .address(Address(first))
            .count(rows)
            .count(columns)
            .count(call.tensor_columns)
            .count(call.stride)
            .count(group_rows)
            .count(group_step)
            .number(call.offset)
            .count(usize::from(call.stored == Dtype::F16));
        let Some(blocks) = blocks(rows, columns) else {
            return Err(GpuError::Call {
                what: "dummy weights on the GPU",
                why: format!("a tensor of {rows} by {columns} values"),
            });
        };
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

/// Blocks of a piece, a thread for each 8 neighbours of a row; `None` if threads cannot be counted in 32 bits.
fn blocks(rows: usize, columns: usize) -> Option<u32> {
    let threads = rows.checked_mul(columns.div_ceil(VALUES))?;
    let threads = u32::try_from(threads.next_multiple_of(THREADS)).ok()?;
    Some(threads / THREADS as u32)
}

#[cfg(test)]
mod tests {
    use super::blocks;

    #[test]
    fn every_value_has_a_thread() {
        assert_eq!(blocks(1, 1), Some(1));
        assert_eq!(blocks(256, 8), Some(1));
        assert_eq!(blocks(256, 9), Some(2));
        assert_eq!(blocks(128_256, 4096), Some(256_512));
        assert_eq!(blocks(1 << 20, 1 << 15), None);
        assert_eq!(blocks((1 << 20) - 1, 1 << 15), Some(16_777_200));
    }
}
