//! Products of large matrices, by cuBLASLt.
//!
//! The library knows many ways to do a product, and a heuristic that is often right. Here the
//! best few of its list are timed, once for each shape, and the fastest is kept on disk. From then on
//! a product is one call: descriptions of matrices are made once, and nothing is asked twice.
//!
//! `y[rows][outputs] = x[rows][inputs] W[outputs][inputs]ᵀ` is, to a library whose matrices are
//! column by column, `yᵀ = (Wᵀ)ᵀ xᵀ`: its A is `W`, transposed; its B is `x`; its C and D are `y`.

use super::context::Context;
use super::matrices::{
    ALIGNMENT, Layouts, WHAT, check, descriptor, layouts, pointer, preference, taken,
};
use super::memory::Memory;
use crate::cuda::cubin_cache;
use crate::cuda::gpu::{Address, Format, GpuError, Product, Properties};
use crate::cuda::libraries::libraries;
use crate::cuda::libraries::tables::CublasLt;
use crate::cuda::plan_cache::{Key, Plan, PlanCache};
use cudarc::cublaslt::sys;
use cudarc::driver::sys as driver;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::ptr;

/// How many of the library's ways are timed.
const CANDIDATES: usize = 8;
/// Calls before those that are timed, which load kernels and fill caches.
const WARM_UPS: usize = 2;
/// How often a way is timed; the least of these counts, as it was disturbed the least.
const SAMPLES: usize = 3;
/// Calls in each of these.
const CALLS: usize = 5;
/// Room for partial sums (bytes). Hopper's ways use more, as their tiles are larger.
const WORKSPACE_BYTES: usize = 32 << 20;
const WORKSPACE_BYTES_HOPPER: usize = 64 << 20;

/// Products on one GPU.
pub(super) struct Products {
    library: &'static CublasLt,
    handle: sys::cublasLtHandle_t,
    descriptor: sys::cublasLtMatmulDesc_t,
    preference: sys::cublasLtMatmulPreference_t,
    workspace: Address,
    workspace_bytes: usize,
    prepared: BTreeMap<Key, Prepared>,
    cache: PlanCache,
    notes: BTreeSet<String>,
    began: driver::CUevent,
    ended: driver::CUevent,
}

/// What products of a key are done with.
struct Prepared {
    layouts: Layouts,
    /// The rows that the layouts are of at present.
    rows: usize,
    algorithm: sys::cublasLtMatmulAlgo_t,
    /// For which numbers of rows the algorithm does.
    fits: BTreeMap<usize, bool>,
}

/// Where the matrices of a call are.
#[derive(Clone, Copy)]
struct Places {
    weights: Address,
    x: Address,
    y: Address,
    adds: bool,
}

impl Products {
    pub(super) fn new(
        context: &mut Context,
        memory: &mut Memory,
        properties: &Properties,
    ) -> Result<Self, GpuError> {
        let library = libraries().cublas_lt()?;
        let workspace_bytes = if properties.architecture.0 >= 9 {
            WORKSPACE_BYTES_HOPPER
        } else {
            WORKSPACE_BYTES
        };
        let mut handle = ptr::null_mut();
        // SAFETY: it writes one handle, which is destroyed in `release`.
        let code = unsafe { (library.cublasLtCreate)(&raw mut handle) };
        check(library, code)?;
        // SAFETY: it only returns a constant.
        let version = unsafe { (library.cublasLtGetVersion)() };
        let folder = cubin_cache::folder();
        let (cache, note) = PlanCache::open(folder.as_deref(), &properties.name, version);
        Ok(Self {
            library,
            handle,
            descriptor: descriptor(library)?,
            preference: preference(library, workspace_bytes)?,
            workspace: memory.allocate(context, workspace_bytes)?,
            workspace_bytes,
            prepared: BTreeMap::new(),
            cache,
            notes: note.into_iter().collect(),
            began: context.event(true)?,
            ended: context.event(true)?,
        })
    }

