//! A GPU, as everything above it sees it: memory, kernels, and a queue of work.
//!
//! This is the wall between what the backend wants done and the driver of a
//! vendor. Behind it are [`super::hardware`], a real GPU, and
//! [`super::software`], which runs the same kernels on a CPU so that tests need no GPU.

use std::fmt;

/// One GPU with one queue: what is asked for is done in that order, some time
/// after the call. Only [`Gpu::finish`], [`Gpu::wait`] and [`Gpu::compile`] wait.
///
/// One thread owns it, from when it is opened until it is dropped, except that it
/// may be moved to another thread between calls.
pub trait Gpu: Send {
    /// What it is.
    fn properties(&self) -> &Properties;

    /// Memory that is free now (bytes).
    ///
    /// # Errors
    /// If the driver does not say.
    fn memory_free_bytes(&mut self) -> Result<u64, GpuError>;

    /// Memory, at an address that is a multiple of 256. What is in it is undefined.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`] if there is not so much.
    fn allocate(&mut self, bytes: usize) -> Result<Address, GpuError>;

    /// Gives memory back, once all that was asked for before is done.
    ///
    /// # Errors
    /// If it was not allocated, or the GPU is lost.
    fn free(&mut self, at: Address) -> Result<(), GpuError>;

    /// Sets every byte.
    ///
    /// # Errors
    /// If the GPU is lost.
    fn fill(&mut self, at: Address, bytes: usize, value: u8) -> Result<(), GpuError>;

    /// Copies to the GPU. `bytes` may be changed as soon as this returns.
    ///
    /// # Errors
    /// If the GPU is lost.
    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), GpuError>;

    /// Begins to copy from the GPU.
    ///
    /// # Errors
    /// If the GPU is lost.
    fn read(&mut self, from: Address, bytes: usize) -> Result<Reading, GpuError>;

    /// Waits for what was asked for before a reading, and for its bytes.
    ///
    /// # Errors
    /// Whatever went wrong with what was asked for until then.
    fn finish(&mut self, reading: Reading) -> Result<Vec<u8>, GpuError>;

    /// Waits until everything is done.
    ///
    /// # Errors
    /// Whatever went wrong with it.
    fn wait(&mut self) -> Result<(), GpuError>;

    /// Compiles a unit, or finds it compiled: its kernels, in the order in which it names them.
    ///
    /// # Errors
    /// [`GpuError::Compile`] with the compiler's words.
    fn compile(&mut self, unit: &Unit) -> Result<Vec<Kernel>, GpuError>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// If the launch is not possible.
    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), GpuError>;

    /// A product of large matrices: see [`Product`].
    ///
    /// # Errors
    /// If the vendor's library does not do it.
    fn multiply(&mut self, product: &Product) -> Result<(), GpuError>;

    /// Adds up `count` bf16 values over the ranks of this GPU's group, in place. All ranks have the sum.
    ///
    /// # Errors
    /// If the exchange fails. Alone, it does nothing.
    fn all_reduce(&mut self, values: Address, count: usize) -> Result<(), GpuError>;

    /// Puts `bytes` of each rank one after the other, in the order of the ranks, in all of them.
    ///
    /// # Errors
    /// If the exchange fails.
    fn all_gather(&mut self, from: Address, to: Address, bytes: usize) -> Result<(), GpuError>;

    /// From here on, launches, products and exchanges are recorded and not done.
    ///
    /// # Errors
    /// If a recording is under way.
    fn begin_recording(&mut self) -> Result<(), GpuError>;

    /// Ends a recording.
    ///
    /// # Errors
    /// If what was recorded cannot be replayed.
    fn end_recording(&mut self) -> Result<Recording, GpuError>;

    /// Does what was recorded, at the cost of one launch.
    ///
    /// # Errors
    /// If the launch is not possible.
    fn replay(&mut self, recording: Recording) -> Result<(), GpuError>;

    /// A moment in the queue.
    ///
    /// # Errors
    /// If the GPU is lost.
    fn mark(&mut self) -> Result<Mark, GpuError>;

    /// The time between two moments, both of which it waits for (s).
    ///
    /// # Errors
    /// Whatever went wrong until then.
    fn seconds_between(&mut self, first: Mark, second: Mark) -> Result<f64, GpuError>;
}

