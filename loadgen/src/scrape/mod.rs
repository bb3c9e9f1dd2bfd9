//! What the server says of itself meanwhile, joined to the run's clock.
//!
//! ```text
//! target… ── every second, each on its own ──> page ─ exposition ─> samples ─ sample ─> ServerSample…
//! ```

pub mod exposition;
mod sample;
mod selector;

pub use sample::{GpuSample, ServerSample};
pub use selector::{Selector, SelectorError};
