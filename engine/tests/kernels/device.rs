//! What kernels are tested on, and what tests of all kernels need.
//!
//! `$FORESAIL_TEST_GPU` is `hardware`, `software` or `none`: the first two fail
//! where there is no such device. Without it, a GPU is taken where one is, else the
//! software device; without a C++ compiler, tests are skipped, loudly.
//! With `$FORESAIL_TEST_SMALL`, a GPU gets the small cases only, for tools that watch each access.
//! `$FORESAIL_TEST_SEEDS` is how many orders of threads the software device goes through (1), beside one in
//! which every access of memory is watched.

#![allow(dead_code, reason = "each test needs some of it")]

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use foresail_engine::cuda::gpu::{Address, Gpu, GpuError};
use foresail_engine::cuda::hardware::Hardware;
use foresail_engine::cuda::software::{Options, Software};
use half::bf16;

/// Orders of threads: copies late and blocks one by one, then the others.
const SEEDS: [u64; 4] = [0, 3, 2, 1];

/// Something that runs kernels.
pub(crate) struct Device {
    pub(crate) gpu: Box<dyn Gpu>,
    name: String,
    hardware: bool,
}

impl Device {
    /// Whether it is a GPU: larger cases take milliseconds there.
    pub(crate) fn is_hardware(&self) -> bool {
        self.hardware
    }

    /// For messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Memory with these values in it.
    pub(crate) fn upload<T: Plain>(&mut self, values: &[T]) -> Address {
        let bytes = to_bytes(values);
        let at = self.allocate_bytes(bytes.len());
        self.gpu.write(at, &bytes).expect("written");
        at
    }

    /// Memory for so many values, every byte of it 0xff: NaN as bf16 and as f32, and an index that is nowhere.
    pub(crate) fn poisoned<T: Plain>(&mut self, count: usize) -> Address {
        let at = self.allocate_bytes(count * T::BYTES);
        self.gpu.fill(at, count * T::BYTES, 0xff).expect("filled");
        at
    }

    /// Memory for so many values, all zero.
    pub(crate) fn zeros<T: Plain>(&mut self, count: usize) -> Address {
        let at = self.allocate_bytes(count * T::BYTES);
        self.gpu.fill(at, count * T::BYTES, 0).expect("filled");
        at
    }

    /// What is there, once all that was asked for is done.
    pub(crate) fn download<T: Plain>(&mut self, from: Address, count: usize) -> Vec<T> {
        let reading = self.gpu.read(from, count * T::BYTES).expect("read");
        let bytes = self
            .gpu
            .finish(reading)
            .expect("what was asked for is done");
        bytes.chunks_exact(T::BYTES).map(T::from_bytes).collect()
    }

    /// Memory that ends as near to what is not its own as a multiple of 16 allows.
    fn allocate_bytes(&mut self, bytes: usize) -> Address {
        let whole = bytes.next_multiple_of(256).max(256);
        let at = self.gpu.allocate(whole).expect("memory for a test");
        if self.hardware {
            return at;
        }
        at.offset(whole - bytes.next_multiple_of(16))
    }
}

/// Runs a test on each device that is to be tested on. If there is none, it says so.
pub(crate) fn each_device(mut test: impl FnMut(&mut Device)) {
    for mut device in devices() {
        test(&mut device);
    }
}

/// As [`each_device`]; what the test returns is the same on all software devices, whatever the order of threads.
pub(crate) fn each_device_alike<R: PartialEq>(mut test: impl FnMut(&mut Device) -> R) {
    let mut first: Option<(R, String)> = None;
    for mut device in devices() {
        let result = test(&mut device);
        match &first {
            None => first = Some((result, device.name)),
            Some((same, name)) => {
                assert!(*same == result, "{name} and {} differ", device.name);
            }
        }
    }
}

/// What is to be tested on, by the environment.
pub(crate) fn devices() -> Vec<Device> {
    match std::env::var("FORESAIL_TEST_GPU").as_deref() {
        Ok("hardware") => vec![hardware().expect("FORESAIL_TEST_GPU=hardware, and there is a GPU")],
        Ok("software") => {
            software().expect("FORESAIL_TEST_GPU=software, and there is a C++ compiler")
        }
        Ok("none") => skipped("FORESAIL_TEST_GPU=none"),
        Ok(other) => panic!("FORESAIL_TEST_GPU={other}: it is hardware, software or none"),
        Err(_) => match hardware() {
            Ok(device) => vec![device],
            Err(no_gpu) => match software() {
                Ok(devices) => devices,
                Err(GpuError::Library(no_compiler)) => skipped(&format!("{no_gpu}; {no_compiler}")),
                Err(defect) => panic!("{defect}"),
            },
        },
    }
}

