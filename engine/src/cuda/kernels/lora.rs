//! What adapters add to a projection: `y += scale * B (A x)`, each row with its own adapter or none.
//!
//! Two launches a projection, whichever adapters are loaded and whatever rows use them:
//! a recording finds both in device memory.

use super::{Arguments, launch};
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Unit};

/// The largest rank there may be room for.
pub const RANK_MAX: usize = 64;

/// Bytes of one entry of a table of adapters.
pub const ADAPTER_PART_BYTES: usize = 24;

/// Targets of a projection at most: query, key and value.
pub const PARTS_MAX: usize = 3;

const THREADS: u32 = 256;
const WARPS: usize = 8;
/// Columns that a warp takes at a time.
const UNIT_COLUMNS: usize = 32;
/// Parts into which the columns are cut at most.
const SPLITS_MAX: usize = 16;
/// Outputs of a block.
const BLOCK_OUTPUTS: usize = WARPS * 32;
/// Rows up to which a block has one tile of 16, so that there are more blocks.
const FEW_ROWS: usize = 256;

/// Rows of tiles of 16 that a block has: few rows, and many.
const FEW: Tiles = Tiles {
    shrink: 1,
    expand: 1,
};
const MANY: Tiles = Tiles {
    shrink: 4,
    expand: 2,
};

#[derive(Clone, Copy, Debug)]
struct Tiles {
    shrink: usize,
    expand: usize,
}

const fn facts(name: &'static str, argument_bytes: usize, registers_max: u32) -> KernelFacts {
    KernelFacts {
        name,
        argument_bytes,
        registers_max,
        instructions: &["HMMA"],
    }
}

fn unit(rank: usize, tiles: Tiles) -> Unit {
    Unit {
        file: "lora.cu",
        source: include_str!("../../../kernels/lora.cu"),
        constants: vec![
            ("RANK", rank as u32),
            ("SHRINK_TILES", tiles.shrink as u32),
            ("EXPAND_TILES", tiles.expand as u32),
        ],
        kernels: const {
            &[
                facts("shrink", 4 * 8 + 4 * 4, 192),
                facts("expand", 4 * 8 + 4 * 4 + PARTS_MAX * 16, 128),
            ]
        },
    }
}

/// Units for the smallest and the largest rank.
#[must_use]
pub fn units() -> Vec<Unit> {
    let ranks = [16, 48, RANK_MAX];
    let both = |rank| [unit(rank, FEW), unit(rank, MANY)];
    ranks.into_iter().flat_map(both).collect()
}

/// A rank as matrices have it: the rest of `A`'s rows and of `B`'s columns are zeros.
#[must_use]
pub fn padded_rank(rank: usize) -> usize {
    rank.max(1).next_multiple_of(16)
}

/// What an adapter adds to one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterPart {
    /// `A`: bf16 `[padded_rank][x_stride]`, zeros beyond its rank and beyond its inputs.
    pub down: Address,
    /// `B`: bf16 `[outputs][padded_rank]`, zeros beyond its rank.
    pub up: Address,
    /// [`padded_rank`], at most that of the [`Lora`].
    pub padded_rank: usize,
    /// What the product is multiplied with.
    pub scale: f32,
}

impl AdapterPart {
    /// An entry of a table of adapters, `[slots][parts]`. Zeros are an adapter that does not add to the target.
    ///
    /// # Panics
    /// If the rank has more than 32 bits.
    #[must_use]
    pub fn bytes(&self) -> [u8; ADAPTER_PART_BYTES] {
        let arguments = Arguments::new()
            .address(self.down)
            .address(self.up)
            .count(self.padded_rank)
            .number(self.scale);
        let bytes = arguments.bytes();
        bytes.try_into().expect("two addresses and two numbers")
    }
}

/// Where a target's outputs are in a row of `y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputPart {
    /// The first.
    pub first: usize,
    /// How many.
    pub outputs: usize,
    /// Whether 8 of them are followed by 8 of another target: gate (first 0) and up (first 8).
    pub interleaved: bool,
}

