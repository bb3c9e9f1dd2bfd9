//! How products with few tokens are cut: what shape a tile has, and which steps are whose.
//!
//! A tile is rows of weights, a step is some of its inputs, and steps of all tiles in a row
//! are divided evenly over the blocks ("Stream-K", Osama et al. 2023).

use std::ops::Range;

use crate::cuda::gpu::{KernelFacts, Unit};

/// The most tokens of a call.
pub const TOKENS_MAX: usize = 64;

const WARPS: usize = 8;
pub(super) const THREADS: usize = 32 * WARPS;

const KERNELS: &[KernelFacts] = &[KernelFacts {
    name: "skinny",
    argument_bytes: 136,
    // Two blocks of 256 threads share a multiprocessor's 65,536.
    registers_max: 128,
    instructions: &["HMMA", "LDSM", "LDGSTS"],
}];

/// How the 8 warps of a block are arranged over the rows and the inputs of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// The most tokens.
    pub(super) tokens: usize,
    /// Tiles of 16 rows that a warp has.
    row_tiles: usize,
    /// Warps with rows of their own.
    row_warps: usize,
}

impl Shape {
    /// All that there are for so many tokens: tall tiles read `x` less often, short ones leave less to add up.
    #[must_use]
    pub fn of(tokens: usize) -> [Self; 2] {
        let tokens = (8..TOKENS_MAX).find(|&t| t.is_power_of_two() && t >= tokens);
        let tokens = tokens.unwrap_or(TOKENS_MAX);
        // Of 64 tokens, each fragment of x is used for two of weights: half the reads of shared memory.
        let row_tiles = if tokens == TOKENS_MAX { 2 } else { 1 };
        [8, 4].map(|row_warps| Self {
            tokens,
            row_tiles,
            row_warps,
        })
    }

    /// Rows of a tile.
    fn rows(self) -> usize {
        16 * self.row_tiles * self.row_warps
    }

    /// Inputs of a step: with the rows, 16 KiB of weights.
    fn step(self) -> usize {
        8192 / self.rows()
    }

    /// Tokens that are finished at a time: many, for their reads to be on their way together, but where fewer make
    /// room for one step more.
    fn pass(self) -> usize {
        if self.tokens == 32 {
            16
        } else {
            self.tokens.min(32)
        }
    }

    /// Shared memory of a step: weights and `x` (bytes).
    fn stage_bytes(self) -> usize {
        (self.rows() + self.tokens) * self.step() * 2
    }

    /// Shared memory beside the ring of steps: what is being finished, the norms, and a flag (bytes).
    fn other_bytes(self) -> usize {
        self.pass() * (self.rows() + 4) * 4 + self.tokens * 4 + 16
    }

    /// Steps in shared memory: so many that two blocks fit on a multiprocessor, or else 2.
    pub(super) fn stages(self, shared_bytes_max: usize) -> usize {
        // A block can ask for all of a multiprocessor's but 1 KiB, and each takes 1 KiB more than it asks for
        // (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
        let half = shared_bytes_max / 2 - 512;
        (half.saturating_sub(self.other_bytes()) / self.stage_bytes()).clamp(2, 12)
    }

    pub(super) fn shared_bytes(self, stages: usize) -> usize {
        stages * self.stage_bytes() + self.other_bytes()
    }

    pub(super) fn unit(self, shared_bytes_max: usize) -> Unit {
        let stages = self.stages(shared_bytes_max);
        let constant = |value: usize| u32::try_from(value).expect("a small number");
        Unit {
            file: "skinny.cu",
            source: include_str!("../../../kernels/skinny.cu"),
            constants: vec![
                ("TOKENS", constant(self.tokens)),
                ("ROW_TILES", constant(self.row_tiles)),
                ("ROW_WARPS", constant(self.row_warps)),
                ("K_WARPS", constant(WARPS / self.row_warps)),
                ("STAGES", constant(stages)),
                ("PASS", constant(self.pass())),
            ],
            kernels: KERNELS,
        }
    }