/// What a GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// The vendor's name of it.
    pub name: String,
    /// Its compute capability: (9, 0) is Hopper.
    pub architecture: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// The most shared memory that a block can ask for (bytes).
    pub shared_bytes_max: u32,
    /// Its memory (bytes).
    pub memory_bytes: u64,
    /// Its L2 cache (bytes).
    pub l2_bytes: u64,
}

/// A place in a GPU's memory. Only kernels follow it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Address(pub u64);

impl Address {
    /// What kernels take for "there is none".
    pub const NONE: Self = Self(0);

    /// So many bytes on.
    #[must_use]
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What is compiled together: one file of kernels, for one set of constants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unit {
    /// The file's name, such as `norm.cu`.
    pub file: &'static str,
    /// Its text.
    pub source: &'static str,
    /// Constants of the preprocessor: `("HEAD_DIM", 128)`.
    pub constants: Vec<(&'static str, u32)>,
    /// Its kernels.
    pub kernels: &'static [KernelFacts],
}

/// What is known of a kernel, and checked when kernels are compiled without a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelFacts {
    /// Its name in the source.
    pub name: &'static str,
    /// Bytes of its arguments.
    pub argument_bytes: usize,
    /// The most registers a thread may take.
    pub registers_max: u32,
    /// Instructions that its machine code has, as a disassembler names them, such as `HMMA`.
    pub instructions: &'static [&'static str],
}

/// A kernel that can be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel(pub usize);

/// How a kernel is run.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Which.
    pub kernel: Kernel,
    /// Blocks.
    pub blocks: [u32; 3],
    /// Threads of each.
    pub threads: u32,
    /// Shared memory of each (bytes).
    pub shared_bytes: u32,
    /// Whether it may begin before the kernel before it ends: its source waits where it must.
    pub overlaps: bool,
    /// Its structure of arguments, byte by byte.
    pub arguments: &'a [u8],
}

/// `y = x Wᵀ`, or `y += x Wᵀ`: `x` `[rows][inputs]` and `W` `[outputs][inputs]` in bf16, sums in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows of `x` and of `y`.
    pub rows: usize,
    /// Rows of `W`.
    pub outputs: usize,
    /// Columns of `x` and of `W`.
    pub inputs: usize,
    /// Where `x` is.
    pub x: Address,
    /// Values from one row of `x` to the next.
    pub x_stride: usize,
    /// Where `W` is.
    pub weights: Address,
    /// Values from one row of `W` to the next.
    pub weights_stride: usize,
    /// Where `y` is.
    pub y: Address,
    /// Values from one row of `y` to the next.
    pub y_stride: usize,
    /// What `y` is made of.
    pub y_format: Format,
    /// Whether the product is added to what `y` is.
    pub adds: bool,
}

/// A number format of a [`Product`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 16 bits.
    Bf16,
    /// 32 bits.
    F32,
}

/// A copy from the GPU that is under way.
#[derive(Debug)]
#[must_use = "its bytes are there when it is finished"]
pub struct Reading(pub usize);

/// Work that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Recording(pub usize);

/// A moment in the queue of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub usize);

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// It is more than there is.
    #[error("the GPU has no {asked} bytes left, only {free}")]
    OutOfMemory {
        /// What was asked for (bytes).
        asked: u64,
        /// What is free (bytes).
        free: u64,
    },
    /// A unit is not compiled.
    #[error("{file} does not compile for this GPU:\n{log}")]
    Compile {
        /// Its file.
        file: String,
        /// The compiler's words.
        log: String,
    },
    /// There is no such library, or it is not usable.
    #[error("{0}")]
    Library(String),
    /// The GPU does nothing any more: a kernel went astray, or the hardware failed.
    #[error("the GPU is lost: {0}")]
    Lost(String),
    /// A call failed, and others may not.
    #[error("{what}: {why}")]
    Call {
        /// What was attempted.
        what: &'static str,
        /// The driver's words.
        why: String,
    },
}

impl GpuError {
    /// Whether nothing can be done with the GPU any more.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}
