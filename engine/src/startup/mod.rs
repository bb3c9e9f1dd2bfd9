//! From a folder, or from nothing, to an engine that is ready, and how long
//! each stage of that took.
//!
//! ```text
//! settings ── config ── memory checked ── each rank: KV cache, weights, pack ── warm-up ──> Started
//!                └───────────────── tokenizer, meanwhile ──────────────────────────────┘
//! ```
//!
//! The stages are cold-start data: those of the simulator's cold starts
//! (`foresail_scenarios::catalogue::cold_starts`) have the same names where
//! they mean the same.

mod error;
mod free_memory;
mod gpus;
pub mod memory;
mod model;
mod settings;
mod stages;
mod warm_up;

use crate::backend::{Backend, Limits};
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::cuda::gpu::GpuError;
use crate::cuda::hardware::Hardware;
use crate::cuda::libraries::libraries;
use crate::text::{Tokenizer, TokenizerError};

pub use self::error::StartError;
use self::model::Plan;
pub use self::settings::{
    Device, DtypeChoice, EngineSettings, KvCacheSize, LORA_RANK_MAX, ModelSource,
};
pub use self::stages::StageTime;
use self::stages::Stages;

/// An engine that is ready.
pub struct Started {
    /// What computes steps.
    pub backend: Box<dyn Backend>,
    /// What the model is.
    pub config: ModelConfig,
    /// The memory that there is.
    pub limits: Limits,
    /// From text to tokens, if it was asked for.
    pub tokenizer: Option<Tokenizer>,
    /// How long each stage took, in order.
    pub stages: Vec<StageTime>,
    /// What the driver calls the GPU, if one computes.
    pub gpu_name: Option<String>,
}

/// How many GPUs there are: at least one.
///
/// # Errors
/// If there is none, or something that it takes is missing: the message says what.
pub fn gpus() -> Result<u32, GpuError> {
    let count = Hardware::count()?;
    // Without these there is no step either.
    libraries().nvrtc()?;
    libraries().cublas_lt()?;
    Ok(count)
}

/// Starts an engine, and computes a first step with it.
///
/// # Errors
/// If the model is not understood, not whole, or does not fit: the message names
/// the file or the setting.
pub fn start(settings: &EngineSettings) -> Result<Started, StartError> {
    std::thread::scope(|scope| {
        // A tokenizer takes as long to read as the weights of a small model.
        let tokenizer = scope.spawn(|| tokenizer(settings));
        let mut stages = Stages::begin();
        let checkpoint = open(settings)?;
        let config = checkpoint.config().clone();
        stages.end("config");
        let plan = Plan::new(settings, &config)?;
        let limits = plan.limits;
        let gpu_name = plan.device_name();
        let (mut backend, of_ranks) = model::load(settings, plan, checkpoint)?;
        stages.extend(of_ranks);
        warm_up::steps(backend.as_mut(), &config, &limits)?;
        stages.end("warm-up");
        let tokenizer = tokenizer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        if let Some(tokenizer) = &tokenizer {
            tokenizer.check_vocabulary(config.vocab_size)?;
            stages.end("tokenizer");
        }
        Ok(Started {
            backend,
            config,
            limits,
            tokenizer,
            stages: stages.times,
            gpu_name,
        })
    })
}

fn open(settings: &EngineSettings) -> Result<Checkpoint, StartError> {
    let checkpoint = match &settings.source {
        ModelSource::Folder(folder) => Checkpoint::open(folder),
        ModelSource::Dummy(shape) => Checkpoint::dummy(shape, settings.seed),
    };
    Ok(checkpoint?)
}

fn tokenizer(settings: &EngineSettings) -> Result<Option<Tokenizer>, TokenizerError> {
    if !settings.with_tokenizer {
        return Ok(None);
    }
    match &settings.source {
        ModelSource::Folder(folder) => Tokenizer::from_folder(folder).map(Some),
        ModelSource::Dummy(_) => Ok(Some(Tokenizer::bytes())),
    }
}
