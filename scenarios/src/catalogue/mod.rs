//! What a scenario may name or leave out: [models], [GPUs](gpus), dated [prices],
//! and the stages of a [cold start](cold_starts).
//!
//! Names are matched without regard to case, and `_` and spaces count as `-`:
//! `H100_80GB` is `h100-80gb`. Every entry says where its figures come from.

pub mod cold_starts;
pub mod gpus;
pub mod models;
pub mod prices;

pub use gpus::GpuEntry;
pub use models::Model;
pub use prices::PriceEntry;

/// A name as the catalogue compares it.
fn normalise(name: &str) -> String {
    name.trim().to_lowercase().replace(['_', ' '], "-")
}
