//! The functions of each library that are called, found by name when the library is loaded.
//!
//! Types and signatures are cudarc's, and the compiler compares each line below with
//! cudarc's binding of the same name. The functions themselves are looked up here, for three
//! reasons: cudarc panics where a library or a function is missing, and looks the functions up
//! one by one at their first call; it opens libraries by names of its own, so that a `libcublasLt.so` of another
//! version on the loader's path would win over the file that was found, and `libnccl.so.2` is not
//! among its names; and it takes what functions return for a Rust enum, which a code that a newer driver
//! has and the enum has not would make undefined behaviour. Here a code is a number.

#![allow(
    unsafe_code,
    reason = "symbols of a shared library have the types that their headers say"
)]

use cudarc::cublaslt::sys as cublaslt;
use cudarc::driver::sys as driver;
use cudarc::nccl::sys as nccl;
use cudarc::nvrtc::sys as nvrtc;
use libloading::Library;
use std::ffi::{c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};

/// What a call gives where no other type is written.
macro_rules! returned {
    ($status:ty) => {
        $status
    };
    ($status:ty, $other:ty) => {
        $other
    };
}

macro_rules! table {
    (
        $(#[$documentation:meta])*
        $table:ident: $sys:ident::$status:ident {
            $($name:ident($($argument:ty),*) $(-> $other:ty)?;)*
        }
        words $words:ident($($word:ty),*) -> $text:ty
    ) => {
        $(#[$documentation])*
        #[allow(non_snake_case, reason = "these are the names of C")]
        #[derive(Debug)]
        pub(crate) struct $table {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) -> returned!(u32 $(, $other)?),)*
            /// What a code means, in words. It takes the code as a number, and so is compared with no binding.
            pub(crate) $words: unsafe extern "C" fn($($word),*) -> $text,
        }

        impl $table {
            /// Finds all functions.
            ///
            /// # Errors
            /// The name of the first that is not there.
            pub(crate) fn find(library: &Library) -> Result<Self, &'static str> {
                Ok(Self {
                    // SAFETY: the function has this type: the constants below compare it with the header's.
                    $($name: *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }
                        .map_err(|_| stringify!($name))?,)*
                    // SAFETY: as above; an enum of C is passed as the number it is.
                    $words: *unsafe { library.get(concat!(stringify!($words), "\0").as_bytes()) }
                        .map_err(|_| stringify!($words))?,
                })
            }
        }

        $(const _: unsafe fn($($argument),*) -> returned!($sys::$status $(, $other)?) = $sys::$name;)*
    };
}

table! {
    /// The driver.
    Driver: driver::CUresult {
        cuInit(c_uint);
        cuDriverGetVersion(*mut c_int);
        cuDeviceGetCount(*mut c_int);
        cuDeviceGet(*mut driver::CUdevice, c_int);
        cuDeviceGetName(*mut c_char, c_int, driver::CUdevice);
        cuDeviceGetAttribute(*mut c_int, driver::CUdevice_attribute, driver::CUdevice);
        cuDeviceTotalMem_v2(*mut usize, driver::CUdevice);
        cuDevicePrimaryCtxRetain(*mut driver::CUcontext, driver::CUdevice);
        cuDevicePrimaryCtxRelease_v2(driver::CUdevice);
        cuCtxSetCurrent(driver::CUcontext);
        cuStreamCreate(*mut driver::CUstream, c_uint);
        cuStreamDestroy_v2(driver::CUstream);
        cuMemGetInfo_v2(*mut usize, *mut usize);
        cuMemAlloc_v2(*mut driver::CUdeviceptr, usize);
        cuMemFree_v2(driver::CUdeviceptr);
        cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
        cuMemFreeHost(*mut c_void);
        cuMemcpyHtoDAsync_v2(driver::CUdeviceptr, *const c_void, usize, driver::CUstream);
        cuMemcpyDtoHAsync_v2(*mut c_void, driver::CUdeviceptr, usize, driver::CUstream);
        cuMemcpyDtoDAsync_v2(driver::CUdeviceptr, driver::CUdeviceptr, usize, driver::CUstream);
        cuMemsetD8Async(driver::CUdeviceptr, c_uchar, usize, driver::CUstream);
        cuEventCreate(*mut driver::CUevent, c_uint);
        cuEventDestroy_v2(driver::CUevent);
        cuEventRecord(driver::CUevent, driver::CUstream);
        cuEventQuery(driver::CUevent);
        cuEventElapsedTime_v2(*mut f32, driver::CUevent, driver::CUevent);
        cuModuleLoadData(*mut driver::CUmodule, *const c_void);
        cuModuleUnload(driver::CUmodule);
        cuModuleGetFunction(*mut driver::CUfunction, driver::CUmodule, *const c_char);
        cuFuncSetAttribute(driver::CUfunction, driver::CUfunction_attribute, c_int);
        cuFuncGetAttribute(*mut c_int, driver::CUfunction_attribute, driver::CUfunction);
        cuFuncLoad(driver::CUfunction);
        cuLaunchKernelEx(
            *const driver::CUlaunchConfig,
            driver::CUfunction,
            *mut *mut c_void,
            *mut *mut c_void
        );
        cuStreamBeginCapture_v2(driver::CUstream, driver::CUstreamCaptureMode);
        cuStreamEndCapture(driver::CUstream, *mut driver::CUgraph);
        cuGraphInstantiateWithFlags(*mut driver::CUgraphExec, driver::CUgraph, c_ulonglong);
        cuGraphUpload(driver::CUgraphExec, driver::CUstream);
        cuGraphLaunch(driver::CUgraphExec, driver::CUstream);
        cuGraphDestroy(driver::CUgraph);
        cuGraphExecDestroy(driver::CUgraphExec);
    }
    words cuGetErrorString(u32, *mut *const c_char) -> u32
}

