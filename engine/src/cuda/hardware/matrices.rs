//! What cuBLASLt is told of a product, in its own terms: the operation, the matrices, what its heuristic may choose from.

use crate::cuda::gpu::{Address, GpuError};
use crate::cuda::libraries::tables::CublasLt;
use crate::cuda::plan_cache::Key;
use cudarc::cublaslt::sys;
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::ptr;

/// What a call of the library is called in errors.
pub(super) const WHAT: &str = "multiplying matrices";
/// What every address and every row is a multiple of (bytes): the widest access of a thread, and of a copy in bulk.
pub(super) const ALIGNMENT: usize = 16;
/// `CUBLAS_OP_T` of `cublas_api.h`, which the bindings of cuBLASLt do not have.
const TRANSPOSED: i32 = 1;

/// How `W`, `x` and `y` lie in memory.
#[derive(Clone, Copy)]
pub(super) struct Layouts {
    pub(super) weights: sys::cublasLtMatrixLayout_t,
    pub(super) x: sys::cublasLtMatrixLayout_t,
    pub(super) y: sys::cublasLtMatrixLayout_t,
}

impl Layouts {
    /// Has `x` and `y` be of so many rows.
    pub(super) fn set_rows(self, library: &CublasLt, rows: usize) -> Result<(), GpuError> {
        let columns = rows as u64;
        for layout in [self.x, self.y] {
            // SAFETY: the layout exists, and this attribute of it is one number of 64 bits.
            let code = unsafe {
                (library.cublasLtMatrixLayoutSetAttribute)(
                    layout,
                    sys::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_COLS,
                    (&raw const columns).cast(),
                    size_of_val(&columns),
                )
            };
            check(library, code)?;
        }
        Ok(())
    }
}

/// Sums in f32, and `W` transposed.
pub(super) fn descriptor(library: &CublasLt) -> Result<sys::cublasLtMatmulDesc_t, GpuError> {
    let mut descriptor = ptr::null_mut();
    // SAFETY: it writes one description.
    let code = unsafe {
        (library.cublasLtMatmulDescCreate)(
            &raw mut descriptor,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType_t::CUDA_R_32F,
        )
    };
    check(library, code)?;
    let transposed = TRANSPOSED;
    // SAFETY: the description exists, and this attribute of it is one number of 32 bits.
    let code = unsafe {
        (library.cublasLtMatmulDescSetAttribute)(
            descriptor,
            sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
            (&raw const transposed).cast(),
            size_of_val(&transposed),
        )
    };
    check(library, code)?;
    Ok(descriptor)
}

/// What the heuristic may choose from: ways within the workspace that keep partial sums in f32, for matrices aligned as ours are.
pub(super) fn preference(
    library: &CublasLt,
    workspace_bytes: usize,
) -> Result<sys::cublasLtMatmulPreference_t, GpuError> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let mut preference = ptr::null_mut();
    // SAFETY: it writes one description.
    let code = unsafe { (library.cublasLtMatmulPreferenceCreate)(&raw mut preference) };
    check(library, code)?;
    let set = |attribute, value: *const c_void, bytes| {
        // SAFETY: the description exists; each attribute below is as long as it is documented to be.
        let code = unsafe {
            (library.cublasLtMatmulPreferenceSetAttribute)(preference, attribute, value, bytes)
        };
        check(library, code)
    };
    let workspace_bytes = workspace_bytes as u64;
    set(
        Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
        (&raw const workspace_bytes).cast(),
        size_of_val(&workspace_bytes),
    )?;
    // Sums in the format of `y` would be rounded to bf16 in between.
    let schemes = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
    set(
        Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        (&raw const schemes).cast(),
        size_of_val(&schemes),
    )?;
    let alignment = ALIGNMENT as u32;
    for attribute in [
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    ] {
        set(
            attribute,
            (&raw const alignment).cast(),
            size_of_val(&alignment),
        )?;
    }
    Ok(preference)
}

/// How the matrices of a key lie.
pub(super) fn layouts(library: &CublasLt, key: &Key) -> Result<Layouts, GpuError> {
    let layout = |format, rows: usize, columns: usize, stride: usize| {
        let mut layout = ptr::null_mut();
        // SAFETY: it writes one description.
        let code = unsafe {
            (library.cublasLtMatrixLayoutCreate)(
                &raw mut layout,
                format,
                rows as u64,
                columns as u64,
                stride as i64,
            )
        };
        check(library, code).map(|()| layout)
    };
    let bf16 = sys::cudaDataType_t::CUDA_R_16BF;
    let y_format = match key.y_bytes {
        2 => bf16,
        _ => sys::cudaDataType_t::CUDA_R_32F,
    };
    Ok(Layouts {
        weights: layout(bf16, key.inputs, key.outputs, key.weights_stride)?,
        x: layout(bf16, key.inputs, key.rows, key.x_stride)?,
        y: layout(y_format, key.outputs, key.rows, key.y_stride)?,
    })
}

/// An algorithm that the library takes and the workspace it needs. The state is read as a number, as its
/// enum may lack what a newer library says.
pub(super) fn taken(
    result: &MaybeUninit<sys::cublasLtMatmulHeuristicResult_t>,
) -> Option<(sys::cublasLtMatmulAlgo_t, usize)> {
    let result = result.as_ptr();
    // SAFETY: it was zeroed before the library wrote to it, and any bits are numbers of these types.
    unsafe {
        let state = (&raw const (*result).state).cast::<u32>().read();
        let algorithm = (&raw const (*result).algo).read();
        let workspace_bytes = (&raw const (*result).workspaceSize).read();
        (state == 0).then_some((algorithm, workspace_bytes))
    }
}

pub(super) fn pointer(at: Address) -> *mut c_void {
    ptr::with_exposed_provenance_mut(at.0 as usize)
}

/// What a code of the library means.
pub(super) fn check(library: &CublasLt, code: u32) -> Result<(), GpuError> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: it takes any number, and gives a string that stays.
    let words = unsafe { (library.cublasLtGetStatusString)(code) };
    let why = if words.is_null() {
        format!("cuBLASLt failed with code {code}")
    } else {
        // SAFETY: it is not null, and ends in a zero.
        let words = unsafe { CStr::from_ptr(words) };
        format!("cuBLASLt failed: {}", words.to_string_lossy())
    };
    Err(GpuError::Call { what: WHAT, why })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::print_stderr, reason = "a test that is skipped must be seen")]

    use super::*;
    use crate::cuda::libraries::libraries;

    /// Descriptions need no GPU, so where the library is, it says whether it takes ours.
    #[test]
    fn the_library_takes_the_descriptions() {
        let library = match libraries().cublas_lt() {
            Ok(library) => library,
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                return;
            }
        };
        descriptor(library).expect("the description of the operation");
        preference(library, 32 << 20).expect("what the heuristic may choose from");
        for y_bytes in [2, 4] {
            let key = Key {
                rows: 128,
                outputs: 6144,
                inputs: 4096,
                x_stride: 4096,
                weights_stride: 4096,
                y_stride: 6144,
                y_bytes,
                adds: false,
            };
            let layouts = layouts(library, &key).expect("the descriptions of matrices");
            layouts.set_rows(library, 100).expect("other rows");
        }
        assert!(check(library, 15).is_err_and(|error| error.to_string().contains("cuBLASLt")));
    }
}
