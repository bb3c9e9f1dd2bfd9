//! What a model is in a GPU's memory: matrices, vectors and activations.
//!
//! Rows begin at multiples of 128 bytes: a row of `width` values has a stride of
//! `width` rounded up to 64, and zeros behind it, so that products need not
//! care where a row ends. The gate's rows and those of the up projection take turns, eight
//! by eight, so that a tile of a product has both of a value:
//!
//! ```text
//! packed row   0 … 7       8 … 15    16 … 23      24 … 31
//!              gate 0 … 7  up 0 … 7  gate 8 … 15  up 8 … 15
//! ```

use half::bf16;

use super::gpu::{Address, Gpu, GpuError};
use crate::ops::Role;
use crate::weights::{HostMatrix, HostValues};

/// Values to which a row is padded.
const ROW_MULTIPLE: usize = 64;

/// Rows of the gate, and of the up projection, that stay together.
pub const GATE_ROWS: usize = 8;

/// What is uploaded at once, where rows are rearranged (bytes).
const UPLOAD_BYTES: usize = 8 << 20;

/// A matrix `[rows][columns]` in bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Where it is.
    pub address: Address,
    /// Its rows, with those that were added to make tiles whole.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// Values from one row to the next.
    pub stride: usize,
}

/// Activations `[rows][width]` in bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Where they are.
    pub address: Address,
    /// Values of a row.
    pub width: usize,
    /// Values from one row to the next.
    pub stride: usize,
}

/// Values from one row to the next.
#[must_use]
pub fn stride(width: usize) -> usize {
    width.next_multiple_of(ROW_MULTIPLE)
}

/// Room for activations, all zeros.
///
/// # Errors
/// If there is no memory.
pub fn buffer(gpu: &mut dyn Gpu, rows: usize, width: usize) -> Result<Buffer, GpuError> {
    let stride = stride(width);
    Ok(Buffer {
        address: zeros(gpu, rows * stride * size_of::<bf16>())?,
        width,
        stride,
    })
}

/// Memory that is all zeros.
///
/// # Errors
/// If there is none.
pub fn zeros(gpu: &mut dyn Gpu, bytes: usize) -> Result<Address, GpuError> {
    let bytes = bytes.max(1);
    let address = gpu.allocate(bytes)?;
    gpu.fill(address, bytes, 0)?;
    Ok(address)
}

/// Numbers of 32 bits.
///
/// # Errors
/// If there is no memory.
pub fn vector(gpu: &mut dyn Gpu, values: &[f32]) -> Result<Address, GpuError> {
    let bytes = bytemuck::cast_slice(values);
    let address = gpu.allocate(bytes.len().max(1))?;
    gpu.write(address, bytes)?;
    Ok(address)
}

/// Brings a matrix into the GPU's memory, in the order that its role wants.
///
/// # Errors
/// If there is no memory, or it is not in bf16.
pub fn upload(gpu: &mut dyn Gpu, matrix: &HostMatrix, role: Role) -> Result<Matrix, GpuError> {
    let HostValues::Bf16(values) = &matrix.values else {
        return Err(GpuError::Call {
            what: "bringing a matrix to the GPU",
            why: "it is f32, and the CUDA backend computes in bf16".to_owned(),
        });
    };
    let rows = packed_rows(role, matrix.rows);
    let packed = Matrix {
        rows,
        columns: matrix.columns,
        stride: stride(matrix.columns),
        address: gpu.allocate((rows * stride(matrix.columns) * size_of::<bf16>()).max(1))?,
    };
    if packed.stride == packed.columns && role != Role::GateUp {
        gpu.write(packed.address, bytemuck::cast_slice(values))?;
        return Ok(packed);
    }
    let row_bytes = packed.stride * size_of::<bf16>();
    let rows_each = (UPLOAD_BYTES / row_bytes.max(1)).max(1);
    for first in (0..rows).step_by(rows_each) {
        let part: Vec<bf16> = (first..rows.min(first + rows_each))
            .flat_map(|row| {
                let source = source_row(role, matrix.rows, row);
                let values = source.map_or(&[][..], |row| {
                    &values[row * matrix.columns..(row + 1) * matrix.columns]
                });
                let zeros = std::iter::repeat_n(bf16::ZERO, packed.stride - values.len());
                values.iter().copied().chain(zeros)
            })
            .collect();
        let at = packed.address.offset(first * row_bytes);
        gpu.write(at, bytemuck::cast_slice(&part))?;
    }
    Ok(packed)
}

/// Rows of a matrix as it is kept, of so many.
fn packed_rows(role: Role, rows: usize) -> usize {
    match role {
        Role::GateUp => 2 * (rows / 2).next_multiple_of(GATE_ROWS),
        Role::Embedding | Role::Projection => rows,
    }
}

/// The row of a matrix of `rows` rows that is kept as row `packed`; `None` if that is padding.
fn source_row(role: Role, rows: usize, packed: usize) -> Option<usize> {
    if role != Role::GateUp {
        return Some(packed);
    }
    let (pair, place) = (packed / (2 * GATE_ROWS), packed % (2 * GATE_ROWS));
    let row = pair * GATE_ROWS + place % GATE_ROWS;
    let is_up = place >= GATE_ROWS;
    (row < rows / 2).then_some(if is_up { rows / 2 + row } else { row })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_and_up_take_turns_and_nothing_is_lost() {
        // Eleven of each: 16 of each are kept.
        assert_eq!(packed_rows(Role::GateUp, 22), 32);
        let kept: Vec<_> = (0..32)
            .map(|row| source_row(Role::GateUp, 22, row))
            .collect();
        assert_eq!(kept[..9], [0, 1, 2, 3, 4, 5, 6, 7, 11].map(Some));
        assert_eq!(kept[16..20], [Some(8), Some(9), Some(10), None]);
        assert_eq!(kept[24], Some(19));
        let mut all: Vec<_> = kept.into_iter().flatten().collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..22));
    }

    #[test]
    fn other_matrices_keep_their_rows() {
        assert_eq!(packed_rows(Role::Projection, 7), 7);
        assert_eq!(source_row(Role::Embedding, 7, 3), Some(3));
        assert_eq!([1, 64, 65].map(stride), [64, 64, 128]);
    }
}