table! {
    /// The compiler of CUDA C++.
    Nvrtc: nvrtc::nvrtcResult {
        nvrtcVersion(*mut c_int, *mut c_int);
        nvrtcCreateProgram(
            *mut nvrtc::nvrtcProgram,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char
        );
        nvrtcDestroyProgram(*mut nvrtc::nvrtcProgram);
        nvrtcCompileProgram(nvrtc::nvrtcProgram, c_int, *const *const c_char);
        nvrtcGetProgramLogSize(nvrtc::nvrtcProgram, *mut usize);
        nvrtcGetProgramLog(nvrtc::nvrtcProgram, *mut c_char);
        nvrtcGetCUBINSize(nvrtc::nvrtcProgram, *mut usize);
        nvrtcGetCUBIN(nvrtc::nvrtcProgram, *mut c_char);
    }
    words nvrtcGetErrorString(u32) -> *const c_char
}

table! {
    /// Products of large matrices.
    CublasLt: cublaslt::cublasStatus_t {
        cublasLtGetVersion() -> usize;
        cublasLtCreate(*mut cublaslt::cublasLtHandle_t);
        cublasLtDestroy(cublaslt::cublasLtHandle_t);
        cublasLtMatmulDescCreate(
            *mut cublaslt::cublasLtMatmulDesc_t,
            cublaslt::cublasComputeType_t,
            cublaslt::cudaDataType_t
        );
        cublasLtMatmulDescDestroy(cublaslt::cublasLtMatmulDesc_t);
        cublasLtMatmulDescSetAttribute(
            cublaslt::cublasLtMatmulDesc_t,
            cublaslt::cublasLtMatmulDescAttributes_t,
            *const c_void,
            usize
        );
        cublasLtMatrixLayoutCreate(
            *mut cublaslt::cublasLtMatrixLayout_t,
            cublaslt::cudaDataType_t,
            u64,
            u64,
            i64
        );
        cublasLtMatrixLayoutDestroy(cublaslt::cublasLtMatrixLayout_t);
        cublasLtMatrixLayoutSetAttribute(
            cublaslt::cublasLtMatrixLayout_t,
            cublaslt::cublasLtMatrixLayoutAttribute_t,
            *const c_void,
            usize
        );
        cublasLtMatmulPreferenceCreate(*mut cublaslt::cublasLtMatmulPreference_t);
        cublasLtMatmulPreferenceDestroy(cublaslt::cublasLtMatmulPreference_t);
        cublasLtMatmulPreferenceSetAttribute(
            cublaslt::cublasLtMatmulPreference_t,
            cublaslt::cublasLtMatmulPreferenceAttributes_t,
            *const c_void,
            usize
        );
        cublasLtMatmulAlgoGetHeuristic(
            cublaslt::cublasLtHandle_t,
            cublaslt::cublasLtMatmulDesc_t,
            cublaslt::cublasLtMatrixLayout_t,
            cublaslt::cublasLtMatrixLayout_t,
            cublaslt::cublasLtMatrixLayout_t,
            cublaslt::cublasLtMatrixLayout_t,
            cublaslt::cublasLtMatmulPreference_t,
            c_int,
            *mut cublaslt::cublasLtMatmulHeuristicResult_t,
            *mut c_int
        );
        cublasLtMatmulAlgoCheck(
            cublaslt::cublasLtHandle_t,
            cublaslt::cublasLtMatmulDesc_t,
            cublaslt::cublasLtMatrixLayout_t,
            cublaslt::cublasLtMatrixLayout_t,
            cublaslt::cublasLtMatrixLayout_t,
            cublaslt::cublasLtMatrixLayout_t,
            *const cublaslt::cublasLtMatmulAlgo_t,
            *mut cublaslt::cublasLtMatmulHeuristicResult_t
        );
        cublasLtMatmul(
            cublaslt::cublasLtHandle_t,
            cublaslt::cublasLtMatmulDesc_t,
            *const c_void,
            *const c_void,
            cublaslt::cublasLtMatrixLayout_t,
            *const c_void,
            cublaslt::cublasLtMatrixLayout_t,
            *const c_void,
            *const c_void,
            cublaslt::cublasLtMatrixLayout_t,
            *mut c_void,
            cublaslt::cublasLtMatrixLayout_t,
            *const cublaslt::cublasLtMatmulAlgo_t,
            *mut c_void,
            usize,
            cublaslt::cudaStream_t
        );
    }
    words cublasLtGetStatusString(u32) -> *const c_char
}

table! {
    /// Exchanges between GPUs.
    Nccl: nccl::ncclResult_t {
        ncclGetVersion(*mut c_int);
        ncclGetUniqueId(*mut nccl::ncclUniqueId);
        ncclCommInitRank(*mut nccl::ncclComm_t, c_int, nccl::ncclUniqueId, c_int);
        ncclCommDestroy(nccl::ncclComm_t);
        ncclCommAbort(nccl::ncclComm_t);
        ncclCommGetAsyncError(nccl::ncclComm_t, *mut nccl::ncclResult_t);
        ncclAllReduce(
            *const c_void,
            *mut c_void,
            usize,
            nccl::ncclDataType_t,
            nccl::ncclRedOp_t,
            nccl::ncclComm_t,
            nccl::cudaStream_t
        );
        ncclAllGather(
            *const c_void,
            *mut c_void,
            usize,
            nccl::ncclDataType_t,
            nccl::ncclComm_t,
            nccl::cudaStream_t
        );
    }
    words ncclGetErrorString(u32) -> *const c_char
}
