//! Attention of one query token a sequence, split over its tokens so that all blocks have as much to do.

use super::attention_decode_plan::{TILE, partials_max};
use super::attention_shape::AttentionShape;
use super::{Arguments, launch};
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Properties, Unit};

const WARPS: usize = 4;
/// Tokens of a warp's step.
const TOKENS: usize = TILE / WARPS;
/// Query heads that fit into the rows of a matrix product.
const ROWS_MAX: usize = 16;
/// What a block's shared memory takes beside what it asks for (CUDA C++ Programming Guide, "Compute capabilities").
const RESERVED_BYTES: usize = 1024;

const KERNELS: &[KernelFacts] = &[facts(216)];
/// Heads wider than 128, of which a thread has more sums.
const KERNELS_WIDE: &[KernelFacts] = &[facts(255)];

const fn facts(registers_max: u32) -> KernelFacts {
    KernelFacts {
        name: "attention_decode",
        argument_bytes: 80,
        registers_max,
        instructions: &["HMMA", "LDGSTS", "LDSM"],
    }
}

/// Launches `attention_decode.cu`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionDecode {
    kernel: Kernel,
    shape: AttentionShape,
    geometry: Geometry,
    blocks: usize,
}

/// How a GPU's shared memory is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Geometry {
    /// Steps of a warp in shared memory, of which one is computed while the others come.
    stages: usize,
    /// Blocks that a multiprocessor holds.
    blocks: usize,
    shared_bytes: usize,
}

/// Decode attention of one layer.
#[derive(Clone, Copy, Debug)]
pub struct DecodeCall {
    /// The queries, bf16 `[rows][query_heads][padded]`.
    pub q: Address,
    /// The layer's KV cache.
    pub cache: Address,
    /// The sequences' blocks, u32 `[sequences][table_stride]`.
    pub tables: Address,
    /// Entries from one table to the next.
    pub table_stride: usize,
    /// The sequences' positions, i32; of -1, nothing is read and nothing is written.
    pub positions: Address,
    /// The words of a plan for [`AttentionDecode::blocks`] blocks and this window. A position may be
    /// later than what was planned for, and never before. They are written by copies, never by a kernel.
    pub work: Address,
    /// How many of its last tokens a token sees, itself included.
    pub window: Option<usize>,
    /// Where the sums go, bf16 `[rows][a_stride]`: `query_heads * head_dim` values of each row.
    pub a: Address,
    /// Values from one row of `a` to the next.
    pub a_stride: usize,
    /// [`AttentionDecode::workspace_bytes`], for one launch at a time.
    pub workspace: Address,
    /// [`AttentionDecode::counter_bytes`] of zeros, which are zeros again after each launch.
    pub counters: Address,
}

impl AttentionDecode {
    /// Compiles it.
    ///
    /// # Errors
    /// If the GPU's shared memory does not hold such heads, or as [`Gpu::compile`].
    pub fn new(gpu: &mut dyn Gpu, shape: AttentionShape) -> Result<Self, GpuError> {
        let geometry = geometry(&shape, gpu.properties())?;
        let blocks = geometry.blocks * gpu.properties().multiprocessors as usize;
        let kernel = gpu.compile(&unit(&shape, geometry.stages))?[0];
        Ok(Self {
            kernel,
            shape,
            geometry,
            blocks,
        })
    }

    /// Blocks of each launch: what plans are made for.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Units of a query: what plans are made of.
    #[must_use]
    pub fn units(&self) -> usize {
        units_of_query(&self.shape)
    }

    /// What a launch works in (bytes).
    #[must_use]
    pub fn workspace_bytes(&self) -> usize {
        let rows = rows(&self.shape);
        let floats = rows * self.shape.padded() + (2 * rows).next_multiple_of(4);
        4 * floats * partials_max(self.blocks)
    }

    /// What launches count in, for rows up to `rows` (bytes).
    #[must_use]
    pub fn counter_bytes(&self, rows: usize) -> usize {
        4 * rows * self.units()
    }

    /// Launches it.
    ///
    /// # Errors
    /// As [`Gpu::launch`].
    pub fn enqueue(&self, gpu: &mut dyn Gpu, call: &DecodeCall) -> Result<(), GpuError> {
        let arguments = Arguments::new()
            .address(call.q)
            .address(call.cache)
            .address(call.tables)
            .address(call.positions)
            .address(call.work)
            .address(call.a)
            .address(call.workspace)
            .address(call.counters)
            .count(call.table_stride)
            .count(call.a_stride)
            .count(call.window.unwrap_or(0))
            .number(self.shape.scale());
        let blocks = u32::try_from(self.blocks).expect("a GPU has few multiprocessors");
        let shared_bytes = self.geometry.shared_bytes as u32;
        launch(
            gpu,
            self.kernel,
            [blocks, 1, 1],
            32 * WARPS as u32,
            shared_bytes,
            arguments,
        )
    }
}

