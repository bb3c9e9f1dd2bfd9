//! How many requests, and when: of those who name no scenario, and limits for those who do.

use std::num::{NonZeroU32, NonZeroU64};

use clap::ValueEnum;
use foresail_core::time::Nanos;

use super::value::{self, Rate};

/// How many requests, and when.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Traffic")]
pub(crate) struct TrafficArguments {
    /// Requests a second, or `inf` for all at once
    #[arg(long, value_name = "RATE", value_parser = value::rate)]
    pub(crate) request_rate: Option<Rate>,

    /// Shape of the gamma distribution of the gaps: 1 is Poisson, less is burstier [default: 1]
    #[arg(long, value_name = "SHAPE", value_parser = value::positive)]
    pub(crate) burstiness: Option<f64>,

    /// The law of the gaps between requests [default: poisson, or gamma with --burstiness]
    #[arg(long, value_name = "LAW")]
    pub(crate) arrival_pattern: Option<ArrivalPattern>,

    /// How many requests are sent at most [default without a scenario: 1000, unless --duration ends them]
    #[arg(long, aliases = ["request-count", "num-requests"], value_name = "N", value_parser = value::requests)]
    pub(crate) num_prompts: Option<NonZeroU64>,

    /// No request is sent after this
    #[arg(long, alias = "benchmark-duration", value_name = "DURATION", value_parser = value::duration)]
    pub(crate) duration: Option<Nanos>,

    /// A closed loop: so many users, each of whom waits for the answer before asking again
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<NonZeroU32>,

    /// Most requests in flight; others wait, and their latency counts from when they were due
    #[arg(long, value_name = "N")]
    pub(crate) max_concurrency: Option<NonZeroU32>,

    /// How the rate rises from --ramp-up-start-rps to --ramp-up-end-rps over the requests
    #[arg(long, value_name = "LAW", requires_all = ["ramp_up_start_rps", "ramp_up_end_rps"])]
    pub(crate) ramp_up_strategy: Option<RampUp>,

    /// Requests a second at the beginning of the ramp
    #[arg(long, value_name = "RATE", requires = "ramp_up_strategy", value_parser = value::positive)]
    pub(crate) ramp_up_start_rps: Option<f64>,

    /// Requests a second at the end of the ramp
    #[arg(long, value_name = "RATE", requires = "ramp_up_strategy", value_parser = value::positive)]
    pub(crate) ramp_up_end_rps: Option<f64>,
}

/// The law of the gaps between requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArrivalPattern {
    Constant,
    Poisson,
    Gamma,
}

/// How the rate rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RampUp {
    Linear,
    Exponential,
}
