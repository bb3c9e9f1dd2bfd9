//! From arguments to an engine that can be asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foresail_core::step_time::Precision;
use foresail_engine::adapters::{self, AdapterError, Base};
use foresail_engine::backend::{Backend, Limits};
use foresail_engine::checkpoint::Checkpoint;
use foresail_engine::config::ModelConfig;
use foresail_engine::driver::{Replica, Settings};
use foresail_engine::emulated::{Entrance, Hardware, RealClock, Vocabulary};
use foresail_engine::server::{AdapterLoadError, AdapterLoader, Engine};
use foresail_engine::startup::{self, Device, EngineSettings, KvCacheSize, ModelSource};
use foresail_engine::text::Tokenizer;
use foresail_engine::weights::Adapter;
use foresail_reports::Style;

use super::arguments;
use super::{Arguments, scenario};
use crate::failure::{self, Failure};
use crate::subject::Dtype;

/// What the emulated device says: letters, which are readable alone.
const SAID: std::ops::Range<u32> = b'a' as u32..b'z' as u32 + 1;

/// The longest name of a model (bytes), as of adapters that are loaded at run time.
const NAME_MAX: usize = 256;

/// What is to be started, checked as far as it can be without the model.
#[derive(Debug)]
pub(super) struct Plan {
    names: Vec<String>,
    device: Planned,
    waiting_max: usize,
    /// Whether the command line switches the prefix cache off.
    no_prefix_caching: bool,
    adapters: Vec<(String, PathBuf)>,
    adapter_loading: bool,
    chat_template: Option<PathBuf>,
}

#[derive(Debug)]
enum Planned {
    Computes {
        settings: Box<EngineSettings>,
        /// Why the CPU computes, if somebody might have expected a GPU.
        note: Option<String>,
    },
    Emulates {
        hardware: Hardware,
        clock: RealClock,
    },
    StandsFor {
        replica: scenario::Replica,
        clock: RealClock,
    },
}

/// An engine, and what to say of it.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) engine: Engine,
    pub(super) model: String,
    pub(super) device: String,
    /// What was decided that nobody asked for.
    pub(super) note: Option<String>,
    pub(super) stages: Vec<(&'static str, Duration)>,
}

/// A device with its model, before a driver runs it.
struct Loaded {
    backend: Box<dyn Backend>,
    settings: Settings,
    /// What a model is that computes, or stands for one that could.
    config: Option<ModelConfig>,
    /// Adapters that are there from the start, beside those of the command line.
    adapters: Vec<Adapter>,
    entrance: Option<Entrance>,
    tokenizer: Tokenizer,
    device: String,
    note: Option<String>,
    stages: Vec<(&'static str, Duration)>,
}

impl Planned {
    /// The adapters that are there without being named on the command line.
    fn adapter_names(&self) -> impl Iterator<Item = &String> {
        let adapters = match self {
            Self::StandsFor { replica, .. } => &replica.adapters[..],
            Self::Computes { .. } | Self::Emulates { .. } => &[],
        };
        adapters.iter().map(|adapter| &adapter.name)
    }
}

impl Plan {
    pub(super) fn of(arguments: &Arguments, style: Style) -> Result<Self, Failure> {
        let device = match arguments.backend {
            arguments::Backend::Auto
            | arguments::Backend::Cpu
            | arguments::Backend::Cuda
            | arguments::Backend::SoftwareGpu => computes(arguments)?,
            arguments::Backend::Emulated if arguments.scenario.is_some() => {
                stands_for(arguments, style)?
            }
            arguments::Backend::Emulated => emulates(arguments)?,
        };
        let names = names(arguments, &device)?;
        let adapters = arguments.adapter.iter().map(|(name, _)| name);
        check_names(&names, adapters.chain(device.adapter_names()))?;
        Ok(Self {
            names,
            device,
            waiting_max: arguments.max_waiting,
            no_prefix_caching: arguments.no_prefix_caching,
            adapters: arguments.adapter.clone(),
            adapter_loading: arguments.enable_adapter_loading,
            chat_template: arguments.chat_template.clone(),
        })
    }

