//! Attention of chunks of prompts: a tile of queries a block.

use super::attention_prefill_plan::{self as plan, PrefillPlan, PrefillSequence};
use super::attention_shape::AttentionShape;
use super::{Arguments, launch};
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Unit};

const THREADS: u32 = 128;
/// Keys that are in shared memory at once, twice.
const KEYS: usize = 64;
/// The widest head whose sums a warp holds for 32 rows.
const PADDED_MAX_OF_TALL_TILES: usize = 128;

const KERNELS: &[KernelFacts] = &[KernelFacts {
    name: "attention_prefill",
    argument_bytes: 56,
    registers_max: 255,
    instructions: &["HMMA", "LDGSTS", "LDSM"],
}];

/// Launches `attention_prefill.cu`.
#[derive(Clone, Debug)]
pub struct AttentionPrefill {
    shape: AttentionShape,
    multiprocessors: usize,
    /// Of ever smaller tiles.
    versions: Vec<Version>,
}

/// A kernel of one tile.
#[derive(Clone, Copy, Debug)]
struct Version {
    kernel: Kernel,
    tile_rows: usize,
    threads: u32,
    shared_bytes: usize,
}

/// Prefill attention of one layer.
#[derive(Clone, Copy, Debug)]
pub struct PrefillCall<'a> {
    /// What blocks do, from [`AttentionPrefill::plan`].
    pub plan: &'a PrefillPlan,
    /// The plan's words. They are written by copies, never by a kernel.
    pub work: Address,
    /// The queries, bf16 `[rows][query_heads][padded]`.
    pub q: Address,
    /// The layer's KV cache, in which the chunks' own tokens are already.
    pub cache: Address,
    /// The sequences' blocks, u32 `[sequences][table_stride]`.
    pub tables: Address,
    /// Entries from one table to the next.
    pub table_stride: usize,
    /// How many of its last tokens a token sees, itself included.
    pub window: Option<usize>,
    /// Where the sums go, bf16 `[rows][a_stride]`: `query_heads * head_dim` values of each row.
    pub a: Address,
    /// Values from one row of `a` to the next.
    pub a_stride: usize,
}

impl AttentionPrefill {
    /// Compiles it.
    ///
    /// # Errors
    /// If the GPU's shared memory does not hold such heads, or as [`Gpu::compile`].
    pub fn new(gpu: &mut dyn Gpu, shape: AttentionShape) -> Result<Self, GpuError> {
        let properties = gpu.properties().clone();
        let mut versions = Vec::new();
        for tile_rows in tiles(&shape, properties.shared_bytes_max as usize)? {
            let kernel = gpu.compile(&unit(&shape, tile_rows))?[0];
            let shared_bytes = shared_bytes(&shape, tile_rows);
            versions.push(Version {
                kernel,
                tile_rows,
                threads: THREADS,
                shared_bytes,
            });
        }
        Ok(Self {
            shape,
            multiprocessors: properties.multiprocessors as usize,
            versions,
        })
    }

    /// What blocks do, in the tallest tiles of which there are enough for all multiprocessors.
    #[must_use]
    pub fn plan(&self, sequences: &[PrefillSequence], window: Option<usize>) -> PrefillPlan {
        let enough = |version: &&Version| {
            plan::items(sequences, &self.shape, version.tile_rows) >= self.multiprocessors
        };
        let smallest = self.versions.last();
        let version = self.versions.iter().find(enough).or(smallest);
        let tile_rows = version.expect("there is a version").tile_rows;
        plan::plan(sequences, &self.shape, tile_rows, window)
    }

    /// Rows of the tiles that there are kernels for, descending.
    pub fn tiles(&self) -> impl Iterator<Item = usize> {
        self.versions.iter().map(|version| version.tile_rows)
    }

