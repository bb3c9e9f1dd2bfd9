//! What the server tells, what a run is judged by, and where its results go.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::ValueEnum;
use foresail_core::control::biller::Price;
use foresail_core::time::Nanos;
use foresail_loadgen::scrape::Selector;

use super::value;
use crate::terminal::OutputFormat;

/// What is known of the servers behind the endpoint.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Servers")]
pub(crate) struct ServerArguments {
    /// Prometheus metrics of a replica, such as http://127.0.0.1:8000/metrics; can be repeated
    #[arg(long, value_name = "URL")]
    pub(crate) metrics_url: Vec<String>,

    /// How often they are read
    #[arg(long, value_name = "DURATION", default_value = "1s", requires = "metrics_url", value_parser = value::interval)]
    pub(crate) metrics_interval: Nanos,

    /// A metric of theirs that is the number of ready replicas, such as
    /// 'kube_deployment_status_replicas_ready{deployment="llm"}' [default: each --metrics-url is one]
    #[arg(long, value_name = "METRIC", requires = "metrics_url")]
    pub(crate) replicas_metric: Option<Selector>,

    /// Replicas that serve [default: the scenario's, if their number is fixed]
    #[arg(long, value_name = "N", conflicts_with = "metrics_url")]
    pub(crate) replicas: Option<NonZeroU32>,

    /// GPUs a replica, without a scenario [default: 1, if a price is said]
    #[arg(long, value_name = "N")]
    pub(crate) world_size: Option<NonZeroU32>,

    /// Price of a GPU-hour, without a scenario
    #[arg(long, value_name = "USD", value_parser = value::price)]
    pub(crate) usd_per_gpu_hour: Option<Price>,
}

impl ServerArguments {
    pub(crate) fn replicas(&self) -> Option<u32> {
        self.replicas.map(NonZeroU32::get)
    }
}

/// What the run is judged by.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Verdict")]
pub(crate) struct VerdictArguments {
    /// What must hold beside the scenario's objectives, such as 'ttft.p99 < 500ms'; can be repeated
    #[arg(long, value_name = "OBJECTIVE")]
    pub(crate) objective: Vec<String>,

    /// Limits of each request, for the goodput: latencies and milliseconds, such as ttft:500 tpot:50
    #[arg(long, value_name = "LATENCY:MS", num_args = 1.., value_parser = value::goodput)]
    pub(crate) goodput: Vec<(String, f64)>,
}

/// Where results go.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArguments {
    /// Write the records and the summary to this folder
    #[arg(short, long, alias = "artifact-dir", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// For people or for machines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: OutputFormat,

    /// Write the result in the forms of other tools too, into the folder of --out
    #[arg(long, value_name = "FORM", value_delimiter = ',')]
    pub(crate) export: Vec<Export>,

    /// Write vLLM's JSON of a benchmark to --result-dir
    #[arg(long)]
    pub(crate) save_result: bool,

    /// The folder of --save-result [default: the working directory]
    #[arg(long, value_name = "DIR", requires = "save_result")]
    pub(crate) result_dir: Option<PathBuf>,

    /// The file of --save-result [default: the model, the rate and the time]
    #[arg(long, value_name = "NAME", requires = "save_result")]
    pub(crate) result_filename: Option<PathBuf>,

    /// Have a value for each request in --save-result and --export vllm too
    #[arg(long)]
    pub(crate) save_detailed: bool,

    /// The latencies that the result has; it always has all of them, whatever is named here
    #[arg(long, value_name = "LATENCIES", value_delimiter = ',', value_parser = value::latency)]
    pub(crate) percentile_metrics: Vec<String>,

    /// The percentiles that --save-result and --export vllm have [default: 99]
    #[arg(long, value_name = "PERCENTILES", value_delimiter = ',', value_parser = value::percentile)]
    pub(crate) metric_percentiles: Vec<f64>,
}

/// The forms of other tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Export {
    /// What `vllm bench serve --save-result` writes.
    Vllm,
    /// AIPerf's profile_export_aiperf.json.
    Aiperf,
    /// A log of HdrHistograms.
    Hdr,
    /// Metrics as a table.
    Csv,
}
