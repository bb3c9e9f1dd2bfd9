//! A real GPU keeps the promises of `Gpu`. Without one, tests say that they were skipped, and are
//! run on a stand-in for the driver.

#![allow(clippy::print_stderr, reason = "a test that is skipped must be seen")]

mod child;
mod group;
mod kernels;
mod lost;
mod memory;
mod products;
mod stand_in;

use foresail_engine::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Launch, Unit};
use foresail_engine::cuda::hardware::Hardware;
use foresail_engine::cuda::kernels::Arguments;

const SOURCE: &str = "\
struct AffineArguments { float* values; u32 count; float factor; float shift; };
KERNEL(affine, 128, 1, AffineArguments) {
    wait_for_earlier_kernels();
    let_next_kernel_begin();
    u32 i = blockIdx.x * 128 + threadIdx.x;
    if (i < args.count) args.values[i] = args.values[i] * args.factor + args.shift;
}

struct WaitArguments { u64 nanoseconds; };
KERNEL(wait, 32, 1, WaitArguments) {
    u64 began = clock_ns();
    while (clock_ns() - began < args.nanoseconds) {}
}

// Each thread puts its number in shared memory, and the first adds them up.
struct SharedArguments { u32* sum; u32 words; };
KERNEL(shared, 128, 1, SharedArguments) {
    u32* words = (u32*)shared_memory();
    for (u32 i = threadIdx.x; i < args.words; i += 128) words[i] = i;
    sync_block();
    if (threadIdx.x > 0) return;
    u32 sum = 0;
    for (u32 i = 0; i < args.words; i++) sum += words[i];
    *args.sum = sum;
}
";

const fn facts(name: &'static str, argument_bytes: usize) -> KernelFacts {
    KernelFacts {
        name,
        argument_bytes,
        registers_max: 64,
        instructions: &[],
    }
}

/// The kernels above.
fn unit() -> Unit {
    Unit {
        file: "hardware_test.cu",
        source: SOURCE,
        constants: Vec::new(),
        kernels: const { &[facts("affine", 24), facts("wait", 8), facts("shared", 16)] },
    }
}

/// Compiles `affine`.
fn affine_kernel(gpu: &mut Hardware) -> Kernel {
    gpu.compile(&unit()).expect("compiled")[0]
}

/// The first GPU, or `None`, loudly.
fn gpu() -> Option<Hardware> {
    match Hardware::open(0) {
        Ok(gpu) => Some(gpu),
        Err(GpuError::Library(why)) => {
            eprintln!("SKIPPED: {why}");
            None
        }
        Err(error) => panic!("there is a GPU, and it does not open: {error}"),
    }
}

/// Random bits (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(count).collect()
    }

    /// Between -1 and 1.
    fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn read(gpu: &mut Hardware, from: Address, bytes: usize) -> Vec<u8> {
    let reading = gpu.read(from, bytes).expect("begun");
    gpu.finish(reading).expect("read")
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect()
}

fn affine(gpu: &mut Hardware, kernel: Kernel, at: Address, count: usize, factor: f32, shift: f32) {
    let arguments = Arguments::new()
        .address(at)
        .count(count)
        .number(factor)
        .number(shift);
    gpu.launch(&Launch {
        kernel,
        blocks: [count.div_ceil(128) as u32, 1, 1],
        threads: 128,
        shared_bytes: 0,
        overlaps: true,
        arguments: &arguments.bytes(),
    })
    .expect("launched");
}

#[test]
fn without_a_driver_the_refusal_is_one_line_that_says_what_is_missing() {
    match Hardware::count() {
        Ok(count) => assert_eq!(Hardware::open(0).is_ok(), count > 0),
        Err(GpuError::Library(why)) => {
            assert!(!why.contains('\n'), "{why}");
            assert!(
                why.contains("CUDA driver") || why.contains("no GPU"),
                "{why}"
            );
            let error = Hardware::open(0).err().expect("there is none to open");
            assert_eq!(error, GpuError::Library(why));
            assert!(Hardware::group(&[0, 1]).is_err());
            assert!(!error.is_fatal());
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_ordinal_beyond_the_last_is_refused_with_their_number() {
    if gpu().is_none() {
        return;
    }
    let count = Hardware::count().expect("there is a driver");
    let error = Hardware::open(count)
        .err()
        .expect("there is no such GPU")
        .to_string();
    assert!(error.contains(&format!("no GPU {count}")), "{error}");
}
