//! The arguments of `foresail calibrate endpoint`.

use std::num::NonZeroU32;
use std::path::PathBuf;

use foresail_core::time::Nanos;

use crate::exit_code;
use crate::load::{EndpointArguments, PromptArguments, value};
use crate::terminal::OutputFormat;

/// Calibrate any endpoint that speaks OpenAI's API, from outside
///
/// Single prompts of several lengths, answers to more and more clients at once, long contexts, a burst and a
/// mixture are sent in random order, and again in a second half. The step times, the batch limit and the overheads
/// under which a simulation of the same requests takes as long are written to --out: a profile
/// for `[step_time]`, with intervals, and with what could not be told.
///
/// Nothing else should use the endpoint meanwhile, and it should be one replica.
///
/// For example:
///   foresail calibrate endpoint --url http://127.0.0.1:8000 --out profile.json
///   foresail calibrate endpoint --url http://127.0.0.1:8000 --tokenizer models/llama --shape llama-3.1-8b --gpu h100 \
///     --budget 10m --out profile.json --picture fit.svg
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = exit_code::help())]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) endpoint: EndpointArguments,

    #[command(flatten)]
    pub(super) prompts: Prompts,

    #[command(flatten)]
    pub(super) measurement: Measurement,

    #[command(flatten)]
    pub(super) known: Known,

    #[command(flatten)]
    pub(super) output: Output,
}

/// More requests at once are no client's of one machine.
const REQUESTS_MAX: u32 = 1 << 16;
/// More tokens are no prompt's, nor any step's.
const TOKENS_MAX: u32 = 1 << 24;

fn requests(text: &str) -> Result<NonZeroU32, String> {
    up_to(REQUESTS_MAX, text)
}

fn tokens(text: &str) -> Result<NonZeroU32, String> {
    up_to(TOKENS_MAX, text)
}

fn up_to(most: u32, text: &str) -> Result<NonZeroU32, String> {
    let number = text.parse::<NonZeroU32>().ok();
    let number = number.filter(|number| number.get() <= most);
    number.ok_or_else(|| format!("expected a number from 1 to {most}"))
}

/// How long prompts are counted to be.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Prompts")]
pub(super) struct Prompts {
    /// The model's tokenizer, a Hugging Face folder, for prompts of an exact length; `bytes` for
    /// foresail's random and emulated models [default: a calibrated number of bytes a token]
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,

    /// Bytes a token, where there is no tokenizer
    #[arg(long, value_name = "BYTES", conflicts_with = "tokenizer", value_parser = value::positive)]
    bytes_per_token: Option<f64>,

    /// Tokens of the longest prompt; shorter if the endpoint refuses it
    #[arg(long, value_name = "TOKENS", default_value = "2048", value_parser = tokens)]
    pub(super) prompt_tokens_max: NonZeroU32,
}

impl Prompts {
    /// The same as `foresail load` knows them.
    pub(super) fn of_load(&self) -> PromptArguments {
        PromptArguments {
            tokenizer: self.tokenizer.clone(),
            bytes_per_token: self.bytes_per_token,
            ..PromptArguments::default()
        }
    }
}

/// How much is measured.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Measurement")]
pub(super) struct Measurement {
    /// About how long to measure
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = value::duration)]
    pub(super) budget: Nanos,

    /// Most clients at once
    #[arg(long, value_name = "N", default_value = "64", value_parser = requests)]
    pub(super) concurrency_max: NonZeroU32,

    /// Requests sent at once to find the batch limit [default: 4 times --concurrency-max]
    #[arg(long, value_name = "N", value_parser = requests)]
    pub(super) burst: Option<NonZeroU32>,

    /// Seed of the order of runs, of lengths, and of the draws
    #[arg(long, value_name = "SEED", default_value = "1")]
    pub(super) seed: u64,
}

/// What is known of the engine.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "What is known")]
pub(super) struct Known {
    /// The model's shape, of the catalogue, such as llama-3.1-8b: with --gpu, the fit begins from what
    /// first principles say
    #[arg(long, value_name = "MODEL")]
    pub(super) shape: Option<String>,

    /// The GPU, such as h100
    #[arg(long, value_name = "GPU", requires = "shape")]
    pub(super) gpu: Option<String>,

    /// GPUs of the replica
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) world_size: NonZeroU32,

    /// Sequences that the engine computes at once, if that is known
    #[arg(long, value_name = "N", value_parser = requests)]
    pub(super) max_num_seqs: Option<NonZeroU32>,

    /// Tokens that it computes in a step, if that is known
    #[arg(long, value_name = "TOKENS", value_parser = tokens)]
    pub(super) max_num_batched_tokens: Option<NonZeroU32>,

    /// The engine and its version, for whoever reads the profile, such as 'vLLM 0.11'
    #[arg(long, value_name = "NAME", default_value = "not told by the endpoint")]
    pub(super) engine: String,
}

/// What is written.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(super) struct Output {
    /// Write the profile to this file
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,

    /// Draw what was measured beside what was fitted
    #[arg(long, value_name = "FILE.svg")]
    pub(super) picture: Option<PathBuf>,

    /// Text for people, or JSON for machines
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(super) format: OutputFormat,
}
