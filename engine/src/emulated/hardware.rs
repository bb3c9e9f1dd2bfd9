//! What is emulated: a model on GPUs, from the catalogue or from a scenario.

use foresail_core::step_time::{
    AdapterOverhead, Efficiency, Gpu, ModelShape, Precision, RequestOverhead, Roofline,
    RooflineError, StepTime, adapter_bytes_per_rank,
};
use foresail_scenarios::catalogue::{gpus, models};
use foresail_scenarios::memory::{self, Demand, Layout};
use foresail_scenarios::scenario::{Deployment, StepTimeModel};

use super::{Clock, EmulatedBackend, Vocabulary};
use crate::backend::Limits;
use crate::driver::Settings;

/// A replica that can be emulated: its step times, and its memory.
pub struct Emulation {
    /// How long steps take.
    pub model: Box<dyn StepTime + Send>,
    /// What adapters add to that.
    pub overhead: AdapterOverhead,
    /// What requests take beside their steps, for an [`Entrance`](super::Entrance).
    pub request_overhead: RequestOverhead,
    /// The memory of the replica, and how its batches are made.
    pub settings: Settings,
    /// GPUs of the replica.
    pub world_size: u32,
}

impl std::fmt::Debug for Emulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Emulation");
        debug.field("settings", &self.settings);
        debug.field("world_size", &self.world_size);
        debug.finish_non_exhaustive()
    }
}

/// A model on GPUs, by their names in the catalogue.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// The model, such as `llama-3-8b`.
    pub model: String,
    /// The GPU, such as `h100`.
    pub gpu: String,
    /// GPUs of the replica; if not said, as many as a scenario would take.
    pub world_size: Option<u32>,
    /// Number format of the weights.
    pub precision: Precision,
    /// Number format of the KV cache.
    pub kv_precision: Precision,
    /// What share of its peaks the engine gets out of the GPU; if not said, the catalogue's.
    pub efficiency: Option<Efficiency>,
    /// Share of each GPU's memory that the engine may use.
    pub gpu_memory_utilization: f64,
    /// Tokens a KV block holds.
    pub block_size: u32,
    /// Most sequences in a step.
    pub max_num_seqs: u32,
    /// Most tokens in a step.
    pub max_batched_tokens: u32,
    /// Most tokens of a sequence; if not said, as many as the model was made for.
    pub max_model_len: Option<u32>,
    /// Slots for adapters.
    pub max_loras: u32,
    /// The largest rank of an adapter.
    pub max_lora_rank: u32,
}

/// Why something cannot be emulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmulationError {
    /// No such model.
    #[error("there is no model {name} in the catalogue, which has {known}")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The models there are.
        known: String,
    },
    /// No such GPU.
    #[error("there is no GPU {name} in the catalogue, which has {known}")]
    UnknownGpu {
        /// What was asked for.
        name: String,
        /// The GPUs there are.
        known: String,
    },
    /// It does not fit into the GPUs' memory.
    #[error(
        "{model} does not fit on {world_size} {gpu} with a context of {max_model_len} tokens; take more GPUs, or a shorter context"
    )]
    DoesNotFit {
        /// The model.
        model: String,
        /// The GPU.
        gpu: String,
        /// How many of them.
        world_size: u32,
        /// Most tokens of a sequence.
        max_model_len: u32,
    },
    /// There are no step times for it.
    #[error("no step times: {0}")]
    Roofline(#[from] RooflineError),
}

impl Hardware {
    /// A model on a GPU, with the defaults of a scenario.
    #[must_use]
    pub fn new(model: &str, gpu: &str) -> Self {
        Self {
            model: model.to_owned(),
            gpu: gpu.to_owned(),
            world_size: None,
            precision: Precision::Bf16,
            kv_precision: Precision::Bf16,
            efficiency: None,
            gpu_memory_utilization: 0.9,
            block_size: 64,
            max_num_seqs: 256,
            max_batched_tokens: 8_192,
            max_model_len: None,
            max_loras: 0,
            max_lora_rank: 16,
        }
    }