    pub(super) fn load(self) -> Result<Ready, Failure> {
        let mut loaded = match self.device {
            Planned::Computes { settings, note } => compute(&settings, note)?,
            Planned::Emulates { hardware, clock } => emulate(&hardware, clock)?,
            Planned::StandsFor { replica, clock } => stand_for(replica, clock)?,
        };
        if let Some(file) = &self.chat_template {
            let set = loaded.tokenizer.set_chat_template(file);
            set.map_err(|error| Failure::Input(format!("--chat-template: {error}")))?;
        }
        loaded.settings.waiting_max = self.waiting_max;
        loaded.settings.prefix_caching &= !self.no_prefix_caching;
        let limits = loaded.settings.limits;
        let vocab_size = loaded.settings.vocab_size;
        let eos_token_ids = eos_token_ids(loaded.config.as_ref(), &loaded.tokenizer, vocab_size);
        let replica = Replica::start(loaded.backend, loaded.settings).map_err(input)?;
        let model = self.names.first().cloned().unwrap_or_default();
        let config = loaded.config;
        let load_adapter = config.map(|config| adapter_loader(model.clone(), config, limits));
        let began = Instant::now();
        for adapter in loaded.adapters {
            replica.add_adapter(adapter).map_err(input)?;
        }
        if let Some(load_adapter) = &load_adapter {
            for (name, folder) in &self.adapters {
                let adapter = load_adapter(name, folder);
                let adapter = adapter.map_err(|error| {
                    Failure::Input(format!("--adapter {name}: {}", error.detail))
                })?;
                replica.add_adapter(adapter).map_err(input)?;
            }
        }
        let mut stages = loaded.stages;
        if !self.adapters.is_empty() {
            stages.push(("adapters", began.elapsed()));
        }
        let engine = Engine {
            replica,
            tokenizer: Arc::new(loaded.tokenizer),
            names: self.names,
            eos_token_ids,
            adapter_loader: load_adapter.filter(|_| self.adapter_loading),
            entrance: loaded.entrance,
        };
        Ok(Ready {
            engine,
            model,
            device: loaded.device,
            note: loaded.note,
            stages,
        })
    }
}

fn input(error: impl std::error::Error) -> Failure {
    Failure::Input(error.to_string())
}

fn source(arguments: &Arguments) -> Result<ModelSource, Failure> {
    match (&arguments.model, &arguments.dummy) {
        (Some(folder), None) => Ok(ModelSource::Folder(folder.clone())),
        (None, Some(shape)) => Ok(ModelSource::Dummy(shape.clone())),
        // The parser lets one of them through.
        _ => Err(Failure::Input(
            "--scenario is emulated: add --backend emulated, or name --model or --dummy".to_owned(),
        )),
    }
}

/// What clients call the model. A folder's place is nobody's business, so its name has to do.
fn names(arguments: &Arguments, device: &Planned) -> Result<Vec<String>, Failure> {
    if !arguments.served_model_name.is_empty() {
        return Ok(arguments.served_model_name.clone());
    }
    if let Planned::StandsFor { replica, .. } = device {
        return Ok(vec![replica.model.clone()]);
    }
    match source(arguments)? {
        ModelSource::Dummy(shape) => Ok(vec![shape]),
        ModelSource::Folder(folder) => {
            // `.` and `..` have no name of their own.
            let whole = folder.canonicalize().unwrap_or(folder);
            let name = whole.file_name().unwrap_or(whole.as_os_str());
            Ok(vec![name.to_string_lossy().into_owned()])
        }
    }
}

/// A name that cannot be asked for, or that another model answers to, would be served to nobody.
fn check_names<'a>(
    names: &'a [String],
    adapters: impl Iterator<Item = &'a String>,
) -> Result<(), Failure> {
    let served = names.iter().map(|name| ("--served-model-name", name));
    let adapters = adapters.map(|name| ("--adapter", name));
    let mut seen = Vec::new();
    for (option, name) in served.chain(adapters) {
        if name.is_empty() || name.len() > NAME_MAX || name.contains(char::is_control) {
            return Err(Failure::Input(format!(
                "{option} {name:?}: a name has 1 to {NAME_MAX} bytes, and no control characters"
            )));
        }
        if seen.contains(&name) {
            return Err(Failure::Input(format!(
                "{option} {name}: there is a model of this name already; choose another"
            )));
        }
        seen.push(name);
    }
    Ok(())
}

fn computes(arguments: &Arguments) -> Result<Planned, Failure> {
    if arguments.gpu.is_some() || arguments.speed.is_some() {
        let message = "--gpu and --speed are of the GPU to emulate; add --backend emulated, or \
            leave them away";
        return Err(Failure::Input(message.to_owned()));
    }
    if arguments.model.is_some() && arguments.seed.is_some() {
        let message = "--seed is what random weights are made from, and those of --model are not";
        return Err(Failure::Input(message.to_owned()));
    }
    let source = source(arguments)?;
    let (device, note) = device(arguments)?;
    let mut settings = EngineSettings::new(source).on(device);
    let count = |number: std::num::NonZeroU32| number.get() as usize;
    settings.world_size = arguments.world_size.map_or(1, count);
    settings.dtype = arguments.dtype.into();
    settings.kv_dtype = arguments.kv_dtype.into();
    settings.block_size = arguments.block_size.map_or(settings.block_size, count);
    settings.max_model_len = arguments.max_model_len.map(count);
    settings.max_num_seqs = arguments.max_num_seqs.map_or(settings.max_num_seqs, count);
    let batched = arguments.max_batched_tokens;
    settings.max_batched_tokens = batched.map_or(settings.max_batched_tokens, count);
    if let Some(bytes) = arguments.kv_cache_memory {
        settings.kv_cache = KvCacheSize::Bytes(bytes);
    }
    settings.max_loras = arguments.max_loras() as usize;
    settings.max_lora_rank = arguments.max_lora_rank();
    settings.seed = arguments.seed.unwrap_or(settings.seed);
    Ok(Planned::Computes {
        settings: Box::new(settings),
        note,
    })
}