/// Says what was not tested, past what captures the output of tests that pass.
pub(crate) fn say_skipped(why: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let skipped = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: a test of kernels: {why} ({skipped} so far)"
    );
}

fn skipped(why: &str) -> Vec<Device> {
    say_skipped(why);
    Vec::new()
}

fn hardware() -> Result<Device, GpuError> {
    let gpu = Hardware::open(0)?;
    Ok(Device {
        name: gpu.properties().name.clone(),
        gpu: Box::new(gpu),
        hardware: std::env::var_os("FORESAIL_TEST_SMALL").is_none(),
    })
}

fn software() -> Result<Vec<Device>, GpuError> {
    // One device more, that watches every access: copies at once, and blocks interleaved.
    let watched = Options {
        seed: 3,
        checks: true,
        ..Options::default()
    };
    let wanted = std::env::var("FORESAIL_TEST_SEEDS").ok();
    let count: u64 = wanted.map_or(1, |count| {
        count.parse().expect("FORESAIL_TEST_SEEDS is a number")
    });
    let further = (0..).map(|index| index + SEEDS.len() as u64);
    SEEDS
        .into_iter()
        .chain(further)
        .take(usize::try_from(count).expect("a few seeds"))
        .map(|seed| Options {
            seed,
            ..Options::default()
        })
        .chain([watched])
        .map(|options| {
            let name = format!("the software device of seed {}", options.seed);
            Ok(Device {
                name: if options.checks {
                    name + ", watched"
                } else {
                    name
                },
                gpu: Box::new(Software::with(options)?),
                hardware: false,
            })
        })
        .collect()
}

/// A number that lies in memory as it is.
pub(crate) trait Plain: Copy {
    const BYTES: usize;
    fn to_bytes(self, bytes: &mut Vec<u8>);
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! plain {
    ($($number:ty),*) => {$(
        impl Plain for $number {
            const BYTES: usize = size_of::<$number>();
            fn to_bytes(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_ne_bytes());
            }
            fn from_bytes(bytes: &[u8]) -> Self {
                Self::from_ne_bytes(bytes.try_into().expect("as many bytes as it has"))
            }
        }
    )*};
}
plain!(u8, u16, u32, u64, i32, i64, f32, f64, bf16);

/// Numbers as they lie in memory.
pub(crate) fn to_bytes<T: Plain>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * T::BYTES);
    for value in values {
        value.to_bytes(&mut bytes);
    }
    bytes
}

/// Random numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 on, below 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below a bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % bound as u64) as usize
    }

    /// Of mean 0 and standard deviation 1 (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// So many, normal, of a standard deviation.
    pub(crate) fn floats(&mut self, count: usize, deviation: f64) -> Vec<f32> {
        (0..count)
            .map(|_| (self.normal() * deviation) as f32)
            .collect()
    }

    /// The same in bf16.
    pub(crate) fn bf16s(&mut self, count: usize, deviation: f64) -> Vec<bf16> {
        (0..count)
            .map(|_| bf16::from_f64(self.normal() * deviation))
            .collect()
    }
}

/// A matrix in memory whose rows are `stride` apart, zeros after each: of `[rows][columns]`.
pub(crate) fn strided(values: &[bf16], columns: usize, stride: usize) -> Vec<bf16> {
    let mut all = Vec::with_capacity(values.len() / columns * stride);
    for row in values.chunks_exact(columns) {
        all.extend_from_slice(row);
        all.resize(all.len() + stride - columns, bf16::ZERO);
    }
    all
}

/// ‖out − reference‖ / ‖reference‖, infinite if a value is not finite.
pub(crate) fn relative_error(out: &[f64], reference: &[f64]) -> f64 {
    assert_eq!(out.len(), reference.len(), "as many values");
    if out.iter().any(|value| !value.is_finite()) {
        return f64::INFINITY;
    }
    let difference: f64 = out
        .iter()
        .zip(reference)
        .map(|(a, b)| (a - b) * (a - b))
        .sum();
    let norm: f64 = reference.iter().map(|value| value * value).sum();
    if difference == 0.0 {
        0.0
    } else {
        (difference / norm).sqrt()
    }
}

/// As f64, from bf16.
pub(crate) fn widened(values: &[bf16]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}
