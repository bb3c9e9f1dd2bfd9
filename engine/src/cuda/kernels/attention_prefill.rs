//! Attention of chunks of prompts: a tile of queries a block.

use super::attention_prefill_plan::{self as plan, PrefillPlan, PrefillSequence, SPLIT_ITEMS_MAX};
use super::attention_shape::AttentionShape;
use super::{Arguments, launch};
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Properties, Unit};

const THREADS: u32 = 128;
/// One warpgroup that copies, two that multiply.
const HOPPER_THREADS: u32 = 384;
/// Rows of a Hopper kernel's tiles, of queries and of keys.
const HOPPER_TILE_ROWS: usize = 128;
/// The smallest KV blocks that the Hopper kernel copies.
const HOPPER_BLOCK_SIZE_MIN: usize = 16;
/// Keys that are in shared memory at once, twice.
const KEYS: usize = 64;
/// Rows of the smallest tiles, which are for all heads.
const TILE_ROWS_MIN: usize = 64;
/// The widest head whose sums a warp holds for 32 rows.
const PADDED_MAX_OF_TALL_TILES: usize = 128;

const KERNELS: &[KernelFacts] = &[KernelFacts {
    name: "attention_prefill",
    argument_bytes: 72,
    registers_max: 255,
    instructions: &["HMMA", "LDGSTS", "LDSM"],
}];

const HOPPER_KERNELS: &[KernelFacts] = &[KernelFacts {
    name: "attention_prefill_hopper",
    argument_bytes: 56,
    registers_max: 168,
    instructions: &["HGMMA", "LDGSTS", "SYNCS", "USETMAXREG"],
}];

/// Launches `attention_prefill_hopper.cu` where it can, and `attention_prefill.cu` for small steps and everywhere else.
#[derive(Clone, Debug)]
pub struct AttentionPrefill {
    shape: AttentionShape,
    /// Blocks that tiles are split for where there are too few.
    blocks: usize,
    /// What ranges of split tiles leave, and what counts them: zeros between launches.
    workspace: Address,
    counters: Address,
    /// Of ever smaller tiles.
    versions: Vec<Version>,
}

/// A kernel of one tile.
#[derive(Clone, Copy, Debug)]
struct Version {
    kernel: Kernel,
    tile_rows: usize,
    /// Fewer tiles than this leave so many multiprocessors idle that smaller ones are faster. A Hopper
    /// kernel is as fast as two others.
    items_min: usize,
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
        let hopper = is_for_hopper(&shape, gpu.properties());
        Self::of(gpu, shape, hopper)
    }

    /// Compiles it without what only Hopper has: what that is compared with.
    ///
    /// # Errors
    /// As [`AttentionPrefill::new`].
    pub fn portable(gpu: &mut dyn Gpu, shape: AttentionShape) -> Result<Self, GpuError> {
        Self::of(gpu, shape, false)
    }

    fn of(gpu: &mut dyn Gpu, shape: AttentionShape, hopper: bool) -> Result<Self, GpuError> {
        let properties = gpu.properties().clone();
        let multiprocessors = properties.multiprocessors as usize;
        let mut versions = Vec::new();
        for tile_rows in tiles(&shape, properties.shared_bytes_max as usize)? {
            let version = if hopper && tile_rows == HOPPER_TILE_ROWS {
                Version {
                    kernel: gpu.compile(&hopper_unit(&shape))?[0],
                    tile_rows,
                    items_min: multiprocessors / 2,
                    threads: HOPPER_THREADS,
                    shared_bytes: hopper_shared_bytes(&shape),
                }
            } else {
                Version {
                    kernel: gpu.compile(&unit(&shape, tile_rows))?[0],
                    tile_rows,
                    items_min: multiprocessors,
                    threads: THREADS,
                    shared_bytes: shared_bytes(&shape, tile_rows),
                }
            };
            versions.push(version);
        }
        let blocks = split_blocks(multiprocessors);
        let partials = blocks + multiprocessors;
        let workspace = gpu.allocate(partials * partial_bytes(&shape))?;
        let counters = gpu.allocate(4 * partials)?;
        gpu.fill(counters, 4 * partials, 0)?;
        Ok(Self {
            shape,
            blocks,
            workspace,
            counters,
            versions,
        })
    }

    /// What blocks do, in the tallest tiles of which there are enough. If there are not enough of any, the smallest
    /// are split.
    #[must_use]
    pub fn plan(&self, sequences: &[PrefillSequence], window: Option<usize>) -> PrefillPlan {
        let enough = |version: &&Version| {
            plan::items(sequences, &self.shape, version.tile_rows) >= version.items_min
        };
        match self.versions.iter().find(enough) {
            Some(version) => plan::plan(sequences, &self.shape, version.tile_rows, window),
            None => self.split(sequences, window),
        }
    }

    /// What blocks do if the smallest tiles are split. There may be fewer such tiles than multiprocessors, not more.
    #[must_use]
    pub fn split(&self, sequences: &[PrefillSequence], window: Option<usize>) -> PrefillPlan {
        let whole = plan::plan(sequences, &self.shape, TILE_ROWS_MIN, window);
        plan::split(&whole, &self.shape, window, self.blocks)
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
        let mut arguments = Arguments::new()
            .address(call.q)
            .address(call.cache)
            .address(call.tables)
            .address(call.work)
            .address(call.a);
        if version.threads == THREADS {
            arguments = arguments.address(self.workspace).address(self.counters);
        }
        let arguments = arguments
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
    let narrow = |tile_rows: &usize| {
        *tile_rows == TILE_ROWS_MIN || shape.padded() <= PADDED_MAX_OF_TALL_TILES
    };
    let fits = |tile_rows: &usize| shared_bytes(shape, *tile_rows) <= shared_bytes_max;
    let tiles: Vec<usize> = [128, TILE_ROWS_MIN]
        .into_iter()
        .filter(narrow)
        .filter(fits)
        .collect();
    if tiles.is_empty() {
        return Err(GpuError::Call {
            what: "prefill attention",
            why: format!(
                "heads of {} need {} bytes of shared memory, and this GPU has {shared_bytes_max}",
                shape.head_dim,
                shared_bytes(shape, TILE_ROWS_MIN)
            ),
        });
    }
    Ok(tiles)
}

