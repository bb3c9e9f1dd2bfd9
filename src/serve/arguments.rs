//! The arguments of `foresail serve`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, ValueEnum};
use foresail_engine::server::ServerSettings;
use foresail_engine::startup::LORA_RANK_MAX;
use foresail_scenarios::duration;

use crate::subject::Dtype;
use crate::terminal::OutputFormat;

/// Serve a model over OpenAI's API
///
/// The replica's batches are decided by the scheduler that `foresail simulate` runs. One line on
/// standard output says when requests are taken, and how long each stage of the start took.
///
/// For example:
///   foresail serve --dummy tiny
///   foresail serve --model models/smollm2 --adapter helper=adapters/helper
///   foresail serve --backend emulated --dummy llama-3-8b --gpu h100
///   foresail serve --backend emulated --scenario chat
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    group(ArgGroup::new("served").required(true).args(["model", "dummy", "scenario"])),
)]
pub(crate) struct Arguments {
    /// A model in a Hugging Face folder
    #[arg(long, value_name = "DIR")]
    pub(super) model: Option<PathBuf>,

    /// Random weights in a shape of the catalogue, or `tiny`
    #[arg(long, value_name = "SHAPE")]
    pub(super) dummy: Option<String>,

    /// The deployment of a scenario file or a ready scenario, as one emulated replica, which takes its
    /// request_overhead as well
    #[arg(long, value_name = "SCENARIO")]
    pub(super) scenario: Option<PathBuf>,

    /// Change a setting of --scenario, such as deployment.gpu=h200; can be repeated
    #[arg(long, value_name = "PATH=VALUE", requires = "scenario")]
    pub(super) set: Vec<String>,

    /// What computes: `auto` is a GPU if there is one, else the CPU; `emulated` takes the time of a GPU
    /// and needs no weights
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(super) backend: Backend,

    /// The GPU to emulate
    #[arg(long, value_name = "GPU")]
    pub(super) gpu: Option<String>,

    /// How much faster than the GPU the emulated one is, at most 10000 [default: 1]
    #[arg(long, value_name = "TIMES")]
    pub(super) speed: Option<f64>,

    /// Ranks that the model is split over [default: 1, or as many as the emulated GPUs have to be]
    #[arg(long, value_name = "N")]
    pub(super) world_size: Option<NonZeroU32>,

    /// Threads that compute on the CPU, of all ranks together [default: as many as there are cores]
    #[arg(long, value_name = "N")]
    pub(super) threads: Option<NonZeroUsize>,

    /// Number format of the weights; `auto` is that of the checkpoint
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    pub(super) dtype: Dtype,

    /// Number format of the KV cache; `auto` is that of the weights
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    pub(super) kv_dtype: Dtype,

    /// Memory of the KV cache, such as 2GiB [default: a share of what is free]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(super) kv_cache_memory: Option<u64>,

    /// Tokens a KV block holds [default: 16; cuda and emulated 64]
    #[arg(long, value_name = "TOKENS")]
    pub(super) block_size: Option<NonZeroU32>,

    /// Most tokens of a sequence, prompt and output [default: what the model was made for, or what the KV cache holds]
    #[arg(long, value_name = "TOKENS")]
    pub(super) max_model_len: Option<NonZeroU32>,

    /// Most sequences in a step [default: 64; cuda and emulated 256]
    #[arg(long, value_name = "N")]
    pub(super) max_num_seqs: Option<NonZeroU32>,

    /// Most tokens in a step [default: 512; cuda and emulated 8192]
    #[arg(long, value_name = "TOKENS")]
    pub(super) max_batched_tokens: Option<NonZeroU32>,

    /// Most requests that wait; those beyond are refused with 429
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(super) max_waiting: usize,

    /// Do not find full KV blocks again by their contents
    #[arg(long)]
    pub(super) no_prefix_caching: bool,

    /// An adapter in a folder of PEFT, under a name; may be given several times
    #[arg(long, value_name = "NAME=DIR", value_parser = adapter)]
    pub(super) adapter: Vec<(String, PathBuf)>,

    /// Let clients load and unload adapters, from any folder that this process can read
    #[arg(long)]
    pub(super) enable_adapter_loading: bool,

    /// Most adapters in a step [default: 4]
    #[arg(long, value_name = "N")]
    pub(super) max_loras: Option<u32>,

    /// The largest rank of an adapter [default: 64]
    #[arg(long, value_name = "RANK")]
    pub(super) max_lora_rank: Option<NonZeroU32>,

    /// A chat template (Jinja) instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub(super) chat_template: Option<PathBuf>,

    /// What the model is called; may be given several times [default: the folder's or the shape's name]
    #[arg(long, value_name = "NAME")]
    pub(super) served_model_name: Vec<String>,

    /// The address to listen at; others than this machine's own need --api-key-file
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    pub(super) host: String,

    /// The port to listen at; 0 is any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub(super) port: u16,

    /// Keys that are let in, one a line, or `sha256:` and the hash of one
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,

    /// Where a line of JSON goes for each request; `-` is standard error, `none` nowhere
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) access_log: PathBuf,

    /// The line that says when requests are taken: text for people, or JSON for programs
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(super) format: OutputFormat,

    /// How long requests may take to end after SIGTERM or Ctrl-C
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = patience)]
    pub(super) drain_timeout: Duration,

    /// What the random weights of --dummy are made from [default: 0]
    #[arg(long)]
    pub(super) seed: Option<u64>,
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    Auto,
    Cpu,
    Cuda,
    Emulated,
    /// The kernels of a GPU on a CPU, thousands of times slower: for rehearsals.
    #[value(hide = true)]
    SoftwareGpu,
}

/// How many adapters are in a step, unless the person says.
const MAX_LORAS: u32 = 4;

impl Arguments {
    pub(super) fn max_loras(&self) -> u32 {
        self.max_loras.unwrap_or(MAX_LORAS)
    }

    pub(super) fn max_lora_rank(&self) -> usize {
        let rank = self.max_lora_rank.map(|rank| rank.get() as usize);
        rank.unwrap_or(LORA_RANK_MAX)
    }

    pub(super) fn server_settings(&self) -> ServerSettings {
        ServerSettings {
            drain_timeout: self.drain_timeout,
            ..ServerSettings::default()
        }
    }
}

fn adapter(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, folder)) if !name.is_empty() && !folder.is_empty() => {
            Ok((name.to_owned(), folder.into()))
        }
        _ => Err("expected NAME=DIR".to_owned()),
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    let nanos = duration::parse(text).map_err(|error| error.to_string())?;
    let nanos = u64::try_from(nanos).map_err(|_| "must not be negative".to_owned())?;
    Ok(Duration::from_nanos(nanos))
}

/// A number of bytes with a unit.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number and MiB or GiB, such as 2GiB".to_owned();
    let units = [("MiB", 1_u64 << 20), ("GiB", 1 << 30)];
    let of_unit = |&(unit, bytes): &(&str, u64)| Some((text.strip_suffix(unit)?, bytes));
    let (number, unit) = units.iter().find_map(of_unit).ok_or_else(wrong)?;
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let total = number * unit as f64;
    // Beyond this, not every number of bytes is a float of its own; no machine has so many.
    if (1.0..9e15).contains(&total) {
        Ok(total as u64)
    } else {
        Err(wrong())
    }
}