    /// What the simulator would make of it.
    ///
    /// # Errors
    /// If the catalogue does not have it, or it does not fit.
    pub fn emulation(&self) -> Result<Emulation, EmulationError> {
        let model = self.find_model()?;
        let gpu = self.find_gpu()?;
        let max_model_len = self.max_model_len.unwrap_or(model.max_position_embeddings);
        let shape = &model.shape;
        let demand = self.demand(shape, max_model_len);
        let default = || memory::default_world_size(&demand, &gpu);
        let world_size = self.world_size.or_else(default).unwrap_or(1);
        let (precision, kv_precision) = (self.precision, self.kv_precision);
        // Made first: it refuses world sizes that memory cannot be laid out for.
        let roofline = Roofline::new(
            shape,
            precision,
            kv_precision,
            &gpu,
            world_size,
            self.max_num_seqs,
        )?;
        let layout = Layout::new(&demand, &gpu, world_size);
        if !layout.fits(&demand) {
            return Err(EmulationError::DoesNotFit {
                model: self.model.clone(),
                gpu: self.gpu.clone(),
                world_size,
                max_model_len,
            });
        }
        let limits = self.limits(max_model_len, layout.num_blocks);
        Ok(Emulation {
            overhead: self.overhead(shape, &gpu, world_size),
            request_overhead: RequestOverhead::default(),
            settings: Settings::new(limits, shape.vocab_size as usize),
            world_size,
            model: Box::new(roofline),
        })
    }

    fn find_model(&self) -> Result<&'static models::Model, EmulationError> {
        models::find(&self.model).ok_or_else(|| EmulationError::UnknownModel {
            name: self.model.clone(),
            known: list(models::MODELS.iter().map(|model| model.name)),
        })
    }

    fn find_gpu(&self) -> Result<Gpu, EmulationError> {
        let entry = gpus::find(&self.gpu).ok_or_else(|| EmulationError::UnknownGpu {
            name: self.gpu.clone(),
            known: list(gpus::GPUS.iter().map(|gpu| gpu.name)),
        })?;
        let spec = entry.spec();
        let efficiency = self.efficiency.clone().unwrap_or(spec.efficiency);
        Ok(Gpu { efficiency, ..spec })
    }

    fn demand<'a>(&self, shape: &'a ModelShape, max_model_len: u32) -> Demand<'a> {
        let adapter_bytes = shape.adapter_bytes(self.max_lora_rank);
        Demand {
            shape,
            precision: self.precision,
            kv_precision: self.kv_precision,
            gpu_memory_utilization: self.gpu_memory_utilization,
            max_num_batched_tokens: self.max_batched_tokens,
            max_num_seqs: self.max_num_seqs,
            max_model_len,
            block_size: self.block_size,
            adapter_bytes: adapter_bytes.saturating_mul(self.max_loras.into()),
        }
    }

    fn overhead(&self, shape: &ModelShape, gpu: &Gpu, world_size: u32) -> AdapterOverhead {
        let bytes = shape.adapter_bytes(self.max_lora_rank);
        AdapterOverhead::roofline(shape, gpu, adapter_bytes_per_rank(bytes, world_size))
    }

    fn limits(&self, max_model_len: u32, num_blocks: u32) -> Limits {
        Limits {
            block_size: self.block_size as usize,
            num_blocks: num_blocks as usize,
            max_num_seqs: self.max_num_seqs as usize,
            max_batched_tokens: self.max_batched_tokens as usize,
            max_model_len: max_model_len as usize,
            max_loras: self.max_loras as usize,
            max_lora_rank: self.max_lora_rank as usize,
        }
    }
}

impl Emulation {
    /// One replica of a scenario's deployment.
    #[must_use]
    pub fn of(deployment: &Deployment) -> Self {
        let batching = &deployment.batching;
        let adapters = deployment.adapters.as_ref();
        let ranks = adapters.map(|adapters| adapters.deployed.iter().map(|adapter| adapter.rank));
        let rank_max = ranks.and_then(Iterator::max).unwrap_or(0);
        let limits = Limits {
            block_size: batching.block_size as usize,
            num_blocks: batching.num_blocks as usize,
            max_num_seqs: batching.max_num_seqs as usize,
            max_batched_tokens: batching.max_batched_tokens as usize,
            max_model_len: batching.max_model_len as usize,
            max_loras: adapters.map_or(0, |adapters| adapters.slots as usize),
            max_lora_rank: rank_max as usize,
        };
        let settings = Settings {
            prefill_chunk: batching.prefill_chunk as usize,
            prefix_caching: batching.prefix_caching,
            watermark_blocks: batching.watermark as usize,
            step_adapters_max: limits.max_loras.min(batching.max_loras as usize),
            host_adapters_max: adapters.map_or(0, |adapters| adapters.deployed.len()),
            ..Settings::new(limits, deployment.shape.vocab_size as usize)
        };
        Self {
            model: match &deployment.step_time {
                StepTimeModel::Roofline(roofline) => roofline.clone(),
                StepTimeModel::Profile(profile) => profile.clone(),
                StepTimeModel::Calibrated(calibrated) => calibrated.clone(),
            },
            overhead: adapters.map_or(AdapterOverhead::default(), |adapters| adapters.overhead),
            request_overhead: deployment.request_overhead(),
            settings,
            world_size: deployment.world_size,
        }
    }