    pub(super) fn notes(&self) -> impl Iterator<Item = &String> {
        self.notes.iter()
    }

    /// Does a product. If none like it was done before, the ways to do it are timed first, unless it is recorded.
    pub(super) fn multiply(
        &mut self,
        context: &mut Context,
        memory: &mut Memory,
        product: &Product,
        recorded: bool,
    ) -> Result<(), GpuError> {
        validate(product).map_err(|why| GpuError::Call { what: WHAT, why })?;
        if product.rows == 0 || product.outputs == 0 {
            return Ok(());
        }
        let key = self.plan(context, memory, product, recorded)?;
        let prepared = self.prepared.get_mut(&key).expect("it was just prepared");
        prepared.set_rows(self.library, product.rows)?;
        let (layouts, algorithm) = (prepared.layouts, prepared.algorithm);
        let code = self.call(context, layouts, &algorithm, places(product));
        check(self.library, code)
    }

    /// Finds the fastest way for a product, if it is not known.
    pub(super) fn tune(
        &mut self,
        context: &mut Context,
        memory: &mut Memory,
        product: &Product,
    ) -> Result<(), GpuError> {
        validate(product).map_err(|why| GpuError::Call { what: WHAT, why })?;
        if product.rows == 0 || product.outputs == 0 {
            return Ok(());
        }
        self.plan(context, memory, product, false).map(|_| ())
    }

    /// The key of a plan that does for a product: that of its bucket, or of its own rows if the bucket's does not.
    fn plan(
        &mut self,
        context: &mut Context,
        memory: &mut Memory,
        product: &Product,
        recorded: bool,
    ) -> Result<Key, GpuError> {
        let bucket = Key::of(product);
        let exact = Key {
            rows: product.rows,
            ..bucket
        };
        for key in [bucket, exact] {
            if !self.prepared.contains_key(&key) {
                let prepared = self.prepare(context, memory, key, product.weights, recorded)?;
                self.prepared.insert(key, prepared);
            }
            if self.fits(key, product.rows)? {
                return Ok(key);
            }
            self.notes.insert(format!(
                "the fastest product of {key:?} does not do for {} rows",
                product.rows
            ));
        }
        Err(no_way(&exact))
    }

    /// Whether a key's way does for a number of rows. It was found for those of the bucket.
    fn fits(&mut self, key: Key, rows: usize) -> Result<bool, GpuError> {
        let prepared = self.prepared.get_mut(&key).expect("it was just prepared");
        if let Some(fits) = prepared.fits.get(&rows) {
            return Ok(*fits);
        }
        prepared.set_rows(self.library, rows)?;
        let (layouts, algorithm) = (prepared.layouts, prepared.algorithm);
        let fits = self.takes(layouts, &algorithm);
        let prepared = self.prepared.get_mut(&key).expect("it was just prepared");
        prepared.fits.insert(rows, fits);
        Ok(fits)
    }

    fn prepare(
        &mut self,
        context: &mut Context,
        memory: &mut Memory,
        key: Key,
        weights: Address,
        recorded: bool,
    ) -> Result<Prepared, GpuError> {
        let layouts = layouts(self.library, &key)?;
        let algorithm = self.algorithm(context, memory, key, layouts, weights, recorded)?;
        Ok(Prepared {
            layouts,
            rows: key.rows,
            algorithm,
            fits: BTreeMap::from([(key.rows, true)]),
        })
    }