/// What computes, and why it is not a GPU if nobody said so.
fn device(arguments: &Arguments) -> Result<(Device, Option<String>), Failure> {
    let threads = arguments.threads;
    let cpu = Device::Cpu { threads };
    let device = match arguments.backend {
        arguments::Backend::Cuda => Device::Cuda,
        arguments::Backend::SoftwareGpu => Device::SoftwareGpu,
        // Who names threads means the CPU.
        arguments::Backend::Auto if threads.is_none() => match startup::gpus() {
            Ok(_) => return Ok((Device::Cuda, None)),
            Err(error) => return Ok((cpu, Some(format!("the CPU computes: {error}")))),
        },
        _ => return Ok((cpu, None)),
    };
    if threads.is_some() {
        let message = "--threads is for the CPU; leave it away with a GPU";
        return Err(Failure::Input(message.to_owned()));
    }
    Ok((device, None))
}

fn emulates(arguments: &Arguments) -> Result<Planned, Failure> {
    let Some(shape) = &arguments.dummy else {
        let message = "--backend emulated needs no weights; name a shape of the catalogue \
            with --dummy instead of --model";
        return Err(Failure::Input(message.to_owned()));
    };
    let Some(gpu) = &arguments.gpu else {
        let message = "--backend emulated needs --gpu: which one to emulate, such as h100";
        return Err(Failure::Input(message.to_owned()));
    };
    if arguments.threads.is_some()
        || arguments.kv_cache_memory.is_some()
        || arguments.seed.is_some()
    {
        let message = "--threads, --kv-cache-memory and --seed are for backends that compute; \
            the emulated one has its GPU's memory, and no weights";
        return Err(Failure::Input(message.to_owned()));
    }
    let mut hardware = Hardware::new(shape, gpu);
    hardware.world_size = arguments.world_size.map(|number| number.get());
    hardware.precision = precision("--dtype", arguments.dtype)?;
    hardware.kv_precision = precision("--kv-dtype", arguments.kv_dtype)?;
    let block_size = arguments.block_size;
    hardware.block_size = block_size.map_or(hardware.block_size, |number| number.get());
    hardware.max_model_len = arguments.max_model_len.map(|number| number.get());
    let seqs = arguments.max_num_seqs;
    hardware.max_num_seqs = seqs.map_or(hardware.max_num_seqs, |number| number.get());
    let batched = arguments.max_batched_tokens;
    hardware.max_batched_tokens =
        batched.map_or(hardware.max_batched_tokens, |number| number.get());
    hardware.max_loras = arguments.max_loras();
    // The argument was read from 32 bits.
    hardware.max_lora_rank = arguments.max_lora_rank() as u32;
    let clock = RealClock::new(arguments.speed.unwrap_or(1.0)).map_err(input)?;
    Ok(Planned::Emulates { hardware, clock })
}

/// The deployment of a scenario, as one replica.
fn stands_for(arguments: &Arguments, style: Style) -> Result<Planned, Failure> {
    let replica = scenario::replica(arguments, style)?;
    let clock = RealClock::new(arguments.speed.unwrap_or(1.0)).map_err(input)?;
    Ok(Planned::StandsFor { replica, clock })
}

fn precision(name: &str, dtype: Dtype) -> Result<Precision, Failure> {
    match dtype {
        Dtype::Auto | Dtype::Bf16 => Ok(Precision::Bf16),
        Dtype::F32 => Err(Failure::Input(format!(
            "{name} f32 cannot be emulated: the catalogue has no rates for it; choose bf16"
        ))),
    }
}

fn compute(settings: &EngineSettings, note: Option<String>) -> Result<Loaded, Failure> {
    let started = startup::start(settings)
        .map_err(|error| Failure::Input(failure::of_start_with_remedy(&error)))?;
    let device = started.gpu_name.as_deref().unwrap_or("the CPU");
    let no_tokenizer = || Failure::Defect("the engine came without its tokenizer".to_owned());
    let stages = started.stages.iter();
    Ok(Loaded {
        settings: Settings::new(started.limits, started.config.vocab_size),
        backend: started.backend,
        tokenizer: started.tokenizer.ok_or_else(no_tokenizer)?,
        device: match settings.world_size {
            1 => device.to_owned(),
            ranks => format!("{device}, {ranks} ranks"),
        },
        note: both(
            note,
            context_note(settings, started.limits, &started.config),
        ),
        config: Some(started.config),
        adapters: Vec::new(),
        entrance: None,
        stages: stages.map(|stage| (stage.name, stage.duration)).collect(),
    })
}

