//! From one decode step to the next without the host.

use super::{Arguments, launch};
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Unit};

const THREADS: u32 = 256;

/// The unit.
#[must_use]
pub fn units() -> Vec<Unit> {
    vec![Unit {
        file: "advance.cu",
        source: concat!(
            include_str!("../../../kernels/sampling.cuh"),
            include_str!("../../../kernels/advance.cu")
        ),
        constants: Vec::new(),
        kernels: &[KernelFacts {
            name: "advance",
            argument_bytes: 10 * 8 + 4 * 4,
            registers_max: 64,
            instructions: &[],
        }],
    }]
}

/// A decode step that is over: row `i` of everything is sequence `i`.
#[derive(Clone, Copy, Debug)]
pub struct AdvanceCall {
    /// Rows. Those of padding, at position -1, stay as they are.
    pub rows: usize,
    /// What was sampled: `[rows]` of [`super::sample::OUTCOME_BYTES`].
    pub outcomes: Address,
    /// [`super::sample::Rows::parameters`]: their places go on by one.
    pub parameters: Address,
    /// [`super::sample::Rows::lists`]: tokens are appended where penalties need them and there is room.
    pub lists: Address,
    /// Inputs of the next step: u32 `[rows]`.
    pub tokens: Address,
    /// i32 `[rows]`.
    pub positions: Address,
    /// u32 `[rows]`.
    pub slots: Address,
    /// Block tables: u32 `[rows][table_stride]`.
    pub tables: Address,
    /// Blocks of a table.
    pub table_stride: usize,
    /// Tokens of a KV block: a power of two.
    pub block_size: usize,
    /// What the host reads: `[ring_steps][rows]` of a token and a status (0 if the token was chosen, otherwise
    /// as [`super::sample::outcome`] has it), u32 each. Step `n` is at `n % ring_steps`. Rows of padding are not written.
    pub ring: Address,
    /// The same with all of the outcome, `[ring_steps][rows]`; or [`Address::NONE`].
    pub outcome_ring: Address,
    /// Steps that it has room for.
    pub ring_steps: usize,
    /// How many steps there were: one u32, counted here.
    pub step: Address,
}

/// Makes sampled tokens the inputs of the next step.
#[derive(Debug)]
pub struct Advance {
    kernel: Kernel,
}

impl Advance {
    /// Compiles the kernel.
    ///
    /// # Errors
    /// As [`Gpu::compile`].
    pub fn new(gpu: &mut dyn Gpu) -> Result<Self, GpuError> {
        let kernels = gpu.compile(&units()[0])?;
        Ok(Self { kernel: kernels[0] })
    }

    /// Goes on by one step.
    ///
    /// # Errors
    /// If `block_size` is not a power of two, there is no ring, or the launch is not possible.
    pub fn enqueue(&self, gpu: &mut dyn Gpu, call: &AdvanceCall) -> Result<(), GpuError> {
        if !call.block_size.is_power_of_two() || call.ring_steps == 0 {
            return Err(GpuError::Call {
                what: "the step from one token to the next",
                why: format!(
                    "blocks of {} tokens, and a ring of {} steps",
                    call.block_size, call.ring_steps
                ),
            });
        }
        let arguments = Arguments::new()
            .address(call.outcomes)
            .address(call.parameters)
            .address(call.lists)
            .address(call.tokens)
            .address(call.positions)
            .address(call.slots)
            .address(call.tables)
            .address(call.ring)
            .address(call.outcome_ring)
            .address(call.step)
            .count(call.rows)
            .count(call.table_stride)
            .count(call.block_size.trailing_zeros() as usize)
            .count(call.ring_steps);
        launch(gpu, self.kernel, [1, 1, 1], THREADS, 0, arguments)
    }
}