/// Query heads of a unit.
fn rows(shape: &AttentionShape) -> usize {
    shape.group().min(ROWS_MAX)
}

fn units_of_query(shape: &AttentionShape) -> usize {
    shape.kv_heads * shape.group().div_ceil(ROWS_MAX)
}

/// As many stages as leave room for two blocks on a multiprocessor, or else for one.
fn geometry(shape: &AttentionShape, gpu: &Properties) -> Result<Geometry, GpuError> {
    let shared_bytes_max = gpu.shared_bytes_max as usize;
    for blocks in [2, 1] {
        let budget = (shared_bytes_max + RESERVED_BYTES) / blocks - RESERVED_BYTES;
        let stages = (2..=6)
            .rev()
            .find(|stages| shared_bytes(shape, *stages) <= budget);
        if let Some(stages) = stages {
            return Ok(Geometry {
                stages,
                blocks,
                shared_bytes: shared_bytes(shape, stages),
            });
        }
    }
    Err(GpuError::Call {
        what: "decode attention",
        why: format!(
            "heads of {} need {} bytes of shared memory, and this GPU has {shared_bytes_max}",
            shape.head_dim,
            shared_bytes(shape, 2)
        ),
    })
}

/// Keys and values of all warps' stages; the queries; each warp's sums, largest scores and sums of powers; a flag.
fn shared_bytes(shape: &AttentionShape, stages: usize) -> usize {
    let matrix = TOKENS * shape.tile_row_bytes();
    let sums = WARPS * rows(shape) * (shape.padded() + 8) * 4;
    (WARPS * stages * 2 + 1) * matrix + sums + WARPS * rows(shape) * 2 * 4 + 16
}

fn unit(shape: &AttentionShape, stages: usize) -> Unit {
    let mut constants = shape.constants();
    constants.push(("GROUP", shape.group() as u32));
    constants.push(("STAGES", stages as u32));
    Unit {
        file: "attention_decode.cu",
        source: include_str!("../../../kernels/attention_decode.cu"),
        constants,
        kernels: if shape.padded() > 128 {
            KERNELS_WIDE
        } else {
            KERNELS
        },
    }
}

/// What it is compiled for in checks without a GPU.
#[must_use]
pub fn units() -> Vec<Unit> {
    let llama = AttentionShape::LLAMA_3_8B;
    vec![
        unit(&llama, 3),
        unit(
            &AttentionShape {
                kv_heads: 2,
                ..llama
            },
            2,
        ),
        unit(
            &AttentionShape {
                head_dim: 64,
                ..llama
            },
            6,
        ),
        unit(
            &AttentionShape {
                head_dim: 256,
                ..llama
            },
            3,
        ),
        unit(&AttentionShape::ODD, 6),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(shared_bytes_max: u32) -> Properties {
        Properties {
            name: String::new(),
            architecture: (9, 0),
            multiprocessors: 132,
            shared_bytes_max,
            memory_bytes: 0,
            l2_bytes: 0,
        }
    }

    #[test]
    fn shared_memory_is_filled_with_stages() {
        let llama = AttentionShape::LLAMA_3_8B;
        let wide = AttentionShape {
            head_dim: 256,
            ..llama
        };
        let on = |shape: &AttentionShape, shared_bytes| {
            geometry(shape, &gpu(shared_bytes)).map(|geometry| (geometry.stages, geometry.blocks))
        };
        let hopper = 227 * 1024;
        assert_eq!(on(&llama, hopper), Ok((3, 2)));
        assert_eq!(
            on(
                &AttentionShape {
                    head_dim: 64,
                    ..llama
                },
                hopper
            ),
            Ok((6, 2))
        );
        assert_eq!(
            on(
                &AttentionShape {
                    kv_heads: 2,
                    ..llama
                },
                hopper
            ),
            Ok((2, 2))
        );
        assert_eq!(on(&wide, hopper), Ok((3, 1)));
        assert_eq!(on(&llama, 99 * 1024), Ok((2, 1)));
        let refused = on(&wide, 99 * 1024).unwrap_err().to_string();
        assert!(
            refused.contains("heads of 256 need 156304 bytes"),
            "{refused}"
        );
    }

    #[test]
    fn large_groups_are_more_units() {
        let shape = AttentionShape {
            query_heads: 40,
            kv_heads: 2,
            head_dim: 64,
            block_size: 64,
        };
        assert_eq!((rows(&shape), units_of_query(&shape)), (16, 4));
    }
}
