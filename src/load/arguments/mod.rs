//! The arguments of `foresail load`.
//!
//! Options that users of vLLM's `bench serve`, AIPerf and GuideLLM know have
//! their names and their meanings. What contradicts what is in [`conflicts`].

mod client;
mod conflicts;
mod endpoint;
mod prompts;
mod traffic;
pub(crate) mod value;
mod verdict;

use std::path::PathBuf;

pub(crate) use client::{ClientArguments, RateArguments, RunArguments};
pub(crate) use endpoint::{API_KEY_ENV, EndpointArguments};
pub(crate) use prompts::{DatasetName, PromptArguments};
pub(crate) use traffic::{ArrivalPattern, RampUp, TrafficArguments};
pub(crate) use verdict::{Export, OutputArguments, ServerArguments, VerdictArguments};

use foresail_core::time::Span;

use crate::exit_code;
use crate::runs::Changes;

/// Load an endpoint with the traffic of a scenario, and measure what comes of it
///
/// Any endpoint that speaks OpenAI's API will do. Requests are sent when they are due,
/// whatever became of those before, and latency counts from then. If this machine was
/// the limit and not the endpoint, it says so.
///
/// For example:
///   foresail load chat --url http://127.0.0.1:8000 --duration 1m
///   foresail load --url http://127.0.0.1:8000 --request-rate 5 --num-prompts 100 --isl 512 --osl 64
///   foresail load --url http://127.0.0.1:8000 --trace monday.csv --out runs/monday
///   foresail load chat --url http://127.0.0.1:8000 --ramp-until 'ttft.p99 < 500ms'
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = exit_code::help())]
pub(crate) struct Arguments {
    /// A scenario file, or the name of a ready scenario (see `foresail simulate --list`)
    #[arg(value_name = "SCENARIO")]
    pub(super) scenario: Option<PathBuf>,

    #[command(flatten)]
    pub(super) changes: Changes,

    #[command(flatten)]
    pub(super) endpoint: EndpointArguments,

    #[command(flatten)]
    pub(super) traffic: TrafficArguments,

    #[command(flatten)]
    pub(super) prompts: PromptArguments,

    #[command(flatten)]
    pub(super) clients: ClientArguments,

    #[command(flatten)]
    pub(super) run: RunArguments,

    #[command(flatten)]
    pub(super) rates: RateArguments,

    #[command(flatten)]
    pub(super) servers: ServerArguments,

    #[command(flatten)]
    pub(super) verdict: VerdictArguments,

    #[command(flatten)]
    pub(super) output: OutputArguments,
}

impl Arguments {
    /// What changes how much of the traffic is sent, and how, for reports.
    pub(super) fn limits_of_run(&self) -> Vec<String> {
        let traffic = &self.traffic;
        let duration = traffic.duration.map(|nanos| Span(nanos).to_string());
        let options = [
            (
                "--num-prompts",
                traffic.num_prompts.map(|count| count.to_string()),
            ),
            ("--duration", duration),
            (
                "--concurrency",
                traffic.concurrency.map(|count| count.to_string()),
            ),
            (
                "--max-concurrency",
                traffic.max_concurrency.map(|count| count.to_string()),
            ),
        ];
        let given = options
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        given
            .map(|(name, value)| format!("{name} {value}"))
            .collect()
    }
}