/// Blocks that tiles are split for: as many as run at a time.
fn split_blocks(multiprocessors: usize) -> usize {
    (2 * multiprocessors).min(SPLIT_ITEMS_MAX.saturating_sub(multiprocessors))
}

/// What a range of a tile leaves: `PARTIAL_FLOATS` of the kernel.
fn partial_bytes(shape: &AttentionShape) -> usize {
    4 * TILE_ROWS_MIN * (shape.padded() + 2)
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

/// Whether the Hopper kernel computes such heads on such a GPU.
fn is_for_hopper(shape: &AttentionShape, gpu: &Properties) -> bool {
    gpu.architecture == (9, 0)
        && [64, 128].contains(&shape.head_dim)
        && shape.block_size >= HOPPER_BLOCK_SIZE_MIN
        && hopper_shared_bytes(shape) <= gpu.shared_bytes_max as usize
}

/// A tile of queries, two of keys, two of values; nine barriers.
fn hopper_shared_bytes(shape: &AttentionShape) -> usize {
    5 * HOPPER_TILE_ROWS * 2 * shape.head_dim + 9 * 8
}

fn hopper_unit(shape: &AttentionShape) -> Unit {
    let mut constants = shape.constants();
    constants.push(("GROUP", shape.group() as u32));
    Unit {
        file: "attention_prefill_hopper.cu",
        source: include_str!("../../../kernels/attention_prefill_hopper.cu"),
        constants,
        kernels: HOPPER_KERNELS,
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
    let narrow = AttentionShape {
        query_heads: 24,
        head_dim: 64,
        block_size: 16,
        ..llama
    };
    let portable = [
        (llama, 128),
        (llama, 64),
        (wide, 64),
        (small_blocks, 128),
        (AttentionShape::ODD, 128),
    ];
    let portable = portable
        .iter()
        .map(|(shape, tile_rows)| unit(shape, *tile_rows));
    portable
        .chain([llama, narrow].iter().map(hopper_unit))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hopper_has_a_kernel_for_the_usual_heads() {
        let hopper = Properties {
            name: String::new(),
            architecture: (9, 0),
            multiprocessors: 132,
            shared_bytes_max: 227 * 1024,
            memory_bytes: 0,
            l2_bytes: 0,
        };
        let llama = AttentionShape::LLAMA_3_8B;
        assert!(is_for_hopper(&llama, &hopper));
        assert!(is_for_hopper(
            &AttentionShape {
                head_dim: 64,
                ..llama
            },
            &hopper
        ));
        assert!(!is_for_hopper(
            &AttentionShape {
                head_dim: 96,
                ..llama
            },
            &hopper
        ));
        assert!(!is_for_hopper(
            &AttentionShape {
                block_size: 8,
                ..llama
            },
            &hopper
        ));
        assert!(!is_for_hopper(
            &llama,
            &Properties {
                architecture: (10, 0),
                ..hopper
            }
        ));
    }

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