    /// The shape that is quickest, as far as can be told.
    pub(super) fn quickest(
        tokens: usize,
        outputs: usize,
        inputs: usize,
        multiprocessors: usize,
    ) -> Self {
        let [tall, short] = Self::of(tokens);
        let cycles = |shape: Self| shape.cycles(tokens, outputs, inputs, multiprocessors);
        if cycles(short) < cycles(tall) {
            short
        } else {
            tall
        }
    }

    /// About how long a product takes (cycles of a multiprocessor): only good to compare shapes.
    ///
    /// A multiprocessor gets 18 bytes a cycle from an H200's memory (4.3 TB/s over 132 at 1.75 GHz). What it gets from
    /// the L2 cache, and what it loses a step, are assumed: 25 while all read, 50 alone, 10 cycles.
    fn cycles(self, tokens: usize, outputs: usize, inputs: usize, multiprocessors: usize) -> usize {
        let partition = Partition::of(self, outputs, inputs, multiprocessors);
        let weights = self.rows() * self.step() * 2;
        let x = tokens * self.step() * 2;
        let streamed = partition.longest() * ((weights / 18).max((weights + x) / 25) + 10);
        let part = self.rows() * tokens.next_multiple_of(8) * 4;
        streamed + partition.parts_max() * part / 50
    }
}

/// How the steps of all tiles are divided over the blocks: step `s` of tile `t` is number
/// `t * steps + s`, and each block has numbers that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Tiles of rows.
    pub tiles: usize,
    /// Steps of a tile.
    pub steps: usize,
    /// Blocks.
    pub blocks: usize,
}

impl Partition {
    pub(super) fn of(shape: Shape, outputs: usize, inputs: usize, multiprocessors: usize) -> Self {
        let tiles = outputs.div_ceil(shape.rows());
        let steps = inputs.div_ceil(shape.step());
        Self {
            tiles,
            steps,
            blocks: multiprocessors.min(tiles * steps),
        }
    }

    /// Steps of every block, but one more of the first [`Partition::extra`].
    pub(super) fn each(self) -> usize {
        self.tiles * self.steps / self.blocks
    }

    pub(super) fn extra(self) -> usize {
        self.tiles * self.steps % self.blocks
    }

    /// The numbers of a block's steps, as the kernel finds them.
    #[must_use]
    pub fn range(self, block: usize) -> Range<usize> {
        let begin = |block: usize| block * self.each() + block.min(self.extra());
        begin(block)..begin(block + 1)
    }

    /// The block that has a step, as the kernel finds it.
    #[must_use]
    pub fn block_of(self, step: usize) -> usize {
        let longer = self.extra() * (self.each() + 1);
        if step < longer {
            step / (self.each() + 1)
        } else {
            self.extra() + (step - longer) / self.each()
        }
    }

    /// Steps of the block that has most.
    fn longest(self) -> usize {
        self.each() + usize::from(self.extra() > 0)
    }

    /// The most blocks that share a tile; none where each block has whole tiles.
    fn parts_max(self) -> usize {
        if self.extra() == 0 && self.each().is_multiple_of(self.steps) {
            return 0;
        }
        let parts = |tile: usize| {
            let first = self.block_of(tile * self.steps);
            self.block_of((tile + 1) * self.steps - 1) - first + 1
        };
        (0..self.tiles).map(parts).max().unwrap_or(0)
    }
}

/// Two parts of tiles a block, of the largest shape.
pub(super) fn parts_bytes(blocks: usize) -> usize {
    let [tall, _] = Shape::of(TOKENS_MAX);
    2 * blocks * tall.rows() * TOKENS_MAX * 4
}

