//! Products of weights with few tokens, at the speed of memory: `y = f(x Wᵀ)` for 1 to 64 tokens.
//!
//! All steps of all row tiles, one after the other, are divided evenly over a block a
//! multiprocessor ([`Partition`]): whatever the shape, all have the same work. `skinny.cu` says
//! how a block does its part, and what bounds it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Arguments, launch};
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Properties, Unit};

/// The most tokens of a call.
pub const TOKENS_MAX: usize = 64;

/// Rows of one of the sums of squares that [`NextNorm`] has: a column of `x` belongs to sum `column / 64`.
const PART_ROWS: usize = 64;

const WARPS: usize = 8;
const THREADS: usize = 32 * WARPS;

const KERNELS: &[KernelFacts] = &[KernelFacts {
    name: "skinny",
    argument_bytes: 136,
    // Two blocks of 256 threads share a multiprocessor's 65,536.
    registers_max: 128,
    instructions: &["HMMA", "LDSM", "LDGSTS"],
}];

/// A product of weights with few tokens. Strides are values from one row to the next.
#[derive(Clone, Copy, Debug)]
pub struct SkinnyCall {
    /// Rows of `x`: 1 to 64.
    pub tokens: usize,
    /// bf16 `[tokens][x_stride]`; multiplied by the norm's scales already, if there is one.
    pub x: Address,
    /// At least `inputs`, rounded up to a multiple of 64; zeros are beyond `inputs`.
    pub x_stride: usize,
    /// bf16 `[outputs][weights_stride]`.
    pub weights: Address,
    /// As `x_stride`.
    pub weights_stride: usize,
    /// Rows of the weights: any number, but a multiple of 16 for [`Epilogue::SiluMul`].
    pub outputs: usize,
    /// Columns of the weights.
    pub inputs: usize,
    /// What is left of the norm before this product.
    pub norm: Option<DeferredNorm>,
    /// What is done with the product.
    pub epilogue: Epilogue,
}

/// What is left of an RMS norm whose scales are in `x` already: the product is divided by the root of the mean square.
#[derive(Clone, Copy, Debug)]
pub struct DeferredNorm {
    /// f32 `[parts][tokens]`: sums of squares of parts of `x` before it was scaled.
    pub sums: Address,
    /// How many.
    pub parts: usize,
    /// How many values were squared, of a token.
    pub width: usize,
    /// What is added to the mean square.
    pub eps: f32,
}

/// What is done with a product. Columns of padding are not written.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue {
    /// `y = product + bias`.
    Store {
        /// bf16 `[tokens][y_stride]`.
        y: Address,
        /// A multiple of 4.
        y_stride: usize,
        /// f32 `[outputs]`.
        bias: Option<Address>,
    },
    /// `y = product`, as logits are.
    StoreF32 {
        /// f32 `[tokens][y_stride]`.
        y: Address,
        /// A multiple of 4.
        y_stride: usize,
    },
    /// `x += product + bias`, and the first half of the norm of `x` that follows.
    Add {
        /// bf16 `[tokens][x_stride]`.
        x: Address,
        /// A multiple of 4.
        x_stride: usize,
        /// f32 `[outputs]`.
        bias: Option<Address>,
        /// The norm that follows.
        next: Option<NextNorm>,
    },
    /// `h = silu(gate) * up`, where of 16 outputs the first 8 are those of the gate, and the others those of up.
    SiluMul {
        /// bf16 `[tokens][h_stride]`, of which `outputs / 2` columns are written.
        h: Address,
        /// A multiple of 4.
        h_stride: usize,
    },
}

/// The first half of an RMS norm: all but the division by the root of the mean square, which is [`DeferredNorm`]'s.
#[derive(Clone, Copy, Debug)]
pub struct NextNorm {
    /// f32 `[outputs]`.
    pub scales: Address,
    /// bf16 `[tokens][scaled_stride]`: `x * scales` is written here.
    pub scaled: Address,
    /// A multiple of 4.
    pub scaled_stride: usize,
    /// f32 `[sum_parts(outputs)][tokens]`: the sums of squares are written here.
    pub sums: Address,
}

/// How many sums of squares a token has in [`NextNorm::sums`].
#[must_use]
pub fn sum_parts(outputs: usize) -> usize {
    outputs.div_ceil(PART_ROWS)
}

