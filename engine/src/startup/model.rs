//! From a checkpoint to a backend: the formats and limits, then every rank at once.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::free_memory::free_bytes;
use super::gpus::{self, Gpus};
use super::memory::{self, Demand};
use super::settings::{Device, DtypeChoice, EngineSettings, LORA_RANK_MAX};
use super::{StageTime, StartError};
use crate::backend::{Backend, Limits};
use crate::checkpoint::{Checkpoint, WeightFormat, weight_bytes};
use crate::comm::{Comm, Modelled};
use crate::config::{Dtype, ModelConfig, Partition};
use crate::cpu::CpuOps;
use crate::cuda::ops::CudaOps;
use crate::model::Model;
use crate::ops::{KvFormat, Ops};
use crate::ranks::{Rank, RankBackend, World};
use crate::reference::ReferenceOps;

/// Bytes of a value in the sums that are waited for: bf16, as the simulator's roofline has it.
const SHARD_BYTES_PER_VALUE: u64 = 2;

/// What follows from the settings and the model, before anything is loaded.
pub(super) struct Plan {
    config: Arc<ModelConfig>,
    world: World,
    weight_format: WeightFormat,
    kv_format: KvFormat,
    gpus: Option<Gpus>,
    pub(super) limits: Limits,
}

impl Plan {
    pub(super) fn new(settings: &EngineSettings, config: &ModelConfig) -> Result<Self, StartError> {
        let max_lora_rank = settings.max_lora_rank;
        if max_lora_rank > LORA_RANK_MAX {
            return Err(StartError::LoraRank { max_lora_rank });
        }
        let world_size = settings.world_size;
        Partition::check(config, world_size)?;
        let all = (0..world_size).map(|rank| Partition { rank, world_size });
        let mut partitions: Vec<_> = all.collect();
        let world = match &settings.shard_alone {
            None if settings.ranks_apart => World::Apart(world_size),
            None => World::Ranks(world_size),
            Some(all_reduce) => {
                partitions.truncate(1);
                World::Shard(Modelled::new(
                    partitions[0],
                    config.vocab_size,
                    all_reduce.clone(),
                    SHARD_BYTES_PER_VALUE,
                )?)
            }
        };
        let weight_format = weight_format(settings.dtype);
        let mut kv_format = kv_format(settings, config);
        let mut gpus = None;
        if settings.device.is_gpu() {
            gpus::check(settings, config)?;
            kv_format = gpus::KV_FORMAT;
            gpus = Some(Gpus::open(settings.device, partitions.len())?);
        }
        let bytes = partitions
            .iter()
            .map(|partition| weight_bytes(config, *partition, config.dtype, weight_format));
        let demand = Demand {
            config,
            partitions: &partitions,
            kv_format,
            weight_bytes: bytes.sum(),
            free_bytes: match &gpus {
                Some(gpus) => Some(gpus.free_bytes()?),
                None => free_bytes(),
            },
            is_dedicated: gpus.is_some(),
        };
        Ok(Self {
            limits: memory::limits(settings, &demand)?,
            config: Arc::new(config.clone()),
            world,
            weight_format,
            kv_format,
            gpus,
        })
    }

    /// What computes, as people call it.
    pub(super) fn device_name(&self) -> Option<String> {
        self.gpus.as_ref().map(Gpus::name)
    }
}

fn weight_format(dtype: DtypeChoice) -> WeightFormat {
    match dtype {
        DtypeChoice::Auto => WeightFormat::AsStored,
        DtypeChoice::F32 => WeightFormat::F32,
        DtypeChoice::Bf16 => WeightFormat::Bf16,
    }
}

fn kv_format(settings: &EngineSettings, config: &ModelConfig) -> KvFormat {
    match (settings.kv_dtype, settings.dtype) {
        (DtypeChoice::F32, _) | (DtypeChoice::Auto, DtypeChoice::F32) => KvFormat::F32,
        (DtypeChoice::Bf16, _) | (DtypeChoice::Auto, DtypeChoice::Bf16) => KvFormat::Bf16,
        (DtypeChoice::Auto, DtypeChoice::Auto) => match config.dtype {
            Dtype::Bf16 => KvFormat::Bf16,
            Dtype::F32 | Dtype::F16 => KvFormat::F32,
        },
    }
}

