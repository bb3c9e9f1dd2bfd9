//! The calls into the C++ part, whose structures (`runtime.hpp`) have the same layout here.

#![allow(unsafe_code, reason = "kernels are C++")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;

use libloading::Library;

use super::compiler::LoadedKernel;
use crate::cuda::gpu::{Format, GpuError, Product};

/// Bytes of what is said of a failure.
const ERROR_BYTES: usize = 8192;

/// `software::Kernel`.
#[repr(C)]
pub(super) struct RawKernel {
    pub(super) name: *const c_char,
    pub(super) argument_bytes: u64,
    pub(super) threads_max: u64,
    pub(super) thread: unsafe extern "C" fn(*const c_void),
}

/// `software::Product`.
#[repr(C)]
struct RawProduct {
    rows: u64,
    outputs: u64,
    inputs: u64,
    x: u64,
    x_stride: u64,
    weights: u64,
    weights_stride: u64,
    y: u64,
    y_stride: u64,
    is_f32: u32,
    adds: u32,
}

/// `software::Request`.
#[repr(C)]
struct RawRequest {
    kernel: *const RawKernel,
    arguments: *const c_void,
    blocks: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    overlaps: u32,
    seed: u64,
    product: *const RawProduct,
}

type Run = unsafe extern "C" fn(*const RawRequest, u64, c_int, *mut c_char, u64) -> c_int;

/// The loaded runtime. It is never unloaded: signals are handled by it.
pub(super) struct Runtime {
    run: Run,
    allocate: unsafe extern "C" fn(u64) -> u64,
    is_intact: unsafe extern "C" fn(u64) -> c_int,
    free: unsafe extern "C" fn(u64),
    _library: Library,
}

/// A kernel that runs after another, or a product.
pub(super) enum ChainItem<'a> {
    Launch(LaunchItem<'a>),
    Product(Product),
}

/// A launch.
pub(super) struct LaunchItem<'a> {
    pub(super) kernel: &'a LoadedKernel,
    pub(super) blocks: [u32; 3],
    pub(super) threads: u32,
    pub(super) shared_bytes: u32,
    pub(super) overlaps: bool,
    pub(super) seed: u64,
    pub(super) arguments: &'a [u8],
}

impl Runtime {
    /// Loads what the compiler has written.
    pub(super) fn load(path: &Path) -> Result<Self, GpuError> {
        let failed =
            |error: libloading::Error| GpuError::Library(format!("{}: {error}", path.display()));
        // SAFETY: It is compiled from the text that is part of this program, and its
        // functions have these types there.
        unsafe {
            let library = Library::new(path).map_err(failed)?;
            Ok(Self {
                run: *library.get(b"foresail_software_run\0").map_err(failed)?,
                allocate: *library
                    .get(b"foresail_software_allocate\0")
                    .map_err(failed)?,
                is_intact: *library
                    .get(b"foresail_software_is_intact\0")
                    .map_err(failed)?,
                free: *library.get(b"foresail_software_free\0").map_err(failed)?,
                _library: library,
            })
        }
    }

    /// Memory, or none if the system has none.
    pub(super) fn allocate(&self, bytes: usize) -> Option<u64> {
        // SAFETY: It takes any number.
        let at = unsafe { (self.allocate)(bytes as u64) };
        (at != 0).then_some(at)
    }

    pub(super) fn is_intact(&self, at: u64) -> bool {
        // SAFETY: It looks the address up.
        unsafe { (self.is_intact)(at) != 0 }
    }

    pub(super) fn free(&self, at: u64) {
        // SAFETY: It looks the address up; its owner gives up what was there.
        unsafe { (self.free)(at) }
    }

    /// Runs kernels, or says what went wrong in one.
    pub(super) fn run(&self, items: &[ChainItem<'_>], checks: bool) -> Result<(), String> {
        let products: Vec<RawProduct> = items.iter().filter_map(raw_product).collect();
        let mut next_product = products.iter();
        let requests: Vec<RawRequest> = items
            .iter()
            .map(|item| match item {
                ChainItem::Launch(launch) => raw_launch(launch),
                ChainItem::Product(_) => RawRequest {
                    product: next_product
                        .next()
                        .map_or(std::ptr::null(), |product| product),
                    ..RawRequest::NOTHING
                },
            })
            .collect();
        let mut error = vec![0_u8; ERROR_BYTES];
        // SAFETY: The requests, and what they point to, live until it returns. What kernels do in memory
        // is what they do; pages around each allocation catch most of what is wrong.
        let status = unsafe {
            (self.run)(
                requests.as_ptr(),
                requests.len() as u64,
                c_int::from(checks),
                error.as_mut_ptr().cast(),
                error.len() as u64,
            )
        };
        if status == 0 {
            return Ok(());
        }
        let text =
            CStr::from_bytes_until_nul(&error).map_or_else(|_| "?".into(), CStr::to_string_lossy);
        Err(text.into_owned())
    }
}

impl RawRequest {
    const NOTHING: Self = Self {
        kernel: std::ptr::null(),
        arguments: std::ptr::null(),
        blocks: [0; 3],
        threads: 0,
        shared_bytes: 0,
        overlaps: 0,
        seed: 0,
        product: std::ptr::null(),
    };
}

fn raw_launch(launch: &LaunchItem<'_>) -> RawRequest {
    RawRequest {
        kernel: launch.kernel.raw(),
        arguments: launch.arguments.as_ptr().cast(),
        blocks: launch.blocks,
        threads: launch.threads,
        shared_bytes: launch.shared_bytes,
        overlaps: u32::from(launch.overlaps),
        seed: launch.seed,
        product: std::ptr::null(),
    }
}

fn raw_product(item: &ChainItem<'_>) -> Option<RawProduct> {
    let ChainItem::Product(product) = item else {
        return None;
    };
    Some(RawProduct {
        rows: product.rows as u64,
        outputs: product.outputs as u64,
        inputs: product.inputs as u64,
        x: product.x.0,
        x_stride: product.x_stride as u64,
        weights: product.weights.0,
        weights_stride: product.weights_stride as u64,
        y: product.y.0,
        y_stride: product.y_stride as u64,
        is_f32: u32::from(product.y_format == Format::F32),
        adds: u32::from(product.adds),
    })
}