    /// The way that is kept, or else the fastest, or else, where nothing can be timed, the heuristic's first.
    fn algorithm(
        &mut self,
        context: &mut Context,
        memory: &mut Memory,
        key: Key,
        layouts: Layouts,
        weights: Address,
        recorded: bool,
    ) -> Result<sys::cublasLtMatmulAlgo_t, GpuError> {
        if let Some(plan) = self.cache.get(&key) {
            let kept = sys::cublasLtMatmulAlgo_t {
                data: plan.algorithm,
            };
            if self.takes(layouts, &kept) {
                return Ok(kept);
            }
            self.cache.remove(&key);
            self.notes.insert(format!(
                "a way to multiply that was kept is not taken back, and measured again: {key:?}"
            ));
        }
        let candidates = self.candidates(layouts)?;
        let first = *candidates.first().ok_or_else(|| no_way(&key))?;
        if recorded {
            self.notes.insert(format!(
                "not measured, as it was first asked for in a recording: {key:?}"
            ));
            return Ok(first);
        }
        let scratch = match Scratch::new(context, memory, &key) {
            Ok(scratch) => scratch,
            Err(GpuError::OutOfMemory { asked, free }) => {
                self.notes.insert(format!(
                    "not measured, as that takes {asked} bytes and {free} are free: {key:?}"
                ));
                return Ok(first);
            }
            Err(error) => return Err(error),
        };
        let fastest = self.fastest(
            context,
            layouts,
            &candidates,
            &scratch.places(weights, &key),
        );
        scratch.release(context, memory)?;
        let Some((algorithm, seconds)) = fastest? else {
            return Err(no_way(&key));
        };
        let plan = Plan {
            algorithm: algorithm.data,
            seconds,
        };
        if let Err(error) = self.cache.insert(key, plan) {
            self.notes.insert(format!(
                "what is measured of products is not kept, so that every start measures again: {error}"
            ));
        }
        Ok(algorithm)
    }

    /// The library's list of ways, the likely best first.
    fn candidates(&self, layouts: Layouts) -> Result<Vec<sys::cublasLtMatmulAlgo_t>, GpuError> {
        let mut results =
            [MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::zeroed(); CANDIDATES];
        let mut count = 0;
        // SAFETY: all descriptions exist; there is room for as many results as are asked for.
        let code = unsafe {
            (self.library.cublasLtMatmulAlgoGetHeuristic)(
                self.handle,
                self.descriptor,
                layouts.weights,
                layouts.x,
                layouts.y,
                layouts.y,
                self.preference,
                CANDIDATES as i32,
                results.as_mut_ptr().cast(),
                &raw mut count,
            )
        };
        // That there is none is said by the caller, who knows for what.
        if code == sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED as u32 {
            return Ok(Vec::new());
        }
        check(self.library, code)?;
        let count = usize::try_from(count).unwrap_or(0).min(CANDIDATES);
        let usable = results[..count].iter().filter_map(|result| {
            let (algorithm, workspace_bytes) = taken(result)?;
            (workspace_bytes <= self.workspace_bytes).then_some(algorithm)
        });
        Ok(usable.collect())
    }

    /// Whether the library takes an algorithm for such matrices, within the workspace.
    fn takes(&self, layouts: Layouts, algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
        let mut result = MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::zeroed();
        // SAFETY: all descriptions exist; it writes one result.
        let code = unsafe {
            (self.library.cublasLtMatmulAlgoCheck)(
                self.handle,
                self.descriptor,
                layouts.weights,
                layouts.x,
                layouts.y,
                layouts.y,
                algorithm,
                result.as_mut_ptr(),
            )
        };
        let workspace_bytes = taken(&result).map(|(_, bytes)| bytes);
        code == 0 && workspace_bytes.is_some_and(|bytes| bytes <= self.workspace_bytes)
    }

    /// The fastest of several ways and its time; `None` if none runs.
    fn fastest(
        &self,
        context: &mut Context,
        layouts: Layouts,
        candidates: &[sys::cublasLtMatmulAlgo_t],
        places: &Places,
    ) -> Result<Option<(sys::cublasLtMatmulAlgo_t, f64)>, GpuError> {
        let mut fastest: Option<(sys::cublasLtMatmulAlgo_t, f64)> = None;
        for candidate in candidates {
            let Some(seconds) = self.time(context, layouts, candidate, *places)? else {
                continue;
            };
            if fastest.is_none_or(|(_, least)| seconds < least) {
                fastest = Some((*candidate, seconds));
            }
        }
        Ok(fastest)
    }