/// How the 8 warps of a block are arranged over the rows and the inputs of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// The most tokens.
    tokens: usize,
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
    fn stages(self, shared_bytes_max: usize) -> usize {
        // A block can ask for all of a multiprocessor's but 1 KiB, and each takes 1 KiB more than it asks for
        // (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
        let half = shared_bytes_max / 2 - 512;
        (half.saturating_sub(self.other_bytes()) / self.stage_bytes()).clamp(2, 12)
    }

    fn shared_bytes(self, stages: usize) -> usize {
        stages * self.stage_bytes() + self.other_bytes()
    }

    fn unit(self, shared_bytes_max: usize) -> Unit {
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
    fn of(shape: Shape, outputs: usize, inputs: usize, multiprocessors: usize) -> Self {
        let tiles = outputs.div_ceil(shape.rows());
        let steps = inputs.div_ceil(shape.step());
        Self {
            tiles,
            steps,
            blocks: multiprocessors.min(tiles * steps),
        }
    }

    /// Steps of every block, but one more of the first [`Partition::extra`].
    fn each(self) -> usize {
        self.tiles * self.steps / self.blocks
    }

    fn extra(self) -> usize {
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

/// The launcher of `skinny.cu`.
#[derive(Debug)]
pub struct Skinny {
    parts: Address,
    arrivals: Address,
    outputs_max: usize,
    multiprocessors: usize,
    shared_bytes_max: usize,
    kernels: BTreeMap<Shape, Kernel>,
}

impl Skinny {
    /// Memory that products need beside what they are of (bytes), if none has more outputs than this.
    #[must_use]
    pub fn workspace_bytes(properties: &Properties, outputs_max: usize) -> usize {
        let blocks = properties.multiprocessors as usize;
        Self::parts_bytes(blocks) + arrivals_bytes(outputs_max)
    }

    /// Two parts of tiles a block, of the largest shape.
    fn parts_bytes(blocks: usize) -> usize {
        let [tall, _] = Shape::of(TOKENS_MAX);
        2 * blocks * tall.rows() * TOKENS_MAX * 4
    }

    /// A launcher that works in `workspace`, of [`Skinny::workspace_bytes`], which only it and others of its kind use.
    /// Kernels are compiled as they are needed, or by [`Skinny::prepare`].
    ///
    /// # Errors
    /// If the GPU is lost.
    pub fn new(
        gpu: &mut dyn Gpu,
        workspace: Address,
        outputs_max: usize,
    ) -> Result<Self, GpuError> {
        let properties = gpu.properties();
        let multiprocessors = properties.multiprocessors as usize;
        let shared_bytes_max = properties.shared_bytes_max as usize;
        let arrivals = workspace.offset(Self::parts_bytes(multiprocessors));
        gpu.fill(arrivals, arrivals_bytes(outputs_max), 0)?;
        Ok(Self {
            parts: workspace,
            arrivals,
            outputs_max,
            multiprocessors,
            shared_bytes_max,
            kernels: BTreeMap::new(),
        })
    }

    /// Compiles what a product of this size needs.
    ///
    /// # Errors
    /// As [`Gpu::compile`].
    pub fn prepare(
        &mut self,
        gpu: &mut dyn Gpu,
        tokens: usize,
        outputs: usize,
        inputs: usize,
    ) -> Result<(), GpuError> {
        let shape = self.shape(tokens, outputs, inputs);
        self.kernel(gpu, shape).map(drop)
    }

    /// Launches a product.
    ///
    /// # Errors
    /// If the call is not one that the kernel can do, or as [`Gpu::compile`] and [`Gpu::launch`].
    pub fn enqueue(&mut self, gpu: &mut dyn Gpu, call: &SkinnyCall) -> Result<(), GpuError> {
        self.check(call, TOKENS_MAX)?;
        let shape = self.shape(call.tokens, call.outputs, call.inputs);
        self.enqueue_as(gpu, call, shape)
    }

    /// Launches a product with a shape that need not be the one that [`Skinny::enqueue`] takes: to test and measure all.
    ///
    /// # Errors
    /// As [`Skinny::enqueue`].
    pub fn enqueue_as(
        &mut self,
        gpu: &mut dyn Gpu,
        call: &SkinnyCall,
        shape: Shape,
    ) -> Result<(), GpuError> {
        self.check(call, shape.tokens)?;
        let kernel = self.kernel(gpu, shape)?;
        let partition = Partition::of(shape, call.outputs, call.inputs, self.multiprocessors);
        let blocks = u32::try_from(partition.blocks).expect("a block a multiprocessor");
        let shared_bytes = shape.shared_bytes(shape.stages(self.shared_bytes_max));
        let shared_bytes = u32::try_from(shared_bytes).expect("less than a multiprocessor has");
        let arguments = self.arguments(call, partition);
        launch(
            gpu,
            kernel,
            [blocks, 1, 1],
            THREADS as u32,
            shared_bytes,
            arguments,
        )
    }

    /// The shape that is quickest, as far as can be told.
    fn shape(&self, tokens: usize, outputs: usize, inputs: usize) -> Shape {
        let [tall, short] = Shape::of(tokens);
        let cycles = |shape: Shape| shape.cycles(tokens, outputs, inputs, self.multiprocessors);
        if cycles(short) < cycles(tall) {
            short
        } else {
            tall
        }
    }

    fn kernel(&mut self, gpu: &mut dyn Gpu, shape: Shape) -> Result<Kernel, GpuError> {
        if let Some(&kernel) = self.kernels.get(&shape) {
            return Ok(kernel);
        }
        let kernel = gpu.compile(&shape.unit(self.shared_bytes_max))?[0];
        self.kernels.insert(shape, kernel);
        Ok(kernel)
    }

    fn check(&self, call: &SkinnyCall, tokens_max: usize) -> Result<(), GpuError> {
        let depth = call.inputs.next_multiple_of(64);
        let (stride, gated) = match call.epilogue {
            Epilogue::Store { y_stride, .. } | Epilogue::StoreF32 { y_stride, .. } => {
                (y_stride, false)
            }
            Epilogue::Add { x_stride, .. } => (x_stride, false),
            Epilogue::SiluMul { h_stride, .. } => (h_stride, true),
        };
        let width = if gated {
            call.outputs / 2
        } else {
            call.outputs
        };
        let next_stride = match call.epilogue {
            Epilogue::Add {
                next: Some(next), ..
            } => next.scaled_stride,
            _ => stride,
        };
        let why = if !(1..=tokens_max).contains(&call.tokens) {
            format!("{} tokens; it takes 1 to {tokens_max}", call.tokens)
        } else if call.outputs == 0 || call.inputs == 0 || call.outputs > self.outputs_max {
            format!(
                "weights of {} x {}; it takes up to {} rows",
                call.outputs, call.inputs, self.outputs_max
            )
        } else if call.x_stride < depth
            || call.weights_stride < depth
            || !(call.x_stride | call.weights_stride).is_multiple_of(8)
        {
            format!(
                "strides of {} and {} for {} inputs",
                call.x_stride, call.weights_stride, call.inputs
            )
        } else if stride < width || next_stride < width || !(stride | next_stride).is_multiple_of(4)
        {
            format!("strides of {stride} and {next_stride} for {width} outputs")
        } else if gated && !call.outputs.is_multiple_of(16) {
            format!(
                "{} outputs of gate and up; they come in sixteens",
                call.outputs
            )
        } else {
            return Ok(());
        };
        Err(GpuError::Call {
            what: "a product with few tokens",
            why,
        })
    }

    fn arguments(&self, call: &SkinnyCall, partition: Partition) -> Arguments {
        let (code, (output, output_stride, bias, next)) = match call.epilogue {
            Epilogue::Store { y, y_stride, bias } => (0, (y, y_stride, bias, None)),
            Epilogue::StoreF32 { y, y_stride } => (1, (y, y_stride, None, None)),
            Epilogue::Add {
                x,
                x_stride,
                bias,
                next,
            } => (2, (x, x_stride, bias, next)),
            Epilogue::SiluMul { h, h_stride } => (3, (h, h_stride, None, None)),
        };
        let of_next = |field: fn(NextNorm) -> Address| next.map_or(Address::NONE, field);
        Arguments::new()
            .address(call.x)
            .address(call.weights)
            .address(output)
            .address(bias.unwrap_or(Address::NONE))
            .address(call.norm.map_or(Address::NONE, |norm| norm.sums))
            .address(of_next(|next| next.scales))
            .address(of_next(|next| next.scaled))
            .address(of_next(|next| next.sums))
            .address(self.parts)
            .address(self.arrivals)
            .count(call.tokens)
            .count(call.outputs)
            .count(call.inputs.next_multiple_of(64))
            .count(call.x_stride)
            .count(call.weights_stride)
            .count(output_stride)
            .count(next.map_or(0, |next| next.scaled_stride))
            .count(partition.steps)
            .count(partition.each())
            .count(partition.extra())
            .count(code)
            .count(call.norm.map_or(0, |norm| norm.parts))
            .number(call.norm.map_or(1.0, |norm| norm.width as f32))
            .number(call.norm.map_or(0.0, |norm| norm.eps))
    }
}

/// A count a tile, of the shortest tiles.
fn arrivals_bytes(outputs_max: usize) -> usize {
    outputs_max.div_ceil(64) * 4
}

/// What there is to compile, with an H200's shared memory.
#[must_use]
pub fn units() -> Vec<Unit> {
    let tokens = [8, 16, 32, 64];
    let shapes = tokens.into_iter().flat_map(Shape::of);
    shapes.map(|shape| shape.unit(232_448)).collect()
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
                2 * multiprocessors * part <= Skinny::parts_bytes(multiprocessors),
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
        let rows = |tokens: usize, outputs: usize, inputs: usize| {
            let [tall, short] = Shape::of(tokens);
            let cycles = |shape: Shape| shape.cycles(tokens, outputs, inputs, 132);
            (if cycles(short) < cycles(tall) {
                short
            } else {
                tall
            })
            .rows()
        };
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
