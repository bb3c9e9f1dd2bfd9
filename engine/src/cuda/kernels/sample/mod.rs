//! Sampling on the device: the token that [`crate::sampling`] chooses, to the last bit.
//!
//! ```text
//!  scan ──────────────> the likeliest token          all that greedy rows need
//!    └─ adjust ─ scan   where a row has bans, biases or penalties
//!  weigh ─────────────> a draw, unless there is top-k or top-p
//!    └─ filter ───────> a draw among the likeliest
//!  logprobs             where a row asks for them
//! ```
//!
//! Which of these a step needs is known when its rows are ([`Rows`]); a recording
//! has the launches of one set of [`Stages`], whatever the rows' parameters then are.

mod rows;

pub use rows::{OUTCOME_BYTES, ROW_BYTES, Rows, Stages, Unsupported, outcome, supports};

use super::{Arguments, launch};
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Unit};

/// Tokens of a vocabulary at most: 64 chunks.
pub const VOCABULARY_MAX: usize = CHUNK * CHUNKS_MAX;

/// Logits a block looks at.
const CHUNK: usize = 4096;
const CHUNKS_MAX: usize = 64;
const THREADS: u32 = 256;
const ADJUST_THREADS: u32 = 1024;
/// Bins of weights, and tokens of a list, as in `sampling.cuh`.
const BINS: usize = 34 * 16 + 1;
const LIST_MAX: usize = 4096;
const TOP_MAX: usize = 20;

/// Shared memory (bytes) of `scan`: the answers of 8 warps.
const SCAN_SHARED_BYTES: u32 = 16 + 2 * 8 * 8;
/// `DrawShared`.
const DRAW_SHARED_BYTES: u32 = 8 * (8 + CHUNKS_MAX as u32) + 8 + 2 * 4;
/// `WeighShared`, padded to its alignment.
const WEIGH_SHARED_BYTES: u32 = DRAW_SHARED_BYTES + (2 * 4 * BINS as u32).next_multiple_of(8);
/// `FilterShared`.
const FILTER_SHARED_BYTES: u32 = DRAW_SHARED_BYTES + 3 * 4 * 256 + 12 * LIST_MAX as u32;
/// `LogprobsShared`.
const LOGPROBS_SHARED_BYTES: u32 = 2 * 8 * 8 + 8;

const ARGUMENT_BYTES: usize = 12 * 8 + 4 * 4;

const fn facts(name: &'static str, registers_max: u32) -> KernelFacts {
    KernelFacts {
        name,
        argument_bytes: ARGUMENT_BYTES,
        registers_max,
        instructions: &[],
    }
}

/// The units: `sample.cu`, `draw.cu`, `logprobs.cu`.
#[must_use]
pub fn units() -> Vec<Unit> {
    let unit = |file, source, kernels| Unit {
        file,
        source,
        constants: Vec::new(),
        kernels,
    };
    vec![
        unit(
            "sample.cu",
            concat!(
                include_str!("../../../../kernels/sampling.cuh"),
                include_str!("../../../../kernels/sample.cu")
            ),
            const { &[facts("scan", 48), facts("adjust", 64)] },
        ),
        unit(
            "draw.cu",
            concat!(
                include_str!("../../../../kernels/sampling.cuh"),
                include_str!("../../../../kernels/draw.cu")
            ),
            const { &[facts("weigh", 64), facts("filter", 64)] },
        ),
        unit(
            "logprobs.cu",
            concat!(
                include_str!("../../../../kernels/sampling.cuh"),
                include_str!("../../../../kernels/logprobs.cu")
            ),
            const { &[facts("logprobs", 64)] },
        ),
    ]
}

/// What a sampler has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplerShape {
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Logits from one row to the next: a multiple of 4, at least `vocab_size`.
    pub logits_stride: usize,
    /// Rows of a step.
    pub rows: usize,
    /// Rows of a step whose logits are changed (bans, biases, penalties). The others are sampled on the host.
    pub adjusted_rows: usize,
}

impl SamplerShape {
    /// Blocks a row.
    fn chunks(&self) -> usize {
        self.vocab_size.div_ceil(CHUNK)
    }

    /// The parts of the memory between kernels (bytes), in the order of `Scratch`.
    fn parts_bytes(&self) -> [usize; 8] {
        let logits = self.adjusted_rows * self.logits_stride;
        [
            self.rows * 32,
            self.rows * CHUNKS_MAX * 16,
            self.rows * CHUNKS_MAX * 8,
            self.rows * self.chunks() * BINS * 8,
            self.rows * LIST_MAX * 4,
            self.rows * CHUNKS_MAX * TOP_MAX * 8,
            logits * 4,
            logits * 4,
        ]
    }

    /// Device memory that a sampler of this shape takes (bytes).
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let parts = self.parts_bytes();
        parts.iter().map(|bytes| bytes.next_multiple_of(256)).sum()
    }
}

