//! The GPUs of an engine: opened before anything is planned, as their memory is
//! what is planned with, and then handed to the rank that each is of.

use std::sync::{Mutex, PoisonError};

use super::StartError;
use super::settings::{Device, DtypeChoice, EngineSettings};
use crate::config::{Dtype, ModelConfig};
use crate::cuda::gpu::{Gpu, GpuError};
use crate::cuda::hardware::Hardware;
use crate::cuda::software::{Options, Software};
use crate::ops::KvFormat;

/// One GPU a rank, each until its rank takes it.
pub(super) struct Gpus(Vec<Mutex<Option<Box<dyn Gpu>>>>);

impl Gpus {
    /// The GPUs of a device that has them: `ranks` of them, as a group.
    ///
    /// # Errors
    /// If something is missing: the message says what.
    pub(super) fn open(device: Device, ranks: usize) -> Result<Self, GpuError> {
        let gpus: Vec<Box<dyn Gpu>> = match (device, ranks) {
            (Device::SoftwareGpu, _) => boxed(Software::group(ranks, &Options::default())?),
            (_, 1) => boxed(vec![Hardware::open(0)?]),
            (_, ranks) => boxed(Hardware::group(&(0..ranks as u32).collect::<Vec<_>>())?),
        };
        let gpus = gpus.into_iter().map(|gpu| Mutex::new(Some(gpu)));
        Ok(Self(gpus.collect()))
    }

    /// What is free on all of them, if each has as much as the one that has least (bytes).
    pub(super) fn free_bytes(&self) -> Result<u64, GpuError> {
        let mut least = u64::MAX;
        for gpu in &self.0 {
            let mut gpu = gpu.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(gpu) = gpu.as_mut() {
                least = least.min(gpu.memory_free_bytes()?);
            }
        }
        Ok(least.saturating_mul(self.0.len() as u64))
    }

    /// The vendor's name of the first.
    pub(super) fn name(&self) -> String {
        let first = self
            .0
            .first()
            .map(|gpu| gpu.lock().unwrap_or_else(PoisonError::into_inner));
        let name = first.and_then(|gpu| Some(gpu.as_ref()?.properties().name.clone()));
        name.unwrap_or_default()
    }

    /// The GPU of a rank; each can be taken once.
    pub(super) fn take(&self, rank: usize) -> Option<Box<dyn Gpu>> {
        let gpu = self.0.get(rank)?;
        gpu.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn boxed(gpus: Vec<impl Gpu + 'static>) -> Vec<Box<dyn Gpu>> {
    gpus.into_iter()
        .map(|gpu| Box::new(gpu) as Box<dyn Gpu>)
        .collect()
}

/// Whether GPUs compute a model as it is asked for: in bf16, with blocks of a power of two.
pub(super) fn check(settings: &EngineSettings, config: &ModelConfig) -> Result<(), StartError> {
    let stored = match config.dtype {
        Dtype::Bf16 => None,
        Dtype::F32 => Some("f32"),
        Dtype::F16 => Some("f16"),
    };
    let weights = match settings.dtype {
        DtypeChoice::Auto => stored,
        DtypeChoice::F32 => Some("f32"),
        DtypeChoice::Bf16 => None,
    };
    let cache = (settings.kv_dtype == DtypeChoice::F32).then_some("f32");
    for (what, dtype) in [("the weights", weights), ("the KV cache", cache)] {
        if let Some(dtype) = dtype {
            return Err(StartError::GpuDtype { what, dtype });
        }
    }
    if !settings.block_size.is_power_of_two() {
        let block_size = settings.block_size;
        return Err(StartError::GpuBlockSize { block_size });
    }
    Ok(())
}

/// The format of a GPU's KV cache.
pub(super) const KV_FORMAT: KvFormat = KvFormat::Bf16;
