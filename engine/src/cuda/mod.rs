//! The CUDA backend: one rank's part of a model on a GPU.
//!
//! ```text
//!  what is computed      kernels/    a launcher a kernel: shapes in, a launch out   <── ../../kernels/*.cu
//!                                              │
//!  the wall              gpu.rs      memory, kernels, a queue, recordings
//!                                    │                              │
//!  who does it           hardware/   a real GPU                     software/   kernels on a CPU,
//!                        (driver, NVRTC, cuBLASLt, NCCL)                        for tests without a GPU
//! ```

pub mod gpu;
pub mod kernels;
