//! What a GPU can do at best: bytes read, bytes copied, products of matrices.

use foresail_reports::bench::{Ceilings, Flops};

use crate::cuda::gpu::{Address, Format, Gpu, GpuError, Product};
use crate::cuda::hardware::Hardware;
use crate::cuda::kernels::stream::{BYTES_MULTIPLE, Stream};
use crate::cuda::software::{Options, Software};
use crate::startup::Device;

/// What one GPU can do, measured.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuCeilings {
    /// What the driver calls it.
    pub name: String,
    /// Bytes read a second.
    pub read_bytes_per_s: f64,
    /// Bytes read and written a second by a copy.
    pub copy_bytes_per_s: f64,
    /// Operations a second of a product of large bf16 matrices.
    pub bf16_flops_per_s: f64,
}

/// How large what is measured with is.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Many times what a cache holds (bytes).
    bytes: usize,
    /// Rows, and columns, of square matrices.
    side: usize,
    repeats: usize,
}

/// Enough to fill a GPU for about a millisecond each time.
const REAL: Sizes = Sizes {
    bytes: 4 << 30,
    side: 8192,
    repeats: 10,
};

/// Enough to see that it works.
const REHEARSED: Sizes = Sizes {
    bytes: 2 * BYTES_MULTIPLE,
    side: 64,
    repeats: 1,
};

/// What a device with GPUs can do, as [`super::cpu_ceilings`] has it for a CPU: of its first GPU.
///
/// # Errors
/// If there is no such GPU, or it has no memory left for it.
pub fn gpu_ceilings(device: Device) -> Result<Ceilings, GpuError> {
    let measured = measure_gpu(device)?;
    Ok(Ceilings {
        read_bytes_per_s: measured.read_bytes_per_s,
        flops_per_s: measured.bf16_flops_per_s,
        flops_of: Flops::Bf16,
    })
}

/// What the first GPU of a device can do.
///
/// # Errors
/// If there is none, or it has no memory left for it.
pub fn measure_gpu(device: Device) -> Result<GpuCeilings, GpuError> {
    match device {
        Device::SoftwareGpu => ceilings(&mut Software::with(Options::default())?, REHEARSED),
        _ => ceilings(&mut Hardware::open(0)?, REAL),
    }
}

fn ceilings(gpu: &mut dyn Gpu, sizes: Sizes) -> Result<GpuCeilings, GpuError> {
    // A quarter of what is free is left to whoever else is there.
    let free = gpu.memory_free_bytes()? as usize;
    let bytes = sizes.bytes.min(free / 8) / BYTES_MULTIPLE * BYTES_MULTIPLE;
    let (from, to) = (random(gpu, bytes)?, gpu.allocate(bytes)?);
    let stream = Stream::new(gpu)?;
    let sink = gpu.allocate(stream.sink_bytes())?;
    let read = best(gpu, sizes.repeats, |gpu| {
        stream.read(gpu, from, bytes, sink)
    })?;
    let copy = best(gpu, sizes.repeats, |gpu| stream.copy(gpu, from, to, bytes))?;
    // Random numbers: zeros are multiplied faster.
    let product = square(sizes.side, from, to);
    let multiply = best(gpu, sizes.repeats, |gpu| gpu.multiply(&product))?;
    for address in [from, to, sink] {
        gpu.free(address)?;
    }
    let flops = 2.0 * (sizes.side as f64).powi(3);
    Ok(GpuCeilings {
        name: gpu.properties().name.clone(),
        read_bytes_per_s: bytes as f64 / read,
        copy_bytes_per_s: 2.0 * bytes as f64 / copy,
        bf16_flops_per_s: flops / multiply,
    })
}

/// The product of two square matrices that are one after the other in `from`.
fn square(side: usize, from: Address, to: Address) -> Product {
    Product {
        rows: side,
        outputs: side,
        inputs: side,
        x: from,
        x_stride: side,
        weights: from.offset(2 * side * side),
        weights_stride: side,
        y: to,
        y_stride: side,
        y_format: Format::Bf16,
        adds: false,
    }
}

/// The shortest of some runs, after one that is not timed (s).
fn best(
    gpu: &mut dyn Gpu,
    repeats: usize,
    mut work: impl FnMut(&mut dyn Gpu) -> Result<(), GpuError>,
) -> Result<f64, GpuError> {
    work(gpu)?;
    let mut shortest = f64::INFINITY;
    for _ in 0..repeats {
        let began = gpu.mark()?;
        work(gpu)?;
        let ended = gpu.mark()?;
        shortest = shortest.min(gpu.seconds_between(began, ended)?);
    }
    Ok(shortest)
}

/// Memory full of small random bf16 numbers.
fn random(gpu: &mut dyn Gpu, bytes: usize) -> Result<Address, GpuError> {
    const CHUNK: usize = 16 << 20;
    let address = gpu.allocate(bytes)?;
    let mut state = 1_u64;
    let numbers: Vec<u8> = (0..CHUNK.min(bytes) / 2)
        .flat_map(|_| {
            // SplitMix64's increment and a shift: good enough to be unlike.
            state = state
                .wrapping_mul(0xbf58_476d_1ce4_e5b9)
                .wrapping_add(0x9e37_79b9_7f4a_7c15);
            let value = ((state >> 40) as f32) / (1 << 24) as f32 - 0.5;
            half::bf16::from_f32(value).to_ne_bytes()
        })
        .collect();
    for first in (0..bytes).step_by(CHUNK) {
        let part = &numbers[..numbers.len().min(bytes - first)];
        gpu.write(address.offset(first), part)?;
    }
    Ok(address)
}
