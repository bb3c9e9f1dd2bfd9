//! Products of weights with few tokens, at the speed of memory: `y = f(x Wᵀ)` for 1 to 64 tokens.
//!
//! All steps of all row tiles, one after the other, are divided evenly over a block a
//! multiprocessor ([`super::skinny_plan`]): whatever the shape, all have the same work. `skinny.cu` says
//! how a block does its part, and what bounds it.

use std::collections::BTreeMap;

use super::skinny_plan::{Partition, THREADS, arrivals_bytes, parts_bytes};
pub use super::skinny_plan::{Shape, TOKENS_MAX};
use super::{Arguments, launch};
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, Properties, Unit};

/// Rows of one of the sums of squares that [`NextNorm`] has: a column of `x` belongs to sum `column / 64`.
const PART_ROWS: usize = 64;

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
        parts_bytes(blocks) + arrivals_bytes(outputs_max)
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
        let arrivals = workspace.offset(parts_bytes(multiprocessors));
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
        let shape = Shape::quickest(tokens, outputs, inputs, self.multiprocessors);
        self.kernel(gpu, shape).map(drop)
    }

    /// Launches a product.
    ///
    /// # Errors
    /// If the call is not one that the kernel can do, or as [`Gpu::compile`] and [`Gpu::launch`].
    pub fn enqueue(&mut self, gpu: &mut dyn Gpu, call: &SkinnyCall) -> Result<(), GpuError> {
        self.check(call, TOKENS_MAX)?;
        let shape = Shape::quickest(call.tokens, call.outputs, call.inputs, self.multiprocessors);
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

/// What there is to compile, with an H200's shared memory.
#[must_use]
pub fn units() -> Vec<Unit> {
    let tokens = [8, 16, 32, 64];
    let shapes = tokens.into_iter().flat_map(Shape::of);
    shapes.map(|shape| shape.unit(232_448)).collect()
}