/// One step's rows.
#[derive(Clone, Copy, Debug)]
pub struct SampleCall {
    /// Rows of logits.
    pub rows: usize,
    /// Logits: f32 `[rows][logits_stride]`, `vocab_size` of each.
    pub logits: Address,
    /// [`Rows::parameters`] on the device: at least `rows`.
    pub parameters: Address,
    /// [`Rows::lists`] on the device.
    pub lists: Address,
    /// Where what came of each row goes: `[rows]` of [`OUTCOME_BYTES`]. Rows without parameters are not written.
    pub outcomes: Address,
    /// [`Rows::stages`].
    pub stages: Stages,
}

/// Samples on a device.
#[derive(Debug)]
pub struct Sampler {
    shape: SamplerShape,
    scan: Kernel,
    adjust: Kernel,
    weigh: Kernel,
    filter: Kernel,
    logprobs: Kernel,
    memory: Address,
}

impl Sampler {
    /// Compiles the kernels, and allocates the memory between them.
    ///
    /// # Errors
    /// If the vocabulary is larger than [`VOCABULARY_MAX`], or the GPU does not do it.
    pub fn new(gpu: &mut dyn Gpu, shape: SamplerShape) -> Result<Self, GpuError> {
        if shape.vocab_size > VOCABULARY_MAX || shape.vocab_size == 0 {
            return Err(GpuError::Call {
                what: "sampling on the GPU",
                why: format!(
                    "the vocabulary has {} tokens, and there may be 1 to {VOCABULARY_MAX}",
                    shape.vocab_size
                ),
            });
        }
        let mut kernels = Vec::new();
        for unit in units() {
            kernels.extend(gpu.compile(&unit)?);
        }
        let memory = gpu.allocate(shape.memory_bytes())?;
        gpu.fill(memory, shape.memory_bytes(), 0)?;
        Ok(Self {
            shape,
            scan: kernels[0],
            adjust: kernels[1],
            weigh: kernels[2],
            filter: kernels[3],
            logprobs: kernels[4],
            memory,
        })
    }

    /// Gives its memory back.
    ///
    /// # Errors
    /// As [`Gpu::free`].
    pub fn release(self, gpu: &mut dyn Gpu) -> Result<(), GpuError> {
        gpu.free(self.memory)
    }

    /// Chooses a token for each row.
    ///
    /// # Errors
    /// If there are more rows than it has room for, or a launch is not possible.
    pub fn enqueue(&self, gpu: &mut dyn Gpu, call: &SampleCall) -> Result<(), GpuError> {
        if call.rows == 0 {
            return Ok(());
        }
        if call.rows > self.shape.rows {
            return Err(GpuError::Call {
                what: "sampling on the GPU",
                why: format!("{} rows, with room for {}", call.rows, self.shape.rows),
            });
        }
        let stages = call.stages;
        self.launch(gpu, call, self.scan, SCAN_SHARED_BYTES, 0)?;
        if stages.adjust {
            let blocks = [call.rows as u32, 1, 1];
            let arguments = self.arguments(call, 0);
            launch(gpu, self.adjust, blocks, ADJUST_THREADS, 0, arguments)?;
            self.launch(gpu, call, self.scan, SCAN_SHARED_BYTES, 1)?;
        }
        if stages.draw {
            self.launch(gpu, call, self.weigh, WEIGH_SHARED_BYTES, 0)?;
        }
        if stages.filter {
            self.launch(gpu, call, self.filter, FILTER_SHARED_BYTES, 0)?;
        }
        if stages.logprobs {
            self.launch(gpu, call, self.logprobs, LOGPROBS_SHARED_BYTES, 0)?;
        }
        Ok(())
    }

    /// Launches a kernel of a block a chunk.
    fn launch(
        &self,
        gpu: &mut dyn Gpu,
        call: &SampleCall,
        kernel: Kernel,
        shared_bytes: u32,
        pass: usize,
    ) -> Result<(), GpuError> {
        let blocks = [self.shape.chunks() as u32, call.rows as u32, 1];
        let arguments = self.arguments(call, pass);
        launch(gpu, kernel, blocks, THREADS, shared_bytes, arguments)
    }

    fn arguments(&self, call: &SampleCall, pass: usize) -> Arguments {
        let mut arguments = Arguments::new();
        let mut at = self.memory;
        for bytes in self.shape.parts_bytes() {
            arguments = arguments.address(at);
            at = at.offset(bytes.next_multiple_of(256));
        }
        arguments
            .address(call.logits)
            .address(call.parameters)
            .address(call.lists)
            .address(call.outcomes)
            .count(self.shape.logits_stride)
            .count(self.shape.vocab_size)
            .count(self.shape.chunks())
            .count(pass)
    }
}