    /// What one call takes (s); `None` if the library does not do it after all.
    fn time(
        &self,
        context: &mut Context,
        layouts: Layouts,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        places: Places,
    ) -> Result<Option<f64>, GpuError> {
        for _ in 0..WARM_UPS {
            if self.call(context, layouts, algorithm, places) != 0 {
                return Ok(None);
            }
        }
        let mut least = f64::INFINITY;
        for _ in 0..SAMPLES {
            context.record(self.began)?;
            for _ in 0..CALLS {
                check(self.library, self.call(context, layouts, algorithm, places))?;
            }
            context.record(self.ended)?;
            context.wait_for(self.ended)?;
            least = least.min(context.seconds(self.began, self.ended)? / CALLS as f64);
        }
        Ok(Some(least))
    }

    fn call(
        &self,
        context: &Context,
        layouts: Layouts,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        places: Places,
    ) -> u32 {
        let alpha = 1_f32;
        let beta = if places.adds { 1_f32 } else { 0_f32 };
        let y = pointer(places.y);
        // SAFETY: all descriptions exist, the factors are read before the call returns, and the matrices
        // are where the caller says: a product's addresses are its caller's word, as those of a kernel are.
        unsafe {
            (self.library.cublasLtMatmul)(
                self.handle,
                self.descriptor,
                (&raw const alpha).cast(),
                pointer(places.weights),
                layouts.weights,
                pointer(places.x),
                layouts.x,
                (&raw const beta).cast(),
                y,
                layouts.y,
                y,
                layouts.y,
                algorithm,
                pointer(self.workspace),
                self.workspace_bytes,
                context.stream.cast(),
            )
        }
    }

    /// Gives everything back that is not the GPU's memory. Nothing may be under way any more.
    pub(super) fn release(&mut self, context: &mut Context) {
        for (_, prepared) in std::mem::take(&mut self.prepared) {
            let Layouts { weights, x, y } = prepared.layouts;
            for layout in [weights, x, y] {
                // SAFETY: it was made by this library, and is forgotten.
                unsafe { (self.library.cublasLtMatrixLayoutDestroy)(layout) };
            }
        }
        // SAFETY: these were made by this library and this context, and are not used any more.
        unsafe {
            (self.library.cublasLtMatmulPreferenceDestroy)(self.preference);
            (self.library.cublasLtMatmulDescDestroy)(self.descriptor);
            (self.library.cublasLtDestroy)(self.handle);
            (context.driver.cuEventDestroy_v2)(self.began);
            (context.driver.cuEventDestroy_v2)(self.ended);
        }
    }
}

impl Prepared {
    /// Has the layouts be those of so many rows.
    fn set_rows(&mut self, library: &CublasLt, rows: usize) -> Result<(), GpuError> {
        if self.rows == rows {
            return Ok(());
        }
        self.layouts.set_rows(library, rows)?;
        self.rows = rows;
        Ok(())
    }
}

/// Memory that ways are timed on: of their own, as a product that adds would change what it is tried on, and
/// as a row of zeros is multiplied faster than one of numbers.
struct Scratch {
    x: Address,
    y: Address,
}

impl Scratch {
    fn new(context: &mut Context, memory: &mut Memory, key: &Key) -> Result<Self, GpuError> {
        let x_bytes = key.rows * key.x_stride * size_of::<u16>();
        let y_bytes = key.rows * key.y_stride * key.y_bytes;
        let x = memory.allocate(context, x_bytes)?;
        let y = match memory.allocate(context, y_bytes) {
            Ok(y) => y,
            Err(error) => {
                memory.free(context, x)?;
                return Err(error);
            }
        };
        let block = numbers(1 << 20);
        for offset in (0..x_bytes).step_by(block.len()) {
            let bytes = block.len().min(x_bytes - offset);
            memory.write(context, x.offset(offset), &block[..bytes])?;
        }
        memory.fill(context, y, y_bytes, 0)?;
        Ok(Self { x, y })
    }

