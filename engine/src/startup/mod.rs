//! From a folder, or from nothing, to an engine that is ready, and how long
//! each stage of that took.
//!
//! ```text
//! settings ── config ── limits ── memory checked ── each rank: KV cache, weights, pack ── warm-up ──> Started
//! ```
//!
//! The stages are cold-start data: the simulator's cold starts have stages of
//! the same names where they mean the same.

pub mod memory;
mod settings;

use std::time::Duration;

use crate::backend::{Backend, Limits};
use crate::config::ModelConfig;

pub use self::settings::{
    Device, DtypeChoice, EngineSettings, KvCacheSize, LORA_RANK_MAX, ModelSource, Shard,
};

/// An engine that is ready.
pub struct Started {
    /// What computes steps.
    pub backend: Box<dyn Backend>,
    /// What the model is.
    pub config: ModelConfig,
    /// The memory that there is.
    pub limits: Limits,
    /// How long each stage took, in order.
    pub stages: Vec<StageTime>,
}

/// How long a stage of a start took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTime {
    /// Which.
    pub name: &'static str,
    /// How long.
    pub duration: Duration,
}