/// A count a tile, of the shortest tiles.
pub(super) fn arrivals_bytes(outputs_max: usize) -> usize {
    outputs_max.div_ceil(64) * 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Shared memory of a block, of an A100, an RTX 4090 and an H200.
    const SHARED_BYTES_MAX: [usize; 3] = [166_912, 101_376, 232_448];

    fn shapes() -> impl Iterator<Item = Shape> {
        [8, 16, 32, 64].into_iter().flat_map(Shape::of)
    }

    #[test]
    fn there_is_a_shape_for_every_number_of_tokens() {
        for tokens in 1..=TOKENS_MAX {
            for shape in Shape::of(tokens) {
                assert!(
                    shape.tokens >= tokens && shape.tokens <= tokens.next_power_of_two().max(8)
                );
            }
        }
    }

    #[test]
    fn a_block_fits_and_on_an_h200_two_do_with_four_steps_on_their_way() {
        for shape in shapes() {
            for shared_bytes_max in SHARED_BYTES_MAX {
                assert!(
                    shape.shared_bytes(shape.stages(shared_bytes_max)) <= shared_bytes_max,
                    "{shape:?}"
                );
            }
            let stages = shape.stages(232_448);
            assert!(
                2 * (shape.shared_bytes(stages) + 1024) <= 233_472,
                "{shape:?}"
            );
            let weights_bytes = shape.rows() * shape.step() * 2;
            assert!(
                (stages - 1) * weights_bytes >= 48 * 1024,
                "{shape:?}: {stages}"
            );
        }
    }

    #[test]
    fn there_is_room_for_the_parts_and_counts_of_every_shape() {
        let multiprocessors = 132;
        for shape in shapes() {
            let part = shape.rows() * shape.tokens * 4;
            assert!(
                2 * multiprocessors * part <= parts_bytes(multiprocessors),
                "{shape:?}"
            );
            for outputs in [1_usize, 64, 65, 4096, 128_256] {
                assert!(
                    outputs.div_ceil(shape.rows()) * 4 <= arrivals_bytes(outputs),
                    "{shape:?}"
                );
            }
        }
    }

    #[test]
    fn small_matrices_of_many_tokens_get_short_tiles_and_large_ones_tall_ones() {
        let rows = |tokens, outputs, inputs| Shape::quickest(tokens, outputs, inputs, 132).rows();
        assert_eq!(rows(64, 28_672, 4096), 256, "gate and up");
        assert_eq!(rows(64, 128_256, 4096), 256, "output projection");
        assert_eq!(rows(64, 4096, 4096), 128, "attention's output");
        assert_eq!(rows(32, 28_672, 4096), 128, "gate and up, of half as many");
        assert_eq!(rows(1, 4096, 4096), 64, "attention's output, of one");
    }

    proptest! {
        /// What the kernel relies on: every step has one block, found from either side; and a block has
        /// at most two tiles that are not all its own.
        #[test]
        fn every_step_is_one_blocks(
            outputs in 1_usize..5000,
            inputs in 1_usize..3000,
            multiprocessors in 1_usize..200,
            which in 0_usize..8,
        ) {
            let shape = shapes().nth(which).unwrap();
            let partition = Partition::of(shape, outputs, inputs, multiprocessors);
            let Partition { tiles, steps, blocks } = partition;
            prop_assert!(tiles * shape.rows() >= outputs && (tiles - 1) * shape.rows() < outputs);
            prop_assert!(steps * shape.step() >= inputs && blocks <= multiprocessors);
            let mut next = 0;
            for block in 0..blocks {
                let range = partition.range(block);
                prop_assert_eq!(range.start, next);
                prop_assert!((partition.each()..=partition.longest()).contains(&range.len()) && !range.is_empty());
                prop_assert!(range.clone().all(|step| partition.block_of(step) == block));
                next = range.end;
            }
            prop_assert_eq!(next, tiles * steps);
        }

        #[test]
        fn the_largest_number_of_parts_is_what_tiles_have(
            outputs in 1_usize..2000,
            inputs in 1_usize..2000,
            multiprocessors in 1_usize..40,
        ) {
            let [shape, _] = Shape::of(1);
            let partition = Partition::of(shape, outputs, inputs, multiprocessors);
            let of_tile = |tile: usize| {
                let tile = tile * partition.steps..(tile + 1) * partition.steps;
                let overlaps = |block: &usize| {
                    let range = partition.range(*block);
                    range.start < tile.end && tile.start < range.end
                };
                (0..partition.blocks).filter(overlaps).count()
            };
            let most = (0..partition.tiles).map(of_tile).max().unwrap();
            prop_assert!(partition.parts_max() == most || (partition.parts_max() == 0 && most == 1));
        }
    }
}
