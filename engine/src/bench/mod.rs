//! What steps take on a backend, beside what they have to do.
//!
//! ```text
//! Grid ── room ──> an engine with enough KV cache ──> Backend
//!   │                                                   │
//!   └─ steps ──> fill the contexts, then each step ─────┤ seconds of each repeat
//!                                                       v
//!          cost: bytes and FLOPs of a step ──> record: figures, text, JSON
//!                                          └─> profile: what the simulator reads
//! ```
//!
//! The backend is driven directly, with block tables of its own KV cache and no
//! scheduler: what is measured is the time of [`Backend::step`], which
//! includes sampling. What scheduler and driver add is measured with whole
//! requests.

#[cfg(test)]
mod calibration_tests;
mod ceilings;
mod cells;
pub mod cost;
mod design;
mod exchanges;
mod gpu_ceilings;
mod grid;
mod pages;
mod random_adapter;
mod record;
mod requests;
mod rounds;
mod service;
mod steps;
#[cfg(test)]
mod tests;

pub use ceilings::{cpu_ceilings, higher};
pub use cells::{Engine, MeasuredCell, MeasuredCells, Plan, RoundProgress, Spent, measure_cells};
pub use design::{Design, DesignError, DesignLimits, Planned, RUN_STEPS_MAX};
pub use exchanges::{MeasuredExchange, measure_exchanges};
pub use gpu_ceilings::{GpuCeilings, gpu_ceilings, measure_gpu};
pub use grid::{Grid, GridError, Room, Step};
pub use random_adapter::random_adapter;
pub use record::{Facts, profile, record};
pub use requests::{RequestSizes, measure_requests};
pub use rounds::{Precision, Repeat, Rounds, Spread};
pub use steps::{BenchError, MeasuredStep, Progress, Running, measure, steps_total};

#[cfg(doc)]
use crate::backend::Backend;