    /// The device, and how a driver is to run it.
    #[must_use]
    pub fn backend(
        self,
        vocabulary: Vocabulary,
        clock: Box<dyn Clock>,
    ) -> (EmulatedBackend, Settings) {
        let max_loras = self.settings.limits.max_loras;
        let backend = EmulatedBackend::new(self.model, self.overhead, max_loras, vocabulary, clock);
        (backend, self.settings)
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use foresail_core::step_time::{Chunk, StepLoad};
    use foresail_scenarios::format::{self, Overrides};

    use super::*;

    fn error_of(change: impl FnOnce(&mut Hardware)) -> String {
        let mut hardware = Hardware::new("llama-3-8b", "h100");
        change(&mut hardware);
        hardware.emulation().unwrap_err().to_string()
    }

    /// The hardware of a ready scenario, by way of the catalogue and by way of the scenario.
    fn both(scenario: &str, hardware: &Hardware) -> [Emulation; 2] {
        let scenario = format::load(Path::new(scenario), &Overrides::default()).unwrap();
        let emulation = hardware.emulation().unwrap();
        [emulation, Emulation::of(&scenario.deployment)]
    }

    #[test]
    fn the_catalogue_and_a_scenario_make_the_same_replica() {
        let mut hardware = Hardware::new("llama-3-8b", "h100");
        hardware.max_batched_tokens = 2_048;
        let [ours, theirs] = both("chat", &hardware);
        assert_eq!(
            ours.settings.limits.num_blocks,
            theirs.settings.limits.num_blocks
        );
        assert_eq!(
            ours.settings.watermark_blocks,
            theirs.settings.watermark_blocks
        );
        assert_eq!(ours.settings.prefill_chunk, theirs.settings.prefill_chunk);
        assert_eq!(ours.settings.vocab_size, theirs.settings.vocab_size);
        assert_eq!(ours.world_size, theirs.world_size);
        let chunks = [Chunk {
            past: 100,
            len: 900,
            sample: true,
        }];
        for decodes in [0, 1, 17, 256] {
            let load = StepLoad {
                decodes,
                decode_past: u64::from(decodes) * 700,
                chunks: &chunks,
            };
            assert_eq!(ours.model.step(&load), theirs.model.step(&load));
        }
    }

    #[test]
    fn adapters_take_memory_and_time_as_in_a_scenario() {
        let mut hardware = Hardware::new("llama-3-8b", "h100");
        hardware.max_loras = 8;
        let [ours, theirs] = both("adapters", &hardware);
        assert_eq!(ours.settings.limits, theirs.settings.limits);
        assert_eq!(ours.overhead, theirs.overhead);
    }

    #[test]
    fn what_cannot_be_emulated_says_why() {
        let model = error_of(|hardware| hardware.model = "gpt-5".to_owned());
        assert!(
            model.starts_with("there is no model gpt-5 in the catalogue, which has "),
            "{model}"
        );
        let gpu = error_of(|hardware| hardware.gpu = "abacus".to_owned());
        assert!(gpu.contains("h100"), "{gpu}");
        let heads = error_of(|hardware| hardware.world_size = Some(3));
        insta::assert_snapshot!(heads, @"no step times: world size 3 does not divide the model's 32 attention heads");
        let large = error_of(|hardware| {
            hardware.model = "llama-3-70b".to_owned();
            hardware.world_size = Some(1);
        });
        insta::assert_snapshot!(large, @"llama-3-70b does not fit on 1 h100 with a context of 8192 tokens; take more GPUs, or a shorter context");
    }
}
