//! Reads or copies of everything, to measure what a GPU's memory can do.

use super::Arguments;
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Launch, Unit};

const THREADS: usize = 256;
/// Blocks of each multiprocessor, as the kernels are bounded for.
const BLOCKS_EACH: usize = 4;

/// Bytes that a block handles at once: sizes are multiples of it.
pub const BYTES_MULTIPLE: usize = 16 * 8 * THREADS;

const KERNELS: &[KernelFacts] = &[
    KernelFacts {
        name: "read_all",
        argument_bytes: 24,
        registers_max: 64,
        instructions: &["LDG"],
    },
    KernelFacts {
        name: "copy_all",
        argument_bytes: 24,
        registers_max: 64,
        instructions: &["LDG", "STG"],
    },
];

/// Launches `stream.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    read: Kernel,
    copy: Kernel,
    blocks: usize,
}

impl Stream {
    /// Compiles it.
    ///
    /// # Errors
    /// As [`Gpu::compile`].
    pub fn new(gpu: &mut dyn Gpu) -> Result<Self, GpuError> {
        let kernels = gpu.compile(&unit())?;
        Ok(Self {
            read: kernels[0],
            copy: kernels[1],
            blocks: BLOCKS_EACH * gpu.properties().multiprocessors as usize,
        })
    }

    /// Bytes that [`Stream::read`] writes.
    #[must_use]
    pub fn sink_bytes(&self) -> usize {
        4 * self.blocks * THREADS
    }

    /// Reads `bytes`, a multiple of [`BYTES_MULTIPLE`], and leaves a word of each thread in `sink`:
    /// the exclusive or of what it read.
    ///
    /// # Errors
    /// As [`Gpu::launch`].
    pub fn read(
        &self,
        gpu: &mut dyn Gpu,
        from: Address,
        bytes: usize,
        sink: Address,
    ) -> Result<(), GpuError> {
        self.launch(gpu, self.read, from, sink, bytes)
    }

    /// Copies `bytes`, a multiple of [`BYTES_MULTIPLE`].
    ///
    /// # Errors
    /// As [`Gpu::launch`].
    pub fn copy(
        &self,
        gpu: &mut dyn Gpu,
        from: Address,
        to: Address,
        bytes: usize,
    ) -> Result<(), GpuError> {
        self.launch(gpu, self.copy, from, to, bytes)
    }

    fn launch(
        &self,
        gpu: &mut dyn Gpu,
        kernel: Kernel,
        from: Address,
        to: Address,
        bytes: usize,
    ) -> Result<(), GpuError> {
        assert!(bytes.is_multiple_of(BYTES_MULTIPLE), "{bytes} bytes");
        // A 64-bit count, low half first.
        let units = bytes / 16;
        let arguments = Arguments::new()
            .address(from)
            .address(to)
            .count(units & 0xffff_ffff)
            .count(units >> 32);
        gpu.launch(&Launch {
            kernel,
            blocks: [self.blocks as u32, 1, 1],
            threads: THREADS as u32,
            shared_bytes: 0,
            // They do not wait for what is before them.
            overlaps: false,
            arguments: &arguments.bytes(),
        })
    }
}

fn unit() -> Unit {
    Unit {
        file: "stream.cu",
        source: include_str!("../../../kernels/stream.cu"),
        constants: Vec::new(),
        kernels: KERNELS,
    }
}

/// What it is compiled for in checks without a GPU.
#[must_use]
pub fn units() -> Vec<Unit> {
    vec![unit()]
}