/// One projection of some rows.
#[derive(Clone, Copy, Debug)]
pub struct LoraCall<'a> {
    /// Rows.
    pub rows: usize,
    /// The projection's input: bf16 `[rows][x_stride]`, zeros beyond its inputs.
    pub x: Address,
    /// Values from one row to the next: a multiple of 64.
    pub x_stride: usize,
    /// The layer's adapters for this projection: `[slots][parts]` of [`AdapterPart::bytes`].
    pub adapters: Address,
    /// The slot of each row's adapter, -1 for none: i32 `[rows]`.
    pub slots: Address,
    /// Memory between the two launches: [`Lora::between_bytes`].
    pub between: Address,
    /// The projection's output, to which is added: bf16 `[rows][y_stride]`.
    pub y: Address,
    /// Values from one row to the next: a multiple of 64.
    pub y_stride: usize,
    /// The targets: at most [`PARTS_MAX`].
    pub parts: &'a [OutputPart],
}

/// Adds adapters to projections.
#[derive(Debug)]
pub struct Lora {
    rank: usize,
    multiprocessors: usize,
    few: Kernels,
    many: Kernels,
}

#[derive(Debug)]
struct Kernels {
    tiles: Tiles,
    shrink: Kernel,
    expand: Kernel,
}

impl Lora {
    /// Compiles the kernels for adapters of a rank up to this.
    ///
    /// # Errors
    /// If the rank is more than [`RANK_MAX`], or as [`Gpu::compile`].
    pub fn new(gpu: &mut dyn Gpu, rank_max: usize) -> Result<Self, GpuError> {
        let rank = padded_rank(rank_max);
        if rank > RANK_MAX {
            return Err(GpuError::Call {
                what: "adapters on the GPU",
                why: format!("their rank may be up to {RANK_MAX}, and {rank_max} was asked for"),
            });
        }
        let mut compiled = |tiles| -> Result<Kernels, GpuError> {
            let kernels = gpu.compile(&unit(rank, tiles))?;
            Ok(Kernels {
                tiles,
                shrink: kernels[0],
                expand: kernels[1],
            })
        };
        Ok(Self {
            rank,
            few: compiled(FEW)?,
            many: compiled(MANY)?,
            multiprocessors: gpu.properties().multiprocessors as usize,
        })
    }

    /// Memory between the launches (bytes), for up to so many rows, and any projection.
    #[must_use]
    pub fn between_bytes(&self, rows: usize) -> usize {
        // `splits(rows) * rows` is at most this: there are only more splits where there are few rows.
        let two_blocks_each = 2 * self.multiprocessors * 16 * MANY.shrink + rows;
        (rows * SPLITS_MAX).min(two_blocks_each) * PARTS_MAX * self.rank * 4
    }

    /// Warps of a block that divide the columns.
    fn column_warps(&self) -> usize {
        if self.rank > 32 { WARPS / 2 } else { WARPS }
    }

    /// Adds each row's adapter.
    ///
    /// # Errors
    /// If there are more targets than [`PARTS_MAX`], strides are not multiples of 64, or a launch is not possible.
    pub fn enqueue(&self, gpu: &mut dyn Gpu, call: &LoraCall<'_>) -> Result<(), GpuError> {
        if call.rows == 0 || call.parts.is_empty() {
            return Ok(());
        }
        let aligned = call.x_stride.is_multiple_of(64) && call.y_stride.is_multiple_of(64);
        if call.parts.len() > PARTS_MAX || !aligned {
            return Err(GpuError::Call {
                what: "adapters on the GPU",
                why: format!(
                    "{} targets, strides of {} and {}",
                    call.parts.len(),
                    call.x_stride,
                    call.y_stride
                ),
            });
        }
        let kernels = if call.rows <= FEW_ROWS {
            &self.few
        } else {
            &self.many
        };
        let splits = splits(
            call.rows,
            call.parts.len(),
            call.x_stride,
            self.column_warps(),
            kernels.tiles,
            self.multiprocessors,
        );
        self.shrink(gpu, call, kernels, splits)?;
        self.expand(gpu, call, kernels, splits)
    }

    fn shrink(
        &self,
        gpu: &mut dyn Gpu,
        call: &LoraCall<'_>,
        kernels: &Kernels,
        splits: usize,
    ) -> Result<(), GpuError> {
        let rows = 16 * kernels.tiles.shrink;
        let blocks = [splits, call.rows.div_ceil(rows), call.parts.len()];
        let arguments = Arguments::new()
            .address(call.x)
            .address(call.adapters)
            .address(call.slots)
            .address(call.between)
            .count(call.rows)
            .count(call.x_stride)
            .count(call.parts.len())
            .count(splits);
        let shared_bytes = self.column_warps() * rows * (self.rank + 8) * 4;
        launch(
            gpu,
            kernels.shrink,
            blocks.map(|blocks| blocks as u32),
            THREADS,
            shared_bytes as u32,
            arguments,
        )
    }

