//! The launchers: what a kernel is told, one file a subject, beside the `.cu`
//! file of the same name.
//!
//! A launcher compiles its unit when it is made, and then turns shapes and
//! addresses into launches. It decides how work is cut into blocks; those
//! decisions are plain functions, tested without a GPU.

pub mod advance;
pub mod attention_decode;
pub mod attention_decode_plan;
pub mod attention_prefill;
pub mod attention_prefill_plan;
pub mod attention_shape;
pub mod delay;
pub mod dummy;
pub mod embed;
pub mod gate;
pub mod heads;
pub mod lora;
pub mod norm;
pub mod sample;
pub mod skinny;
pub mod skinny_plan;
pub mod stream;

use super::gpu::{Address, Gpu, GpuError, Kernel, Launch};

/// A structure of arguments, as bytes, in the layout that the kernel's own structure has.
///
/// Every field is 8 bytes (an address, or two 4-byte numbers side by side), so that
/// C and Rust lay it out alike, without padding.
#[derive(Clone, Debug, Default)]
pub struct Arguments(Vec<u8>);

impl Arguments {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An address: `T*` there.
    #[must_use]
    pub fn address(mut self, address: Address) -> Self {
        debug_assert!(self.0.len().is_multiple_of(8), "addresses are aligned");
        self.0.extend_from_slice(&address.0.to_ne_bytes());
        self
    }

    /// A count or an index: `u32` there.
    ///
    /// # Panics
    /// If it has more than 32 bits.
    #[must_use]
    pub fn count(mut self, count: usize) -> Self {
        let count = u32::try_from(count).expect("kernels count in 32 bits");
        self.0.extend_from_slice(&count.to_ne_bytes());
        self
    }

    /// A number: `float` there.
    #[must_use]
    pub fn number(mut self, number: f32) -> Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    /// The bytes, padded to what the whole structure is aligned to.
    #[must_use]
    pub fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0
    }
}

/// Launches a kernel that overlaps the one before it.
///
/// # Errors
/// As [`Gpu::launch`].
pub fn launch(
    gpu: &mut dyn Gpu,
    kernel: Kernel,
    blocks: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    arguments: Arguments,
) -> Result<(), GpuError> {
    gpu.launch(&Launch {
        kernel,
        blocks,
        threads,
        shared_bytes,
        overlaps: true,
        arguments: &arguments.bytes(),
    })
}
