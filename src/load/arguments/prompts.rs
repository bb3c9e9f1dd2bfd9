//! What requests say, and what they ask for.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::ValueEnum;

use super::value;

/// What requests say, and what they ask for.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Prompts")]
pub(crate) struct PromptArguments {
    /// Where prompts come from: `random` tokens, ShareGPT's JSON, or JSON lines of your own
    /// [default: random]
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset_name: Option<DatasetName>,

    /// The file of --dataset-name sharegpt or custom
    #[arg(long, value_name = "FILE")]
    pub(crate) dataset_path: Option<PathBuf>,

    /// Tokens of a prompt [default: 1024]
    #[arg(long, aliases = ["isl", "input-len"], value_name = "TOKENS")]
    pub(crate) random_input_len: Option<NonZeroU32>,

    /// Tokens of an answer [default: 128, or those of the dataset]
    #[arg(long, aliases = ["osl", "output-len", "sharegpt-output-len", "custom-output-len"], value_name = "TOKENS")]
    pub(crate) random_output_len: Option<NonZeroU32>,

    /// Lengths are drawn from so much below to so much above: 0.1 is 90 % to 110 % [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = value::share)]
    pub(crate) random_range_ratio: Option<f64>,

    /// Tokens at the beginning of every prompt that are the same in all [default: 0]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) random_prefix_len: Option<u32>,

    /// The model's tokenizer, a Hugging Face folder, for prompts of an exact length; `bytes` for
    /// foresail's random and emulated models [default: a calibrated number of bytes a token]
    #[arg(long, value_name = "DIR")]
    pub(crate) tokenizer: Option<PathBuf>,

    /// Bytes a token, where there is no tokenizer
    #[arg(long, value_name = "BYTES", conflicts_with = "tokenizer", value_parser = value::positive)]
    pub(crate) bytes_per_token: Option<f64>,

    /// Go on to the length that was asked for, whatever the model says; always so, unless prompts
    /// come from a dataset
    #[arg(long)]
    pub(crate) ignore_eos: bool,

    /// Let answers end when the model ends them
    #[arg(long, conflicts_with = "ignore_eos")]
    pub(crate) stop_at_eos: bool,

    /// Ask for whole answers in place of streams
    #[arg(long)]
    pub(crate) no_stream: bool,

    /// More fields of every request, as JSON, such as '{"top_k": 1}'
    #[arg(long, value_name = "JSON", value_parser = value::object)]
    pub(crate) extra_body: Option<serde_json::Map<String, serde_json::Value>>,

    /// Temperature of every request [default: the server's]
    #[arg(long, value_name = "NUMBER", value_parser = value::not_negative)]
    pub(crate) temperature: Option<f64>,
}

/// Where prompts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DatasetName {
    Random,
    Sharegpt,
    Custom,
}