    /// Launches it.
    ///
    /// # Errors
    /// If the plan is another's, or as [`Gpu::launch`].
    pub fn enqueue(&self, gpu: &mut dyn Gpu, call: &PrefillCall<'_>) -> Result<(), GpuError> {
        if call.plan.items.is_empty() {
            return Ok(());
        }
        let tile_rows = call.plan.tile_rows;
        let version = self
            .versions
            .iter()
            .find(|version| version.tile_rows == tile_rows);
        let version = version.ok_or_else(|| GpuError::Call {
            what: "prefill attention",
            why: format!("planned for tiles of {tile_rows} rows, which it has no kernel for"),
        })?;
        let arguments = Arguments::new()
            .address(call.q)
            .address(call.cache)
            .address(call.tables)
            .address(call.work)
            .address(call.a)
            .count(call.table_stride)
            .count(call.a_stride)
            .count(call.window.unwrap_or(0))
            .number(self.shape.scale());
        let blocks =
            u32::try_from(call.plan.items.len()).expect("a step's tiles fit into a launch");
        let shared_bytes = version.shared_bytes as u32;
        launch(
            gpu,
            version.kernel,
            [blocks, 1, 1],
            version.threads,
            shared_bytes,
            arguments,
        )
    }
}

/// Rows of the tiles that there are kernels for, descending.
fn tiles(shape: &AttentionShape, shared_bytes_max: usize) -> Result<Vec<usize>, GpuError> {
    let narrow = |tile_rows: &usize| *tile_rows == 64 || shape.padded() <= PADDED_MAX_OF_TALL_TILES;
    let fits = |tile_rows: &usize| shared_bytes(shape, *tile_rows) <= shared_bytes_max;
    let tiles: Vec<usize> = [128, 64].into_iter().filter(narrow).filter(fits).collect();
    if tiles.is_empty() {
        return Err(GpuError::Call {
            what: "prefill attention",
            why: format!(
                "heads of {} need {} bytes of shared memory, and this GPU has {shared_bytes_max}",
                shape.head_dim,
                shared_bytes(shape, 64)
            ),
        });
    }
    Ok(tiles)
}

/// The queries; two tiles of keys and of values.
fn shared_bytes(shape: &AttentionShape, tile_rows: usize) -> usize {
    (tile_rows + 4 * KEYS) * shape.tile_row_bytes()
}

fn unit(shape: &AttentionShape, tile_rows: usize) -> Unit {
    let mut constants = shape.constants();
    constants.push(("GROUP", shape.group() as u32));
    constants.push(("TILE_ROWS", tile_rows as u32));
    Unit {
        file: "attention_prefill.cu",
        source: include_str!("../../../kernels/attention_prefill.cu"),
        constants,
        kernels: KERNELS,
    }
}

/// What it is compiled for in checks without a GPU.
#[must_use]
pub fn units() -> Vec<Unit> {
    let llama = AttentionShape::LLAMA_3_8B;
    let wide = AttentionShape {
        head_dim: 256,
        ..llama
    };
    let small_blocks = AttentionShape {
        head_dim: 80,
        block_size: 16,
        ..llama
    };
    let all = [
        (llama, 128),
        (llama, 64),
        (wide, 64),
        (small_blocks, 128),
        (AttentionShape::ODD, 128),
    ];
    all.iter()
        .map(|(shape, tile_rows)| unit(shape, *tile_rows))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tall_tiles_are_for_heads_that_a_warp_holds() {
        let llama = AttentionShape::LLAMA_3_8B;
        let wide = AttentionShape {
            head_dim: 256,
            ..llama
        };
        let hopper = 227 * 1024;
        assert_eq!(tiles(&llama, hopper), Ok(vec![128, 64]));
        assert_eq!(
            shared_bytes(&llama, 128),
            96 * 1024,
            "two blocks a multiprocessor"
        );
        assert_eq!(tiles(&wide, hopper), Ok(vec![64]));
        let refused = tiles(&wide, 99 * 1024).unwrap_err().to_string();
        assert!(
            refused.contains("heads of 256 need 163840 bytes"),
            "{refused}"
        );
    }
}
