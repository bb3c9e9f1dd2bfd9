//! What computes and serves in foresail: a real inference engine, whose every
//! scheduling decision is made by the pure scheduler of `foresail-core`, the
//! one that the simulator runs.
//!
//! ```text
//!  HTTP ──> server ──> text ──> driver ──────────────> Backend ──> sampled tokens
//!             │      tokens,     │ one thread owns        │
//!             │      template    │ the device             ├─ CPU: ranks ─> Model::forward ─> Ops ─> cpu kernels
//!             │                  v                        ├─ emulated: a step-time model and a counter
//!             │            core: Scheduler,               └─ (CUDA)
//!             │                  AdapterSlots
//!             └─ access log, metrics, keys
//! ```
//!
//! A step is a sentence: the scheduler says which sequences compute which
//! tokens ([`foresail_core::batching::Step`]), the driver adds the tokens
//! themselves ([`backend::StepInput`]), the backend computes them and samples
//! ([`backend::Backend`]), and the driver tells the scheduler what ended.
//!
//! Inside a backend that computes, [`model::Model::forward`] is the one forward pass
//! of every family; what differs between devices is behind [`ops::Ops`], and
//! what differs between families is in [`config::ModelConfig`].

pub mod adapters;
pub mod backend;
pub mod batch;
pub mod bench;
pub mod checkpoint;
pub mod choose;
pub mod comm;
pub mod config;
pub mod cpu;
pub mod cuda;
pub mod driver;
pub mod emulated;
pub mod generation;
pub mod model;
pub mod ops;
pub mod ranks;
pub mod reference;
pub mod sampling;
pub mod server;
pub mod startup;
pub mod text;
pub mod weights;
