//! The CUDA backend: one rank's part of a model on a GPU.
//!
//! ```text
//!  what is computed      ops.rs      a forward pass on launchers; recorded where it decodes
//!                        inputs.rs  buckets.rs  memory.rs            what they are told, and where it is
//!                        kernels/    a launcher a kernel: shapes in, a launch out   <── ../../kernels/*.cu
//!                                              │
//!  the wall              gpu.rs      memory, kernels, a queue, recordings
//!                                    │                              │
//!  who does it           hardware/   a real GPU                     software/   kernels on a CPU,
//!                        (driver, NVRTC, cuBLASLt, NCCL)                        for tests without a GPU
//! ```

pub mod buckets;
pub mod compile;
pub mod cubin;
pub mod cubin_cache;
pub mod gpu;
pub mod hardware;
pub mod inputs;
pub mod kernels;
pub mod libraries;
pub mod memory;
pub mod ops;
pub mod plan_cache;
pub mod software;