fn both(one: Option<String>, other: Option<String>) -> Option<String> {
    match (one, other) {
        (Some(one), Some(other)) => Some(format!("{one}; {other}")),
        (one, other) => one.or(other),
    }
}

/// Without a context that was asked for, there is as much as the KV cache holds.
fn context_note(settings: &EngineSettings, limits: Limits, config: &ModelConfig) -> Option<String> {
    let (holds, made_for) = (limits.max_model_len, config.max_position_embeddings);
    (settings.max_model_len.is_none() && holds < made_for).then(|| {
        format!(
            "the context is {holds} tokens, as many as the KV cache holds; the model was made for \
             {made_for}: --kv-cache-memory gives more"
        )
    })
}

fn emulate(hardware: &Hardware, clock: RealClock) -> Result<Loaded, Failure> {
    let began = Instant::now();
    let checkpoint = Checkpoint::dummy(&hardware.model, 0).map_err(input)?;
    let emulation = hardware.emulation().map_err(input)?;
    let gpus = emulation.world_size;
    let vocabulary = Vocabulary::new(SAID, vec![Tokenizer::BYTES_EOS]).map_err(input)?;
    let (backend, settings) = emulation.backend(vocabulary, Box::new(clock));
    Ok(Loaded {
        backend: Box::new(backend),
        settings,
        config: Some(checkpoint.config().clone()),
        adapters: Vec::new(),
        entrance: None,
        tokenizer: Tokenizer::bytes(),
        device: format!("{gpus} emulated {}", hardware.gpu),
        note: None,
        stages: vec![("emulation", began.elapsed())],
    })
}

fn stand_for(replica: scenario::Replica, clock: RealClock) -> Result<Loaded, Failure> {
    let began = Instant::now();
    let gpus = replica.emulation.world_size;
    let vocabulary = Vocabulary::new(SAID, vec![Tokenizer::BYTES_EOS]).map_err(input)?;
    let entrance = Entrance::new(replica.emulation.request_overhead, clock)
        .map_err(|error| Failure::Input(format!("no thread to emulate a server: {error}")))?;
    let (backend, settings) = replica.emulation.backend(vocabulary, Box::new(clock));
    Ok(Loaded {
        backend: Box::new(backend),
        settings,
        config: None,
        adapters: replica.adapters,
        entrance,
        tokenizer: Tokenizer::bytes(),
        device: format!("{gpus} emulated {}", replica.gpu),
        note: replica.note,
        stages: vec![("emulation", began.elapsed())],
    })
}

/// What ends a text: what the model says, and what the tokenizer does.
fn eos_token_ids(
    config: Option<&ModelConfig>,
    tokenizer: &Tokenizer,
    vocab_size: usize,
) -> Vec<u32> {
    let of_config = config.map(|config| config.eos_token_ids.clone());
    let mut tokens = of_config.unwrap_or_default();
    tokens.extend(tokenizer.eos());
    // Some configurations name tokens that the model does not have, and so never says.
    tokens.retain(|token| (*token as usize) < vocab_size);
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

/// Reads adapters for this model, now and at run time.
fn adapter_loader(model: String, config: ModelConfig, limits: Limits) -> AdapterLoader {
    Box::new(move |name: &str, folder: &Path| {
        let base = Base {
            name: &model,
            config: &config,
            rank_max: limits.max_lora_rank,
        };
        adapters::load(name, folder, &base).map_err(|error| AdapterLoadError {
            public: without_path(&error),
            detail: error.to_string(),
        })
    })
}

/// What a client may know of an error: all but where files are, and whether they are there.
fn without_path(error: &AdapterError) -> String {
    match error {
        AdapterError::Read { .. }
        | AdapterError::Pickle { .. }
        | AdapterError::Malformed { .. } => {
            "the adapter cannot be read; `lora_path` has to be a folder of the server with \
             adapter_config.json and adapter_model.safetensors"
                .to_owned()
        }
        AdapterError::Field {
            field,
            value,
            expected,
            ..
        } => format!("{field} is {value}; {expected}"),
        AdapterError::Rank { rank, rank_max, .. } => {
            format!("the adapter has rank {rank}, and the server takes up to {rank_max}")
        }
        AdapterError::Tensor { tensor, reason, .. } => format!("tensor {tensor}: {reason}"),
        AdapterError::Base {
            adapter_base,
            model,
            reason,
            ..
        } => format!("the adapter was made for {adapter_base} and does not fit {model}: {reason}"),
    }
}