    fn expand(
        &self,
        gpu: &mut dyn Gpu,
        call: &LoraCall<'_>,
        kernels: &Kernels,
        splits: usize,
    ) -> Result<(), GpuError> {
        let mut arguments = Arguments::new()
            .address(call.between)
            .address(call.adapters)
            .address(call.slots)
            .address(call.y)
            .count(call.rows)
            .count(call.y_stride)
            .count(call.parts.len())
            .count(splits);
        let mut blocks = 0;
        for place in 0..PARTS_MAX {
            let none = OutputPart {
                first: 0,
                outputs: 0,
                interleaved: false,
            };
            let part = call.parts.get(place).unwrap_or(&none);
            let part_blocks = part.outputs.div_ceil(BLOCK_OUTPUTS);
            arguments = arguments
                .count(part.first)
                .count(part.outputs)
                .count(usize::from(part.interleaved))
                .count(part_blocks);
            blocks += part_blocks;
        }
        if blocks == 0 {
            return Ok(());
        }
        let rows = 16 * kernels.tiles.expand;
        let blocks = [blocks as u32, call.rows.div_ceil(rows) as u32, 1];
        // Rows are 8 or 24 banks apart.
        let stride = if (self.rank / 16).is_multiple_of(2) {
            self.rank + 16
        } else {
            self.rank
        };
        let shared_bytes = (rows * stride * 2) as u32;
        launch(
            gpu,
            kernels.expand,
            blocks,
            THREADS,
            shared_bytes,
            arguments,
        )
    }
}

/// Into how many parts the columns are cut: two blocks for each multiprocessor if that many have something to do.
fn splits(
    rows: usize,
    parts: usize,
    x_stride: usize,
    column_warps: usize,
    tiles: Tiles,
    multiprocessors: usize,
) -> usize {
    let blocks = rows.div_ceil(16 * tiles.shrink) * parts;
    let wanted = (2 * multiprocessors).div_ceil(blocks);
    let most = x_stride / UNIT_COLUMNS / column_warps;
    wanted.min(most).clamp(1, SPLITS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MULTIPROCESSORS: usize = 132;

    fn lora(rank: usize, multiprocessors: usize) -> Lora {
        let kernels = |tiles| Kernels {
            tiles,
            shrink: Kernel(0),
            expand: Kernel(0),
        };
        Lora {
            rank,
            multiprocessors,
            few: kernels(FEW),
            many: kernels(MANY),
        }
    }

    #[test]
    fn a_single_row_is_cut_and_many_are_not() {
        let of = |rows, tiles| splits(rows, 3, 4096, 4, tiles, MULTIPROCESSORS);
        assert_eq!(of(1, FEW), 16);
        assert_eq!(of(256, FEW), 6);
        assert_eq!(of(8192, MANY), 1);
        // No warp is without columns.
        assert_eq!(splits(1, 1, 64, 8, FEW, MULTIPROCESSORS), 1);
        assert_eq!(splits(1, 1, 512, 8, FEW, MULTIPROCESSORS), 2);
    }

    #[test]
    fn there_is_room_for_every_split() {
        for multiprocessors in [1, 3, 132, 1000] {
            for rank in [16, 64] {
                let lora = lora(rank, multiprocessors);
                for rows_max in [1, 15, 256, 257, 300, 5000, 17_000] {
                    let room = lora.between_bytes(rows_max);
                    for rows in 1..=rows_max {
                        let tiles = if rows <= FEW_ROWS { FEW } else { MANY };
                        for parts in 1..=PARTS_MAX {
                            let splits = splits(
                                rows,
                                parts,
                                1 << 20,
                                lora.column_warps(),
                                tiles,
                                multiprocessors,
                            );
                            let needed = splits * rows * parts * rank * 4;
                            assert!(needed <= room, "{rows} of {rows_max} rows");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn entries_of_tables_are_as_in_the_kernel() {
        let part = AdapterPart {
            down: Address(0x0102_0304_0506_0708),
            up: Address(9),
            padded_rank: 16,
            scale: 2.0,
        };
        let bytes = part.bytes();
        assert_eq!(bytes[..8], 0x0102_0304_0506_0708_u64.to_ne_bytes());
        assert_eq!(bytes[16..20], 16_u32.to_ne_bytes());
        assert_eq!(bytes[20..], 2.0_f32.to_ne_bytes());
        assert_eq!([1, 16, 17, 64].map(padded_rank), [16, 16, 32, 64]);
    }
}