    fn places(&self, weights: Address, key: &Key) -> Places {
        Places {
            weights,
            x: self.x,
            y: self.y,
            adds: key.adds,
        }
    }

    fn release(self, context: &mut Context, memory: &mut Memory) -> Result<(), GpuError> {
        memory.free(context, self.x)?;
        memory.free(context, self.y)
    }
}

/// Bytes of bf16 numbers of either sign between a half and one.
fn numbers(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // Xorshift (Marsaglia 2003): bits without a pattern are all that is needed.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bits = (state >> 32) as u16;
        (bits & 0x807f) | 0x3f00
    };
    (0..bytes / 2).flat_map(|_| next().to_le_bytes()).collect()
}

fn places(product: &Product) -> Places {
    Places {
        weights: product.weights,
        x: product.x,
        y: product.y,
        adds: product.adds,
    }
}

/// What is wrong with a product, whatever the library says of it.
fn validate(product: &Product) -> Result<(), String> {
    let Product {
        rows,
        outputs,
        inputs,
        ..
    } = *product;
    let shape = || format!("[{rows}][{inputs}] by [{outputs}][{inputs}]");
    let y_bytes = match product.y_format {
        Format::Bf16 => 2,
        Format::F32 => 4,
    };
    if inputs == 0 {
        return Err(format!("{}: there is nothing to add up", shape()));
    }
    for (name, at, stride, width, bytes) in [
        ("x", product.x, product.x_stride, inputs, 2),
        ("W", product.weights, product.weights_stride, inputs, 2),
        ("y", product.y, product.y_stride, outputs, y_bytes),
    ] {
        if stride < width {
            return Err(format!(
                "{}: rows of {name} are {stride} apart and {width} long",
                shape()
            ));
        }
        if !at.0.is_multiple_of(ALIGNMENT as u64) || !(stride * bytes).is_multiple_of(ALIGNMENT) {
            return Err(format!(
                "{}: rows of {name} do not begin at multiples of {ALIGNMENT} bytes",
                shape()
            ));
        }
    }
    Ok(())
}

fn no_way(key: &Key) -> GpuError {
    GpuError::Call {
        what: WHAT,
        why: format!("cuBLASLt has no way to do it: {key:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_whose_rows_overlap_or_are_not_aligned_is_refused() {
        let product = Product {
            rows: 3,
            outputs: 100,
            inputs: 100,
            x: Address(4096),
            x_stride: 128,
            weights: Address(8192),
            weights_stride: 128,
            y: Address(16384),
            y_stride: 128,
            y_format: Format::Bf16,
            adds: false,
        };
        assert_eq!(validate(&product), Ok(()));
        let wrong = [
            Product {
                inputs: 0,
                ..product
            },
            Product {
                x_stride: 99,
                ..product
            },
            Product {
                x_stride: 101,
                ..product
            },
            Product {
                weights: Address(8200),
                ..product
            },
            Product {
                y_stride: 99,
                ..product
            },
            Product {
                y: Address(16386),
                ..product
            },
        ];
        for product in wrong {
            let why = validate(&product).expect_err("it is wrong");
            assert!(why.contains("by [100]"), "{why}");
        }
    }

    #[test]
    fn ways_are_timed_on_numbers_that_are_neither_zero_nor_large() {
        let bytes = numbers(4096);
        assert_eq!(bytes.len(), 4096);
        let mut different = BTreeSet::new();
        for pair in bytes.chunks(2) {
            let bits = u16::from_le_bytes([pair[0], pair[1]]);
            let number = f32::from_bits(u32::from(bits) << 16).abs();
            assert!((0.5..1.0).contains(&number), "{number}");
            different.insert(bits);
        }
        assert!(different.len() > 200);
    }
}