/// Makes every rank, and says how long its stages took.
pub(super) fn load(
    settings: &EngineSettings,
    mut plan: Plan,
    checkpoint: Checkpoint,
) -> Result<(Box<dyn Backend>, Vec<StageTime>), StartError> {
    let (config, limits, kv_format) = (Arc::clone(&plan.config), plan.limits, plan.kv_format);
    match settings.device {
        Device::Cpu { threads } => {
            let threads = threads_each(threads, &plan.world)?;
            load_ranks(plan, checkpoint, move |comm| {
                let config = Arc::clone(&config);
                Ok(CpuOps::new(config, limits, kv_format, comm, threads)?)
            })
        }
        Device::Cuda | Device::SoftwareGpu => {
            let gpus = plan.gpus.take();
            load_ranks(plan, checkpoint, move |comm| {
                let (config, rank) = (Arc::clone(&config), comm.partition().rank);
                // A shard that is alone may be any rank, and has the only GPU.
                let gpu = gpus
                    .as_ref()
                    .and_then(|gpus| gpus.take(rank).or_else(|| gpus.take(0)));
                let gpu = gpu.ok_or(StartError::Rank {
                    rank,
                    reason: "it has no GPU".to_owned(),
                })?;
                Ok(CudaOps::new(gpu, config, limits, &*comm)?)
            })
        }
        Device::Reference => load_ranks(plan, checkpoint, move |comm| {
            let config = Arc::clone(&config);
            Ok(ReferenceOps::new(config, limits, kv_format, comm))
        }),
    }
}

/// Threads of each rank that is here: what was asked for, shared equally, or else
/// as far as the cores go, and one at least.
fn threads_each(threads: Option<NonZeroUsize>, world: &World) -> Result<usize, StartError> {
    let ranks = match world {
        World::Ranks(world_size) | World::Apart(world_size) => *world_size,
        World::Shard(_) => 1,
    };
    let Some(threads) = threads.map(NonZeroUsize::get) else {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        return Ok((cores / ranks).max(1));
    };
    if threads.is_multiple_of(ranks) {
        Ok(threads / ranks)
    } else {
        Err(StartError::Threads { threads, ranks })
    }
}

fn load_ranks<O>(
    plan: Plan,
    checkpoint: Checkpoint,
    make_ops: impl Fn(Box<dyn Comm>) -> Result<O, StartError> + Send + Sync + 'static,
) -> Result<(Box<dyn Backend>, Vec<StageTime>), StartError>
where
    O: Ops + Send + 'static,
    O::Matrix: Send,
    O::Buffer: Send,
{
    let times = Arc::new(Mutex::new(Vec::new()));
    let (config, told) = (Arc::clone(&plan.config), Arc::clone(&times));
    let make = move |comm: Box<dyn Comm>| {
        let partition = comm.partition();
        let began = Instant::now();
        let mut ops = make_ops(comm)?;
        let kv_cache = began.elapsed();
        let began = Instant::now();
        let mut pack = Duration::ZERO;
        let weights = checkpoint.load(partition, plan.weight_format, |matrix, role| {
            let began = Instant::now();
            let packed = ops.pack(matrix, role);
            pack += began.elapsed();
            packed
        })?;
        let weights_read = began.elapsed().saturating_sub(pack);
        let model = Model::new(&mut ops, &config, partition, weights);
        ops.ready().map_err(StartError::NotReady)?;
        let times = [kv_cache, weights_read, pack];
        told.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(times);
        Ok(Rank { ops, model })
    };
    let backend = RankBackend::start(plan.world, plan.config, plan.limits, make)?;
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((Box::new(backend), slowest(&times)))
}

/// The stages of the rank that took longest, which the others waited for.
fn slowest(times: &[[Duration; 3]]) -> Vec<StageTime> {
    let sum = |times: &&[Duration; 3]| times.iter().sum::<Duration>();
    let longest = times.iter().max_by_key(sum).copied().unwrap_or_default();
    let names = ["kv cache", "weights", "pack"].into_iter();
    let stage = |(name, duration)| StageTime { name, duration };
    names.zip(longest).map(stage).collect()
}
